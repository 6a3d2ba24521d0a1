// The clock of a server is set back in the midst of a run: what the run writes after that is still the newest.
import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/slow.langgraph.json" });
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());
afterEach(() => {
  vi.restoreAllMocks();
});

function setBack(ms: number): void {
  const real = Date.now.bind(Date);
  vi.spyOn(Date, "now").mockImplementation(() => real() - ms);
}

interface Climb {
  readonly threadId: string;
  readonly name: string;
  readonly runId: string;
}

/** A run whose second step waits at the gate. */
async function climb(more: object = {}, graph = "climbs"): Promise<Climb> {
  const { client } = held.server;
  const [threadId, name] = [randomUUID(), randomUUID()];
  const input = { name, gate: gate.url };
  const run = await client.runs.create(threadId, graph, { input, ifNotExists: "create", ...more });
  gate.open(`${name}-1`);
  await gate.waitFor(`${name}-2`);
  return { threadId, name, runId: run.run_id };
}

const steps = ({ name }: Climb): string[] => [1, 2, 3].map((step) => `${name}-${step}`);

/** What the next run would go on from: its newest checkpoint. */
async function logOf({ threadId }: Climb): Promise<string[]> {
  const [newest] = await held.server.client.threads.getHistory<{ log: string[] }>(threadId);
  return newest?.values.log ?? [];
}

function openAll({ name }: Climb): void {
  for (const step of [2, 3]) gate.open(`${name}-${step}`);
}

const callsOf = ({ name }: Climb): string[] => gate.came.filter((came) => came.startsWith(name));

test.each([undefined, "exit", "async"])(
  "a small step back is waited for, and nothing is done twice (%s)",
  async (durability) => {
    const run = await climb(durability ? { durability } : {});
    setBack(1500);
    openAll(run);
    await held.server.client.runs.join(run.threadId, run.runId);
    expect(await logOf(run)).toEqual(steps(run));
    expect(callsOf(run)).toEqual(steps(run));
  },
);

test("also while a graph in the graph is in the midst of its supersteps", async () => {
  const run = await climb({}, "climbsWithin");
  setBack(1500);
  openAll(run);
  await held.server.client.runs.join(run.threadId, run.runId);
  expect(await logOf(run)).toEqual(steps(run));
  expect(callsOf(run)).toEqual(steps(run));
});

test("after a large one the run waits, and goes on from where it was when the clock is right", async () => {
  const { client } = held.server;
  const run = await climb();
  setBack(60_000);
  openAll(run);
  const attempt = async (): Promise<unknown> =>
    (
      await held.scratch.database.query("select attempt from holdfast.runs where run_id = $1", [run.runId])
    )[0];
  await until(async () => isDeepStrictEqual(await attempt(), { attempt: 2 }), "another attempt");
  expect(await logOf(run)).toEqual(steps(run).slice(0, 1));
  vi.restoreAllMocks();
  await client.runs.join(run.threadId, run.runId);
  expect(await client.runs.get(run.threadId, run.runId)).toMatchObject({ status: "success" });
  expect(await logOf(run)).toEqual(steps(run));
  expect(callsOf(run)).toEqual(steps(run));
});
