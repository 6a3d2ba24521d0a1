// Whatever is done to threads, in whatever order: what clients read is what LangGraph's own saver in memory says.
import { expect, test } from "vitest";
import { seeded } from "../../server/commands/chaos/random.ts";
import { KINDS, Pair, Sequence } from "../support/oracle-sequence.ts";
import type { Operation } from "../support/oracle-sequence.ts";
import { holdfastSide } from "../support/oracle.ts";
import { useServer } from "../support/server.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/oracle.langgraph.json" });

const SEED = 20_260;
const OPERATIONS = 500;
const ALL_EVERY = 50;

/** Does one operation to both sides and compares the thread it was done to, or all. */
async function step(pair: Pair, { perform }: Operation, comparesAll: boolean): Promise<void> {
  const { threads } = held.server.client;
  const before = [...pair.threads.keys()];
  const touched = await perform();
  for (const threadId of before.filter((one) => !pair.threads.has(one))) {
    await expect(threads.getState(threadId)).rejects.toThrow(/^HTTP 404/);
    await expect(threads.getHistory(threadId)).rejects.toThrow(/^HTTP 404/);
    await expect(threads.delete(threadId)).rejects.toThrow(/^HTTP 404/);
  }
  const all = comparesAll ? pair.threads.keys() : [];
  for (const threadId of new Set([touched ?? [], ...all].flat())) await pair.compare(threadId);
}

test(
  `history and state agree with MemorySaver as oracle on a seeded random sequence of ${OPERATIONS} operations`,
  { timeout: 120_000 },
  async () => {
    const pair = new Pair(holdfastSide(held.server.client));
    const sequence = new Sequence(pair, seeded(SEED));
    const kinds = new Set<string>();
    for (let count = 1; count <= OPERATIONS; count += 1) {
      const operation = sequence.next();
      kinds.add(operation.kind);
      await step(pair, operation, count % ALL_EVERY === 0).catch((error: unknown) => {
        const about = `${operation.kind} ${JSON.stringify(operation.about)}`;
        throw new Error(`seed ${SEED}, operation ${count}: ${about}`, { cause: error });
      });
    }
    expect([...kinds].toSorted()).toEqual([...KINDS].toSorted());
    const ends = ["EmptyInputError", "RangeError", "done", "refused", "taken"];
    expect([...sequence.ends].toSorted()).toEqual(ends);
  },
);
