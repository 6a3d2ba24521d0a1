// The event log: durable before it is shown, dense, in order, and one run's trouble is not another's.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { follow } from "../../server/runs/follow.ts";
import type { Followed } from "../../server/runs/follow.ts";
import { LiveRuns } from "../../server/runs/live.ts";
import { Recorder } from "../../server/runs/record.ts";
import { upsertSystemAssistants } from "../../server/storage/assistants.ts";
import { finishRun, insertRun } from "../../server/storage/runs.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { createThreadRow } from "../support/checkpoints.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
const assistantId = randomUUID();
const workerId = randomUUID();
beforeAll(async () => {
  scratch = await testDatabase();
  await upsertSystemAssistants(scratch.database, [{ assistantId, graphId: "any" }]);
});
afterAll(() => scratch.close());

async function newRun(): Promise<string> {
  const [runId, threadId] = [randomUUID(), randomUUID()];
  await createThreadRow(scratch.database, threadId);
  const rest = { multitask: "reject", metadata: {}, kwargs: {}, threadMetadata: {} };
  await insertRun(scratch.database, { runId, threadId, assistantId, workerId, ...rest });
  return runId;
}

const end = (runId: string): Promise<boolean> =>
  finishRun(
    scratch.database,
    { runId, workerId, attempt: 1 },
    { state: "success", error: null, threadStatus: "idle" },
  );

function start(): { live: LiveRuns; recorder: Recorder } {
  const live = new LiveRuns();
  return { live, recorder: new Recorder(scratch.database, openLog("error"), (runIds) => live.wake(runIds)) };
}

async function read(live: LiveRuns, runId: string, after = -1): Promise<Followed[]> {
  const signal = AbortSignal.timeout(10_000);
  return Array.fromAsync(follow({ database: scratch.database, live }, runId, { after, signal }));
}

test("many runs at once are each read densely and in order, by those who were there and those who come later", async () => {
  const { live, recorder } = start();
  const runIds = await Promise.all(Array.from({ length: 8 }, newRun));
  const readers = runIds.map((runId) => read(live, runId));
  await Promise.all(
    runIds.map(async (runId) => {
      const recording = recorder.open(runId);
      for (let index = 0; index < 700; index += 1) await recording.append("n", String(index));
      await recording.flushed();
      await end(runId);
    }),
  );
  const expected = Array.from({ length: 700 }, (_, index) => ({
    seq: index,
    event: "n",
    data: String(index),
  }));
  for (const events of await Promise.all(readers)) expect(events).toEqual(expected);
  expect(await read(live, runIds[0] ?? "", 690)).toEqual(expected.slice(691));
});

test("an event is in the database before anybody is shown it", async () => {
  const { live, recorder } = start();
  const runId = await newRun();
  const recording = recorder.open(runId);
  const reader = follow({ database: scratch.database, live }, runId, {
    after: -1,
    signal: AbortSignal.timeout(5000),
  });
  const shown = reader.next();
  await recording.append("n", "1");
  expect((await shown).value).toEqual({ seq: 0, event: "n", data: "1" });
  const rows = await scratch.database.query("select seq from holdfast.run_events where run_id = $1", [runId]);
  expect(rows).toEqual([{ seq: 0 }]);
  await reader.return(undefined);
});

test("a run that was deleted does not take the events of other runs with it", async () => {
  const { live, recorder } = start();
  const [gone, kept] = [await newRun(), await newRun()];
  await scratch.database.query("delete from holdfast.runs where run_id = $1", [gone]);
  const recordings = [recorder.open(gone), recorder.open(kept)];
  await Promise.all(recordings.map((recording) => recording.append("n", "1")));
  await Promise.all(recordings.map((recording) => recording.flushed()));
  await end(kept);
  expect(await read(live, kept)).toEqual([{ seq: 0, event: "n", data: "1" }]);
});

test("a run ends while others stream without a pause", async () => {
  const { recorder } = start();
  const [noisy, quiet] = [await newRun(), await newRun()];
  const noise = recorder.open(noisy);
  const over = new AbortController();
  const streaming = (async () => {
    while (!over.signal.aborted) {
      await noise.append("n", "1");
      await new Promise(setImmediate);
    }
  })();
  const recording = recorder.open(quiet);
  await recording.append("n", "1");
  await recording.flushed();
  expect(await end(quiet)).toBe(true);
  over.abort();
  await streaming;
  await noise.flushed();
});

test("runs that end and runs that begin on one thread never deadlock", async () => {
  const threadId = randomUUID();
  await createThreadRow(scratch.database, threadId);
  const outcomes = { ended: 0, busy: 0 };
  const client = async (): Promise<void> => {
    for (let round = 0; round < 60; round += 1) {
      const runId = randomUUID();
      const rest = { multitask: "reject", metadata: {}, kwargs: {}, threadMetadata: {} };
      const row = await insertRun(scratch.database, { runId, threadId, assistantId, workerId, ...rest });
      if (typeof row === "string") outcomes.busy += 1;
      else if (await end(runId)) outcomes.ended += 1;
    }
  };
  await Promise.all(Array.from({ length: 6 }, client));
  expect(outcomes.ended + outcomes.busy).toBe(360);
  expect(outcomes.ended).toBeGreaterThan(10);
});

test("an end can be written once, by the owner only", async () => {
  const runId = await newRun();
  const stranger = { runId, workerId: randomUUID(), attempt: 1 };
  const success = { state: "success", error: null, threadStatus: "idle" } as const;
  expect(await finishRun(scratch.database, stranger, success)).toBe(false);
  expect(await finishRun(scratch.database, { runId, workerId, attempt: 2 }, success)).toBe(false);
  expect([await end(runId), await end(runId)]).toEqual([true, false]);
});
