// Threads made with a past, changed by hand, and read in part, through the official client.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { newThread, post } from "../fixtures/pair.ts";
import { useServer } from "../support/server.ts";

const held = useServer();

const said = (role: string, content: string) => ({ messages: [{ role, content, id: content }] });
const TURN = [
  { updates: [{ values: { ...said("user", "hello"), topic: "tea" }, asNode: "__start__" }] },
  { updates: [{ values: { ...said("assistant", "hi"), log: ["rebuilt"] }, asNode: "answer" }] },
];

test("supersteps that end before a node leave the thread waiting for it", async () => {
  const { client } = held.server;
  const made = await client.threads.create({ graphId: "topical", supersteps: TURN.slice(0, 1) });
  expect(made.status).toBe("interrupted");
  expect((await client.threads.getState(made.thread_id)).next).toEqual(["answer"]);
  await client.runs.wait(made.thread_id, "topical", { input: null });
  expect(await client.threads.get(made.thread_id)).toMatchObject({
    status: "idle",
    values: { topic: "tea+" },
  });
});

test("a superstep may be a command", async () => {
  const command = { update: { topic: "milk" } };
  const made = await held.server.client.threads.create({
    graphId: "topical",
    supersteps: [...TURN, { updates: [{ values: null, command, asNode: "answer" }] }],
  });
  expect(made.values).toMatchObject({ topic: "milk" });
});

test("a bad superstep means no thread", async () => {
  const { client } = held.server;
  const threadId = randomUUID();
  const bad = { updates: [{ values: { topic: "x" }, asNode: "nobody" }] };
  const create = client.threads.create({ threadId, graphId: "topical", supersteps: [...TURN, bad] });
  await expect(create).rejects.toThrow(/HTTP 400: .*nobody/);
  await expect(client.threads.get(threadId)).rejects.toThrow(/HTTP 404/);
  const left = "select 1 from public.checkpoints where thread_id = $1";
  expect(await held.scratch.database.query(left, [threadId])).toEqual([]);
  await expect(client.threads.create({ threadId, supersteps: TURN })).rejects.toThrow(
    /HTTP 400: .*metadata\.graph_id/,
  );
  const unknown = client.threads.create({ threadId, graphId: "retired", supersteps: TURN });
  await expect(unknown).rejects.toThrow(/HTTP 400: .*topical.*metadata\.graph_id/);
  const empty = client.threads.create({ threadId, graphId: "topical", supersteps: [{ updates: [] }] });
  await expect(empty).rejects.toThrow(/HTTP 400/);
  expect((await client.threads.create({ threadId })).thread_id).toBe(threadId);
});

test("supersteps are not written to a thread that is there already", async () => {
  const { client } = held.server;
  const threadId = await newThread(held.server);
  const again = { threadId, graphId: "topical", supersteps: TURN };
  await expect(client.threads.create(again)).rejects.toThrow("HTTP 409: Thread already exists");
  expect((await client.threads.create({ ...again, ifExists: "do_nothing" })).values).toEqual({});
});

test("patching a thread merges its metadata and says how long it is kept", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create({ metadata: { a: 1, b: { c: 2 } } });
  const changed = await client.threads.update(threadId, { metadata: { b: 3, d: null }, ttl: 60 });
  expect(changed.metadata).toMatchObject({ a: 1, b: 3, d: null });
  const kept = (await client.threads.get(threadId, { include: ["ttl"] })) as unknown as { ttl: object };
  expect(kept.ttl).toMatchObject({ ttl_minutes: 60, strategy: "delete", expires_at: expect.any(String) });
  const minimal = { metadata: { e: 5 }, returnMinimal: true } as const;
  expect(await client.threads.update(threadId, minimal)).toBeUndefined();
  const read = await client.threads.get(threadId);
  expect(read.metadata).toMatchObject({ a: 1, b: 3, e: 5 });
  expect(read).not.toHaveProperty("ttl");
});

test("a patch that says no time to live leaves the one there is, and one without a thread is 404", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create({ ttl: 5 });
  await client.threads.update(threadId, { metadata: { a: 1 } });
  expect(await client.threads.get(threadId, { include: ["ttl"] })).toMatchObject({ ttl: { ttl_minutes: 5 } });
  const missing = randomUUID();
  const text = `HTTP 404: Thread with ID ${missing} not found`;
  await expect(client.threads.update(missing, { metadata: { a: 1 } })).rejects.toThrow(text);
  await expect(client.threads.update(threadId, { ttl: -1 })).rejects.toThrow(/HTTP 400/);
  await expect(client.threads.update(threadId, { metadata: { a: "\0" } })).rejects.toThrow(/HTTP 422/);
});

test("a state is answered in the parts that are selected, and whole without a selection", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create({ graphId: "topical", supersteps: TURN });
  const whole = await client.threads.getState(threadId);
  const { next, checkpoint, values } = whole;
  const some = ["values.topic", "values.log", "next", "checkpoint"] as const;
  const parts = await client.threads.getState(threadId, undefined, { select: [...some] });
  expect(parts).toEqual({ values: { topic: "tea", log: ["rebuilt"] }, next, checkpoint });
  const all = await client.threads.getState(threadId, undefined, { select: ["values", "values.topic"] });
  expect(all).toEqual({ values });
  const absent = await client.threads.getState(threadId, undefined, { select: ["values.nothing"] });
  expect(absent).toEqual({ values: {} });
  const body = { checkpoint, select: [] };
  expect(await (await post(held.server, `/threads/${threadId}/state/checkpoint`, body)).json()).toEqual(
    whole,
  );
});

test("a checkpoint of a wrong form is refused and named, and nothing is written under it", async () => {
  const threadId = await newThread(held.server);
  await held.server.client.runs.wait(threadId, "keeping", { input: { value: 1 } });
  const before = await held.server.client.threads.getState(threadId);
  const wrong = [
    { checkpoint_ns: 7 },
    { checkpoint_ns: "a\0" },
    { checkpoint_id: 5 },
    { checkpoint_map: [] },
  ];
  for (const checkpoint of wrong) {
    const [field = ""] = Object.keys(checkpoint);
    for (const path of ["state", "state/checkpoint", "history", "runs/wait"]) {
      const body = { checkpoint, values: { value: 2 }, assistant_id: "keeping" };
      const answer = await post(held.server, `/threads/${threadId}/${path}`, body);
      expect([path, answer.status]).toEqual([path, 400]);
      expect(await answer.json()).toMatchObject({ error: { issues: [{ path: ["checkpoint", field] }] } });
    }
  }
  expect(await held.server.client.threads.getState(threadId)).toEqual(before);
  const unset = { checkpoint: { ...before.checkpoint, checkpoint_map: null } };
  const found = await post(held.server, `/threads/${threadId}/state/checkpoint`, unset);
  expect(await found.json()).toEqual(before);
});

test("the state of a thread whose graph is not served is 409, which names the graph; the thread can be read", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create({ graphId: "gone" });
  const at = `/threads/${threadId}`;
  const answers = [
    await fetch(`${held.server.url}${at}/state`),
    await fetch(`${held.server.url}${at}/history`),
    await post(held.server, `${at}/state`, { values: { value: 1 } }),
  ];
  for (const answer of answers) {
    expect([answer.status, answer.headers.get("x-holdfast-code")]).toEqual([409, "graph_not_served"]);
    expect(await answer.text()).toMatch(/^Graph gone of this thread is not served here/);
  }
  expect(await client.threads.get(threadId)).toMatchObject({ status: "idle", values: {} });
  await client.runs.wait(threadId, "keeping", { input: { value: 1 } });
  expect(await client.threads.getState(threadId)).toMatchObject({ values: { value: 1 } });
});

// No message: the reducer throws, in the run and whenever the state is read.
const NO_MESSAGE = [["nobody", "says"]];

test("a command whose update the graph refuses leaves the thread as it was, at its end and in the middle", async () => {
  const { client } = held.server;
  const threadId = await newThread(held.server);
  await client.runs.wait(threadId, "topical", { input: { ...said("user", "hello"), topic: "tea" } });
  const before = await client.threads.getState(threadId);
  const [, older] = await client.threads.getHistory(threadId);
  const middle = older?.checkpoint.checkpoint_id ?? "";
  for (const from of [{}, { checkpointId: middle }]) {
    const command = { update: { messages: NO_MESSAGE, topic: "red" } };
    const options = { command, ...from, raiseError: false };
    expect(await client.runs.wait(threadId, "topical", options)).toHaveProperty("__error__");
    expect(await client.threads.getState(threadId)).toEqual(before);
    expect(await client.threads.getState(threadId, middle)).toEqual(older);
  }
  expect(await client.runs.wait(threadId, "topical", { input: said("user", "more") })).toMatchObject({
    topic: "tea++",
  });
});

test("what a graph cannot read hides nothing else, and the thread goes on from an older checkpoint", async () => {
  const { client } = held.server;
  const threadId = await newThread(held.server);
  await client.runs.wait(threadId, "topical", { input: { ...said("user", "hello"), topic: "tea" } });
  const [newest, ...rest] = await client.threads.getHistory(threadId);
  // As an older version of the graph may have left it.
  const { database } = held.scratch;
  await database.query(
    `insert into public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, type, blob)
     values ($1, $2, '00000000-0000-0000-0000-000000000000', 0, 'messages', 'json', $3)`,
    [threadId, newest?.checkpoint.checkpoint_id, Buffer.from(JSON.stringify(NO_MESSAGE))],
  );
  await database.query("update holdfast.threads set state = null where thread_id = $1", [threadId]);
  const state = await fetch(`${held.server.url}/threads/${threadId}/state`);
  expect([state.status, state.headers.get("x-holdfast-code")]).toEqual([409, "state_unreadable"]);
  expect(await client.threads.get(threadId)).toMatchObject({ values: {}, metadata: { graph_id: "topical" } });
  expect(await client.threads.search({ ids: [threadId] })).toMatchObject([
    { thread_id: threadId, values: {} },
  ]);
  expect(await client.threads.getHistory(threadId)).toEqual(rest);
  expect(await client.threads.getHistory(threadId, { limit: 1 })).toEqual(rest.slice(0, 1));
  const checkpointId = rest[0]?.checkpoint.checkpoint_id ?? "";
  await client.runs.wait(threadId, "topical", { input: null, checkpointId });
  expect(await client.threads.getState(threadId)).toMatchObject({ next: [], values: { topic: "tea+" } });
});

test("the thread of a run without one can be changed no more once the run is over, and still goes in time", async () => {
  const { runs, threads } = held.server.client;
  const { run_id: runId, thread_id: threadId } = await runs.create(null, "asking", { input: {} });
  await runs.join(threadId, runId);
  const find = (): Promise<object[]> =>
    held.scratch.database.query("select state, expires_at from holdfast.threads where thread_id = $1", [
      threadId,
    ]);
  const before = await find();
  await expect(threads.updateState(threadId, { values: { count: 2 } })).rejects.toThrow(/^HTTP 404/);
  expect(await find()).toEqual(before);
});

test("nothing is put on the thread of a run without one once the run is over: it would go with the thread", async () => {
  const { client } = held.server;
  const run = await client.runs.create(null, "asking", { input: {} });
  const threadId = run.thread_id;
  await client.runs.join(threadId, run.run_id);
  const put = [
    () => client.runs.create(threadId, "asking", { input: {} }),
    () => client.runs.create(threadId, "asking", { input: {}, ifNotExists: "create" }),
    () => client.runs.create(threadId, "asking", { input: {}, multitaskStrategy: "rollback" }),
    () => client.runs.create(threadId, "asking", { input: {}, afterSeconds: 60 }),
    () => client.crons.createForThread(threadId, "asking", { schedule: "0 0 * * *" }),
  ];
  for (const one of put) await expect(one()).rejects.toThrow(/^HTTP 404.*Thread with ID/);
  const sql = "select run_id from holdfast.runs where thread_id = $1";
  expect(await held.scratch.database.query(sql, [threadId])).toEqual([{ run_id: run.run_id }]);
  expect(await client.runs.get(threadId, run.run_id)).toMatchObject({ status: "success" });
});

test("no cron is put on the thread of a run without one while the run lives: nobody would see the thread again", async () => {
  const { client } = held.server;
  const run = await client.runs.create(null, "asking", { input: {}, afterSeconds: 60 });
  await expect(
    client.crons.createForThread(run.thread_id, "asking", { schedule: "0 0 * * *" }),
  ).rejects.toThrow(/^HTTP 422.*belongs to a stateless run/);
  await client.runs.cancel(run.thread_id, run.run_id);
});
