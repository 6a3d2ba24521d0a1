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
