// What is swept away: threads whose time is over, rows of events that can be one, call-backs that ended long ago.
import { randomUUID } from "node:crypto";
import { HumanMessage } from "@langchain/core/messages";
import { END, MessagesValue, START, StateGraph, StateSchema } from "@langchain/langgraph";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { cancelRun } from "../../server/runs/cancel.ts";
import { startSweep, sweep } from "../../server/runs/sweep.ts";
import type { SweepOptions } from "../../server/runs/sweep.ts";
import { Checkpoints } from "../../server/storage/checkpoints/checkpoints.ts";
import { compactRun } from "../../server/storage/compact.ts";
import { listSegments } from "../../server/storage/events.ts";
import { setThreadTtl, ttlOf } from "../../server/storage/expiry.ts";
import type { Owner } from "../../server/storage/fence.ts";
import { finishRun } from "../../server/storage/finish.ts";
import { engineOf } from "../fixtures/queue-engine.ts";
import { createThreadRow } from "../support/checkpoints.ts";
import { openTestPool, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { runsOf, succeeded } from "../support/runs.ts";
import { until } from "../support/until.ts";

const ASSISTANT = "00000000-0000-4000-8000-000000000001";
const logged: string[] = [];
const failures: unknown[] = [];
const note = (event: string, fields?: object): void => {
  logged.push(event);
  if (event === "sweep.failed") failures.push(fields);
};
const log: SweepOptions["log"] = { debug: note, info: note, warn: note, error: note };

let scratch: TestDatabase;
let options: SweepOptions;

beforeAll(async () => {
  scratch = await testDatabase();
  options = { database: scratch.database, log };
  await scratch.database.query(
    "insert into holdfast.assistants (assistant_id, graph_id, name) values ($1, 'g', 'g')",
    [ASSISTANT],
  );
});
afterAll(() => scratch.close());
beforeEach(() => {
  logged.length = 0;
  failures.length = 0;
});

const query = <Row>(text: string, values: unknown[] = []): Promise<Row[]> =>
  scratch.database.query<Row>(text, values);

async function addThread(columns: Record<string, string> = {}): Promise<string> {
  const threadId = randomUUID();
  await createThreadRow(scratch.database, threadId);
  for (const [column, value] of Object.entries(columns))
    await query(`update holdfast.threads set ${column} = ${value} where thread_id = $1`, [threadId]);
  return threadId;
}

async function addRun(threadId: string, columns: Record<string, string> = {}): Promise<string> {
  const runId = randomUUID();
  await query(
    "insert into holdfast.runs (run_id, thread_id, assistant_id, state, kwargs) values ($1, $2, $3, 'success', '{}')",
    [runId, threadId, ASSISTANT],
  );
  for (const [column, value] of Object.entries(columns))
    await query(`update holdfast.runs set ${column} = ${value} where run_id = $1`, [runId]);
  return runId;
}

async function isThere(threadId: string): Promise<boolean> {
  return (await query("select 1 from holdfast.threads where thread_id = $1", [threadId])).length > 0;
}

const LONG_AGO = "now() - interval '1 day'";

test("a thread whose time is over goes, one whose time is not stays", async () => {
  const over = await addThread({ expires_at: "now()", ttl_minutes: "1", ttl_strategy: "'delete'" });
  const young = await addThread({ expires_at: "now() + interval '1 min'" });
  const eternal = await addThread();
  await sweep(options);
  expect(await Promise.all([over, young, eternal].map(isThere))).toEqual([false, true, true]);
});

test.each(["delayed", "blocked", "ready", "running"])("a thread with a %s run never goes", async (state) => {
  const threadId = await addThread({ expires_at: LONG_AGO });
  await addRun(threadId, { state: `'${state}'` });
  await sweep(options);
  expect(await isThere(threadId)).toBe(true);
});

test("a thread that keeps its latest state loses its past, once", async () => {
  const graph = new StateGraph(new StateSchema({ messages: MessagesValue }))
    .addNode("quiet", () => ({}))
    .addEdge(START, "quiet")
    .addEdge("quiet", END)
    .compile({ checkpointer: new Checkpoints(scratch.database) });
  const threadId = await addThread();
  const config = { configurable: { thread_id: threadId } };
  for (const text of ["a", "b"]) await graph.invoke({ messages: [new HumanMessage(text)] }, config);
  await query(
    "update holdfast.threads set expires_at = now(), ttl_minutes = 5, ttl_strategy = 'keep_latest' where thread_id = $1",
    [threadId],
  );
  await sweep(options);
  const left = await query("select 1 from public.checkpoints where thread_id = $1", [threadId]);
  expect(left).toHaveLength(1);
  expect((await graph.getState(config)).values["messages"]).toHaveLength(2);
  const [row] = await query("select expires_at, ttl_minutes from holdfast.threads where thread_id = $1", [
    threadId,
  ]);
  expect(row).toEqual({ expires_at: null, ttl_minutes: 5 });
});

test("a temporary thread goes when its time is over, or when no run will ever end on it", async () => {
  const ended = await addThread({ is_temporary: "true", expires_at: "now()" });
  const fresh = await addThread({ is_temporary: "true" });
  const leftOver = await addThread({ is_temporary: "true", created_at: LONG_AGO });
  const busy = await addThread({ is_temporary: "true", created_at: LONG_AGO, status: "'busy'" });
  await addRun(busy, { state: "'running'" });
  await sweep(options);
  expect(await Promise.all([ended, fresh, leftOver, busy].map(isThere))).toEqual([false, true, false, true]);
});

const endings: [string, (owner: Owner) => Promise<unknown>][] = [
  ["however long it took", (owner) => finishRun(scratch.database, owner, succeeded)],
  [
    "also when it was cancelled before it began",
    async (owner) => {
      await query(
        "update holdfast.runs set state = 'delayed', worker_id = null, attempt = 0 where run_id = $1",
        [owner.runId],
      );
      await cancelRun(engineOf(scratch.database, owner.workerId), owner, "interrupt", null);
    },
  ],
];

test.each(endings)(
  "a run without a thread of its own can be read for ten minutes after its end, %s",
  async (_, end) => {
    const owner = await (await runsOf(scratch.database)).newRun();
    const { threadId } = owner;
    const past = (change: string): Promise<unknown[]> =>
      query(`update holdfast.threads set ${change} where thread_id = $1`, [threadId]);
    await past("is_temporary = true, created_at = now() - interval '2 hours'");
    await end(owner);
    await sweep(options);
    expect(await isThere(threadId)).toBe(true);
    await past("expires_at = expires_at - interval '10 min'");
    await sweep(options);
    expect(await isThere(threadId)).toBe(false);
  },
);

test("a call-back that waits outlives its thread, one that ended does not", async () => {
  const threadId = await addThread({ is_temporary: "true", expires_at: "now()" });
  const [waiting, ended] = [await addRun(threadId), await addRun(threadId)];
  await addWebhook(waiting, "pending", "null");
  await addWebhook(ended, "delivered", "now()");
  await sweep(options);
  const left = await query<{ run_id: string }>(
    "select run_id from holdfast.webhooks where run_id = any ($1::uuid[])",
    [[waiting, ended]],
  );
  expect(left).toEqual([{ run_id: waiting }]);
});

test("call-backs that ended are kept for a while: delivered ones for a week, parked ones longer", async () => {
  const ids = await Promise.all([
    addWebhook(randomUUID(), "delivered", "now() - interval '8 days'"),
    addWebhook(randomUUID(), "delivered", "now() - interval '6 days'"),
    addWebhook(randomUUID(), "parked", "now() - interval '8 days'"),
    addWebhook(randomUUID(), "parked", "now() - interval '91 days'"),
  ]);
  await sweep(options);
  const left = await query<{ webhook_id: string }>(
    "select webhook_id from holdfast.webhooks where webhook_id = any ($1::uuid[])",
    [ids],
  );
  expect(new Set(left.map((row) => row.webhook_id))).toEqual(new Set([ids[1], ids[2]]));
});

async function addWebhook(runId: string, state: string, endedAt: string): Promise<string> {
  const id = randomUUID();
  await query(
    `insert into holdfast.webhooks (webhook_id, run_id, url, payload, state, ended_at) values ($1, $2, 'x', '{}', $3, ${endedAt})`,
    [id, runId, state],
  );
  return id;
}

test("when a thread expires is counted from when it is set, and from nothing while it is busy", async () => {
  const [idle, busy] = [await addThread(), await addThread({ status: "'busy'" })];
  for (const id of [idle, busy]) await setThreadTtl(scratch.database, id, ttlOf(10, null));
  const rows = await query<{ minutes: number | null; ttl_strategy: string }>(
    "select round(extract(epoch from expires_at - now()) / 60)::int as minutes, ttl_strategy from holdfast.threads where thread_id = any ($1) order by minutes",
    [[idle, busy]],
  );
  expect(rows).toEqual([
    { minutes: 10, ttl_strategy: "delete" },
    { minutes: null, ttl_strategy: "delete" },
  ]);
  await setThreadTtl(scratch.database, idle, ttlOf(undefined, null));
  const [row] = await query(
    "select expires_at, ttl_minutes, ttl_strategy from holdfast.threads where thread_id = $1",
    [idle],
  );
  expect(row).toEqual({ expires_at: null, ttl_minutes: null, ttl_strategy: null });
});

test("a ttl is minutes, or minutes and what happens then, or the server's own", () => {
  const own = { minutes: 9, strategy: "keep_latest" } as const;
  expect(ttlOf(1.5, own)).toEqual({ minutes: 1.5, strategy: "delete" });
  expect(ttlOf({ ttl: 2, strategy: "keep_latest" }, own)).toEqual({ minutes: 2, strategy: "keep_latest" });
  expect(ttlOf({ ttl: 2 }, own)).toEqual({ minutes: 2, strategy: "delete" });
  expect(ttlOf(null, own)).toEqual(own);
  expect(ttlOf(undefined, null)).toBeNull();
});

const plain = (seq: number): string => `e\tx\t${seq}`;

interface Rows {
  readonly seq: number;
  readonly last: number;
  readonly attempt: number;
  readonly body: string;
}

/** Rows as an engine leaves them: one or a few events each. */
async function addEvents(sizes: readonly number[], line: (seq: number) => string, startsAt = 0, attempt = 1) {
  const runId = await addRun(await addThread(), { segments: String(sizes.length), ended_at: LONG_AGO });
  await appendEvents(runId, sizes, { line, startsAt, attempt });
  return runId;
}

async function appendEvents(
  runId: string,
  sizes: readonly number[],
  { line, startsAt, attempt }: { line: (seq: number) => string; startsAt: number; attempt: number },
): Promise<void> {
  let seq = startsAt;
  for (const size of sizes) {
    const body = Array.from({ length: size }, (_, index) => line(seq + index)).join("\n");
    await query(
      "insert into holdfast.run_events (run_id, seq, last, attempt, body) values ($1, $2, $3, $4, $5)",
      [runId, seq, seq + size - 1, attempt, body],
    );
    seq += size;
  }
}

const rowsOf = (runId: string): Promise<Rows[]> =>
  query("select seq, last, attempt, body from holdfast.run_events where run_id = $1 order by seq", [runId]);

/** Every event with its number, whatever rows they stand in. */
const linesOf = (rows: readonly Rows[]): string[] =>
  rows.flatMap(({ seq, body }) => body.split("\n").map((line, index) => `${seq + index} ${line}`));

test("the events of an ended run become one row, with the same numbers and lines", async () => {
  const runId = await addEvents(
    [1, 3, 2, ...Array<number>(40).fill(1)],
    (seq) => `e\tvalues\t{"n":${seq},"t":"ä\\n"}`,
  );
  const before = await rowsOf(runId);
  await sweep(options);
  const after = await rowsOf(runId);
  expect(after).toHaveLength(1);
  expect(after[0]).toMatchObject({ seq: 0, last: 45, attempt: 1 });
  expect(linesOf(after)).toEqual(linesOf(before));
  const read = await listSegments(scratch.database, [{ runId, after: 20 }], { limit: 10, bytes: 1e6 });
  expect(read.map(({ seq, last }) => [seq, last])).toEqual([[0, 45]]);
});

test("rows become one in whatever order PostgreSQL comes to them", async () => {
  const runId = await addEvents([], plain);
  // The last ones in the first places, as in pages that were used before.
  for (let startsAt = 19; startsAt >= 0; startsAt -= 1)
    await appendEvents(runId, [1], { line: plain, startsAt, attempt: 1 });
  const before = linesOf(await rowsOf(runId));
  await scratch.database.transaction(async (transaction) => {
    for (const way of ["indexscan", "indexonlyscan", "bitmapscan"])
      await transaction.query(`set local enable_${way} = off`);
    await compactRun(transaction, { run_id: runId, data_key_id: null }, 1_000_000);
  });
  const after = await rowsOf(runId);
  expect(after).toHaveLength(1);
  expect(linesOf(after)).toEqual(before);
});

test.each([
  ["ended", (owner: Owner) => finishRun(scratch.database, { ...owner, attempt: 2 }, succeeded)],
  [
    "was cancelled before another went on with it",
    async (owner: Owner) => {
      await query("update holdfast.runs set state = 'ready', worker_id = null where run_id = $1", [
        owner.runId,
      ]);
      await cancelRun(engineOf(scratch.database, owner.workerId), owner, "interrupt", null);
    },
  ],
])("the many rows of a server that died become one after its run %s", async (_, end) => {
  const owner = await (await runsOf(scratch.database)).newRun();
  const { runId } = owner;
  await appendEvents(runId, Array<number>(20).fill(1), { line: plain, startsAt: 0, attempt: 1 });
  await query("update holdfast.runs set attempt = 2 where run_id = $1", [runId]);
  await end(owner);
  await query("update holdfast.runs set ended_at = now() - interval '1 day' where run_id = $1", [runId]);
  const before = linesOf(await rowsOf(runId));
  await sweep(options);
  const after = await rowsOf(runId);
  expect(after.map(({ seq, last }) => [seq, last])).toEqual([[0, 19]]);
  expect(linesOf(after)).toEqual(before);
});

test("a jump in the numbers and a new attempt stay borders", async () => {
  const runId = await addEvents(Array<number>(20).fill(1), plain);
  await appendEvents(runId, Array<number>(5).fill(2), { line: plain, startsAt: 20, attempt: 2 });
  await appendEvents(runId, Array<number>(5).fill(1), { line: plain, startsAt: 1000, attempt: 2 });
  const before = linesOf(await rowsOf(runId));
  await sweep(options);
  const after = await rowsOf(runId);
  expect(after.map(({ seq, last, attempt }) => [seq, last, attempt])).toEqual([
    [0, 19, 1],
    [20, 29, 2],
    [1000, 1004, 2],
  ]);
  expect(linesOf(after)).toEqual(before);
});

test("a large log becomes rows of a bounded size, and is not looked at again", async () => {
  const runId = await addEvents(
    Array<number>(2000).fill(1),
    (seq) => `e\tx\t"${String(seq).padStart(1000, "0")}"`,
  );
  const before = linesOf(await rowsOf(runId));
  await sweep(options);
  const after = await rowsOf(runId);
  expect(after.length).toBeGreaterThan(16);
  expect(after.length).toBeLessThan(40);
  expect(Math.max(...after.map(({ body }) => body.length))).toBeLessThan(70_000);
  expect(linesOf(after)).toEqual(before);
  logged.length = 0;
  await sweep(options);
  expect(logged).toEqual([]);
});

test("the events of a run that lives, or has just ended, are left alone", async () => {
  const [live, fresh] = [
    await addEvents(Array<number>(20).fill(1), plain),
    await addEvents(Array<number>(20).fill(1), plain),
  ];
  await query("update holdfast.runs set state = 'running' where run_id = $1", [live]);
  await query("update holdfast.runs set ended_at = now() where run_id = $1", [fresh]);
  await sweep(options);
  expect([(await rowsOf(live)).length, (await rowsOf(fresh)).length]).toEqual([20, 20]);
});

test("many sweeps at once do each piece of work once, and none gets in another's way", async () => {
  const threads = await Promise.all(Array.from({ length: 60 }, () => addThread({ expires_at: "now()" })));
  const runs = await Promise.all(
    Array.from({ length: 8 }, () => addEvents(Array<number>(30).fill(1), plain)),
  );
  const pools = [0, 1, 2].map(() => openTestPool(scratch.url));
  const sweeps = pools.map((database) => startSweep({ database, log, everyMs: 20 }));
  await until(async () => !(await Promise.all(threads.map(isThere))).includes(true), "the threads to go");
  await until(
    async () => (await Promise.all(runs.map(rowsOf))).every((rows) => rows.length === 1),
    "the rows",
  );
  await Promise.all(sweeps.map((one) => one.stop()));
  await Promise.all(pools.map((pool) => pool.close()));
  expect(failures).toEqual([]);
});

test("items of the store go when their time is over, however many there are", async () => {
  await query(
    `insert into holdfast.store_items (path, key, value, ttl_minutes, expires_at)
     select '.swept.', n::text, '{}', 1, now() + (n - 1200) * interval '1 min' from generate_series(1, 1201) as n`,
  );
  await sweep(options);
  expect(await query("select key from holdfast.store_items where path = '.swept.'")).toEqual([
    { key: "1201" },
  ]);
  expect(logged).toContain("store.expired");
});
