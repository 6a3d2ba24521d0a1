// Each statement that writes for a run, against everybody who may not: it writes for its owner alone, waits for a takeover
// that is under way, and is waited for by one.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Engine } from "../../server/runs/engine.ts";
import { takeBackAnswer } from "../../server/runs/take-back.ts";
import {
  putForOwners,
  putForThread,
  refuseAnswer,
  settleAnswers,
  withdrawUpdate,
} from "../../server/storage/checkpoints/writes.ts";
import type { Queryable } from "../../server/storage/database.ts";
import { insertSegments } from "../../server/storage/events.ts";
import type { Owner } from "../../server/storage/fence.ts";
import { deleteOwnRun, finishRun } from "../../server/storage/finish.ts";
import { writeItems } from "../../server/storage/store/store.ts";
import { createThreadRow, pointOf } from "../support/checkpoints.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { TEST_KEYS, sealsOf } from "../support/keys.ts";
import { runsOf, succeeded } from "../support/runs.ts";
import type { Runs } from "../support/runs.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
let runs: Runs;
beforeAll(async () => {
  scratch = await testDatabase();
  runs = await runsOf(scratch.database);
});
afterAll(() => scratch.close());

const NO_TASK = "00000000-0000-0000-0000-000000000000";
const INPUT_TASK = "11111111-1111-1111-1111-111111111111";
const WAITING =
  "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

const query = (text: string, values: readonly unknown[] = []): Promise<unknown[]> =>
  scratch.database.query(text, [...values]);
const isThere = async (text: string, value: string): Promise<boolean> =>
  (await query(text, [value])).length > 0;

/** A write of a task as the run has left it. */
const leave = ({ runId, threadId }: Owner, channel: string, task: string): Promise<unknown> =>
  query(
    `insert into public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, run_id)
     values ($1, '', '1', $2, $3, $4, 'json', '{}', $5)`,
    [threadId, task, task === NO_TASK ? 0 : 1, channel, runId],
  );
const answered = (owner: Owner): Promise<boolean> =>
  isThere(
    "select from public.checkpoint_writes where thread_id = $1 and channel = '__resume__'",
    owner.threadId,
  );

interface Fenced {
  readonly before?: (owner: Owner) => Promise<unknown>;
  readonly write: (on: Queryable, owner: Owner) => Promise<unknown>;
  readonly hasWritten: (owner: Owner) => Promise<boolean>;
}

const fenced: Record<string, Fenced> = {
  events: {
    write: (on, { runId, workerId, attempt }) =>
      insertSegments(on, workerId, [{ runId, attempt, seq: 5, last: 5, body: "[]", isFirst: true }]),
    hasWritten: ({ runId }) => isThere("select from holdfast.run_events where run_id = $1", runId),
  },
  "a checkpoint": {
    write: (on, owner) => putForOwners(on, owner.workerId, [{ owner, write: pointOf(owner.threadId) }], []),
    hasWritten: ({ threadId }) => isThere("select from public.checkpoints where thread_id = $1", threadId),
  },
  "the end of a run": {
    write: (on, owner) => finishRun(on, owner, succeeded),
    hasWritten: ({ threadId }) =>
      isThere("select from holdfast.threads where thread_id = $1 and status = 'idle'", threadId),
  },
  "a run that is rolled back": {
    write: (on, owner) => deleteOwnRun(on, owner),
    hasWritten: async ({ runId }) => !(await isThere("select from holdfast.runs where run_id = $1", runId)),
  },
  "an update that is withdrawn": {
    before: (owner) => leave(owner, "topic", NO_TASK),
    write: (on, owner) => withdrawUpdate(on, owner),
    hasWritten: async ({ threadId }) =>
      !(await isThere("select from public.checkpoint_writes where thread_id = $1", threadId)),
  },
  "an answer that is withdrawn": {
    before: async (owner) => {
      await leave(owner, "__resume__", NO_TASK);
      await leave(owner, "__interrupt__", INPUT_TASK);
    },
    write: (on, { runId, workerId, attempt }) =>
      settleAnswers(on, { run_id: runId, workerId, attempt, kwargs: {} }),
    hasWritten: async (owner) => !(await answered(owner)),
  },
  "an answer that is refused": {
    before: (owner) => leave(owner, "__resume__", NO_TASK),
    write: (on, owner) => refuseAnswer(on, owner),
    hasWritten: async (owner) => !(await answered(owner)),
  },
  "items of the store": {
    write: (on, owner) =>
      writeItems(on, [{ namespace: [owner.runId], key: "k", value: { n: 1 }, ttlMinutes: null }], owner),
    hasWritten: ({ runId }) => isThere("select from holdfast.store_items where namespace[1] = $1", runId),
  },
};

const TAKE_OVER =
  "update holdfast.runs set worker_id = gen_random_uuid(), attempt = attempt + 1 where run_id = $1";

describe.each(Object.entries(fenced))("%s", (_, { before, write, hasWritten }) => {
  const newOwner = async (): Promise<Owner> => {
    const owner = await runs.newRun();
    await before?.(owner);
    return owner;
  };

  test("its owner writes, and is waited for by a takeover", async () => {
    const owner = await newOwner();
    let taken: Promise<unknown> | undefined;
    await scratch.database.transaction(async (transaction) => {
      await write(transaction, owner);
      taken = query(TAKE_OVER, [owner.runId]);
      await until(async () => (await query(WAITING)).length > 0, "the takeover to wait");
    });
    await taken;
    expect(await hasWritten(owner)).toBe(true);
  });

  test.each([
    ["taken over by another worker", "worker_id = gen_random_uuid()"],
    ["begun again by the same worker", "attempt = attempt + 1"],
    ["given back", "state = 'ready', worker_id = null"],
    ["ended in success", "state = 'success'"],
    ["ended in error", "state = 'error'"],
    ["interrupted", "state = 'interrupted'"],
  ])("nothing is written for a run that was %s", async (__, change) => {
    const owner = await newOwner();
    await query(`update holdfast.runs set ${change} where run_id = $1`, [owner.runId]);
    await write(scratch.database, owner);
    expect(await hasWritten(owner)).toBe(false);
  });

  test.each([true, false])("who waits for a takeover heeds it: it takes place, %s", async (isTaken) => {
    const owner = await newOwner();
    const undo = new Error("taken back");
    let writing: Promise<unknown> | undefined;
    const takeover = scratch.database.transaction(async (transaction) => {
      await transaction.query(TAKE_OVER, [owner.runId]);
      writing = write(scratch.database, owner);
      await until(async () => (await query(WAITING)).length > 0, "the write to wait");
      if (!isTaken) throw undo;
    });
    expect(await takeover.catch((error: unknown) => error)).toBe(isTaken ? undefined : undo);
    await writing;
    expect(await hasWritten(owner)).toBe(!isTaken);
  });
});

test("outside runs nothing is written under a key that is not the thread's: nobody could read it", async () => {
  const threadId = randomUUID();
  await createThreadRow(scratch.database, threadId);
  const { key } = sealsOf(TEST_KEYS).newOfThread(threadId) ?? {};
  expect(key?.id).toBeDefined();
  const checkpoints = "select from public.checkpoints where thread_id = $1";
  expect(await putForThread(scratch.database, pointOf(threadId), key)).toBe(false);
  expect(await isThere(checkpoints, threadId)).toBe(false);
  expect(await putForThread(scratch.database, pointOf(threadId), undefined)).toBe(true);
  expect(await isThere(checkpoints, threadId)).toBe(true);
});

test("an answer that is refused leaves what the task was answered before", async () => {
  const owner = await runs.newRun();
  await leave(owner, "__resume__", INPUT_TASK);
  await query(
    "update public.checkpoint_writes set was_type = 'json', was_blob = '[1]' where thread_id = $1",
    [owner.threadId],
  );
  await refuseAnswer(scratch.database, owner);
  const left = "select run_id, blob, was_blob from public.checkpoint_writes where thread_id = $1";
  expect(await query(left, [owner.threadId])).toEqual([
    { run_id: null, blob: Buffer.from("[1]"), was_blob: null },
  ]);
});

test("an answer is refused also when another node failed beside it, and when it is still being written", async () => {
  const owner = await runs.newRun();
  const begun = Promise.withResolvers<void>();
  const writing = begun.promise.then(() => leave(owner, "__resume__", NO_TASK));
  const checkpoints = {
    settled: () => {
      begun.resolve();
      return writing;
    },
  };
  const engine = { database: scratch.database, checkpoints } as unknown as Engine;
  const refused = Object.assign(new Error("He may not."), { code: "tool_approval_refused" });
  await takeBackAnswer({ engine, owner }, new AggregateError([new RangeError("too"), refused]));
  begun.resolve();
  await writing;
  expect(await answered(owner)).toBe(false);
});
