// Laws of the wire: threads, their state and their history, and the long-term store.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { SDKS } from "../support/clients.ts";
import { eachCluster } from "../support/cluster.ts";
import { collect } from "../support/server.ts";

let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const said = (role: string, content: string) => ({ messages: [{ role, content, id: content }] });
const ask = (content: string, topic = "tea") => ({ input: { ...said("user", content), topic } });

/** A turn as a conversation has it: a question, and the answer that a node would have given. */
const turn = (question: string, answer: string) => [
  { updates: [{ values: { ...said("user", question), topic: "tea" }, asNode: "__start__" }] },
  { updates: [{ values: { ...said("assistant", answer), log: ["rebuilt"] }, asNode: "answer" }] },
];

eachCluster({ HOLDFAST_CONFIG: "test/fixtures/stateful.langgraph.json" }, (cluster) => {
  test("creating a thread twice is 409 unless do_nothing", async () => {
    const { threads } = cluster.client;
    const threadId = randomUUID();
    const first = await threads.create({ threadId, metadata: { user: "u1" } });
    const taken = "HTTP 409: Thread already exists";
    await expect(threads.create({ threadId })).rejects.toThrow(taken);
    await expect(threads.create({ threadId, ifExists: "raise" })).rejects.toThrow(taken);
    const again = await threads.create({ threadId, metadata: { user: "u2" }, ifExists: "do_nothing" });
    expect(again.thread_id).toBe(threadId);
    expect((await threads.get(threadId)).metadata).toEqual(first.metadata);
    const same = randomUUID();
    const tries = Array.from({ length: 8 }, () => threads.create({ threadId: same }));
    const made = (await Promise.allSettled(tries)).filter(({ status }) => status === "fulfilled");
    expect(made).toHaveLength(1);
  });

  describe.each(SDKS)("SDK $sdk", (sdk) => {
    test("a missing thread is 404 with its id in the text", async () => {
      const { threads, runs } = cluster.connect(sdk);
      const id = randomUUID();
      const refused = [
        threads.get(id),
        threads.getState(id),
        threads.getHistory(id),
        threads.update(id, { metadata: {} }),
        threads.updateState(id, { values: {} }),
        threads.delete(id),
        runs.create(id, "echo", ask("hello")),
        runs.wait(id, "echo", ask("hello")),
        collect(runs.stream(id, "echo", ask("hello"))),
      ];
      const errors = (await Promise.allSettled(refused)).map(
        (one) => one.status === "rejected" && one.reason,
      );
      const texts = errors.map((error) => (error instanceof Error ? error.message : error));
      expect(texts).toEqual(refused.map(() => `HTTP 404: Thread with ID ${id} not found`));
    });
  });

  test("metadata search is containment and count agrees with search", async () => {
    const { threads } = cluster.client;
    const tag = randomUUID();
    const make = async (metadata: Record<string, unknown>): Promise<string> =>
      (await threads.create({ metadata: { ...metadata, tag } })).thread_id;
    const both = await make({ user: "u1", labels: ["a", "b"], deep: { x: 1, y: 2 } });
    const one = await make({ user: "u1", labels: ["b"] });
    await make({ user: "u2" });
    const finds = async (part: Record<string, unknown>): Promise<string[]> => {
      const metadata = { ...part, tag };
      const found = (await threads.search({ metadata })).map(({ thread_id: id }) => id);
      expect(await threads.count({ metadata })).toBe(found.length);
      return found;
    };
    expect(await finds({ user: "u1" })).toEqual([one, both]);
    expect(await finds({ labels: ["a"], deep: { y: 2 } })).toEqual([both]);
    expect(await finds({ labels: "a" })).toEqual([]);
    expect(await finds({})).toHaveLength(3);
  });

  test("state of a thread without a graph is empty, not an error", async () => {
    const { threads } = cluster.client;
    const threadId = await cluster.newThread();
    expect(await threads.getState(threadId)).toEqual({
      values: {},
      next: [],
      tasks: [],
      interrupts: [],
      metadata: {},
      created_at: null,
      checkpoint: null,
      parent_checkpoint: null,
    });
    expect(await threads.getHistory(threadId)).toEqual([]);
    await expect(threads.updateState(threadId, { values: { count: 1 } })).rejects.toThrow(/HTTP 400/);
  });

  test("updating state while a run is live is 409", async () => {
    const { threads, runs } = cluster.client;
    const threadId = await cluster.newThread();
    const name = randomUUID();
    const run = await runs.create(threadId, "slow", {
      input: { name, gate: gate.url },
      durability: "sync",
    });
    await gate.waitFor(name);
    const before = await threads.getState<{ log: string[] }>(threadId);
    const update = { values: { log: ["by hand"] } };
    for (let instance = 0; instance < cluster.size; instance += 1)
      await expect(threads.updateState(threadId, update)).rejects.toThrow("HTTP 409: Thread is busy");
    expect(await threads.getState(threadId)).toEqual(before);
    gate.open(name);
    await runs.join(threadId, run.run_id);
    await threads.updateState(threadId, update);
    const { values } = await threads.getState<{ log: string[] }>(threadId);
    expect(values.log).toEqual([`${name}:begin`, `${name}:work`, `${name}:finish`, "by hand"]);
  });

  test("updating state at an old checkpoint makes a sibling branch and keeps both", async () => {
    const { threads, runs } = cluster.client;
    const threadId = await cluster.newThread();
    await runs.wait(threadId, "topical", ask("one"));
    const before = await threads.getHistory<{ topic: string }>(threadId);
    const [end, editable] = before;
    const checkpointId = editable?.checkpoint.checkpoint_id ?? "";
    const made = await threads.updateState(threadId, { values: { topic: "coffee" }, checkpointId });
    const branch = Object(made).checkpoint as { checkpoint_id: string };
    await runs.wait(threadId, "topical", { input: null, checkpointId: branch.checkpoint_id });
    const topicAt = async (id: string | null | undefined): Promise<string> =>
      (await threads.getState<{ topic: string }>(threadId, id ?? undefined)).values.topic;
    expect(await topicAt(undefined)).toBe("coffee+");
    expect(await topicAt(end?.checkpoint.checkpoint_id)).toBe("tea+");
    const history = await threads.getHistory<{ topic: string }>(threadId);
    expect(history.slice(-before.length)).toEqual(before);
    const siblings = history.filter(({ parent_checkpoint: at }) => at?.checkpoint_id === checkpointId);
    expect(siblings.map(({ values }) => values.topic)).toEqual(["coffee", "tea+"]);
  });

  test("history is newest first and before accepts an id or a config", async () => {
    const { threads, runs } = cluster.client;
    const threadId = await cluster.newThread();
    await runs.wait(threadId, "topical", ask("one"));
    const states = await threads.getHistory(threadId);
    expect(states.map(({ next }) => next)).toEqual([[], ["answer"], ["__start__"]]);
    const times = states.map(({ created_at: at }) => Date.parse(at ?? ""));
    expect(times).toEqual(times.toSorted((a, b) => b - a));
    const newest = states[0]?.checkpoint.checkpoint_id ?? "";
    const before = { configurable: { checkpoint_id: newest } };
    expect(await threads.getHistory(threadId, { before })).toEqual(states.slice(1));
    const byId = await cluster.ask(`/threads/${threadId}/history?limit=1&before=${newest}`);
    expect(await byId.json()).toEqual(states.slice(1, 2));
    const posted = await cluster.post(`/threads/${threadId}/history`, { before: newest });
    expect(await posted.json()).toEqual(states.slice(1));
  });

  test("a copied thread has the same history and a life of its own", async () => {
    const { threads, runs } = cluster.client;
    const source = await cluster.newThread();
    await runs.wait(source, "topical", ask("one"));
    await runs.wait(source, "topical", ask("two", "milk"));
    const before = await threads.getHistory(source, { limit: 100 });
    const { thread_id: copy } = await threads.copy(source);
    expect(copy).not.toBe(source);
    const copied = await threads.getHistory(copy, { limit: 100 });
    // Only the places name a thread: nothing of the conversation does.
    expect(copied).toEqual(JSON.parse(JSON.stringify(before).replaceAll(source, copy)));
    await runs.wait(copy, "topical", ask("three"));
    expect(await threads.getHistory(source, { limit: 100 })).toEqual(before);
    await threads.delete(source);
    const longer = await threads.getHistory(copy, { limit: 100 });
    expect(longer.slice(-copied.length)).toEqual(copied);
    expect(longer.length).toBeGreaterThan(copied.length);
  });

  test("supersteps rebuild a conversation without a model call", async () => {
    const { threads, runs } = cluster.client;
    const supersteps = [...turn("hello", "hi"), ...turn("and now?", "good bye")];
    const made = await threads.create({ graphId: "topical", supersteps });
    const messages = ["hello", "hi", "and now?", "good bye"].map((content) => ({ content }));
    expect(made).toMatchObject({
      status: "idle",
      values: { topic: "tea", log: ["rebuilt", "rebuilt"], messages },
    });
    expect(await runs.list(made.thread_id)).toEqual([]);
    const history = await threads.getHistory<{ messages?: unknown[] }>(made.thread_id);
    expect(history.map(({ values }) => values.messages?.length)).toEqual([4, 3, 2, 1]);
    await runs.wait(made.thread_id, "topical", ask("more"));
    const { values } = await threads.get<{ messages: { content: string }[] }>(made.thread_id);
    expect(values.messages.map(({ content }) => content).slice(-2)).toEqual(["more", "about tea: more"]);
  });

  test("selecting one state key returns only that key", async () => {
    const { threads } = cluster.client;
    const supersteps = turn("hello", "hi");
    const { thread_id: threadId } = await threads.create({ graphId: "topical", supersteps });
    const { checkpoint } = await threads.getState(threadId);
    const one = { values: { topic: "tea" } };
    const select = { select: ["values.topic" as const] };
    for (const at of [undefined, checkpoint.checkpoint_id ?? "", checkpoint])
      expect(await threads.getState(threadId, at, select)).toEqual(one);
    expect(await threads.getState(threadId, undefined, { ...select, subgraphs: true })).toEqual(one);
    expect(await threads.getHistory(threadId, { ...select, limit: 1 })).toEqual([one]);
    const listed = await cluster.ask(`/threads/${threadId}/history?limit=1&select=values.topic`);
    expect(await listed.json()).toEqual([one]);
  });

  test("search under a prefix never returns a sibling prefix", async () => {
    const { store } = cluster.client;
    const root = randomUUID();
    for (const namespace of [["t", "1"], ["t", "10"], ["t", "1", "x"], ["t"], ["t1"]])
      await store.putItem([root, ...namespace], "k", {});
    const under = async (...prefix: string[]): Promise<string[]> =>
      (await store.searchItems([root, ...prefix])).items.map(({ namespace }) => namespace.slice(1).join());
    expect(await under("t", "1")).toEqual(["t,1", "t,1,x"]);
    expect(await under("t")).toEqual(["t", "t,1", "t,1,x", "t,10"]);
    expect(await under()).toHaveLength(5);
  });

  test("a missing item is null", async () => {
    expect(await cluster.client.store.getItem([randomUUID()], "nothing")).toBeNull();
    const answer = await cluster.ask(`/store/items?namespace=${randomUUID()}&key=k`);
    expect([answer.status, await answer.text()]).toEqual([200, "null"]);
  });
});
