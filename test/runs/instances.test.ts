// What is left of a server that died, and how a database that goes away is borne.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { insertRun } from "../../server/storage/runs.ts";
import { collect, startTestServer, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer();

const newThread = async (): Promise<string> => (await held.server.client.threads.create()).thread_id;
const states = (threadId: string): Promise<{ state: string }[]> =>
  held.scratch.database.query("select state from holdfast.runs where thread_id = $1", [threadId]);

/** A running run of a process that no longer exists, as a kill leaves it. */
async function leaveRun(threadId: string, isRegistered = true): Promise<string> {
  const runId = randomUUID();
  const workerId = randomUUID();
  if (isRegistered) {
    await held.scratch.database.query("insert into holdfast.instances (worker_id) values ($1)", [workerId]);
  }
  const { assistant_id: assistantId } = await held.server.client.assistants.get("keeping");
  const identity = { runId, threadId, assistantId, workerId };
  await insertRun(held.scratch.database, {
    ...identity,
    multitask: "reject",
    metadata: {},
    kwargs: {},
    threadMetadata: { graph_id: "keeping" },
  });
  return runId;
}

test("a run whose server died is ended, its stream says so, and its thread can be used again", async () => {
  const threadId = await newThread();
  const runId = await leaveRun(threadId);
  const frames = await collect(held.server.client.runs.joinStream(threadId, runId));
  expect(frames).toMatchObject([{ event: "error", id: "0", data: { error: "InstanceLost" } }]);
  expect((await held.server.client.runs.get(threadId, runId)).status).toBe("error");
  expect(await held.server.client.runs.wait(threadId, "keeping", { input: { value: 1 } })).toMatchObject({
    value: 1,
  });
});

test("a run is ended too when its server took its leave without it", async () => {
  const threadId = await newThread();
  const runId = await leaveRun(threadId, false);
  const frames = await collect(held.server.client.runs.joinStream(threadId, runId));
  expect(frames).toMatchObject([{ event: "error", data: { error: "InstanceLost" } }]);
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

test("a server that stops ends its runs and leaves no instance behind", async () => {
  const stopping = await startTestServer(held.scratch.url);
  const threadId = await newThread();
  const live = stopping.client.runs.stream(threadId, "endless", { input: {} });
  await live.next();
  await stopping.stop();
  expect(await states(threadId)).toEqual([{ state: "interrupted" }]);
  expect(await held.scratch.database.query("select 1 from holdfast.instances")).toHaveLength(1);
  await live.return(undefined).catch(() => undefined);
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

test("a thread deleted under its run stops the run", async () => {
  const threadId = await newThread();
  const live = held.server.client.runs.stream(threadId, "endless", { input: {} });
  await live.next();
  await expect(held.server.client.threads.delete(threadId)).rejects.toThrow("HTTP 409: Thread is busy");
  await held.scratch.database.query("delete from holdfast.threads where thread_id = $1", [threadId]);
  await expect(collect(live)).rejects.toThrow(/Run not found|terminated/);
  expect(await states(threadId)).toEqual([]);
});
