// The state of a thread is stored when a run ends, so that reading it costs one row. It must be the state that a
// reading of the checkpoints gives, to the last field, however the thread came to it.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Run } from "@langchain/langgraph-sdk";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { newName, newThread, post, reaches } from "../fixtures/pair.ts";
import { collect, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/stateful.langgraph.json" });
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

interface State {
  readonly checkpoint: { checkpoint_id: string } | null;
  readonly values: Record<string, unknown>;
  readonly next: string[];
}

async function stateOf(threadId: string): Promise<State> {
  return (await (await fetch(`${held.server.url}/threads/${threadId}/state`)).json()) as State;
}

const KEPT = "select state::text as kept from holdfast.threads where thread_id = $1";
const KEEP = "update holdfast.threads set state = $2 where thread_id = $1";

/** Compares the stored state with the computed one. @returns whether one was stored, and the state */
async function compare(threadId: string): Promise<{ isStored: boolean; state: State }> {
  const { database } = held.scratch;
  const [row] = await database.query<{ kept: string | null }>(KEPT, [threadId]);
  const stored = await stateOf(threadId);
  await database.query(KEEP, [threadId, null]);
  expect(stored, "stored and computed").toEqual(await stateOf(threadId));
  await database.query(KEEP, [threadId, row?.kept ?? null]);
  const at = { checkpoint: stored.checkpoint };
  const named = await post(held.server, `/threads/${threadId}/state/checkpoint`, at);
  expect(stored, "newest and named").toEqual(stored.checkpoint ? await named.json() : stored);
  const [latest] = await held.server.client.threads.getHistory(threadId, { limit: 1 });
  expect(stored.checkpoint, "stored and newest in history").toEqual(latest?.checkpoint ?? null);
  return { isStored: typeof row?.kept === "string", state: stored };
}

/** Ends a run of the graph and compares. */
async function after(
  graph: string,
  options: object,
  threadId?: string,
): Promise<{ isStored: boolean; state: State }> {
  const thread = threadId ?? (await newThread(held.server));
  await held.server.client.runs.wait(thread, graph, { raiseError: false, ...options });
  return compare(thread);
}

const hello = { messages: [{ role: "user", content: "hello", id: "h" }] };

const ENDS: [string, string, object][] = [
  ["two nodes and a model", "echo", { input: hello }],
  ["a builder", "topical", { input: { ...hello, topic: "tea" } }],
  ["a factory", "made", { input: hello }],
  ["deltas in parallel", "parallel", { input: hello }],
  ["one delta channel", "deltas", { input: hello }],
  ["no writes at all", "silent", { input: {} }],
  ["odd values", "odd", { input: {} }],
  ["whatever it is given", "keeping", { input: { value: { nested: [null, 1, "\u0000x"] } } }],
  ["an input and an output schema", "narrow", { input: { question: "why?" } }],
  ["a subgraph", "nested", { input: hello }],
  [
    "a subgraph, streamed",
    "nested",
    { input: hello, streamSubgraphs: true, streamMode: ["values", "updates"] },
  ],
  ["one task per item", "fan", { input: { items: ["a", "b", "c"] } }],
];

describe.each(["sync", "async", "exit"])(
  "with durability %s, the stored state is the computed one for",
  (durability) => {
    test.each(ENDS)("%s", async (_, graph, options) => {
      const { isStored, state } = await after(graph, { ...options, durability });
      // Without a single frame of values there is nothing at hand to store.
      expect(isStored, "something was stored").toBe(graph !== "silent");
      expect(state.next).toEqual([]);
    });

    test.each(ENDS)("%s, three runs on", async (_, graph, options) => {
      const threadId = await newThread(held.server);
      for (let turn = 0; turn < 2; turn += 1) await after(graph, { ...options, durability }, threadId);
      const { state } = await after(graph, { ...options, durability }, threadId);
      expect(state.next).toEqual([]);
    });

    test.each<[string, string, object]>([
      ["a question", "asking", { input: {} }],
      ["two questions", "asksTwice", { input: {} }],
      ["a question in a subgraph", "nested", { input: hello, config: { configurable: { asks: true } } }],
      ["a failing node", "failing", { input: { value: 1 } }],
      ["a breakpoint before a node", "echo", { input: hello, interruptBefore: ["answer"] }],
      ["a breakpoint after a node", "echo", { input: hello, interruptAfter: ["prepare"] }],
      ["a breakpoint after the last node", "echo", { input: hello, interruptAfter: ["answer"] }],
      ["breakpoints everywhere", "nested", { input: hello, interruptBefore: "*" }],
    ])("%s, and the way on from it", async (_, graph, options) => {
      const threadId = await newThread(held.server);
      // Another graph's channels would keep LangGraph at a breakpoint for ever.
      const before = "input" in options && options.input === hello ? graph : "keeping";
      await after(before, { input: { ...hello, value: "before" }, durability }, threadId);
      const stopped = await after(graph, { ...options, durability }, threadId);
      const asks = graph === "asking" || graph === "asksTwice" || "config" in options;
      const way = asks ? { command: { resume: "yes" } } : { input: null };
      const { state } = await after(graph, { ...options, ...way, durability }, threadId);
      const isOn = state.checkpoint?.checkpoint_id !== stopped.state.checkpoint?.checkpoint_id;
      // It had come to its end already, or fails again.
      const stays = stopped.state.next.length === 0 || graph === "failing";
      expect(isOn).toBe(!stays);
    });
  },
);

describe("the stored state is the computed one after", () => {
  test("an answer at an old checkpoint that asks nothing: the thread still waits for its own", async () => {
    const threadId = await newThread(held.server);
    await after("asking", { input: {} }, threadId);
    const { state: ended } = await after("asking", { command: { resume: "yes" } }, threadId);
    const { state: asks } = await after("asking", { input: {} }, threadId);
    const checkpointId = ended.checkpoint?.checkpoint_id;
    const { state } = await after("asking", { command: { resume: "late" }, checkpointId }, threadId);
    expect(state).toEqual(asks);
    expect((await held.server.client.threads.get(threadId)).status).toBe("interrupted");
    const { state: last } = await after("asking", { command: { resume: "yes" } }, threadId);
    expect(last.next).toEqual([]);
  });

  test("a run that was cancelled", async () => {
    const threadId = await newThread(held.server);
    const name = newName();
    await after("keeping", { input: { value: "before" } }, threadId);
    const run = await held.server.client.runs.create(threadId, "slow", {
      input: { name, gate: gate.url },
      durability: "sync",
    });
    await gate.waitFor(name);
    expect((await compare(threadId)).state.values).toMatchObject({ log: [`${name}:begin`] });
    await held.server.client.runs.cancel(threadId, run.run_id, true);
    expect((await compare(threadId)).state.values).toMatchObject({ log: [`${name}:begin`] });
  });

  test("a run that failed, tried again, and succeeded", async () => {
    const threadId = await newThread(held.server);
    const name = newName();
    gate.refuse(name);
    await after("slow", { input: { name, gate: gate.url } }, threadId);
    const [run] = await held.server.client.runs.list(threadId);
    gate.open(name);
    await post(held.server, `/threads/${threadId}/runs/${run?.run_id}/retry`);
    await reaches(held.server, run as Run, "success");
    expect((await compare(threadId)).isStored).toBe(true);
  });

  test("a run that waited for another try after a crash, and was cancelled instead", async () => {
    const threadId = await newThread(held.server);
    const [dead, live] = [newName(), newName()];
    await after("keeping", { input: { value: "before" } }, threadId);
    const run = await held.server.client.runs.create(threadId, "slow", {
      input: { name: dead, gate: gate.url },
    });
    await gate.waitFor(dead);
    gate.open(live);
    // As a reaper leaves it after the death of its server, at a moment when no other has taken it yet.
    const requeue =
      "update holdfast.runs set state = 'ready', worker_id = null, run_at = now() + interval '1 hour'";
    await held.scratch.database.query(`${requeue} where run_id = $1`, [run.run_id]);
    await held.server.client.runs.cancel(threadId, run.run_id);
    await until(async () => (await held.server.client.threads.get(threadId)).status === "idle", "the cancel");
    expect((await compare(threadId)).state.values).toMatchObject({ log: [`${dead}:begin`] });
  });

  test("a run from an older checkpoint, which makes a branch", async () => {
    const threadId = await newThread(held.server);
    for (const topic of ["tea", "milk"]) await after("topical", { input: { ...hello, topic } }, threadId);
    const history = await held.server.client.threads.getHistory(threadId);
    expect(history).toHaveLength(6);
    for (const [index, { checkpoint }] of history.entries()) {
      const input = index % 2 ? null : { ...hello, topic: `branch ${index}` };
      await after("topical", { input, checkpointId: checkpoint.checkpoint_id ?? "" }, threadId);
    }
  });

  test("a change by hand, at the newest checkpoint and at an older one, and a run after it", async () => {
    const threadId = await newThread(held.server);
    await after("topical", { input: { ...hello, topic: "tea" } }, threadId);
    await after("topical", { input: { ...hello, topic: "milk" } }, threadId);
    const [, older] = await held.server.client.threads.getHistory(threadId);
    await held.server.client.threads.updateState(threadId, { values: { topic: "by hand" } });
    expect((await compare(threadId)).state.values).toMatchObject({ topic: "by hand" });
    await held.server.client.threads.updateState(threadId, {
      values: { topic: "at an older one" },
      checkpointId: older?.checkpoint.checkpoint_id ?? "",
    });
    expect((await compare(threadId)).isStored).toBe(true);
    await after("topical", { input: hello }, threadId);
    await held.server.client.threads.updateState(threadId, {
      values: { log: ["as prepare"] },
      asNode: "answer",
    });
    await compare(threadId);
  });

  test("runs of several graphs on one thread", async () => {
    const threadId = await newThread(held.server);
    for (const graph of ["echo", "narrow", "keeping", "nested", "deltas", "fan", "echo"]) {
      const { isStored } = await after(
        graph,
        { input: { ...hello, question: "why?", items: ["a"] } },
        threadId,
      );
      expect(isStored).toBe(true);
    }
  });

  test("runs with every stream mode, and none of them values", async () => {
    for (const streamMode of [
      "updates",
      "messages-tuple",
      "custom",
      "events",
      "tasks",
      "checkpoints",
      "debug",
    ]) {
      const threadId = await newThread(held.server);
      const options = { input: hello, streamMode: streamMode as "updates" };
      await collect(held.server.client.runs.stream(threadId, "nested", options));
      expect((await compare(threadId)).isStored, `mode ${streamMode}`).toBe(true);
    }
  });

  test("nothing yet, and a run that was rolled back", async () => {
    const threadId = await newThread(held.server);
    expect((await compare(threadId)).state).toMatchObject({ values: {}, next: [], checkpoint: null });
    const name = newName();
    const run = await held.server.client.runs.create(threadId, "slow", { input: { name, gate: gate.url } });
    await gate.waitFor(name);
    await held.server.client.runs.cancel(threadId, run.run_id, true, "rollback");
    expect((await compare(threadId)).state).toMatchObject({ values: {}, next: [], checkpoint: null });
  });
});

async function startOn(threadId: string): Promise<{ run: Run; name: string }> {
  const name = newName();
  const run = await held.server.client.runs.create(threadId, "slow", { input: { name, gate: gate.url } });
  await gate.waitFor(name);
  return { run, name };
}

async function failed(threadId: string): Promise<{ run: Run; name: string }> {
  const name = newName();
  gate.refuse(name);
  await held.server.client.runs.wait(threadId, "slow", {
    input: { name, gate: gate.url },
    raiseError: false,
  });
  const [run] = await held.server.client.runs.list(threadId);
  return { run: run as Run, name };
}

async function factsOf(threadId: string): Promise<object> {
  const answer = await fetch(`${held.server.url}/threads/${threadId}`);
  const { status, error, values } = (await answer.json()) as Record<string, unknown>;
  return { status, error, values };
}

describe("a run that is rolled back leaves its thread the status that it found", () => {
  test("error, with its text", async () => {
    const threadId = await newThread(held.server);
    await failed(threadId);
    const before = await factsOf(threadId);
    expect(before).toMatchObject({ status: "error", error: { error: "RangeError" } });
    const { run } = await startOn(threadId);
    await held.server.client.runs.cancel(threadId, run.run_id, true, "rollback");
    expect(await factsOf(threadId)).toEqual(before);
    await compare(threadId);
  });

  test("error, also when another run rolls it back, and is rolled back itself", async () => {
    const threadId = await newThread(held.server);
    await failed(threadId);
    const before = await factsOf(threadId);
    await startOn(threadId);
    const second = newName();
    const run = await held.server.client.runs.create(threadId, "slow", {
      input: { name: second, gate: gate.url },
      multitaskStrategy: "rollback",
    });
    await gate.waitFor(second);
    await held.server.client.runs.cancel(threadId, run.run_id, true, "rollback");
    expect(await factsOf(threadId)).toEqual(before);
  });

  test("idle, although a question was left by a run that was cancelled", async () => {
    const threadId = await newThread(held.server);
    const { run: stopped } = await startOn(threadId);
    await held.server.client.runs.cancel(threadId, stopped.run_id, true);
    const before = await factsOf(threadId);
    expect(before).toMatchObject({ status: "idle" });
    const { run } = await startOn(threadId);
    await held.server.client.runs.cancel(threadId, run.run_id, true, "rollback");
    expect(await factsOf(threadId)).toEqual(before);
  });

  test("but not the error of its own first try", async () => {
    const threadId = await newThread(held.server);
    const { run, name } = await failed(threadId);
    await post(held.server, `/threads/${threadId}/runs/${run.run_id}/retry`);
    await gate.waitFor(name);
    await held.server.client.runs.cancel(threadId, run.run_id, true, "rollback");
    expect(await factsOf(threadId)).toEqual({ status: "idle", error: undefined, values: {} });
  });
});
