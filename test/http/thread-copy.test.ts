// Copies of threads through the official client: the same past, and from then on two lives.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ThreadState } from "@langchain/langgraph-sdk";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { newName, newThread, reaches } from "../fixtures/pair.ts";
import { useServer } from "../support/server.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/stateful.langgraph.json" });
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const hello = { messages: [{ role: "user", content: "hello", id: "h" }] };

const historyOf = (threadId: string): Promise<ThreadState[]> =>
  held.server.client.threads.getHistory(threadId, { limit: 100 });

const place = (threadId: string, at: object | null | undefined): object | null =>
  at ? { ...at, thread_id: threadId } : null;

/** A history as it reads on another thread: only the places name a thread. */
const on = (threadId: string, states: readonly ThreadState[]): unknown =>
  states.map((state) =>
    Object.assign({}, state, {
      metadata: place(threadId, state.metadata),
      tasks: state.tasks.map((task) =>
        Object.assign({}, task, { checkpoint: place(threadId, task.checkpoint) }),
      ),
      checkpoint: place(threadId, state.checkpoint),
      parent_checkpoint: place(threadId, state.parent_checkpoint),
    }),
  );

async function copyOf(threadId: string): Promise<string> {
  return (await held.server.client.threads.copy(threadId)).thread_id;
}

/** What is stored for a thread is what its checkpoints say, and stands on that thread. */
async function expectWhole(threadId: string): Promise<ThreadState> {
  const { client } = held.server;
  const state = await client.threads.getState(threadId);
  expect(state.checkpoint.thread_id).toBe(threadId);
  const named = await client.threads.getState(threadId, state.checkpoint);
  expect(state).toEqual(named);
  return state;
}

const CONVERSATIONS: [string, object[]][] = [
  ["a conversation", [{ input: hello }, { input: { ...hello, topic: "milk" } }]],
  ["a subgraph that asks", [{ input: hello, config: { configurable: { asks: true } } }]],
  ["a question and its answer", [{ input: {} }, { command: { resume: "yes" } }]],
  [
    "a conversation in deltas",
    Array.from({ length: 4 }, (_, n) => ({ input: { messages: [{ role: "user", content: `${n}` }] } })),
  ],
  ["odd values", [{ input: {} }]],
  ["a failed run", [{ input: { value: 1 }, raiseError: false }]],
];
const GRAPHS = ["topical", "nested", "asking", "deltas", "odd", "failing"];

test.each(CONVERSATIONS.map(([name, runs], index) => [name, GRAPHS[index] ?? "", runs] as const))(
  "a copied thread has the same history and a life of its own: %s",
  async (_, graph, runs) => {
    const { client } = held.server;
    const source = await newThread(held.server);
    for (const options of runs) await client.runs.wait(source, graph, options);
    const before = await historyOf(source);
    const copy = await copyOf(source);
    expect(await historyOf(copy)).toEqual(on(copy, before));
    await expectWhole(copy);

    const oldest = before.at(-1)?.checkpoint.checkpoint_id ?? "";
    await client.runs.wait(copy, graph, { input: null, checkpointId: oldest, raiseError: false });
    expect(await historyOf(source)).toEqual(before);
    const longer = await historyOf(copy);
    expect(longer.length).toBeGreaterThan(before.length);
    await client.runs.wait(source, graph, { input: { ...hello, value: 2 }, raiseError: false });
    await client.threads.delete(source);
    expect(await historyOf(copy)).toEqual(longer);
    await expectWhole(copy);
  },
);

test("a copy has the metadata, status and time to live of its source, and none of its runs", async () => {
  const { client } = held.server;
  const metadata = { user: "u1", note: "" };
  const source = await client.threads.create({ metadata, ttl: 60 });
  await client.threads.update(source.thread_id, {
    metadata: { thread_id: source.thread_id, note: source.thread_id },
  });
  await client.runs.wait(source.thread_id, "asking", { input: {} });
  const copy = await client.threads.copy(source.thread_id);
  const original = await client.threads.get(source.thread_id, { include: ["ttl"] });
  expect(copy).toMatchObject({
    status: "interrupted",
    metadata: { user: "u1", thread_id: copy.thread_id, note: source.thread_id },
    values: original.values,
    interrupts: original.interrupts,
  });
  expect(copy.thread_id).not.toBe(source.thread_id);
  expect(await client.threads.get(copy.thread_id, { include: ["ttl"] })).toMatchObject({
    ttl: { ttl_minutes: 60, strategy: "delete" },
  });
  expect(await client.runs.list(copy.thread_id)).toEqual([]);
});

test("what users keep stays as it is in a copy, also where it looks like an id", async () => {
  const { client } = held.server;
  const source = await newThread(held.server);
  const value = { thread_id: source, text: `see ${source}`, checkpoint: { thread_id: source } };
  await client.runs.wait(source, "keeping", { input: { value } });
  const copy = await copyOf(source);
  expect((await expectWhole(copy)).values).toMatchObject({ value });
  expect((await client.threads.get(copy)).values).toMatchObject({ value });
});

test("a question can be answered in the source and otherwise in its copy", async () => {
  const { client } = held.server;
  const source = await newThread(held.server);
  await client.runs.wait(source, "asking", { input: {} });
  const copy = await copyOf(source);
  await client.runs.wait(copy, "asking", { command: { resume: "no" } });
  expect((await client.threads.get(source)).status).toBe("interrupted");
  await client.runs.wait(source, "asking", { command: { resume: "yes" } });
  const values = await Promise.all([source, copy].map(async (id) => (await client.threads.get(id)).values));
  expect(values).toMatchObject([{ value: "yes" }, { value: "no" }]);
});

test("a copy made during a run stands at its last checkpoint and can go on by itself", async () => {
  const { client } = held.server;
  const source = await newThread(held.server);
  const name = newName();
  const run = await client.runs.create(source, "slow", {
    input: { name, gate: gate.url },
    durability: "sync",
  });
  await gate.waitFor(name);
  const copy = await client.threads.copy(source);
  expect(copy).toMatchObject({ status: "interrupted", values: { log: [`${name}:begin`] } });
  await expectWhole(copy.thread_id);
  gate.open(name);
  await reaches(held.server, run, "success");
  expect((await client.threads.get(copy.thread_id)).values).toEqual(copy.values);
  await client.runs.wait(copy.thread_id, "slow", { input: null });
  const [done, own] = [await client.threads.get(source), await client.threads.get(copy.thread_id)];
  expect([own.status, own.values]).toEqual(["idle", done.values]);
});

test("a rolled back run takes nothing from a copy that was made before", async () => {
  const { client } = held.server;
  const source = await newThread(held.server);
  const name = newName();
  const run = await client.runs.create(source, "slow", {
    input: { name, gate: gate.url },
    durability: "sync",
  });
  await gate.waitFor(name);
  const copy = await copyOf(source);
  const before = await historyOf(copy);
  await client.runs.cancel(source, run.run_id, true, "rollback");
  expect(await historyOf(source)).toEqual([]);
  expect(await historyOf(copy)).toEqual(before);
});

test("a thread that was never run is copied too, and a missing one is 409 and leaves nothing", async () => {
  const { client } = held.server;
  const copy = await client.threads.copy(await newThread(held.server));
  expect(copy).toMatchObject({ status: "idle", values: {} });
  expect(await historyOf(copy.thread_id)).toEqual([]);
  const count = await client.threads.count();
  const missing = randomUUID();
  const text = `HTTP 409: Thread with ID ${missing} not found: there is nothing to copy.`;
  await expect(client.threads.copy(missing)).rejects.toThrow(text);
  expect(await client.threads.count()).toBe(count);
});

test("a thread made for one run only has nothing to copy once that is over", async () => {
  const { client } = held.server;
  const run = await client.runs.create(null, "keeping", { input: { value: 1 } });
  await client.runs.join(run.thread_id, run.run_id);
  await expect(client.threads.copy(run.thread_id)).rejects.toThrow(/HTTP 409/);
});
