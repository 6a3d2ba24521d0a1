// What is left of a server that died, and how a database that goes away is borne.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { isDeepStrictEqual } from "node:util";
import { expect, test, vi } from "vitest";
import { insertRun } from "../../server/storage/runs.ts";
import { testDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { holding, letGo, waitsFor } from "../support/locks.ts";
import { collect, startTestServer, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer();

const newThread = async (): Promise<string> => (await held.server.client.threads.create()).thread_id;
type Served = Pick<typeof held, "server" | "scratch">;
const states = (threadId: string): Promise<{ state: string }[]> =>
  held.scratch.database.query("select state from holdfast.runs where thread_id = $1", [threadId]);

/** A running run of a process that no longer exists, as a kill leaves it. */
async function leaveRun(
  threadId: string,
  left: {
    isRegistered?: boolean;
    attempt?: number;
    graphId?: string;
    silence?: string;
    cancel?: "interrupt" | "rollback";
  } = {},
  { server, scratch }: Served = held,
): Promise<string> {
  const runId = randomUUID();
  const workerId = randomUUID();
  const { isRegistered = true, attempt = 1, graphId = "keeping", silence = "3 s" } = left;
  if (isRegistered) {
    await scratch.database.query(
      "insert into holdfast.instances (worker_id, beat_at) values ($1, now() - $2::interval)",
      [workerId, silence],
    );
  }
  const { assistant_id: assistantId } = await server.client.assistants.get(graphId);
  const graph = { graph_id: graphId };
  await insertRun(scratch.database, {
    runId,
    threadId,
    assistantId,
    workerId,
    state: "running",
    multitask: "reject",
    timeoutMs: 60_000,
    metadata: graph,
    threadMetadata: graph,
    kwargs: {
      input: { value: "kept" },
      command: null,
      context: {},
      stream_mode: ["values"],
      stream_subgraphs: false,
      interrupt_before: null,
      interrupt_after: null,
      durability: "sync",
      config: { configurable: { thread_id: threadId, run_id: runId } },
    },
  });
  await scratch.database.query("update holdfast.runs set attempt = $2, cancel = $3 where run_id = $1", [
    runId,
    attempt,
    left.cancel,
  ]);
  return runId;
}

test("a run whose server died is taken over with the same input, and its thread can be used again", async () => {
  const threadId = await newThread();
  const runId = await leaveRun(threadId);
  const frames = await collect(held.server.client.runs.joinStream(threadId, runId));
  expect(frames[0]).toMatchObject({ event: "metadata", id: "0", data: { run_id: runId, attempt: 2 } });
  expect(frames.at(-1)).toMatchObject({ event: "values", data: { value: "kept", count: 1 } });
  expect((await held.server.client.runs.get(threadId, runId)).status).toBe("success");
  expect(await held.server.client.runs.wait(threadId, "keeping", { input: { value: 1 } })).toMatchObject({
    value: 1,
  });
});

test("a run is taken over too when its server took its leave without it", async () => {
  const threadId = await newThread();
  const runId = await leaveRun(threadId, { isRegistered: false });
  const frames = await collect(held.server.client.runs.joinStream(threadId, runId));
  expect(frames.at(-1)).toMatchObject({ event: "values", data: { value: "kept" } });
});

test.each(["interrupt", "rollback"] as const)(
  "a run whose server died when it was to be stopped (%s) is stopped by the next one before its graph begins",
  async (cancel) => {
    const threadId = await newThread();
    await leaveRun(threadId, { cancel, silence: "0 s" });
    const over = cancel === "interrupt" ? [{ state: "interrupted" }] : [];
    await until(async () => isDeepStrictEqual(await states(threadId), over), "its end");
    expect((await held.server.client.threads.get(threadId)).status).toBe("idle");
    expect((await held.server.client.threads.getState(threadId)).values).toEqual({});
  },
);

test("a run that has died with too many servers ends in error, and can be tried again", async () => {
  const threadId = await newThread();
  const last = await leaveRun(threadId, { attempt: 2 });
  await held.server.client.runs.join(threadId, last);
  expect(await states(threadId)).toEqual([{ state: "success" }]);
  const runId = await leaveRun(threadId, { attempt: 3 });
  const frames = await collect(held.server.client.runs.joinStream(threadId, runId));
  const message = `Run ${runId} exceeded max attempts`;
  expect(frames).toMatchObject([
    { event: "metadata", data: { attempt: 4 } },
    { event: "error", data: { error: "MaxAttemptsExceeded", message } },
  ]);
  expect((await held.server.client.threads.get(threadId)).status).toBe("error");
  const url = `${held.server.url}/threads/${threadId}/runs/${runId}/retry`;
  expect((await fetch(url, { method: "POST" })).status).toBe(200);
  const again = await collect(held.server.client.runs.joinStream(threadId, runId));
  expect(again.map(({ event }) => event)).toEqual([
    "metadata",
    "error",
    "metadata",
    "values",
    "values",
    "values",
  ]);
  expect((await held.server.client.runs.get(threadId, runId)).status).toBe("success");
  const refused = await fetch(url, { method: "POST" });
  expect([refused.status, refused.headers.get("x-holdfast-code")]).toEqual([409, "run_not_failed"]);
});

test("a run whose server died goes on before those that wait for their first slot", async () => {
  const scratch = await testDatabase();
  const server = await startTestServer(scratch.url, { HOLDFAST_SLOTS: "1" });
  const { runs, threads } = server.client;
  const create = async (assistant: string): Promise<[string, string]> => {
    const { thread_id: threadId } = await threads.create();
    return [threadId, (await runs.create(threadId, assistant, { input: {} })).run_id];
  };
  try {
    const [busy, live] = await create("endless");
    const { thread_id: threadId } = await threads.create();
    const left = await leaveRun(threadId, {}, { server, scratch });
    const waiting = [await create("keeping"), await create("keeping")];
    const stateOf = async (): Promise<unknown> =>
      (await scratch.database.query("select state from holdfast.runs where run_id = $1", [left]))[0];
    await until(async () => isDeepStrictEqual(await stateOf(), { state: "ready" }), "the reaper");
    await runs.cancel(busy, live);
    await Promise.all(waiting.map(([thread, run]) => runs.join(thread, run)));
    const ended = await scratch.database.query(
      "select run_id from holdfast.runs where state = 'success' order by ended_at",
    );
    expect(ended).toEqual([left, ...waiting.map(([, run]) => run)].map((id) => ({ run_id: id })));
  } finally {
    await server.stop();
    await scratch.close();
  }
});

test("a run that is just being taken over has its slot already", async () => {
  const scratch = await testDatabase();
  const server = await startTestServer(scratch.url, { HOLDFAST_SLOTS: "1" });
  const { runs, threads } = server.client;
  try {
    const [one, other] = [await threads.create(), await threads.create()];
    const left = await leaveRun(one.thread_id, { graphId: "endless", silence: "0 s" }, { server, scratch });
    const events = await holding(scratch.database, "lock table holdfast.run_events in access exclusive mode");
    await waitsFor(scratch.database, "/* findLastEvent */");
    const creating = runs.create(other.thread_id, "endless", { input: {} });
    await waitsFor(scratch.database, "/* insertRun */");
    await letGo(events);
    await creating;
    const rows = await scratch.database.query("select run_id, state from holdfast.runs order by ord");
    expect(rows).toMatchObject([{ run_id: left, state: "running" }, { state: "ready" }]);
  } finally {
    await server.stop();
    await scratch.close();
  }
});

test("runs that wait for a slot begin when one is free, also while heartbeats stand still", async () => {
  const scratch = await testDatabase();
  const server = await startTestServer(scratch.url, { HOLDFAST_SLOTS: "1" });
  const { runs, threads } = server.client;
  try {
    const asked = await Promise.all([0, 1, 2, 3].map(() => threads.create()));
    const beats = await holding(scratch.database, "lock table holdfast.instances in exclusive mode");
    await waitsFor(scratch.database, "/* beat */");
    const made = await Promise.all(
      asked.map(({ thread_id: thread }) => runs.create(thread, "keeping", { input: {} })),
    );
    await Promise.all(made.map(({ thread_id: thread, run_id: run }) => runs.join(thread, run)));
    await letGo(beats);
    const ended = await scratch.database.query("select from holdfast.runs where state = 'success'");
    expect(ended).toHaveLength(4);
  } finally {
    await server.stop();
    await scratch.close();
  }
});

test("a run that is accepted while the last slot becomes free begins, also while heartbeats stand still", async () => {
  const scratch = await testDatabase();
  const server = await startTestServer(scratch.url, { HOLDFAST_SLOTS: "1" });
  const { runs, threads } = server.client;
  try {
    const [one, other] = [await threads.create(), await threads.create()];
    const live = await runs.create(one.thread_id, "endless", { input: {} });
    const beats = await holding(scratch.database, "lock table holdfast.instances in exclusive mode");
    await waitsFor(scratch.database, "/* beat */");
    const row = "select from holdfast.threads where thread_id = $1 for update";
    const thread = await holding(scratch.database, row, [other.thread_id]);
    const creating = runs.create(other.thread_id, "keeping", { input: {} });
    await waitsFor(scratch.database, "/* insertRun */");
    await runs.cancel(one.thread_id, live.run_id, true);
    await letGo(thread);
    const { run_id: next } = await creating;
    expect(await runs.join(other.thread_id, next)).toMatchObject({ count: 1 });
    await letGo(beats);
  } finally {
    await server.stop();
    await scratch.close();
  }
});

test("the runs of a server that lives are left alone by another", async () => {
  const other = await startTestServer(held.scratch.url);
  const threadId = await newThread();
  try {
    const leave = new AbortController();
    const options = { input: {}, onDisconnect: "cancel" as const, signal: leave.signal };
    const live = held.server.client.runs.stream(threadId, "endless", options);
    await live.next();
    await leaveRun(await newThread());
    await until(
      async () => (await held.scratch.database.query("select 1 from holdfast.instances")).length === 2,
      "the reaper",
    );
    expect(await states(threadId)).toEqual([{ state: "running" }]);
    leave.abort();
    await until(async () => (await states(threadId))[0]?.state === "interrupted", "the run to be cancelled");
    await live.next().catch(() => undefined);
  } finally {
    await other.stop();
  }
});

test("when the database was away, a server takes no other for dead before that could come back as well", async () => {
  const { database } = held.scratch;
  const threadId = await newThread();
  const runId = await leaveRun(threadId, { silence: "0 s" });
  const [left] = await database.query<{ worker_id: string }>(
    `update holdfast.instances i set has_lock = false from holdfast.runs r
      where r.run_id = $1 and i.worker_id = r.worker_id returning i.worker_id`,
    [runId],
  );
  const away = `with aged as (update holdfast.instances set beat_at = now() - interval '20 s' where worker_id = $1)
    select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`;
  await database.query(away, [left?.worker_id]);
  // Its first heartbeat would see to the dead, and its second tells that it has.
  for (let beats = 0; beats < 2; beats += 1) {
    const [{ at } = { at: 0 }] = await database.query<{ at: unknown }>(
      "select clock_timestamp()::text as at",
    );
    const beaten = "select from holdfast.instances where worker_id <> $1 and beat_at > $2::timestamptz";
    const hasBeaten = async (): Promise<boolean> =>
      (await database.query(beaten, [left?.worker_id, at])).length > 0;
    await until(hasBeaten, "a heartbeat");
  }
  expect(await states(threadId)).toEqual([{ state: "running" }]);
  await held.server.client.runs.join(threadId, runId); // nobody has come back
});

test.each([
  ["others have forgotten its server", ""],
  ["its server has lost its session and others have forgotten it", "datname = current_database() and"],
])("a run goes on, and does not fail, when %s", async (_what, closes) => {
  const threadId = await newThread();
  const { client } = held.server;
  const { run_id: runId } = await client.runs.create(threadId, "endless", { input: {} });
  await until(async () => (await states(threadId))[0]?.state === "running", "the run to begin");
  await held.scratch.database.query(
    `with forgotten as (delete from holdfast.instances)
     select pg_terminate_backend(pid) from pg_stat_activity where ${closes || "false and"} pid <> pg_backend_pid()`,
  );
  const again = "select from holdfast.runs where run_id = $1 and state = 'running' and attempt = 2";
  await until(
    async () => (await held.scratch.database.query(again, [runId])).length === 1,
    "its second attempt",
  );
  await client.runs.cancel(threadId, runId, true);
  expect(await states(threadId)).toEqual([{ state: "interrupted" }]);
});

test("a run is stopped although nobody told its server that it is to be", async () => {
  const threadId = await newThread();
  const { run_id: runId } = await held.server.client.runs.create(threadId, "endless", { input: {} });
  await until(async () => (await states(threadId))[0]?.state === "running", "the run to begin");
  await held.scratch.database.query("update holdfast.runs set cancel = 'interrupt' where run_id = $1", [
    runId,
  ]);
  await until(async () => (await states(threadId))[0]?.state !== "running", "its end");
  expect(await states(threadId)).toEqual([{ state: "interrupted" }]);
});

test("a server that stops hands its runs over and leaves no instance behind", async () => {
  const stopping = await startTestServer(held.scratch.url);
  const threadId = await newThread();
  const live = stopping.client.runs.stream(threadId, "endless", { input: {} });
  await live.next();
  await stopping.stop();
  expect(await held.scratch.database.query("select 1 from holdfast.instances")).toHaveLength(1);
  const isHere = async (): Promise<boolean> => (await states(threadId))[0]?.state === "running";
  await until(isHere, "the other server to take the run", 1500);
  const [run] = await held.server.client.runs.list(threadId);
  await held.server.client.runs.cancel(threadId, run?.run_id ?? "", true);
  expect(await states(threadId)).toEqual([{ state: "interrupted" }]);
  await live.return(undefined).catch(() => undefined);
});

test("a server that stops in order warns of nothing", async () => {
  const config = { HOLDFAST_CONFIG: "test/fixtures/langgraph.json", HOLDFAST_LOG_LEVEL: "warn" };
  const server = startHoldfast(["work"], { ...config, DATABASE_URL: held.scratch.url });
  await server.says("Ready to work");
  server.process.kill("SIGTERM");
  expect(await server.ended).toMatchObject({ code: 0, err: "" });
});

test("a run outlives the loss of every connection to Postgres, and its thread stays usable", async () => {
  const threadId = await newThread();
  const leave = new AbortController();
  const options = { input: {}, onDisconnect: "cancel" as const, signal: leave.signal };
  const live = held.server.client.runs.stream(threadId, "endless", options);
  await live.next();
  await held.scratch.database.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
  );
  await until(
    async () => (await held.server.client.threads.get(threadId).catch(() => null)) !== null,
    "a new connection",
  );
  expect(await states(threadId)).toEqual([{ state: "running" }]);
  leave.abort();
  await until(async () => (await states(threadId))[0]?.state === "interrupted", "the run to be cancelled");
  await live.next().catch(() => undefined);
  expect(await held.server.client.runs.wait(threadId, "keeping", { input: { value: 3 } })).toMatchObject({
    value: 3,
  });
});

test("while the database is away it is tried for often, and told seldom", async () => {
  const { hostname, port: target } = new URL(held.scratch.url);
  const passing = new Set<Socket>();
  let [isAway, tries] = [false, 0];
  const listener = createServer((client) => {
    if (isAway) {
      tries += 1;
      client.destroy();
      return;
    }
    const server = connect({ host: hostname, port: Number(target || 5432) });
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      passing.add(from.on("error", () => to.destroy()).on("close", () => to.destroy()));
      from.pipe(to);
    }
  }).listen(0, "127.0.0.1");
  await once(listener, "listening");
  const url = new URL(held.scratch.url);
  [url.hostname, url.port] = ["127.0.0.1", String((listener.address() as AddressInfo).port)];
  const config = { HOLDFAST_CONFIG: "test/fixtures/langgraph.json", HOLDFAST_LOG_LEVEL: "warn" };
  const server = startHoldfast(["work"], { ...config, DATABASE_URL: url.href });
  await server.says("Ready to work");
  isAway = true;
  for (const socket of passing) socket.destroy();
  await until(() => tries > 60, "sixty tries", 20_000);
  const told = server.err().match(/heartbeat\.failed/g) ?? [];
  isAway = false;
  const { database } = held.scratch;
  const isBack = async (): Promise<boolean> => {
    const rows = await database.query(
      "select from holdfast.instances where beat_at > now() - interval '1 s'",
    );
    return rows.length === 2;
  };
  await until(isBack, "it to be back");
  server.process.kill("SIGTERM");
  expect((await server.ended).code).toBe(0);
  listener.close();
  expect(told.length).toBeGreaterThan(0);
  expect(told.length).toBeLessThan(tries / 4);
}, 60_000);

test("after the clock of the database was set nobody is taken for dead who has had no time to beat by it", async () => {
  const threadId = await newThread();
  const real = performance.now.bind(performance);
  // As seen from here the database is three seconds ahead at once, and the last heartbeat of the other one is old by it.
  vi.spyOn(performance, "now").mockImplementation(() => real() - 3000);
  const before = real();
  try {
    await leaveRun(threadId, { silence: "60 s" });
    const isTaken = async (): Promise<boolean> => (await states(threadId))[0]?.state === "success";
    await until(isTaken, "it to be taken for dead", 15_000);
    expect(real() - before).toBeGreaterThan(2900);
  } finally {
    vi.restoreAllMocks();
  }
});

test("a thread deleted under its run stops the run", async () => {
  const threadId = await newThread();
  const live = held.server.client.runs.stream(threadId, "endless", { input: {} });
  await live.next();
  await live.next(); // the first node's values
  await expect(held.server.client.threads.delete(threadId)).rejects.toThrow("HTTP 409: Thread is busy");
  await held.scratch.database.query("delete from holdfast.threads where thread_id = $1", [threadId]);
  expect(await collect(live)).toEqual([]);
  expect(await states(threadId)).toEqual([]);
});

// The last one here: what was to come within a second comes late when its time is as before.
test("a server whose every heartbeat is late takes over the runs of the dead all the same, in the end", async () => {
  const SLOWNESS = 30;
  const [real, from] = [performance.now.bind(performance), performance.now()];
  // So it is for one that comes to beat once in eight seconds or more.
  vi.spyOn(performance, "now").mockImplementation(() => from + (real() - from) * SLOWNESS);
  const threadId = await newThread();
  const runId = await leaveRun(threadId);
  const hasEnded = async (): Promise<boolean> => (await states(threadId))[0]?.state !== "running";
  await until(hasEnded, "the takeover", 20_000 * SLOWNESS);
  vi.restoreAllMocks();
  await held.server.client.runs.join(threadId, runId);
  expect(await states(threadId)).toEqual([{ state: "success" }]);
});
