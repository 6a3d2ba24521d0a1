// When checkpoints are written: with their superstep, with the end of their run, and never for a run that is not ours.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LeaseLost } from "../../server/errors.ts";
import type { Owner } from "../../server/runs/run.ts";
import { CheckpointBatch } from "../../server/storage/checkpoint-batch.ts";
import type { CheckpointWrite } from "../../server/storage/checkpoint-form.ts";
import { finishRun } from "../../server/storage/finish.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { runsOf } from "../support/runs.ts";
import type { Runs } from "../support/runs.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
let runs: Runs;
const newRun = (): Promise<Owner> => runs.newRun();
const statements: string[] = [];
beforeAll(async () => {
  scratch = await testDatabase();
  runs = await runsOf(scratch.database);
});
afterAll(() => scratch.close());

const noEvents = { hold: () => undefined, ride: () => undefined };

function newBatch(): CheckpointBatch {
  statements.length = 0;
  const query = <Row>(text: string, values?: readonly unknown[]): Promise<Row[]> => {
    statements.push(text.slice(0, 20));
    return scratch.database.query<Row>(text, values);
  };
  return new CheckpointBatch({ query, seals: scratch.database.seals }, runs.workerId, noEvents);
}

const point = ({ threadId }: Owner, more: { metadata?: string } = {}): CheckpointWrite => ({
  threadId,
  namespace: "",
  checkpointId: randomUUID(),
  parentId: undefined,
  checkpoint: "{}",
  metadata: "{}",
  values: [],
  isInput: false,
  ...more,
});

const result = (on: CheckpointWrite): CheckpointWrite => ({
  threadId: on.threadId,
  namespace: "",
  checkpointId: on.checkpointId,
  taskId: randomUUID(),
  taskPath: "",
  mayReplace: false,
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

const end = (owner: Owner, points: CheckpointWrite[]): ReturnType<typeof finishRun> =>
  finishRun(scratch.database, owner, {
    state: "success",
    error: null,
    threadStatus: "idle",
    threadState: null,
    rest: undefined,
    points,
    segments: 0,
    after: undefined,
    webhook: undefined,
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

test("what nobody waits for is written a moment later", async () => {
  const [owner, batch] = [await newRun(), newBatch()];
  await batch.put(owner, point(owner), "soon");
  await until(async () => (await countOf(owner)).points === 1, "the checkpoint");
  expect(await batch.rest(owner)).toEqual([]);
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
