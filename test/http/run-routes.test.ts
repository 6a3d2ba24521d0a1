// What becomes of a run through its routes: cancelled, delayed, repeated, listed, deleted, tried again, answered.
import type { Run } from "@langchain/langgraph-sdk";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import {
  GRAPHS,
  checkpointRows,
  logOf,
  newName,
  newThread,
  post,
  reaches,
  statusOf,
  usePair,
} from "../fixtures/pair.ts";
import { startFakeModel } from "../support/model.ts";
import type { FakeModel } from "../support/model.ts";
import { collect, startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

let model: FakeModel;
const pair = usePair();
beforeAll(async () => {
  model = await startFakeModel();
  vi.stubEnv("OPENAI_BASE_URL", model.url);
  vi.stubEnv("OPENAI_API_KEY", "none");
});
afterAll(() => model.stop());
afterAll(() => vi.unstubAllEnvs());
afterEach(() => {
  vi.restoreAllMocks();
});

const inputOf = (name: string): { name: string; gate: string } => ({ name, gate: pair.gate.url });
const whole = (name: string): string[] => ["begin", "work", "finish"].map((node) => `${name}:${node}`);
const enqueue = { multitaskStrategy: "enqueue" } as const;
const pathOf = ({ thread_id: thread, run_id: run }: Run): string => `/threads/${thread}/runs/${run}`;

async function start(server: TestServer, threadId: string, name: string, options = {}): Promise<Run> {
  const run = await server.client.runs.create(threadId, "slow", { input: inputOf(name), ...options });
  await pair.gate.waitFor(name);
  return run;
}

const created = (server: TestServer, threadId: string, name: string, options = {}): Promise<Run> =>
  server.client.runs.create(threadId, "slow", { input: inputOf(name), ...options });

describe.each(["the server that is asked", "another server"])("a live run on %s", (where) => {
  const owner = (): TestServer => (where === "another server" ? pair.there : pair.here);

  test("cancel without wait answers 202 at once, and the graph stops", async () => {
    const threadId = await newThread(pair.here);
    const name = newName();
    const run = await start(owner(), threadId, name);
    const answer = await post(pair.here, `${pathOf(run)}/cancel?wait=0`);
    expect(answer.status).toBe(202);
    await until(() => pair.gate.left.includes(name), "the node's signal to be aborted");
    await reaches(pair.here, run, "interrupted");
    expect(await logOf(pair.here, threadId)).toEqual([`${name}:begin`]);
  });

  test("cancel closes the connection to the model in the middle of its answer", async () => {
    const threadId = await newThread(pair.here);
    const input = { messages: [{ role: "user", content: "count" }], model: "fake-slow-1000tok-20ms" };
    model.forgetCalls();
    const frames = owner().client.runs.stream(threadId, "talk", { input, streamMode: "messages-tuple" });
    const { value: metadata } = await frames.next();
    await frames.next();
    const { run_id: runId } = (metadata as { data: { run_id: string } }).data;
    await pair.here.client.runs.cancel(threadId, runId);
    await until(() => model.calls[0]?.aborted === true, "the model to see its client leave", 1000);
    const rest = await collect(frames);
    expect(rest.map(({ event }) => event)).not.toContain("error");
    expect(await statusOf(pair.here, threadId, runId)).toBe("interrupted");
  });

  test("cancel with wait answers 204 once the run is over", async () => {
    const threadId = await newThread(pair.here);
    const name = newName();
    const run = await start(owner(), threadId, name);
    const answer = await post(pair.here, `${pathOf(run)}/cancel?wait=1`);
    expect([answer.status, await answer.text()]).toEqual([204, ""]);
    expect(await statusOf(pair.here, threadId, run.run_id)).toBe("interrupted");
  });

  test("cancel keeps the thread's values, and the next message is not taken for an answer", async () => {
    const threadId = await newThread(pair.here);
    const [before, cancelled, next] = [newName(), newName(), newName()];
    pair.gate.open(before);
    await pair.here.client.runs.wait(threadId, "slow", { input: inputOf(before) });
    const run = await start(owner(), threadId, cancelled);
    await pair.here.client.runs.cancel(threadId, run.run_id, true);
    const { status, values, error } = await pair.here.client.threads.get(threadId);
    const kept = [...whole(before), `${cancelled}:begin`];
    expect([status, values, error]).toEqual(["idle", expect.objectContaining({ log: kept }), undefined]);
    pair.gate.open(next);
    const after = await pair.here.client.runs.wait(threadId, "slow", { input: inputOf(next) });
    expect(after).toMatchObject({ log: [...kept, ...whole(next)] });
  });

  test("a question is answered on the server that did not ask it", async () => {
    const threadId = await newThread(pair.here);
    const values = await owner().client.runs.wait(threadId, "asking", { input: {} });
    expect(values).toMatchObject({ __interrupt__: [{ value: { question: "go on?" } }] });
    const other = owner() === pair.here ? pair.there : pair.here;
    expect((await other.client.threads.get(threadId)).status).toBe("interrupted");
    const answered = await other.client.runs.wait(threadId, "asking", { command: { resume: "yes" } });
    expect(answered).toMatchObject({ value: "yes" });
    expect((await owner().client.threads.get(threadId)).status).toBe("idle");
  });

  test("a failed run is tried again from its last checkpoint, and its stream goes on", async () => {
    const threadId = await newThread(pair.here);
    const name = newName();
    const run = await start(owner(), threadId, name, { streamMode: "updates" });
    pair.gate.refuse(name);
    await reaches(pair.here, run, "error");
    pair.gate.open(name);
    const retried = await post(pair.here, `${pathOf(run)}/retry`);
    expect(retried.status).toBe(200);
    await reaches(pair.here, run, "success");
    expect(await logOf(pair.here, threadId)).toEqual(whole(name));
    const { status, error } = await pair.here.client.threads.get(threadId);
    expect([status, error]).toEqual(["idle", undefined]);
    const frames = await collect(pair.here.client.runs.joinStream(threadId, run.run_id));
    expect(frames.map(({ event }) => event)).toEqual(
      ["metadata", "updates", "error", "metadata", "updates", "updates"], //
    );
  });
});

test("a run that waits is cancelled at once, and the one before it is left alone", async () => {
  const threadId = await newThread(pair.here);
  const [live, waiting] = [newName(), newName()];
  const first = await start(pair.here, threadId, live);
  const second = await created(pair.there, threadId, waiting, enqueue);
  const answer = await post(pair.there, `${pathOf(second)}/cancel?wait=1`);
  expect(answer.status).toBe(204);
  expect(await statusOf(pair.here, threadId, second.run_id)).toBe("interrupted");
  expect(await collect(pair.here.client.runs.joinStream(threadId, second.run_id))).toEqual([]);
  pair.gate.open(live);
  await reaches(pair.here, first, "success");
  expect((await pair.here.client.threads.get(threadId)).status).toBe("idle");
});

test("a run that has ended cannot be cancelled, an unknown one is not found", async () => {
  const threadId = await newThread(pair.here);
  await pair.here.client.runs.wait(threadId, "silent", { input: {} });
  const [run] = (await pair.here.client.runs.list(threadId)) as [Run];
  for (const query of ["", "?wait=1", "?action=rollback"]) {
    const ended = await post(pair.there, `${pathOf(run)}/cancel${query}`);
    expect([ended.status, ended.headers.get("x-holdfast-code")]).toEqual([409, "run_ended"]);
  }
  const unknown = await post(pair.here, `/threads/${threadId}/runs/${threadId}/cancel`);
  expect([unknown.status, await unknown.text()]).toEqual([404, "Run not found"]);
  const elsewhere = await post(pair.here, `/threads/${run.run_id}/runs/${run.run_id}/cancel`);
  expect([elsewhere.status, await elsewhere.text()]).toEqual([404, "Run not found"]);
});

test("a list of runs holds what was asked for alone", async () => {
  const threadId = await newThread(pair.here);
  await pair.here.client.runs.wait(threadId, "silent", { input: {} });
  const { runs } = pair.here.client;
  const [run] = await runs.list(threadId);
  expect(await runs.list(threadId, { select: ["run_id", "status"] })).toEqual([
    { run_id: run?.run_id, status: "success" },
  ]);
  expect(await runs.list(threadId, { select: ["run_id"] })).toEqual([{ run_id: run?.run_id }]);
});

test("only a run that failed is tried again", async () => {
  const threadId = await newThread(pair.here);
  await pair.here.client.runs.wait(threadId, "silent", { input: {} });
  const [run] = await pair.here.client.runs.list(threadId);
  const refused = await post(pair.here, `/threads/${threadId}/runs/${run?.run_id}/retry`);
  expect([refused.status, refused.headers.get("x-holdfast-code")]).toEqual([409, "run_not_failed"]);
});

test("a failed run that is tried again after others does its own work, not theirs", async () => {
  const threadId = await newThread(pair.here);
  const [failing, other] = [newName(), newName()];
  const failed = await start(pair.here, threadId, failing);
  pair.gate.refuse(failing);
  await reaches(pair.here, failed, "error");
  pair.gate.open(other);
  await pair.here.client.runs.wait(threadId, "slow", { input: inputOf(other) });
  pair.gate.open(failing);
  await post(pair.here, `${pathOf(failed)}/retry`);
  await reaches(pair.here, failed, "success");
  expect(await logOf(pair.here, threadId)).toContain(`${failing}:work`);
});

test("many runs are cancelled by their ids or by their state", async () => {
  const threadId = await newThread(pair.here);
  const names = Array.from({ length: 4 }, newName);
  const runs = [await start(pair.there, threadId, names[0] ?? "")];
  for (const name of names.slice(1)) runs.push(await created(pair.here, threadId, name, enqueue));
  const ids = runs.map(({ run_id: id }) => id);
  await pair.here.client.runs.cancelMany({ threadId, runIds: ids.slice(3), action: "interrupt" });
  expect((await pair.here.client.runs.list(threadId)).map(({ status }) => status)).toEqual(
    ["running", "pending", "pending", "interrupted"], //
  );
  const answer = await post(pair.here, "/runs/cancel?action=interrupt", {
    thread_id: threadId,
    status: "pending",
  });
  expect(answer.status).toBe(204);
  expect(await statusOf(pair.here, threadId, ids[1] ?? "")).toBe("interrupted");
  await pair.here.client.runs.cancelMany({ threadId, status: "all" });
  for (const run of runs) await reaches(pair.here, run, "interrupted");
  for (const name of names.slice(1)) expect(pair.gate.came, "none that waited began").not.toContain(name);
  const unknown = await post(pair.here, "/runs/cancel", { thread_id: threadId, run_ids: [threadId] });
  expect(unknown.status).toBe(404);
  expect((await post(pair.here, "/runs/cancel", {})).status).toBe(400);
});

test.each([0, -1, 1.5, "x"])("a run that could never begin a node is refused: %j at a time", async (most) => {
  for (const name of ["max_concurrency", "maxConcurrency"]) {
    const refused = await post(pair.here, "/runs", { assistant_id: "slow", config: { [name]: most } });
    expect([refused.status, await refused.text()]).toEqual([400, expect.stringContaining(name)]);
  }
});

test("a delayed run starts when it is due and not before, and cancel takes it back", async () => {
  const threadId = await newThread(pair.here);
  const name = newName();
  pair.gate.open(name);
  const askedAt = performance.now();
  const run = await created(pair.here, threadId, name, { afterSeconds: 2 });
  expect(run.status).toBe("pending");
  await until(() => pair.gate.came.includes(name), "the run to start");
  const waited = performance.now() - askedAt;
  expect(waited).toBeGreaterThan(1990);
  await reaches(pair.here, run, "success");
  const other = await created(pair.here, threadId, newName(), { afterSeconds: 3600 });
  await pair.there.client.runs.cancel(threadId, other.run_id);
  expect(await statusOf(pair.here, threadId, other.run_id)).toBe("interrupted");
  expect((await pair.here.client.threads.get(threadId)).status).toBe("idle");
  expect(await logOf(pair.here, threadId)).toEqual(whole(name));
});

test("a run that is cancelled before it begins leaves a failed thread as it was, with its error", async () => {
  const { client } = pair.here;
  const threadId = await newThread(pair.here);
  await client.runs.wait(threadId, "failing", { input: {}, raiseError: false });
  const failed = await client.threads.get(threadId);
  expect(failed).toMatchObject({ status: "error", error: { error: "RangeError" } });
  const run = await client.runs.create(threadId, "failing", { input: {}, afterSeconds: 3600 });
  const busy = await client.threads.get(threadId);
  expect([busy.status, "error" in busy]).toEqual(["busy", false]);
  await client.runs.cancel(threadId, run.run_id);
  expect(await client.threads.get(threadId)).toEqual({ ...failed, updated_at: expect.any(String) });
});

test("runs are listed oldest first, by state, by metadata and page by page", async () => {
  const threadId = await newThread(pair.here);
  const names = Array.from({ length: 5 }, newName);
  const runs = [await start(pair.here, threadId, names[0] ?? "", { metadata: { odd: 0 } })];
  for (const [index, name] of names.entries()) {
    if (index > 0)
      runs.push(await created(pair.here, threadId, name, { ...enqueue, metadata: { odd: index % 2 } }));
  }
  const ids = runs.map(({ run_id: id }) => id);
  const listed = async (options: object): Promise<string[]> =>
    (await pair.there.client.runs.list(threadId, options)).map(({ run_id: id }) => id);
  expect(await listed({})).toEqual(ids);
  expect(await listed({ limit: 2, offset: 2 })).toEqual(ids.slice(2, 4));
  expect(await listed({ limit: 2, offset: 4 })).toEqual(ids.slice(4));
  expect(await listed({ status: "running" })).toEqual(ids.slice(0, 1));
  expect(await listed({ status: "pending", limit: 2, offset: 1 })).toEqual(ids.slice(2, 4));
  const found = await fetch(`${pair.here.url}/threads/${threadId}/runs?metadata={"odd":1}`);
  expect(((await found.json()) as Run[]).map(({ run_id: id }) => id)).toEqual([ids[1], ids[3]]);
  const [first] = await pair.here.client.runs.list(threadId);
  expect(first).toMatchObject({ kwargs: { input: inputOf(names[0] ?? "") }, multitask_strategy: "reject" });
  expect(Date.parse(first?.created_at ?? "")).toBeGreaterThan(0);
  await pair.here.client.runs.cancelMany({ threadId, status: "all" });
  for (const run of runs) await reaches(pair.here, run, "interrupted");
  expect(await listed({ status: "interrupted" })).toEqual(ids);
  await expect(pair.here.client.runs.list(newName().padEnd(36, "0"))).rejects.toThrow("HTTP 400");
});

test("a run that has ended can be deleted with its events; its checkpoints stay, and a live one is refused", async () => {
  const threadId = await newThread(pair.here);
  const name = newName();
  const run = await start(pair.here, threadId, name);
  await expect(pair.there.client.runs.delete(threadId, run.run_id)).rejects.toThrow("HTTP 409");
  pair.gate.open(name);
  await reaches(pair.here, run, "success");
  const rows = await checkpointRows(pair, threadId);
  await pair.there.client.runs.delete(threadId, run.run_id);
  await expect(pair.here.client.runs.get(threadId, run.run_id)).rejects.toThrow("HTTP 404: Run not found");
  const events = "select from holdfast.run_events where run_id = $1";
  expect(await pair.scratch.database.query(events, [run.run_id])).toEqual([]);
  expect(await checkpointRows(pair, threadId)).toEqual(rows);
  expect(await logOf(pair.here, threadId)).toEqual(whole(name));
  await expect(pair.there.client.runs.delete(threadId, run.run_id)).rejects.toThrow("HTTP 404");
});

test("a run that is deleted is told of no more: nobody would find its call-back when its thread is deleted", async () => {
  const threadId = await newThread(pair.here);
  const name = newName();
  const run = await start(pair.here, threadId, name, { webhook: "/nobody-is-here" });
  pair.gate.open(name);
  await reaches(pair.here, run, "success");
  const waiting = (): Promise<object[]> =>
    pair.scratch.database.query("select state from holdfast.webhooks where run_id = $1", [run.run_id]);
  expect(await waiting()).toEqual([{ state: "pending" }]);
  await pair.there.client.runs.delete(threadId, run.run_id);
  expect(await waiting()).toEqual([]);
});

test("two questions of one run are both told by wait, and answered together", async () => {
  const threadId = await newThread(pair.here);
  const values = await pair.here.client.runs.wait(threadId, "asksTwice", { input: {} });
  const { interrupts } = await pair.here.client.threads.get(threadId);
  const asked = Object.values(interrupts).flat();
  expect(new Set(asked.map(({ value }) => value))).toEqual(new Set(["left?", "right?"]));
  const told = (values as { __interrupt__: object[] })["__interrupt__"];
  expect.soft(told).toEqual(expect.arrayContaining(asked));
  const resume = Object.fromEntries(asked.map(({ id, value }) => [id, String(value).slice(0, -1)]));
  const answered = await pair.there.client.runs.wait(threadId, "asksTwice", { command: { resume } });
  expect(answered).toMatchObject({ log: ["left:left", "right:right"] });
});

test("a run that another client takes over says so", async () => {
  const threadId = await newThread(pair.here);
  const [name, plain] = [newName(), newName()];
  const taken = await start(pair.there, threadId, name);
  await pair.here.client.runs.cancel(threadId, taken.run_id, true, "interrupt", { reason: "taken" });
  const cancelled = await start(pair.there, threadId, plain);
  await pair.here.client.runs.cancel(threadId, cancelled.run_id, true);
  const reasons = (await pair.here.client.runs.list(threadId)).map((run) =>
    Reflect.get(run, "cancel_reason"),
  );
  expect(reasons).toEqual([expect.stringMatching(/^taken:/), null]);
});

test("a queue takes as many runs as may wait, and then refuses without growing", async () => {
  const narrow = await startTestServer(pair.scratch.url, { ...GRAPHS, HOLDFAST_MAX_QUEUED_RUNS: "200" });
  try {
    const threadId = await newThread(narrow);
    const name = newName();
    const live = await start(narrow, threadId, name);
    const body = { assistant_id: "slow", input: inputOf(name), multitask_strategy: "enqueue" };
    const answered: [number, string | null, boolean][] = [];
    for (let sent = 0; sent < 300; sent += 20) {
      const answers = Array.from({ length: 20 }, () => post(narrow, `/threads/${threadId}/runs`, body));
      for (const answer of await Promise.all(answers)) {
        const names = (await answer.text()).includes("HOLDFAST_MAX_QUEUED_RUNS");
        answered.push([answer.status, answer.headers.get("x-holdfast-code"), names]);
      }
    }
    expect(answered.filter(([status]) => status === 200)).toHaveLength(200);
    const refused = answered.filter(([status]) => status !== 200);
    expect(refused).toEqual(Array.from({ length: 100 }, () => [429, "queue_full", true]));
    await narrow.client.runs.cancelMany({ threadId, status: "pending" });
    await narrow.client.runs.cancel(threadId, live.run_id, true);
    expect((await narrow.client.threads.get(threadId)).status).toBe("idle");
  } finally {
    await narrow.stop();
  }
});

test("a run that takes too long ends with status timeout, and its thread can be used again", async () => {
  const hurried = await startTestServer(pair.scratch.url, { ...GRAPHS, HOLDFAST_RUN_TIMEOUT_MS: "400" });
  try {
    const threadId = await newThread(hurried);
    const name = newName();
    const frames = hurried.client.runs.stream(threadId, "slow", { input: inputOf(name) });
    const last = (await collect(frames)).at(-1);
    expect(last).toMatchObject({ event: "error", data: { error: "RunTimedOut" } });
    const [run] = await hurried.client.runs.list(threadId);
    expect([run?.status, (await hurried.client.threads.get(threadId)).status]).toEqual(["timeout", "error"]);
    expect(pair.gate.left).toContain(name);
    pair.gate.open(name);
    await post(hurried, `${pathOf(run as Run)}/retry`);
    await reaches(hurried, run as Run, "success");
    expect(await logOf(hurried, threadId)).toEqual(whole(name));
  } finally {
    await hurried.stop();
  }
});

test("how long a run may take is told by the clock of the database: a server whose own is ahead ends none early", async () => {
  const real = Date.now.bind(Date);
  vi.spyOn(Date, "now").mockImplementation(() => real() + 86_400_000);
  const name = newName();
  const run = await start(pair.here, await newThread(pair.here), name);
  pair.gate.open(name);
  await reaches(pair.here, run, "success");
  expect(await logOf(pair.here, run.thread_id)).toEqual(whole(name));
});
