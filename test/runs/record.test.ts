// The event log: durable before it is shown, dense, in order, and one run's trouble is not another's.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { follow } from "../../server/runs/follow.ts";
import { Hints } from "../../server/runs/hints.ts";
import { LiveRuns } from "../../server/runs/live.ts";
import { EventLog } from "../../server/runs/log/event-log.ts";
import { dataOf, nameOf } from "../../server/runs/log/lines.ts";
import { EventReader } from "../../server/runs/log/reader.ts";
import { Recorder } from "../../server/runs/log/record.ts";
import type { Owner } from "../../server/storage/fence.ts";
import { finishRun } from "../../server/storage/finish.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { createThreadRow } from "../support/checkpoints.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { runsOf } from "../support/runs.ts";
import type { Runs } from "../support/runs.ts";

let scratch: TestDatabase;
let runs: Runs;
const newRun = (): Promise<Owner> => runs.newRun();
beforeAll(async () => {
  scratch = await testDatabase();
  runs = await runsOf(scratch.database);
});
afterAll(() => scratch.close());

async function end(owner: Owner, rest?: { seq: number; last: number; body: string }): Promise<boolean> {
  const result = { state: "success", error: null, threadStatus: "idle", threadState: null } as const;
  const ended = await finishRun(scratch.database, owner, {
    ...result,
    rest,
    points: [],
    segments: 1,
    after: undefined,
    webhook: undefined,
    notes: [],
  });
  return ended !== undefined;
}

interface Started {
  readonly live: LiveRuns;
  readonly hints: Hints;
  readonly reader: EventReader;
  readonly recorder: Recorder;
  readonly eventLog: EventLog;
}

function start(): Started {
  const log = openLog("error");
  const hints = new Hints(scratch.database, log);
  const eventLog = new EventLog(scratch.database, runs.workerId, true);
  const recorder = new Recorder(eventLog, log, (runIds) => hints.events(runIds));
  return { live: new LiveRuns(), hints, reader: new EventReader(scratch.database), recorder, eventLog };
}

async function read(
  source: Started,
  runId: string,
  after = -1,
): Promise<{ seq: number; event: string; data: string }[]> {
  const signal = AbortSignal.timeout(10_000);
  const batches = await Array.fromAsync(follow(source, runId, { after, signal }));
  return batches.flat().map(({ seq, entry }) => ({ seq, event: nameOf(entry), data: dataOf(entry) }));
}

const n = (data: string): { event: string; data: string } => ({ event: "n", data });
const unlost = (error: Error): never => expect.fail(error.message);

test("many runs at once are each read densely and in order, by those who were there and those who come later", async () => {
  const source = start();
  const eight = await Promise.all(Array.from({ length: 8 }, newRun));
  const readers = eight.map(({ runId }) => read(source, runId));
  await Promise.all(
    eight.map(async (run) => {
      const recording = source.recorder.open(run, 0, unlost);
      for (let index = 0; index < 700; index += 1) await recording.append(n(String(index)));
      const { rest } = await recording.rest();
      await end(run, rest);
      source.hints.events([run.runId]);
    }),
  );
  const expected = Array.from({ length: 700 }, (_, index) => ({
    seq: index,
    event: "n",
    data: String(index),
  }));
  for (const events of await Promise.all(readers)) expect(events).toEqual(expected);
  expect(await read(source, eight[0]?.runId ?? "", 690)).toEqual(expected.slice(691));
  await source.eventLog.close();
});

test("an event is in the database before anybody is shown it", async () => {
  const source = start();
  const run = await newRun();
  const reader = follow(source, run.runId, { after: -1, signal: AbortSignal.timeout(10_000) });
  const shown = reader.next();
  await source.recorder.open(run, 0, unlost).append(n("1"));
  expect((await shown).value).toEqual([{ seq: 0, entry: n("1") }]);
  const rows = await scratch.database.query("select seq from holdfast.run_events where run_id = $1", [
    run.runId,
  ]);
  expect(rows).toEqual([{ seq: 0 }]);
  await reader.return(undefined);
  await source.eventLog.close();
});

test("a run that was deleted or taken over loses its events and is told so, and no other run is", async () => {
  const source = start();
  const [gone, taken, kept] = [await newRun(), await newRun(), await newRun()];
  await scratch.database.query("delete from holdfast.runs where run_id = $1", [gone.runId]);
  await scratch.database.query("update holdfast.runs set attempt = 2 where run_id = $1", [taken.runId]);
  const lost: string[] = [];
  const recordings = [gone, taken, kept].map((run) =>
    source.recorder.open(run, 0, () => lost.push(run.runId)),
  );
  for (const recording of recordings) void recording.append(n("1"));
  const flushed = await Promise.allSettled(recordings.map((recording) => recording.flushed()));
  expect(flushed.map(({ status }) => status)).toEqual(["rejected", "rejected", "fulfilled"]);
  expect(lost).toEqual([gone.runId, taken.runId]);
  expect(() => recordings[0]?.append(n("2"))).toThrow("not this server's any more");
  await end(kept);
  expect(await read(source, kept.runId)).toEqual([{ seq: 0, event: "n", data: "1" }]);
  const left = "select run_id from holdfast.run_events where run_id = any ($1)";
  expect(await scratch.database.query(left, [[gone.runId, taken.runId]])).toEqual([]);
  await source.eventLog.close();
});

test("a run ends while others stream without a pause", async () => {
  const source = start();
  const [noisy, quiet] = [await newRun(), await newRun()];
  const noise = source.recorder.open(noisy, 0, unlost);
  const over = new AbortController();
  const streaming = (async () => {
    while (!over.signal.aborted) {
      await noise.append(n("1"));
      await new Promise(setImmediate);
    }
  })();
  const recording = source.recorder.open(quiet, 0, unlost);
  await recording.append(n("1"));
  await recording.flushed();
  expect(await end(quiet)).toBe(true);
  over.abort();
  await streaming;
  await noise.flushed();
  await source.eventLog.close();
});

test("a log session that was cut writes its last moments once more, and every event is there once", async () => {
  const source = start();
  const [run, other] = [await newRun(), await newRun()];
  const recording = source.recorder.open(run, 0, unlost);
  const beside = source.recorder.open(other, 0, unlost);
  // Several writes, each of them of two runs.
  for (const name of ["0", "1", "2"]) {
    await recording.append(n(name));
    await beside.append(n(`beside ${name}`));
    await Promise.all([recording.flushed(), beside.flushed()]);
  }
  // As a crash of the database leaves it: the session is gone, and so is what it had not written to disk.
  await scratch.database.query("delete from holdfast.run_events where run_id = any ($1::uuid[])", [
    [run.runId, other.runId],
  ]);
  await scratch.database.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and query like '/* insertSegments */%' and pid <> pg_backend_pid()`,
  );
  await recording.append(n("3"));
  await recording.flushed();
  for (const owner of [run, other]) await end(owner);
  const told = async ({ runId }: Owner): Promise<string[]> =>
    (await read(source, runId)).map(({ data }) => data);
  expect(await told(run)).toEqual(["0", "1", "2", "3"]);
  expect(await told(other)).toEqual(["beside 0", "beside 1", "beside 2"]);
  await source.eventLog.close();
});

test("events that are found missing at the end of a run come again, although the session that wrote them lives", async () => {
  const source = start();
  const run = await newRun();
  const recording = source.recorder.open(run, 0, unlost);
  await recording.append(n("0"));
  await recording.flushed();
  await scratch.database.query("delete from holdfast.run_events where run_id = $1", [run.runId]);
  await recording.repair();
  await end(run);
  expect(await read(source, run.runId)).toEqual([{ seq: 0, event: "n", data: "0" }]);
  await source.eventLog.close();
});

test("runs that end and runs that begin on one thread never deadlock", async () => {
  const threadId = randomUUID();
  await createThreadRow(scratch.database, threadId);
  const outcomes = { ended: 0, busy: 0 };
  const client = async (): Promise<void> => {
    for (let round = 0; round < 60; round += 1) {
      const owner = await runs.runOn(threadId);
      if (!owner) outcomes.busy += 1;
      else if (await end(owner)) outcomes.ended += 1;
    }
  };
  await Promise.all(Array.from({ length: 6 }, client));
  expect(outcomes.ended + outcomes.busy).toBe(360);
  expect(outcomes.ended).toBeGreaterThan(10);
});

test("an end can be written once, by the owner only", async () => {
  const run = await newRun();
  expect(await end({ ...run, workerId: randomUUID() })).toBe(false);
  expect(await end({ ...run, attempt: 2 })).toBe(false);
  expect([await end(run), await end(run)]).toEqual([true, false]);
});
