// Any graph: each kind that people build shows its clients the same frames, to the letter, under one instance and three.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { eachCluster } from "../support/cluster.ts";
import { told, withNames } from "../support/frames.ts";
import { collect } from "../support/server.ts";

let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const empty = { additional_kwargs: {}, response_metadata: {} };
const human = { content: "hi", id: "q", ...empty, type: "human" };
const ai = (id: string, content: string, toolCalls: object[] = []): object => ({
  id,
  content,
  tool_calls: toolCalls,
  invalid_tool_calls: [],
  ...empty,
  type: "ai",
});
const chat = { messages: [{ role: "user", content: "hi", id: "q" }] };

/** What a graph that notes in `log` what it does streams in the modes updates and values, node by node. */
function steps(...nodes: string[]): [string, object][] {
  return nodes.flatMap((node, index): [string, object][] => [
    ["updates", { [node]: { log: [node] } }],
    ["values", { log: nodes.slice(0, index + 1) }],
  ]);
}

/** What a graph streams when it stops to ask. */
function asks(value: unknown): [string, object][] {
  const question = { __interrupt__: [{ id: "#1", value }] };
  return [
    ["updates", question],
    ["values", question],
  ];
}

/** A node to go to, with an input of its own. */
const each = (item: string) => ({ node: "each", input: { item } });

type Mode = "updates" | "values" | "custom" | "tasks" | "messages-tuple";

eachCluster({ HOLDFAST_CONFIG: "test/fixtures/any/langgraph.json" }, (cluster) => {
  const on = async (threadId: string, graph: string, options: object, ...streamMode: string[]) =>
    told(cluster.client.runs.stream(threadId, graph, { ...options, streamMode: streamMode as Mode[] }));

  const run = async (graph: string, options: object, ...modes: string[]) =>
    on(await cluster.newThread(), graph, options, ...modes);

  const valuesOf = async (threadId: string): Promise<unknown> =>
    (await cluster.client.threads.getState(threadId)).values;

  test("a graph that asks goes on from each answer", async () => {
    const threadId = await cluster.newThread();
    const answer = (resume: unknown) => on(threadId, "asking", { command: { resume } }, "updates", "values");
    const first = await on(threadId, "asking", { input: {} }, "updates", "values");
    expect(first).toEqual(asks({ question: "who?" }));
    expect(await answer("ada")).toEqual([["values", { log: [] }], ...asks({ question: "where, ada?" })]);
    expect(await answer("bath")).toEqual([
      ["values", { log: [] }],
      ["updates", { ask: { log: ["ada in bath"] } }],
      ["values", { log: ["ada in bath"] }],
    ]);
    expect((await cluster.client.threads.get(threadId)).status).toBe("idle");
  });

  test("a subgraph streams under its namespace", async () => {
    const options = { input: chat, streamSubgraphs: true };
    const frames = await run("nested", options, "values", "updates", "messages-tuple");
    const answer = ai("answer", "a b");
    const tokens = frames.filter(([event]) => event.startsWith("messages"));
    expect(tokens.map(([event, data]) => [event, Object(data)[0].content])).toEqual(
      // A letter may still become something until the next one has come.
      ["", "a ", "b", "a b"].map((text) => ["messages|inner:#1", text]),
    );
    for (const [, data] of tokens)
      expect(Object(data)[1]).toMatchObject({
        langgraph_node: "answer",
        checkpoint_ns: "inner:#1|answer:#6",
      });
    expect(frames.filter(([event]) => !event.startsWith("messages"))).toEqual([
      ["values", { messages: [human] }],
      ["values|inner:#1", { messages: [human] }],
      ["updates|inner:#1", { answer: { messages: [answer] } }],
      ["values|inner:#1", { messages: [human, answer] }],
      ["updates", { inner: { messages: [human, answer] } }],
      ["values", { messages: [human, answer] }],
    ]);
  });

  test("an agent calls its tool and answers with what that gave", async () => {
    const call = { id: "call-1", name: "double", args: { n: 21 } };
    const result = expect.objectContaining({ type: "tool", content: "42", tool_call_id: "call-1" });
    const about = { toolCallId: "call-1", name: "double" };
    expect(await run("agent", { input: chat }, "updates", "tools")).toEqual([
      ["updates", { agent: { messages: [ai("first", "", [call])] } }],
      ["tools", { event: "on_tool_start", ...about, input: '{"n":21}' }],
      ["tools", { event: "on_tool_end", ...about, output: result }],
      ["updates", { tools: { messages: [result] } }],
      ["updates", { agent: { messages: [ai("second", "it is 42")] } }],
    ]);
  });

  test("branches at the same time write to one channel in the order of the graph", async () => {
    const names = ["left", "middle", "right"];
    const frames = await run("branches", { input: {} }, "updates", "values", "tasks");
    expect(frames.filter(([event]) => event !== "tasks")).toEqual([
      ...names.map((name) => ["updates", { [name]: { log: [name] } }]),
      ["values", { log: names }],
      ["updates", { join: { log: ["3 came"] } }],
      ["values", { log: [...names, "3 came"] }],
    ]);
    const tasks = frames.filter(([event]) => event === "tasks").map(([, data]) => Object(data));
    expect(tasks.map(({ id, name, result }) => [id, name, result?.log])).toEqual([
      ["#1", "left", undefined],
      ["#4", "middle", undefined],
      ["#5", "right", undefined],
      ["#1", "left", ["left"]],
      ["#4", "middle", ["middle"]],
      ["#5", "right", ["right"]],
      ["#6", "join", undefined],
      ["#6", "join", ["3 came"]],
    ]);
  });

  test("what a node writes to its stream arrives as it was written", async () => {
    expect(await run("writing", { input: {} }, "custom", "updates")).toEqual([
      ["custom", { done: 0 }],
      ["custom", "half"],
      ["custom", [1, null, { deep: "ü" }]],
      ["updates", { write: { log: ["wrote"] } }],
    ]);
  });

  test("an error in a node ends the run with its own class, after what worked", async () => {
    const threadId = await cluster.newThread();
    const error = { error: "OutOfTea", message: "no tea is left" };
    expect(await on(threadId, "failing", { input: {} }, "updates", "values")).toEqual([
      ...steps("begin"),
      ["error", error],
    ]);
    const { status, values } = await cluster.client.threads.get(threadId);
    expect([status, values]).toEqual(["error", { log: ["begin"] }]);
    const { next, tasks } = await cluster.client.threads.getState(threadId);
    // `useStream` makes an error with this name and message of it, as of the stream's last event.
    const failed = { message: "no tea is left", name: "OutOfTea" };
    expect([next, tasks.map((one) => JSON.parse(one.error ?? "null") as unknown)]).toEqual([
      ["brew"],
      [failed],
    ]);
  });

  test("a long node stops when its run is cancelled, whichever instance is asked", async () => {
    const { runs } = cluster.client;
    const threadId = await cluster.newThread();
    const name = randomUUID().slice(0, 8);
    const input = { name, gate: gate.url };
    const streaming = on(threadId, "slow", { input }, "updates", "values");
    await gate.waitFor(name);
    const [live] = await runs.list(threadId);
    await runs.cancel(threadId, live?.run_id ?? "", true);
    const log = [`${name}:begin`];
    expect(await streaming).toEqual([
      ["values", { log: [], ...input }],
      ["updates", { begin: { log } }],
      ["values", { log, ...input }],
    ]);
    expect(gate.left).toContain(name);
    expect(await valuesOf(threadId)).toEqual({ log, ...input });
  });

  test("a run has its context, checked by the graph's own schema", async () => {
    const warm = await run("contextual", { input: {}, context: { tone: "warm", size: 5 } }, "updates");
    expect(warm).toEqual([["updates", { tell: { log: ["warm 5"] } }]]);
    const [wrong] = await run("contextual", { input: {}, context: { tone: 5 } }, "updates");
    expect(wrong).toEqual([
      "error",
      { error: expect.stringContaining("ZodError"), message: expect.stringContaining("expected string") },
    ]);
    const { assistant_id: id } = await cluster.client.assistants.create({
      graphId: "contextual",
      context: { tone: "cold", size: 1 },
    });
    const own = await run(id, { input: {}, context: { size: 2 } }, "updates");
    expect(own).toEqual([["updates", { tell: { log: ["cold 2"] } }]]);
  });

  test("commands of nodes and of clients change the state and say where to go", async () => {
    const threadId = await cluster.newThread();
    const frames = await on(threadId, "commanded", { input: {} }, "updates", "values");
    expect(frames).toEqual(steps("choose", "again", "choose", "last"));
    const command = { goto: "last", update: { log: ["from outside"] } };
    const log = ["choose", "again", "choose", "last", "from outside"];
    expect(await on(threadId, "commanded", { command }, "updates", "values")).toEqual([
      ["values", { log }],
      ["updates", { last: { log: ["last"] } }],
      ["values", { log: [...log, "last"] }],
    ]);
    const sends = { command: { goto: [each("x"), each("y")] } };
    expect((await run("mapped", sends, "updates")).slice(0, 2)).toEqual([
      ["updates", { each: { log: ["did x"] } }],
      ["updates", { each: { log: ["did y"] } }],
    ]);
    const [single] = await run("mapped", { command: { goto: each("z") } }, "updates");
    expect(single).toEqual(["updates", { each: { log: ["did z"] } }]);
  });

  test("each item is sent to a task of its own, and the results keep the order of the items", async () => {
    const items = Array.from({ length: 5 }, (_, index) => `item ${index}`);
    const log = items.map((item) => `did ${item}`);
    expect(await run("mapped", { input: { items } }, "updates", "values")).toEqual([
      ["values", { items, log: [] }],
      ...log.map((done) => ["updates", { each: { log: [done] } }]),
      ["values", { items, log }],
      ["updates", { join: { log: ["5 done"] } }],
      ["values", { items, log: [...log, "5 done"] }],
    ]);
  });

  test("nodes find the store, and what they keep is there for the next thread and for clients", async () => {
    const user = randomUUID();
    for (const visit of [1, 2, 3]) {
      const frames = await run("counting", { input: { user } }, "updates");
      expect(frames).toEqual([["updates", { count: { log: [`visit ${visit}`] } }]]);
    }
    const item = await cluster.client.store.getItem(["visits", user], "count");
    expect(item?.value).toEqual({ visits: 3 });
  });

  test("transformers of a graph, which are for another kind of stream, change nothing", async () => {
    const frames = await run("transformed", { input: {} }, "updates", "values", "custom");
    expect(frames).toEqual(steps("begin", "end"));
  });

  test("a graph in the functional form runs its tasks once and goes on from an answer", async () => {
    const threadId = await cluster.newThread();
    const asked = { __interrupt__: [{ id: "#1", value: "more than TEA?" }] };
    expect(await on(threadId, "functional", { input: { word: "tea" } }, "updates", "values")).toEqual([
      ["updates", { shout: "TEA" }],
      ["updates", asked],
      ["values", asked],
    ]);
    const last = { loud: "TEA", answer: "jam" };
    const answered = await on(threadId, "functional", { command: { resume: "jam" } }, "updates", "values");
    expect(answered.slice(-2)).toEqual([
      ["updates", { functional: last }],
      ["values", last],
    ]);
  });

  test("many runs of many graphs at once are each what they are alone", async () => {
    const graphs = ["commanded", "branches", "writing", "transformed", "builder", "plain"];
    const alone = await Promise.all(graphs.map((graph) => run(graph, { input: {} }, "updates")));
    const many = Array.from({ length: 4 }, () => graphs.map((graph) => run(graph, { input: {} }, "updates")));
    for (const round of many) expect(await Promise.all(round)).toEqual(alone);
  });

  test("a run without a thread, and one that is joined, show the same frames", async () => {
    const { runs } = cluster.client;
    const options = { input: {}, streamMode: ["updates", "values"] as Mode[] };
    const frames = await collect(runs.stream(null, "commanded", options));
    const runId = String(Object(frames[0]?.data).run_id);
    expect(await collect(runs.joinStream(null, runId))).toEqual(frames);
    expect(withNames(frames.slice(1).map(({ event, data }) => [event, data]))).toEqual(
      steps("choose", "again", "choose", "last"),
    );
  });
});
