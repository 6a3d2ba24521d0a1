// When checkpoints are written: with their superstep, with the end of their run, and never for a run that is not ours.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { LeaseLost } from "../../server/errors.ts";
import { uuidv7 } from "../../server/ids.ts";
import { CallNotes } from "../../server/storage/call-notes.ts";
import { CheckpointBatch } from "../../server/storage/checkpoints/batch.ts";
import type { CheckpointKey, CheckpointWrite } from "../../server/storage/checkpoints/form.ts";
import type { Owner } from "../../server/storage/fence.ts";
import { finishRun } from "../../server/storage/finish.ts";
import type { Note } from "../../server/storage/model-calls.ts";
import { defaultScope } from "../../server/storage/scope.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { pointOf } from "../support/checkpoints.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { runsOf } from "../support/runs.ts";
import type { Runs } from "../support/runs.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
let runs: Runs;
let notes: CallNotes;
const newRun = (): Promise<Owner> => runs.newRun();
const statements: string[] = [];
beforeAll(async () => {
  scratch = await testDatabase();
  runs = await runsOf(scratch.database);
});
afterAll(() => scratch.close());

const noEvents = { hold: () => undefined, release: () => undefined, ride: () => undefined };

function newBatch(): CheckpointBatch {
  statements.length = 0;
  const query = <Row>(text: string, values?: readonly unknown[]): Promise<Row[]> => {
    statements.push(text.slice(0, 20));
    return scratch.database.query<Row>(text, values);
  };
  notes = new CallNotes(scratch.database, openLog("error"));
  return new CheckpointBatch({ query, seals: scratch.database.seals }, runs.workerId, {
    events: noEvents,
    notes,
  });
}

const point = ({ threadId }: Owner, more: { metadata?: string } = {}): CheckpointWrite =>
  pointOf(threadId, { checkpointId: randomUUID(), ...more });

const result = (on: CheckpointWrite): CheckpointWrite => ({
  threadId: on.threadId,
  namespace: "",
  checkpointId: on.checkpointId,
  taskId: randomUUID(),
  taskPath: "",
  writes: [{ channel: "count", type: "json", bytes: new Uint8Array([49]), idx: 0 }],
});

async function countOf({ threadId }: Owner): Promise<{ points: number; writes: number }> {
  const [row] = await scratch.database.query<{ points: number; writes: number }>(
    `select (select count(*)::int from public.checkpoints where thread_id = $1) as points,
            (select count(*)::int from public.checkpoint_writes where thread_id = $1) as writes`,
    [threadId],
  );
  return row ?? { points: -1, writes: -1 };
}

const end = (owner: Owner, points: CheckpointWrite[], newest?: CheckpointKey): ReturnType<typeof finishRun> =>
  finishRun(scratch.database, owner, {
    state: "success",
    error: null,
    threadStatus: "idle",
    threadState: null,
    rest: undefined,
    points,
    newest,
    segments: 0,
    after: undefined,
    webhook: undefined,
    notes: [],
  });

test("what a failover has lost takes the attempt with it: nothing is written on top, and it does not end", async () => {
  const [owner, batch] = [await newRun(), newBatch()];
  const [first, lost] = [point(owner), point(owner)];
  expect(await batch.put(owner, first, "now")).toBe(true);
  expect(await batch.put(owner, lost, "now")).toBe(true);
  await scratch.database.query("delete from public.checkpoints where checkpoint_id = $1", [
    lost.checkpointId,
  ]);
  expect(await end(owner, [point(owner)], batch.newestOf(owner))).toBeUndefined();
  expect(await batch.put(owner, point(owner), "now")).toBe(false);
  expect(await countOf(owner)).toMatchObject({ points: 1 });
});

test("the input, the results of a superstep's tasks and its checkpoint are one statement", async () => {
  const [owner, batch] = [await newRun(), newBatch()];
  const input = point(owner);
  expect(await batch.put(owner, input, "soon")).toBe(true);
  await batch.put(owner, result(input), "soon");
  await batch.put(owner, result(input), "soon");
  expect(statements).toEqual([]);
  expect(await batch.put(owner, point(owner), "now")).toBe(true);
  expect(statements).toHaveLength(1);
  expect(await countOf(owner)).toEqual({ points: 2, writes: 2 });
});

const sized = (owner: Owner, size: number): CheckpointWrite => ({
  ...result(point(owner)),
  writes: [{ channel: "count", type: "json", bytes: new Uint8Array(size), idx: 0 }],
});

test("what is large shares no statement, and what is small still does", async () => {
  const batch = newBatch();
  const owners = await Promise.all(Array.from({ length: 6 }, newRun));
  statements.length = 0;
  const put = (size: number): Promise<boolean>[] =>
    owners.map((owner) => batch.put(owner, sized(owner, size), "now"));
  expect(await Promise.all([...put(3_000_000), ...put(1000)])).toEqual(Array(12).fill(true));
  expect(statements).toHaveLength(6);
  for (const owner of owners) expect(await countOf(owner)).toEqual({ points: 0, writes: 2 });
});

test("what nobody waits for is written a moment later", async () => {
  const [owner, batch] = [await newRun(), newBatch()];
  await batch.put(owner, point(owner), "soon");
  await until(async () => (await countOf(owner)).points === 1, "the checkpoint");
  expect(await batch.rest(owner)).toEqual([]);
});

test("a trailing checkpoint waits for its statement only while another one is under way", async () => {
  const batch = newBatch();
  const [one, other] = [await newRun(), await newRun()];
  statements.length = 0;
  expect(await batch.put(one, point(one), "trailing")).toBe(true);
  expect(await batch.put(one, point(one), "trailing")).toBe(true);
  expect(statements).toEqual([]);
  const busy = batch.put(other, point(other), "now");
  expect(await batch.put(one, point(one), "trailing")).toBe(true);
  expect(await countOf(one)).toEqual({ points: 3, writes: 0 });
  expect(await busy).toBe(true);
});

test("whoever goes on before his checkpoint is written is told with the next one what became of it", async () => {
  const batch = newBatch();
  const [bad, lost] = [await newRun(), await newRun()];
  await scratch.database.query("update holdfast.runs set attempt = 2 where run_id = $1", [lost.runId]);
  statements.length = 0;
  expect(await batch.put(bad, point(bad, { metadata: '{"a":"\\u0000"}' }), "trailing")).toBe(true);
  await batch.settled(bad).catch(() => undefined);
  expect(await batch.put(lost, point(lost), "trailing")).toBe(true);
  await batch.settled(lost);
  const count = statements.length;
  await expect(batch.put(bad, point(bad), "trailing")).rejects.toThrow("unsupported Unicode");
  expect(await batch.put(lost, point(lost), "trailing")).toBe(false);
  expect(statements).toHaveLength(count);
  for (const owner of [bad, lost]) expect(await countOf(owner)).toEqual({ points: 0, writes: 0 });
});

test("the last checkpoint comes with the end of its run, in the same statement", async () => {
  const [owner, batch] = [await newRun(), newBatch()];
  const before = point(owner);
  await batch.put(owner, before, "now");
  await batch.put(owner, result(before), "soon");
  await batch.put(owner, point(owner), "the end");
  const points = await batch.rest(owner);
  expect(points).toHaveLength(2);
  expect(await countOf(owner)).toEqual({ points: 1, writes: 0 });
  expect(await end(owner, points)).toBeDefined();
  expect(await countOf(owner)).toEqual({ points: 2, writes: 1 });
  expect(await batch.rest(owner)).toEqual([]);
});

test("a last checkpoint whose run does not come to its end is written by itself", async () => {
  const [owner, batch] = [await newRun(), newBatch()];
  await batch.put(owner, point(owner), "the end");
  await until(async () => (await countOf(owner)).points === 1, "the checkpoint");
  expect(await batch.rest(owner)).toEqual([]);
});

test("an end that is not ours any more writes no checkpoint", async () => {
  const owner = await newRun();
  expect(await end({ ...owner, attempt: 2 }, [point(owner)])).toBeUndefined();
  expect(await countOf(owner)).toEqual({ points: 0, writes: 0 });
});

test("whoever reads waits for what was put before", async () => {
  const [owner, batch] = [await newRun(), newBatch()];
  await batch.put(owner, point(owner), "the end");
  await batch.settled(owner);
  expect(await countOf(owner)).toEqual({ points: 1, writes: 0 });
});

test("a run that was taken over is told with its next checkpoint, and at its end", async () => {
  const [owner, batch] = [await newRun(), newBatch()];
  await scratch.database.query("update holdfast.runs set attempt = 2 where run_id = $1", [owner.runId]);
  expect(await batch.put(owner, point(owner), "soon")).toBe(true);
  expect(await batch.put(owner, point(owner), "now")).toBe(false);
  await expect(batch.rest(owner)).rejects.toThrow(LeaseLost);
  expect(await countOf(owner)).toEqual({ points: 0, writes: 0 });
});

test("a value that PostgreSQL refuses fails its own run, also if it came before", async () => {
  const batch = newBatch();
  const [bad, good] = [await newRun(), await newRun()];
  await batch.put(bad, point(bad, { metadata: '{"a":"\\u0000"}' }), "soon");
  const [failed, written] = await Promise.allSettled([
    batch.put(bad, point(bad), "now"),
    batch.put(good, point(good), "now"),
  ]);
  expect(failed.status).toBe("rejected");
  expect(written).toEqual({ status: "fulfilled", value: true });
  await expect(batch.rest(bad)).rejects.toThrow("unsupported Unicode");
});

test("what waits of a run that is closed is not written", async () => {
  const [owner, batch] = [await newRun(), newBatch()];
  await batch.put(owner, point(owner), "soon");
  batch.close(owner);
  await batch.settled(owner);
  expect(statements).toEqual([]);
});

const note = (owner: Owner, model: string): Note => ({
  scope: defaultScope,
  call: {
    callId: uuidv7(),
    payer: { owner, assistantId: randomUUID(), userId: undefined },
    model,
    node: "a",
  },
  usage: { input: 1, cached: 0, output: 2, microUsd: null, isEstimated: false },
});
const notedOf = async ({ runId }: Owner): Promise<readonly string[]> => {
  const rows = await scratch.database.query<{ model: string }>(
    "select model from holdfast.model_calls where run_id = $1 order by model",
    [runId],
  );
  return rows.map(({ model }) => model);
};

test("a note of a call goes with the next checkpoint, of whichever run", async () => {
  const batch = newBatch();
  const [one, other] = [await newRun(), await newRun()];
  notes.add(note(other, "m"));
  expect(await batch.put(one, point(one), "now")).toBe(true);
  expect(await notedOf(other)).toEqual(["m"]);
  expect(statements).toEqual(["/* putCheckpoints */"]);
});

test("a note is stored also by who has lost its run, by itself after a moment, and once", async () => {
  const batch = newBatch();
  const owner = await newRun();
  await scratch.database.query("update holdfast.runs set attempt = attempt + 1 where run_id = $1", [
    owner.runId,
  ]);
  const first = note(owner, "a");
  notes.add(first);
  expect(await batch.put(owner, point(owner), "now")).toBe(false);
  notes.add(first);
  notes.add(note(owner, "b"));
  await notes.close();
  expect(await notedOf(owner)).toEqual(["a", "b"]);
  notes.add(note(owner, "c"));
  await vi.waitFor(async () => expect(await notedOf(owner)).toEqual(["a", "b", "c"]));
});

test("a statement that fails leaves its notes", async () => {
  newBatch();
  const owner = await newRun();
  notes.add(note(owner, "a"));
  await expect(notes.along(() => Promise.reject(new Error("refused")))).rejects.toThrow("refused");
  await notes.close();
  expect(await notedOf(owner)).toEqual(["a"]);
});

test("what the database would refuse is left out, and takes nobody's checkpoint along", async () => {
  const batch = newBatch();
  const owner = await newRun();
  const huge = note(owner, "huge");
  notes.add({ ...huge, usage: { ...huge.usage, microUsd: 1e22 } });
  for (const model of ["a", "a NUL \0", "half \ud83d", "b"]) notes.add(note(owner, model));
  expect(await batch.put(owner, point(owner), "now")).toBe(true);
  expect(await notedOf(owner)).toEqual(["a", "b"]);
});
