// What goes from a thread is never what others stand on: a rollback, a prune, a deleted run, the end of a thread's time.
import { randomUUID } from "node:crypto";
import { expect, test, vi } from "vitest";
import { sweep } from "../../server/runs/sweep.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({
  HOLDFAST_CONFIG: "test/fixtures/ground.langgraph.json",
  HOLDFAST_LOG_LEVEL: "warn",
});

const newThread = async (): Promise<string> => (await held.server.client.threads.create()).thread_id;

const post = (path: string, body: object = {}): Promise<Response> =>
  fetch(`${held.server.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

const prune = (threadId: string): Promise<Response> =>
  post("/threads/prune", { thread_ids: [threadId], strategy: "keep_latest" });

const message = (id: string, fails = false): Record<string, unknown> => ({
  messages: [{ type: "human", content: "", id }],
  fails,
});

async function idsOf(threadId: string): Promise<string[]> {
  const { values } = await held.server.client.threads.getState<{ messages: { id: string }[] }>(threadId);
  return values.messages.map(({ id }) => id);
}

/** A failed run, then something on top of what it has left, then the run again until it waits. */
async function triedAgain(
  threadId: string,
  onTop: () => Promise<unknown>,
): Promise<{ runId: string; ids: string[] }> {
  const { client } = held.server;
  await client.runs.wait(threadId, "deltas", { input: message("u1") });
  const { run_id: runId } = await client.runs.create(threadId, "deltas", { input: message("u2", true) });
  await until(async () => (await client.runs.get(threadId, runId)).status === "error", "the failure");
  await onTop();
  const ids = await idsOf(threadId);
  expect((await post(`/threads/${threadId}/runs/${runId}/retry`)).status).toBe(200);
  const hasBegun = async (): Promise<boolean> => {
    const { next, values } = await client.threads.getState<{ fails: boolean }>(threadId);
    return values.fails && next[0] === "answer";
  };
  await until(hasBegun, "its second try");
  return { runId, ids };
}

test("a run that was tried again on top of others is rolled back, and they keep all they stand on", async () => {
  const threadId = await newThread();
  const { client } = held.server;
  const another = (): Promise<unknown> => client.runs.wait(threadId, "deltas", { input: message("u3") });
  const { runId, ids } = await triedAgain(threadId, another);
  expect(ids).toEqual(["u1", "p1", "a2", "u2", "p4", "u3", "p6", "a7"]);
  await client.runs.cancel(threadId, runId, true, "rollback");
  expect(await idsOf(threadId)).toEqual(ids);
});

test("a message that rolls such a run back goes on from what was there before it", async () => {
  const threadId = await newThread();
  const { client } = held.server;
  const note = (): Promise<unknown> =>
    client.threads.updateState(threadId, { values: message("note"), asNode: "answer" });
  const { ids } = await triedAgain(threadId, note);
  await client.runs.wait(threadId, "deltas", { input: message("u3"), multitaskStrategy: "rollback" });
  expect((await idsOf(threadId)).slice(0, ids.length)).toEqual(ids);
  expect(await idsOf(threadId)).toHaveLength(ids.length + 3);
});

test("an answer that is rolled back leaves those who went on from its first try the messages that it led to", async () => {
  const threadId = await newThread();
  const { client } = held.server;
  await client.runs.wait(threadId, "deltas", { input: { ...message("u1", true), asks: true } });
  const answer = await client.runs.create(threadId, "deltas", { command: { resume: "yes" } });
  const statusOf = async (runId: string): Promise<string> => (await client.runs.get(threadId, runId)).status;
  await until(async () => (await statusOf(answer.run_id)) === "error", "the failure");
  const live = await client.runs.create(threadId, "deltas", { input: message("u3", true) });
  await until(async () => (await idsOf(threadId)).length === 4, "its first node");
  const before = await idsOf(threadId);
  expect(before).toEqual(["u1", "p1", "u3", "p3"]);
  expect((await post(`/threads/${threadId}/runs/${answer.run_id}/retry`)).status).toBe(200);
  await client.runs.cancel(threadId, answer.run_id, false, "rollback");
  await client.runs.cancel(threadId, live.run_id, true);
  expect(await idsOf(threadId)).toEqual(before);
});

test("a checkpoint that somebody went on from otherwise keeps its values when its run is rolled back", async () => {
  const threadId = await newThread();
  const { client } = held.server;
  let ground: string | null | undefined;
  const elsewhere = async (): Promise<void> => {
    const history = await client.threads.getHistory<{ fails: boolean }>(threadId);
    const at = history.find(({ next, values }) => next[0] === "prepare" && values.fails);
    ground = at?.checkpoint.checkpoint_id;
    const change = { values: { fails: false }, checkpointId: ground ?? "", asNode: "answer" };
    await client.threads.updateState(threadId, change);
  };
  const { runId } = await triedAgain(threadId, elsewhere);
  await client.runs.cancel(threadId, runId, true, "rollback");
  const { values } = await client.threads.getState<{ fails: boolean }>(threadId, String(ground));
  expect(values.fails).toBe(true);
});

interface Logged {
  readonly log: string[];
}

/** A thread with two finished steps, and a run on it that waits in its second; the checkpoint before that. */
async function halfway(threadId: string): Promise<{ runId: string; checkpointId: string }> {
  const { client } = held.server;
  await client.runs.wait(threadId, "steps", { input: { log: ["hello"] } });
  const { run_id: runId } = await client.runs.create(threadId, "steps", {
    input: { log: ["second"], waits: true },
  });
  const isThere = async (): Promise<boolean> => (await client.threads.getState(threadId)).next[0] === "two";
  await until(isThere, "the second step");
  const { checkpoint } = await client.threads.getState(threadId);
  return { runId, checkpointId: checkpoint.checkpoint_id ?? "" };
}

const logOf = async (threadId: string): Promise<string[]> =>
  (await held.server.client.threads.getState<Logged>(threadId)).values.log;

test("a run from a checkpoint that is gone when it begins fails, and leaves the thread as it is", async () => {
  const { client } = held.server;
  const taken = await newThread();
  const { checkpointId } = await halfway(taken);
  const more = { input: { log: ["third"] }, checkpointId };
  const run = await client.runs.create(taken, "steps", { ...more, multitaskStrategy: "rollback" });
  await until(async () => (await client.runs.get(taken, run.run_id)).status === "error", "the run to fail");
  expect(await logOf(taken)).toEqual(["hello", "one", "two"]);

  const queued = await newThread();
  const first = await halfway(queued);
  const asked = { ...more, checkpointId: first.checkpointId, multitaskStrategy: "enqueue" as const };
  const second = await client.runs.create(queued, "steps", asked);
  await client.runs.cancel(queued, first.runId, true, "rollback");
  await until(
    async () => (await client.runs.get(queued, second.run_id)).status === "error",
    "the run to fail",
  );
  const [row] = await held.scratch.database.query("select error from holdfast.runs where run_id = $1", [
    second.run_id,
  ]);
  expect(row).toMatchObject({ error: { error: "CheckpointNotFound" } });
  expect(await logOf(queued)).toEqual(["hello", "one", "two"]);

  const configurable = { checkpoint_id: randomUUID() };
  await client.runs.wait(queued, "steps", {
    input: { log: ["x"] },
    config: { configurable },
    raiseError: false,
  });
  expect(await logOf(queued)).toEqual(["hello", "one", "two"]);
});

test.each(["sync", "async", "exit"] as const)(
  "a question of a graph in a graph outlives a prune (durability %s)",
  async (durability) => {
    const threadId = await newThread();
    const { client } = held.server;
    await client.runs.wait(threadId, "nested", { input: { log: ["in"] }, durability });
    expect((await prune(threadId)).status).toBe(200);
    const { tasks } = await client.threads.getState<Logged>(threadId, undefined, { subgraphs: true });
    expect(tasks[0]?.state?.values).toMatchObject({ log: ["in", "draft"] });
    const values = await client.runs.wait(threadId, "nested", { command: { resume: "yes" }, durability });
    expect((values as unknown as Logged).log.slice(-2)).toEqual(["draft", "yes"]);
  },
);

test("a thread whose graph cannot be made without its run says so, and is not shown empty", async () => {
  const threadId = await newThread();
  const { client } = held.server;
  const config = { configurable: { tenant: "a" } };
  const run = await client.runs.create(threadId, "picky", { input: { log: ["hello"] }, config });
  await client.runs.join(threadId, run.run_id);
  const point = "update public.checkpoints set metadata = metadata || $2::jsonb where thread_id = $1";
  await held.scratch.database.query(point, [threadId, { run_id: "a name of another server" }]);
  for (const _ of [1, 2]) {
    const answer = await fetch(`${held.server.url}/threads/${threadId}/history`);
    expect([answer.status, answer.headers.get("x-holdfast-code")]).toEqual([500, "graph_unloadable"]);
    await held.scratch.database.query(point, [threadId, { run_id: run.run_id }]);
    await client.runs.delete(threadId, run.run_id).catch(() => undefined);
  }
  // Nobody knows its state any more, as after a rollback or an error: other threads are shown all the same.
  await held.scratch.database.query(
    "update holdfast.threads set state = null, status = 'error' where thread_id = $1",
    [threadId],
  );
  const listed = await client.threads.search({ limit: 1000 });
  expect(listed.find(({ thread_id: id }) => id === threadId)).toMatchObject({ values: {} });
  const copy = await client.threads.copy(threadId);
  expect(
    await held.scratch.database.query("select from public.checkpoints where thread_id = $1", [
      copy.thread_id,
    ]),
  ).not.toEqual([]);
});

test("a thread that a cron will come to is not deleted when its time is over", async () => {
  const { client } = held.server;
  const [used, left] = [await newThread(), await newThread()];
  const made = { schedule: "0 0 1 1 *", input: { log: [] } };
  await client.crons.createForThread(used, "steps", made);
  const stopped = await client.crons.createForThread(left, "steps", made);
  await client.crons.update(stopped.cron_id ?? "", { enabled: false });
  const over =
    "update holdfast.threads set expires_at = now(), ttl_minutes = 1 where thread_id = any ($1::text[])";
  await held.scratch.database.query(over, [[used, left]]);
  await sweep({ database: held.scratch.database, log: openLog("error") });
  expect((await client.threads.get(used)).thread_id).toBe(used);
  await expect(client.threads.get(left)).rejects.toThrow("HTTP 404");
});

test("what cannot be stored or is nested too deep is refused wherever it stands", async () => {
  const threadId = await newThread();
  const body = { assistant_id: "steps", input: {}, schedule: "* * * * *", webhook: "/x\u0000y" };
  for (const path of [`/threads/${threadId}/runs`, "/runs/crons"])
    expect((await post(path, body)).status).toBe(400);
  const list = (metadata: string): Promise<Response> =>
    fetch(`${held.server.url}/threads/${threadId}/runs?metadata=${metadata}`);
  const deep = `{"a":${"[".repeat(4000)}${"]".repeat(4000)}}`;
  for (const text of [deep, `{"__proto__":{}}`]) expect((await list(text)).status).toBe(422);
  expect((await list("[")).status).toBe(400);
});

test("the end of a cron is told in UTC where it names no offset, in whatever zone its server is", async () => {
  vi.stubEnv("TZ", "America/New_York");
  const asked = { assistant_id: "steps", input: {}, schedule: "* * * * *", end_time: "2099-01-01T00:00:00" };
  const cron: unknown = await (await post("/runs/crons", asked)).json();
  vi.unstubAllEnvs();
  expect(cron).toMatchObject({ end_time: "2099-01-01T00:00:00.000Z" });
});
