// A delta channel is put together from what each step added to it, so whatever leaves its writes in another order, or at
// another checkpoint, changes what a thread says. Beside it stands a plain channel to which the same is written. Both
// show what LangGraph's own saver in memory shows, also where LangGraph itself does not count a write to both.
import { randomUUID } from "node:crypto";
import {
  Command,
  DeltaValue,
  END,
  ReducedValue,
  START,
  Send,
  StateGraph,
  StateSchema,
  interrupt,
} from "@langchain/langgraph";
import type { StateSnapshot } from "@langchain/langgraph";
import type { BaseCheckpointSaver } from "@langchain/langgraph-checkpoint";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { seeded } from "../../server/commands/chaos/random.ts";
import type { Random } from "../../server/commands/chaos/random.ts";
import { Checkpoints } from "../../server/storage/checkpoints/checkpoints.ts";
import { createThreadRow } from "../support/checkpoints.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { Oracle } from "../support/oracle.ts";

const SEEDS = 8;
const OPERATIONS = 14;
const WAYS = ["plain", "ask both", "ask one", "fail", "send"] as const;
const NODES = ["open", "left", "right", "meet", "each", "close"] as const;

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

const texts = z.array(z.string()).default([]);
const State = new StateSchema({
  plain: new ReducedValue(texts, { reducer: (before: string[], added: string[]) => [...before, ...added] }),
  delta: new DeltaValue(texts, {
    reducer: (before: string[], added: string[][]) => [...before, ...added.flat()],
    snapshotFrequency: 3,
  }),
  way: z.string().default("plain"),
});

const both = (text: string): { plain: string[]; delta: string[] } => ({ plain: [text], delta: [text] });

const builder = new StateGraph(State)
  .addNode("open", () => both("open"))
  .addNode("left", ({ way }) => both(`left ${way === "ask both" ? String(interrupt("left")) : ""}`))
  .addNode("right", ({ way }) => {
    if (way === "fail") throw new RangeError("nothing");
    return both(`right ${way.startsWith("ask") ? String(interrupt("right")) : ""}`);
  })
  .addNode("meet", () => both("meet"))
  .addNode("each", ({ item }: { item?: string }) => both(`each ${String(item)}`))
  .addNode("close", () => both("close"))
  .addEdge(START, "open")
  .addEdge("open", "left")
  .addEdge("open", "right")
  .addEdge(["left", "right"], "meet")
  .addConditionalEdges(
    "meet",
    ({ way }) => (way === "send" ? ["1", "2"].map((item) => new Send("each", { item })) : "close"),
    ["each", "close"],
  )
  .addEdge("each", "close")
  .addEdge("close", END);

const compiled = (checkpointer: BaseCheckpointSaver): ReturnType<typeof builder.compile> =>
  builder.compile({ checkpointer });
type Graph = ReturnType<typeof compiled>;

interface Side {
  readonly graph: Graph;
  readonly threadId: string;
  /** Chooses the same on both sides, because both are at the same. */
  readonly random: Random;
}

/** One operation, on the newest state or from an older one. */
function operation(graph: Graph, random: Random, at: object, name: string): Promise<unknown> {
  const durability = random.pick(["sync", "async", "exit"] as const);
  const config = { configurable: at, durability };
  const way = random.pick(WAYS);
  return random.pick([
    () => graph.invoke({ ...both(name), way }, config),
    () => graph.invoke({ ...both(name), way }, { ...config, interruptBefore: [random.pick(NODES)] }),
    () => graph.invoke(null, config),
    () => graph.invoke(new Command({ resume: name }), config),
    () => graph.invoke(new Command({ update: { ...both(name), way } }), config),
    () => graph.invoke(new Command({ update: both(name), goto: random.pick(NODES) }), config),
    () => graph.updateState(config, both(name)),
    () => graph.updateState(config, both(name), random.pick(NODES)),
  ])();
}

const placeOf = ({ config }: Pick<StateSnapshot, "config">): unknown =>
  config.configurable?.["checkpoint_id"];

/** All states of the thread, oldest first; a checkpoint is named by its place among them, because ids differ. */
async function look({ graph, threadId }: Side): Promise<{ known: StateSnapshot[]; shown: object[] }> {
  const config = { configurable: { thread_id: threadId } };
  const known = (await Array.fromAsync(graph.getStateHistory(config))).toReversed();
  const places = known.map(placeOf);
  const shown = known.map(({ values, next, tasks, parentConfig }) => ({
    values: values as object,
    next,
    tasks: tasks.map(({ name, interrupts, result }) => ({
      name,
      asks: interrupts.length,
      result,
    })),
    parent: parentConfig ? places.indexOf(placeOf({ config: parentConfig })) : -1,
  }));
  return { known, shown };
}

/** @returns how it ended, and all that the thread shows then */
async function step(side: Side, known: readonly StateSnapshot[], name: string): Promise<[string, object[]]> {
  const { graph, random, threadId } = side;
  const from = known.length > 0 && random.chance(0.25) ? random.pick(known).config.configurable : undefined;
  const at = from ?? { thread_id: threadId, checkpoint_ns: "" };
  const end = await operation(graph, random, at, name).then(
    () => "done",
    (error: unknown) => String(error).replaceAll(/[\da-f-]{36}/g, "…"),
  );
  return [end, (await look(side)).shown];
}

test("a thread with a delta channel shows what LangGraph's own saver shows, whatever is done to it", async () => {
  let states = 0;
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const [ours, theirs] = [new Checkpoints(scratch.database), new Oracle()].map((saver) => ({
      graph: compiled(saver),
      threadId: randomUUID(),
      random: seeded(seed),
    })) as [Side, Side];
    await createThreadRow(scratch.database, ours.threadId);
    for (let count = 1; count <= OPERATIONS; count += 1) {
      const sides = [ours, theirs].map(async (side) => step(side, (await look(side)).known, `${count}`));
      const [seen, expected] = await Promise.all(sides);
      expect(seen, `seed ${seed}, operation ${count}`).toEqual(expected);
      states += seen?.[1].length ?? 0;
    }
  }
  expect(states).toBeGreaterThan(SEEDS * OPERATIONS * 5);
}, 60_000);
