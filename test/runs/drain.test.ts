// What becomes of the runs of a server that stops: the step that is under way is done there, the rest elsewhere.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { startTestServer, useServer } from "../support/server.ts";

const HOLDFAST_CONFIG = "test/fixtures/slow.langgraph.json";
// Runs may end for so long; then they are asked to stop behind their step, for as long once more.
const DRAIN_MS = 2000;

const held = useServer({ HOLDFAST_CONFIG });
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

test.each([
  { when: "soon, and goes on there", afterMs: 0, servers: 1 },
  { when: "when it is to hand the run over, and no step is done twice", afterMs: 1.4 * DRAIN_MS, servers: 2 },
])("a step of a server that stops is over $when", async ({ afterMs, servers }) => {
  const leaving = await startTestServer(held.scratch.url, {
    HOLDFAST_CONFIG,
    HOLDFAST_DRAIN_MS: String(DRAIN_MS),
  });
  const [threadId, name] = [randomUUID(), randomUUID()];
  const steps = [1, 2, 3].map((step) => `${name}-${step}`);
  const input = { name, gate: gate.url };
  const run = await leaving.client.runs.create(threadId, "climbs", { input, ifNotExists: "create" });
  const [first = "", ...later] = steps;
  await gate.waitFor(first);
  for (const step of later) gate.open(step);
  const stopping = leaving.stop();
  await delay(afterMs);
  gate.open(first);
  await stopping;
  const values = await held.server.client.runs.join(threadId, run.run_id);
  expect(Reflect.get(Object(values), "log")).toEqual(steps);
  expect(gate.came.filter((came) => came.startsWith(name))).toEqual(steps);
  const query = "select state, attempt, handovers from holdfast.runs where run_id = $1";
  expect(await held.scratch.database.query(query, [run.run_id])).toEqual([
    { state: "success", attempt: servers, handovers: servers - 1 },
  ]);
});
