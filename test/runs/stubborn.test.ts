// Runs end, threads come to rest and servers stop although something is in the way: a graph's own code, a row that
// somebody holds, a database that was away, somebody else who cancels too.
import { Client } from "@langchain/langgraph-sdk";
import type { Run } from "@langchain/langgraph-sdk";
import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { holding, letGo, WAITING, waitsFor } from "../support/locks.ts";
import { startTestServer, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const HOLDFAST_CONFIG = "test/fixtures/stubborn.langgraph.json";
const held = useServer({ HOLDFAST_CONFIG });

const query = <Row>(text: string, values: unknown[] = []): Promise<Row[]> =>
  held.scratch.database.query<Row>(text, values);

interface RunRow {
  readonly state: string;
  readonly attempt: number;
  readonly handovers: number;
  readonly error: { error: string } | null;
}

const runOf = async ({ run_id: runId }: Pick<Run, "run_id">): Promise<RunRow | undefined> =>
  (
    await query<RunRow>("select state, attempt, handovers, error from holdfast.runs where run_id = $1", [
      runId,
    ])
  )[0];

const statusOf = async (threadId: string): Promise<string | undefined> =>
  (await query<{ status: string }>("select status from holdfast.threads where thread_id = $1", [threadId]))[0]
    ?.status;

const newThread = async (ttl?: number): Promise<string> =>
  (await held.server.client.threads.create(ttl === undefined ? {} : { ttl })).thread_id;

const create = (threadId: string, graph: string, more: object = {}): Promise<Run> =>
  held.server.client.runs.create(threadId, graph, { input: {}, ...more });

const reaches = (run: Run, state: string, withinMs?: number): Promise<void> =>
  until(async () => (await runOf(run))?.state === state, `the run to be ${state}`, withinMs);

/** So far that its graph has left a checkpoint. */
async function begun(threadId: string, graph: string): Promise<Run> {
  const run = await create(threadId, graph);
  const points = "select from public.checkpoints where thread_id = $1 and metadata ->> 'run_id' = $2";
  await until(async () => (await query(points, [threadId, run.run_id])).length > 1, "its first node");
  return run;
}

/** Minutes that are left of a thread; null: it stays. */
async function timeLeft(threadId: string): Promise<number | null | undefined> {
  const minutes =
    "select round(extract(epoch from expires_at - now()) / 60)::int as left from holdfast.threads where thread_id = $1";
  return (await query<{ left: number | null }>(minutes, [threadId]))[0]?.left;
}

/** As a reaper leaves it that took the server for dead. */
const takeAway = (run: Run): Promise<unknown> =>
  query("update holdfast.runs set state = 'ready', worker_id = null, run_at = now() where run_id = $1", [
    run.run_id,
  ]);

test("a run is rolled back although its graph cannot be made to tell what the thread is then", async () => {
  const threadId = await newThread();
  const first = await begun(threadId, "contextual");
  await held.server.client.runs.cancel(threadId, first.run_id, true, "interrupt");
  const second = await begun(threadId, "contextual");
  await held.server.client.runs.cancel(threadId, second.run_id, true, "rollback");
  expect(await runOf(second)).toBeUndefined();
  expect(await statusOf(threadId)).toBe("idle");
});

test.each(["interrupt", "rollback"] as const)(
  "a run that waits for another try is cancelled (%s) although its graph cannot be made",
  async (action) => {
    const threadId = await newThread();
    const run = await create(threadId, "contextual", { afterSeconds: 3600 });
    const other = await create(await newThread(), "contextual");
    await held.server.client.runs.cancel(other.thread_id, other.run_id, true);
    // A checkpoint of an earlier run says with what the graph is to be made.
    await query("update holdfast.runs set attempt = 1 where run_id = $1", [run.run_id]);
    await query("update public.checkpoints set thread_id = $1 where thread_id = $2", [
      threadId,
      other.thread_id,
    ]);
    await held.server.client.runs.cancel(threadId, run.run_id, false, action);
    expect((await runOf(run))?.state).toBe(action === "interrupt" ? "interrupted" : undefined);
    expect(await statusOf(threadId)).toBe("idle");
  },
);

test("a run whose graph is never made can be cancelled, runs out of time, and keeps no server", async () => {
  const cancelled = await create(await newThread(), "hanging");
  await reaches(cancelled, "running");
  await held.server.client.runs.cancel(cancelled.thread_id, cancelled.run_id, false, "interrupt");
  await reaches(cancelled, "interrupted");

  const settings = { HOLDFAST_CONFIG, HOLDFAST_RUN_TIMEOUT_MS: "1000" };
  const hurried = await startTestServer(held.scratch.url, settings);
  const { thread_id: threadId } = await hurried.client.threads.create();
  const late = await hurried.client.runs.create(threadId, "hanging", { input: {} });
  await reaches(late, "timeout");
  await hurried.stop();

  const stopping = await startTestServer(held.scratch.url, { HOLDFAST_CONFIG });
  const left = await stopping.client.runs.create(threadId, "hanging", { input: {} });
  await reaches(left, "running");
  await stopping.stop();
  expect(await runOf(left)).toMatchObject({ handovers: 1 });
  await held.server.client.runs.cancel(threadId, left.run_id, true);
}, 30_000);

test("a run that is accepted while its server stops is handed over too", async () => {
  const stopping = await startTestServer(held.scratch.url, { HOLDFAST_CONFIG });
  const threadId = await newThread();
  const thread = await holding(
    held.scratch.database,
    "select from holdfast.threads where thread_id = $1 for update",
    [threadId],
  );
  const creating = stopping.client.runs.create(threadId, "waiting", { input: {} });
  await waitsFor(held.scratch.database, "/* insertRun */");
  const stopped = stopping.stop();
  await letGo(thread);
  await creating.catch(() => undefined); // its connection may be cut before the answer
  await stopped;
  const [run] = await held.server.client.runs.list(threadId);
  if (!run) throw new Error("The run was not accepted.");
  expect(await runOf(run)).toMatchObject({ handovers: 1 });
  await held.server.client.runs.cancel(threadId, run.run_id, true);
}, 30_000);

test("a connection that breaks during a takeover does not end the run", async () => {
  const threadId = await newThread();
  const run = await begun(threadId, "waiting");
  const writes = await holding(held.scratch.database, "lock table public.checkpoint_writes in share mode");
  await takeAway(run);
  await waitsFor(held.scratch.database, "/* settleAnswers */");
  await query(`select pg_terminate_backend(pid) ${WAITING}`, ["/* settleAnswers */"]);
  await letGo(writes);
  // Driven again, the graph makes its next checkpoint or stands in its node; ended, the run would take no cancel.
  await until(async () => (await runOf(run))?.attempt === 2, "the takeover");
  await held.server.client.runs.cancel(threadId, run.run_id, true);
  expect((await runOf(run))?.state).toBe("interrupted");
});

test("a run that only the database has failed goes on later, until its time is over", async () => {
  const once = await create(await newThread(), "awayOnce");
  const always = await create(await newThread(), "awayAlways");
  await reaches(once, "success", 15_000);
  expect(await runOf(once)).toMatchObject({ attempt: 2, error: null });
  await until(async () => Number((await runOf(always))?.attempt) > 1, "a second attempt", 30_000);
  await held.scratch.database.query("update holdfast.runs set deadline = now() where run_id = $1", [
    always.run_id,
  ]);
  await reaches(always, "timeout", 40_000);
}, 90_000);

test("a server that stops hands over what waits there for the database, and that is no failed attempt", async () => {
  const scratch = await testDatabase();
  const server = startHoldfast(["serve"], {
    DATABASE_URL: scratch.url,
    PORT: "0",
    HOLDFAST_CONFIG,
    HOLDFAST_LOG_LEVEL: "warn",
  });
  await server.says("Ready on ");
  const [apiUrl = ""] = /http:\S+/.exec(server.out()) ?? [];
  await new Client({ apiUrl }).runs.create(null, "awayAlways", { input: {} });
  await until(() => server.err().includes("run.abandoned"), "the run to rest");
  server.process.kill("SIGTERM");
  await server.ended;
  expect(await scratch.database.query("select state, attempt, handovers from holdfast.runs")).toEqual([
    { state: "ready", attempt: 1, handovers: 1 },
  ]);
  await scratch.close();
});

test("a thread whose waiting run is cancelled is kept no longer than it says", async () => {
  for (const action of ["interrupt", "rollback"] as const) {
    const threadId = await newThread(60);
    const run = await create(threadId, "waiting", { afterSeconds: 3600 });
    expect(await timeLeft(threadId)).toBeNull();
    await held.server.client.runs.cancel(threadId, run.run_id, false, action);
    expect(await timeLeft(threadId)).toBe(60);
    const alone = await held.server.client.runs.create(null, "waiting", { input: {}, afterSeconds: 3600 });
    await held.server.client.runs.cancel(alone.thread_id, alone.run_id, false, action);
    expect(await timeLeft(alone.thread_id)).toBe(10);
  }
  const eternal = await newThread();
  const run = await create(eternal, "waiting", { afterSeconds: 3600 });
  await held.server.client.runs.cancel(eternal, run.run_id);
  expect(await timeLeft(eternal)).toBeNull();
});

test("whoever cancels all runs in a state cancels them although one goes meanwhile", async () => {
  const runs: Run[] = [];
  for (let count = 0; count < 3; count += 1)
    runs.push(await create(await newThread(), "waiting", { afterSeconds: 3600 }));
  const [first, second, third] = runs;
  if (!first || !second || !third) throw new Error("There are three.");
  const thread = await holding(
    held.scratch.database,
    "select from holdfast.threads where thread_id = $1 for update",
    [first.thread_id],
  );
  const cancelling = fetch(`${held.server.url}/runs/cancel`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ status: "all" }),
  });
  await waitsFor(held.scratch.database, "/* lockThreads */");
  await held.server.client.runs.cancel(second.thread_id, second.run_id, false, "rollback");
  await letGo(thread);
  expect((await cancelling).status).toBe(204);
  expect([(await runOf(first))?.state, (await runOf(third))?.state]).toEqual(["interrupted", "interrupted"]);
});
