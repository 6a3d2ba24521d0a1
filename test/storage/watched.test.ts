// Threads that are followed by protocol v2: which of their runs began when, found by an index, and forgotten in time.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { cancelPending, retryRun } from "../../server/storage/finish.ts";
import { claimRuns, lockThreads, promoteRuns } from "../../server/storage/queue.ts";
import { insertRun } from "../../server/storage/runs.ts";
import type { NewRun } from "../../server/storage/runs.ts";
import { upsertSystemAssistants } from "../../server/storage/assistants.ts";
import {
  deleteIdleWatches,
  findClock,
  findNewestWatched,
  listNextWatched,
  watchThread,
} from "../../server/storage/watched.ts";
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

const query = <Row>(text: string, values: unknown[] = []): Promise<Row[]> =>
  scratch.database.query<Row>(text, values);

async function accept(threadId: string, more: Partial<NewRun> = {}): Promise<string> {
  const runId = randomUUID();
  const row = await insertRun(scratch.database, {
    runId,
    threadId,
    assistantId,
    workerId,
    state: "running",
    multitask: "enqueue",
    metadata: { graph_id: "any" },
    kwargs: {},
    threadMetadata: {},
    timeoutMs: 60_000,
    creates: "thread",
    isDecided: true,
    ...more,
  });
  expect(row).toMatchObject({ run_id: runId });
  return runId;
}

const end = (runId: string, state = "success"): Promise<unknown> =>
  query("update holdfast.runs set state = $2 where run_id = $1", [runId, state]);

const promote = (threadId: string): Promise<string[]> =>
  scratch.database.transaction(async (transaction) => {
    await lockThreads(transaction, [threadId]);
    return promoteRuns(transaction, [threadId]);
  });

const ordinals = (threadId: string): Promise<{ run_id: string; ordinal: number | null }[]> =>
  query("select run_id, ordinal from holdfast.runs where thread_id = $1 order by ord", [threadId]);

test("runs are numbered as they begin, not as they come, and no number is given twice", async () => {
  const threadId = randomUUID();
  const first = await accept(threadId);
  const waiting = await accept(threadId, { state: "blocked", workerId: null });
  const delayed = await accept(threadId, { state: "delayed", workerId: null, afterSeconds: 60 });
  const last = await accept(threadId, { state: "blocked", workerId: null });
  expect((await ordinals(threadId)).map(({ ordinal }) => ordinal)).toEqual([1, null, null, null]);
  await end(first, "error");
  expect(await promote(threadId)).toEqual([waiting]);
  expect(await promote(threadId)).toEqual([]);
  // One that goes before it began takes its number along.
  await scratch.database.transaction((transaction) =>
    cancelPending(transaction, [waiting], { action: "rollback", reason: null, bodyOf: () => "{}" }),
  );
  expect(await promote(threadId)).toEqual([last]);
  await end(last);
  expect(await scratch.database.transaction((transaction) => retryRun(transaction, first))).toBe(true);
  expect(await promote(threadId)).toEqual([first]);
  expect(await ordinals(threadId)).toEqual([
    { run_id: first, ordinal: 4 },
    { run_id: delayed, ordinal: null },
    { run_id: last, ordinal: 3 },
  ]);
});

async function isWatched(threadId: string): Promise<boolean[]> {
  const rows = await query<{ is_watched: boolean }>(
    "select is_watched from holdfast.runs where thread_id = $1 order by ord",
    [threadId],
  );
  return rows.map(({ is_watched: is }) => is);
}

test("a run is told by protocol v2 if its thread was followed before it was accepted, or before it was claimed", async () => {
  const [followed, later, never] = [randomUUID(), randomUUID(), randomUUID()];
  await watchThread(scratch.database, followed);
  await watchThread(scratch.database, followed);
  await accept(followed);
  await accept(later, { state: "ready", workerId: null });
  await accept(never);
  expect(await Promise.all([followed, later, never].map(isWatched))).toEqual([[true], [false], [false]]);
  await watchThread(scratch.database, later);
  const claimed = await claimRuns(scratch.database, {
    workerId,
    limit: 10,
    graphIds: ["any"],
    timeoutMs: 1000,
  });
  expect(claimed.find(({ thread_id: id }) => id === later)).toMatchObject({ is_watched: true, ordinal: 1 });
  expect(await isWatched(later)).toEqual([true]);
});

const cancel = (runId: string, action: "interrupt" | "rollback"): Promise<unknown> =>
  scratch.database.transaction((transaction) =>
    cancelPending(transaction, [runId], { action, reason: null, bodyOf: () => "{}" }),
  );

test.each(["interrupt", "rollback"] as const)(
  "a run that was next and is gone by %s is told to who stands there, and the newest to everybody",
  async (action) => {
    const threadId = randomUUID();
    const told = await accept(threadId, { isWatched: true });
    await end(told);
    const gone: string[] = [];
    for (let at = 0; at < 2; at += 1) {
      const next = await accept(threadId, { state: "blocked", workerId: null });
      expect(await promote(threadId)).toEqual([next]);
      await cancel(next, action);
      gone.push(next);
    }
    const [older, newest] = gone;
    expect(await findNewestWatched(scratch.database, threadId)).toMatchObject({ run_id: told, ordinal: 1 });
    const asked = [0, 1, 2, 3, 4].map((ordinal) => ({ threadId, ordinal }));
    const found = (await listNextWatched(scratch.database, asked)).toSorted((a, b) => a.n - b.n);
    expect(found.map((next) => next.run_id)).toEqual([told, told, older, newest, null]);
    await query("delete from holdfast.runs where run_id = $1", [told]);
    const [first] = await listNextWatched(scratch.database, [{ threadId, ordinal: 0 }]);
    expect(first?.run_id).toBe(newest);
  },
);

test.each(["interrupt", "rollback"] as const)(
  "runs that wait behind another and are gone by %s are told if somebody follows, in their order",
  async (action) => {
    const threadId = randomUUID();
    await accept(threadId, { isWatched: true });
    const waits = { state: "blocked", workerId: null } as const;
    const unseen = await accept(threadId, waits);
    await watchThread(scratch.database, threadId);
    const [first, second, next] = [
      await accept(threadId, waits),
      await accept(threadId, waits),
      await accept(threadId, waits),
    ];
    // Nobody waits for one whose time has not come: it takes no place.
    const delayed = await accept(threadId, { state: "delayed", workerId: null, afterSeconds: 60 });
    const gone = [second, unseen, first, delayed];
    await scratch.database.transaction((transaction) =>
      cancelPending(transaction, gone, { action, reason: null, bodyOf: () => "{}" }),
    );
    const asked = [2, 3].map((ordinal) => ({ threadId, ordinal }));
    const found = (await listNextWatched(scratch.database, asked)).toSorted((a, b) => a.n - b.n);
    expect(found.map((one) => one.run_id)).toEqual([first, second]);
    await query("update holdfast.runs set state = 'success' where thread_id = $1 and ordinal = 1", [
      threadId,
    ]);
    expect(await promote(threadId)).toEqual([next]);
    expect(await query("select ordinal from holdfast.runs where run_id = $1", [next])).toEqual([
      { ordinal: 4 },
    ]);
  },
);

test.each(["interrupt", "rollback"] as const)(
  "one that waits for another try behind a live run and is gone by %s does not stand before that",
  async (action) => {
    const threadId = randomUUID();
    const failed = await accept(threadId, { isWatched: true });
    await end(failed, "error");
    await accept(threadId, { state: "blocked", workerId: null, isWatched: true });
    const [live] = await promote(threadId);
    await query("update holdfast.runs set attempt = 1 where run_id = any ($1::uuid[])", [[failed, live]]);
    expect(await scratch.database.transaction((transaction) => retryRun(transaction, failed))).toBe(true);
    const [first] = await listNextWatched(scratch.database, [{ threadId, ordinal: 0 }]);
    expect(first?.run_id).toBe(live);
    await cancel(failed, action);
    expect(await findNewestWatched(scratch.database, threadId)).toMatchObject({ run_id: live });
  },
);

test("the run that is live when somebody begins to follow is told, and else the one that was last", async () => {
  const threadId = randomUUID();
  const first = await accept(threadId);
  await watchThread(scratch.database, threadId);
  expect(await isWatched(threadId)).toEqual([true]);
  await query("update holdfast.runs set is_watched = false where run_id = $1", [first]);
  await end(first);
  await query("delete from holdfast.watched_threads where thread_id = $1", [threadId]);
  await accept(threadId, { state: "blocked", workerId: null });
  const [second] = await promote(threadId);
  await end(String(second), "error");
  await watchThread(scratch.database, threadId);
  expect(await isWatched(threadId)).toEqual([false, true]);
});

test("the next run of a thread is found by an index, among very many", async () => {
  const threadId = randomUUID();
  await accept(threadId, { isWatched: true });
  await query(
    `insert into holdfast.runs (run_id, thread_id, assistant_id, state, kwargs, ordinal, is_watched)
     select gen_random_uuid(), $1, $2, 'success', '{}', n, n % 2 = 0 from generate_series(2, 20000) as n`,
    [threadId, assistantId],
  );
  await query("analyze holdfast.runs");
  expect(await findNewestWatched(scratch.database, threadId)).toMatchObject({ ordinal: 20_000 });
  const asked = [
    { threadId, ordinal: 7 },
    { threadId: randomUUID(), ordinal: 0 },
    { threadId, ordinal: 20_001 },
    { threadId, ordinal: 0 },
  ];
  const found = await listNextWatched(scratch.database, asked);
  expect(new Map(found.map((next) => [next.n, next.run_id !== null && next.ordinal]))).toEqual(
    new Map<number, unknown>([
      [1, 8],
      [3, false],
      [4, 1],
    ]),
  );
  const plan = await query<{ "QUERY PLAN": string }>(
    `explain (analyze, costs off, timing off, summary off)
     select r.ordinal from unnest($1::text[], $2::int[]) with ordinality as q (thread_id, ordinal, n)
       join lateral (select ordinal from holdfast.runs
         where thread_id = q.thread_id and is_watched and ordinal >= q.ordinal order by ordinal limit 1) r on true`,
    [
      [threadId, threadId],
      [7, 9000],
    ],
  );
  expect(plan.map((row) => row["QUERY PLAN"]).join("\n")).toMatch(/Index (Only )?Scan using runs_watched/);
});

test("a thread's clock goes on from its newest checkpoint and the last event of its newest run", async () => {
  const threadId = randomUUID();
  expect(await findClock(scratch.database, threadId, 1)).toEqual({ checkpointTs: null, body: null });
  const runId = await accept(threadId, { isWatched: true });
  await query(
    "insert into holdfast.run_events (run_id, seq, last, attempt, body) values ($1, 0, 0, 1, 'old'), ($1, 1, 1, 1, 'new')",
    [runId],
  );
  await query(
    `insert into public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint, metadata)
     values ($1, '', '1', '{"ts": "2026-01-01T00:00:00Z"}', '{}'), ($1, '', '2', '{"ts": "2026-01-02T00:00:00Z"}', '{}'),
            ($1, 'inner', '3', '{"ts": "2026-01-03T00:00:00Z"}', '{}')`,
    [threadId],
  );
  const clock = { checkpointTs: "2026-01-02T00:00:00Z", body: "new" };
  expect(await findClock(scratch.database, threadId, 1)).toEqual(clock);
  // A run that has told nothing yet says nothing about the time.
  await end(runId);
  await accept(threadId, { isWatched: true });
  expect(await findClock(scratch.database, threadId, 2)).toEqual(clock);
});

test("threads that were followed and never made are forgotten after a day", async () => {
  const [made, old, young] = [randomUUID(), randomUUID(), randomUUID()];
  for (const threadId of [made, old, young]) await watchThread(scratch.database, threadId);
  await accept(made);
  await query(
    "update holdfast.watched_threads set created_at = now() - interval '25 hours' where thread_id <> $1",
    [young],
  );
  expect(
    await scratch.database.transaction((transaction) => deleteIdleWatches(transaction, 500)),
  ).toBeGreaterThan(0);
  const left = await query<{ thread_id: string }>(
    "select thread_id from holdfast.watched_threads where thread_id = any ($1)",
    [[made, old, young]],
  );
  expect(left.map(({ thread_id: id }) => id).toSorted()).toEqual([made, young].toSorted());
});
