// Threads through the official client: create, read, state, history, change, delete.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { useServer } from "../support/server.ts";

const held = useServer();

const ask = (content: string) => ({ input: { messages: [{ role: "user", content }], topic: "tea" } });

test("a thread is created with its metadata and read back", async () => {
  const made = await held.server.client.threads.create({ metadata: { user: "u1" } });
  const read = await held.server.client.threads.get(made.thread_id);
  expect(read).toMatchObject({
    thread_id: made.thread_id,
    status: "idle",
    metadata: { user: "u1" },
    values: {},
  });
  expect(new Date(read.created_at).getTime()).toBeLessThanOrEqual(Date.now());
});

test("an id that is no UUID is 400", async () => {
  await expect(held.server.client.threads.get("my-thread")).rejects.toThrow(/HTTP 400: Invalid thread ID/);
});

test("state at a checkpoint is what it was then, and an unknown checkpoint is 404", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  await held.server.client.runs.wait(threadId, "topical", ask("one"));
  await held.server.client.runs.wait(threadId, "topical", { input: ask("two").input });
  const old = (await held.server.client.threads.getHistory<{ messages: unknown[] }>(threadId)).at(3);
  const id = old?.checkpoint.checkpoint_id ?? "";
  expect(await held.server.client.threads.getState(threadId, id)).toMatchObject({ values: old?.values });
  expect(
    await held.server.client.threads.getState(threadId, { checkpoint_id: id, thread_id: threadId } as never),
  ).toMatchObject({
    values: old?.values,
  });
  await expect(held.server.client.threads.getState(threadId, randomUUID())).rejects.toThrow(
    /HTTP 404: Checkpoint/,
  );
});

test("updating state as a node says what comes next", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  await held.server.client.runs.wait(threadId, "topical", ask("one"));
  await held.server.client.threads.updateState(threadId, { values: { topic: "milk" }, asNode: "__start__" });
  const thread = await held.server.client.threads.get(threadId);
  expect([thread.status, (await held.server.client.threads.getState(threadId)).next]).toEqual([
    "interrupted",
    ["answer"],
  ]);
});

test("a deleted thread is gone with all its rows", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  await held.server.client.runs.wait(threadId, "topical", ask("one"));
  await held.server.client.threads.delete(threadId);
  await expect(held.server.client.threads.get(threadId)).rejects.toThrow(/HTTP 404/);
  const rows = await held.scratch.database.query(
    `select thread_id from public.checkpoints where thread_id = $1
     union all select thread_id from holdfast.runs where thread_id = $1`,
    [threadId],
  );
  expect(rows).toEqual([]);
});

test("as many state updates at once as there are connections all succeed", async () => {
  const threads = await Promise.all(
    Array.from({ length: 14 }, async () => {
      const { thread_id: threadId } = await held.server.client.threads.create({ graphId: "keeping" });
      return threadId;
    }),
  );
  const update = { values: { count: 5 }, asNode: "keep" };
  await Promise.all(threads.map((threadId) => held.server.client.threads.updateState(threadId, update)));
  const one = threads[0] ?? "";
  await Promise.all(threads.map(() => held.server.client.threads.updateState(one, update)));
  expect(await held.server.client.threads.getHistory(one, { limit: 100 })).toHaveLength(15);
});

test("an unknown checkpoint is 404 and changes nothing", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  await held.server.client.runs.wait(threadId, "topical", ask("one"));
  const before = await held.server.client.threads.getState(threadId);
  const checkpointId = randomUUID();
  const missing = /HTTP 404: Checkpoint .* not found/;
  await expect(
    held.server.client.threads.updateState(threadId, { values: {}, checkpointId }),
  ).rejects.toThrow(missing);
  await expect(
    held.server.client.runs.wait(threadId, "topical", { input: null, checkpointId }),
  ).rejects.toThrow(missing);
  expect(await held.server.client.threads.getState(threadId)).toEqual(before);
  expect((await held.server.client.threads.get(threadId)).status).toBe("idle");
});

test("an update as a node that does not exist is 400 and names what is wrong", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create({ graphId: "keeping" });
  const update = held.server.client.threads.updateState(threadId, { values: {}, asNode: "nobody" });
  await expect(update).rejects.toThrow(/HTTP 400: .*nobody/);
});

test("values that a graph's reducer does not take are 422 with its reason, and change nothing", async () => {
  const { client } = held.server;
  const values = { messages: [{ type: "remove", id: "nobody" }] };
  const refused = /HTTP 422: The graph does not take this update .*doesn't exist \('nobody'\)/;
  const { thread_id: threadId } = await client.threads.create();
  await client.runs.wait(threadId, "topical", ask("one"));
  const before = await client.threads.getHistory(threadId);
  await expect(client.threads.updateState(threadId, { values })).rejects.toThrow(refused);
  expect(await client.threads.getHistory(threadId)).toEqual(before);
  const supersteps = [{ updates: [{ values, asNode: "answer" }] }];
  const newId = randomUUID();
  const made = client.threads.create({ threadId: newId, graphId: "topical", supersteps });
  await expect(made).rejects.toThrow(refused);
  await expect(client.threads.get(newId)).rejects.toThrow(/HTTP 404/);
});

test("a thread of a graph that is not served here can still be read", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create({ graphId: "retired" });
  expect(await held.server.client.threads.get(threadId)).toMatchObject({ thread_id: threadId, values: {} });
});

test("history is found by what a run says of itself, and says it", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  for (const turn of [1, 2]) {
    const input = { messages: [{ role: "user", content: `turn ${turn}` }] };
    await client.runs.wait(threadId, "echo", { input, metadata: { turn, source: "mine" } });
  }
  const found = await client.threads.getHistory<{ messages: { content: string }[] }>(threadId, {
    metadata: { turn: 1 },
  });
  expect(found[0]?.values.messages.map(({ content }) => content)).toEqual(["turn 1", "alpha beta"]);
  expect(found.map(({ metadata }) => metadata)).toContainEqual(
    expect.objectContaining({ turn: 1, source: "loop", step: 1 }),
  );
  expect(await client.threads.getHistory(threadId, { metadata: { source: "mine" } })).toEqual([]);
});

test("history asks for a checkpoint by its id and for metadata that could exist", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  expect((await fetch(`${held.server.url}/threads/${threadId}/history?before=x`)).status).toBe(400);
  const body = JSON.stringify({ metadata: { a: "\0" } });
  const poisoned = await fetch(`${held.server.url}/threads/${threadId}/history`, { method: "POST", body });
  expect(poisoned.status).toBe(422);
});
