// Events that go with checkpoints of their run: in one statement with them, and by themselves when that cannot be.
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { DatabaseUnavailable, LeaseLost } from "../../server/errors.ts";
import type { AppError } from "../../server/errors.ts";
import { readLog } from "../../server/runs/follow.ts";
import { EventLog } from "../../server/runs/log/event-log.ts";
import { dataOf } from "../../server/runs/log/lines.ts";
import { EventReader } from "../../server/runs/log/reader.ts";
import { Recorder } from "../../server/runs/log/record.ts";
import { CallNotes } from "../../server/storage/call-notes.ts";
import { CheckpointBatch } from "../../server/storage/checkpoints/batch.ts";
import type { CheckpointWrite } from "../../server/storage/checkpoints/form.ts";
import type { Owner } from "../../server/storage/fence.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { pointOf } from "../support/checkpoints.ts";
import { openTestPool, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holding, letGo, waitsFor } from "../support/locks.ts";
import { runsOf } from "../support/runs.ts";
import type { Runs } from "../support/runs.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
let runs: Runs;
beforeAll(async () => {
  scratch = await testDatabase();
  runs = await runsOf(scratch.database);
});
afterAll(() => scratch.close());

let eventLog: EventLog;
let recorder: Recorder;
let batch: CheckpointBatch;
let committed: string[];
beforeEach(() => {
  const log = openLog("error");
  committed = [];
  eventLog = new EventLog(scratch.database, runs.workerId, true);
  recorder = new Recorder(eventLog, log, (runIds) => committed.push(...runIds));
  const notes = new CallNotes(scratch.database, log);
  batch = new CheckpointBatch(scratch.database, runs.workerId, { events: recorder, notes });
});
afterEach(() => eventLog.close());

const point = ({ threadId }: Owner, metadata = "{}"): CheckpointWrite =>
  pointOf(threadId, { checkpointId: randomUUID(), metadata });

const n = (data: string): { event: string; data: string } => ({ event: "n", data });
const unlost = (error: Error): never => expect.fail(error.message);

async function logged({ runId }: Owner): Promise<string[]> {
  const batches = await Array.fromAsync(readLog(new EventReader(scratch.database), runId));
  return batches.flat().map(({ entry }) => dataOf(entry));
}

/** Numbers of the events that stand in one transaction with a checkpoint of the run. */
async function together({ runId, threadId }: Owner): Promise<number[]> {
  const rows = await scratch.database.query<{ seq: number }>(
    `select e.seq from holdfast.run_events e join public.checkpoints c on c.xmin = e.xmin
      where e.run_id = $1 and c.thread_id = $2 order by e.seq`,
    [runId, threadId],
  );
  return rows.map(({ seq }) => seq);
}

test("an event that comes while a checkpoint waits is written with it, and told to others", async () => {
  const owner = await runs.newRun();
  const recording = recorder.open(owner, 0, unlost);
  await batch.put(owner, point(owner), "soon");
  void recording.append(n("a"));
  await batch.settled(owner);
  expect(await together(owner)).toEqual([0]);
  expect(recording.tail.after(-1)).toEqual([{ seq: 0, entry: n("a") }]);
  expect(committed).toEqual([owner.runId]);
});

test("what comes while that statement is under way is written behind it, by itself", async () => {
  const owner = await runs.newRun();
  const recording = recorder.open(owner, 0, unlost);
  const lock = "select from holdfast.runs where run_id = $1 for update";
  const session = await holding(scratch.database, lock, [owner.runId]);
  const writing = batch.put(owner, point(owner), "now");
  void recording.append(n("a"));
  await waitsFor(scratch.database, "/* putCheckpoints */");
  void recording.append(n("b"));
  await letGo(session);
  expect(await writing).toBe(true);
  await until(() => recording.tail.after(0)?.length === 1, "the second event");
  expect(await logged(owner)).toEqual(["a", "b"]);
  expect(await together(owner)).toEqual([0]);
});

test("events that cannot be written behind what a crash has taken come back with it, in their order", async () => {
  const owner = await runs.newRun();
  const recording = recorder.open(owner, 0, unlost);
  void recording.append(n("first"));
  await recording.flushed();
  // As a crash of the database leaves it: what had not reached its disk is gone.
  await scratch.database.query("delete from holdfast.run_events where run_id = $1", [owner.runId]);
  const large = Array.from({ length: 5 }, (_, index) => `${index}${"x".repeat(300_000)}`);
  await batch.put(owner, point(owner), "soon");
  for (const text of large) void recording.append(n(text));
  await batch.settled(owner);
  await recording.flushed();
  expect(await together(owner)).toEqual([]);
  expect(await logged(owner)).toEqual(["first", ...large]);
});

test("a run that was taken over hears so by its next event, although a checkpoint waits", async () => {
  const owner = await runs.newRun();
  const lost: AppError[] = [];
  const recording = recorder.open(owner, 0, (error) => lost.push(error));
  const takeover = "update holdfast.runs set attempt = 2 where run_id = $1";
  const session = await holding(scratch.database, takeover, [owner.runId]);
  const refused = batch.put(owner, point(owner), "now");
  await waitsFor(scratch.database, "/* putCheckpoints */");
  await batch.put(owner, point(owner), "the end");
  void recording.append(n("a"));
  await session.query("commit");
  await session.close();
  expect(await refused).toBe(false);
  await expect(recording.flushed()).rejects.toThrow(LeaseLost);
  expect(lost).toHaveLength(1);
});

test("events go on beside a checkpoint that PostgreSQL refuses", async () => {
  const owner = await runs.newRun();
  const recording = recorder.open(owner, 0, unlost);
  const refused = batch.put(owner, point(owner, '{"a":"\\u0000"}'), "now");
  await batch.put(owner, point(owner), "the end");
  void recording.append(n("a"));
  await expect(refused).rejects.toThrow("unsupported Unicode");
  void recording.append(n("b"));
  await expect(batch.put(owner, point(owner), "now")).rejects.toThrow("unsupported Unicode");
  void recording.append(n("c"));
  await recording.flushed();
  expect(await logged(owner)).toEqual(["a", "b", "c"]);
});

test("events whose statement found no database are lost with it, and nobody waits for them any more", async () => {
  const owner = await runs.newRun();
  const gone = openTestPool(scratch.url);
  await gone.close();
  const notes = new CallNotes(scratch.database, openLog("error"));
  const away = new CheckpointBatch(gone, runs.workerId, { events: recorder, notes });
  const lost: AppError[] = [];
  const recording = recorder.open(owner, 0, (error) => lost.push(error));
  const refused = away.put(owner, point(owner), "now");
  void recording.append(n("a"));
  await expect(refused).rejects.toThrow(DatabaseUnavailable);
  await expect(recording.rest()).rejects.toThrow(DatabaseUnavailable);
  expect(lost).toHaveLength(1);
}, 40_000);
