// How far a graph may be ahead of the disk: each step of `climbs` comes to a gate, and the table of checkpoints is held.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Durability } from "../../server/runs/request.ts";
import type { Session } from "../../server/storage/database.ts";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { holding, letGo, waitsFor } from "../support/locks.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/slow.langgraph.json" });
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

interface Climb {
  readonly name: string;
  /** Where the run is: the steps that have come to the gate. */
  readonly steps: () => readonly string[];
  /** How many checkpoints are on disk. */
  readonly points: () => Promise<number>;
  readonly log: Promise<unknown>;
}

/** A run whose first step waits at the gate, and whose checkpoints until there are on disk. */
async function climb(more: { durability?: Durability } = {}): Promise<Climb> {
  const { client } = held.server;
  const [threadId, name] = [randomUUID(), randomUUID()];
  const input = { name, gate: gate.url };
  const run = await client.runs.create(threadId, "climbs", { input, ifNotExists: "create", ...more });
  const points = async (): Promise<number> => {
    const text = "select count(*)::int as count from public.checkpoints where thread_id = $1";
    const [row] = await held.scratch.database.query<{ count: number }>(text, [threadId]);
    return row?.count ?? -1;
  };
  await gate.waitFor(`${name}-1`);
  if (more.durability !== "exit") await until(async () => (await points()) === 2, "the first checkpoints");
  const steps = (): string[] =>
    gate.came.flatMap((came) => (came.startsWith(name) ? [came.slice(name.length + 1)] : []));
  const log = client.runs.join(threadId, run.run_id).then((values) => Reflect.get(Object(values), "log"));
  return { name, steps, points, log };
}

const hold = (): Promise<Session> =>
  holding(held.scratch.database, "lock table public.checkpoints in share mode");
/** Lets the run pass one step, whose checkpoint then waits for who holds the table. */
async function passHeld({ name }: Climb, step: number): Promise<void> {
  gate.open(`${name}-${step}`);
  await waitsFor(held.scratch.database, "/* putCheckpoints */");
}

async function comesToItsEnd({ name, log, steps }: Climb): Promise<void> {
  for (const step of [1, 2, 3]) gate.open(`${name}-${step}`);
  expect(await log).toEqual([`${name}-1`, `${name}-2`, `${name}-3`]);
  expect(steps()).toEqual(["1", "2", "3"]);
}

test("by default a superstep starts while the one before is written, and the one after does not", async () => {
  const run = await climb();
  const table = await hold();
  await passHeld(run, 1);
  await gate.waitFor(`${run.name}-2`);
  gate.open(`${run.name}-2`);
  await delay(100);
  expect(run.steps()).toEqual(["1", "2"]);
  await letGo(table);
  await gate.waitFor(`${run.name}-3`);
  expect(await run.points()).toBe(4);
  await comesToItsEnd(run);
});

test("with durability sync a superstep starts when the one before is on disk", async () => {
  const run = await climb({ durability: "sync" });
  const table = await hold();
  await passHeld(run, 1);
  await delay(100);
  expect(run.steps()).toEqual(["1"]);
  await letGo(table);
  await gate.waitFor(`${run.name}-2`);
  expect(await run.points()).toBe(3);
  await comesToItsEnd(run);
});

test("with durability exit nothing is written before the end", async () => {
  const run = await climb({ durability: "exit" });
  for (const step of [1, 2]) gate.open(`${run.name}-${step}`);
  await gate.waitFor(`${run.name}-3`);
  expect(await run.points()).toBe(0);
  await comesToItsEnd(run);
  expect(await run.points()).toBe(1);
});
