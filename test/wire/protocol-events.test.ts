// What a run tells followers of its thread by protocol v2, kind by kind. LangGraph's own stream of events is the oracle.
import { randomUUID } from "node:crypto";
import { MemorySaver } from "@langchain/langgraph";
import type { StreamMode } from "@langchain/langgraph-sdk";
import { afterEach, expect, test } from "vitest";
import { echo } from "../fixtures/graphs.ts";
import { startGate } from "../fixtures/gate.ts";
import { calling, callingWithin, counting, nested } from "../fixtures/told.ts";
import { command, ended, roots, startRun, watch } from "../support/protocol.ts";
import type { Event, Place } from "../support/protocol.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/protocol.langgraph.json" });
const place: Place = {
  get url() {
    return held.server.url;
  },
  fetch: (...request) => fetch(...request),
};
let gone = new AbortController();
afterEach(() => {
  gone.abort();
  gone = new AbortController();
});

const input = { messages: [{ role: "user", content: "hi", id: "q" }] };

const logOf = ({ params }: Event): unknown => params.data["log"];

async function eventsOf(
  assistant: string,
  given: unknown = input,
): Promise<{ threadId: string; events: Event[] }> {
  const threadId = randomUUID();
  const events = await watch(place, threadId, gone.signal);
  await startRun(place, threadId, assistant, given);
  await ended(events);
  return { threadId, events };
}

type Oracle = Pick<Event, "method" | "params">;

/** An event without what differs from run to run: ids, times and the hash behind each node's name. */
function briefly({ method, params }: Oracle): unknown[] {
  const { namespace, node, data } = params;
  const shown = JSON.stringify(data, (key: string, value: unknown) =>
    ["id", "run_id", "parent_id", "metadata", "interrupt_id"].includes(key) ? undefined : value,
  );
  return [method, namespace.map((segment) => segment.split(":")[0]), node, JSON.parse(shown)];
}

/** A channel of a transformer has its name in the data. */
function named(event: Oracle): Oracle {
  const { method, params } = event;
  if (!method.startsWith("custom:")) return event;
  return { method: "custom", params: { ...params, data: { name: method.slice(7), payload: params.data } } };
}

/** What the oracle tells, as the protocol has it: questions are events of their own, and so on. */
function asProtocol(told: readonly Oracle[], graph: string): unknown[][] {
  const asked = new Set<unknown>();
  const expected = told.flatMap((event): Oracle[] => {
    const { method, params } = event;
    const { data, namespace } = params;
    if (typeof data !== "object" || data === null) return [named(event)];
    if (method === "updates" && data["node"] === "__interrupt__") {
      const [question] = data["values"] as { id: string; value: unknown }[];
      if (asked.has(question?.id)) return [];
      asked.add(question?.id);
      const { node: _none, ...where } = params;
      return [{ method: "input.requested", params: { ...where, data: { payload: question?.value } } }];
    }
    if ("__interrupt__" in data) return [];
    if (method === "lifecycle" && namespace.length === 0)
      return [{ method, params: { ...params, data: { ...data, graph_name: graph } } }];
    if (data["event"] === "message-start")
      return [{ method, params: { ...params, data: { ...data, role: "ai" } } }];
    if (data["event"] === "message-finish")
      return [{ method, params: { ...params, data: { event: "message-finish" } } }];
    return [named(event)];
  });
  return expected.map((event) => briefly(JSON.parse(JSON.stringify(event)) as Oracle));
}

/** Of values only where they are told: messages have another form here. */
const values = (event: unknown[]): unknown[] =>
  ["values", "updates", "tasks"].includes(String(event[0])) ? event.slice(0, 3) : event;

async function toldByLangGraph(graph: Pick<typeof echo, "streamEvents">): Promise<Oracle[]> {
  const told: Oracle[] = [];
  const configurable = { thread_id: "oracle", __pregel_checkpointer: new MemorySaver() };
  const stream = await graph.streamEvents(input, { version: "v3", configurable });
  for await (const event of stream as unknown as AsyncIterable<Oracle>) told.push(event);
  return told;
}

const isEnd = ({ method, params }: Oracle): boolean =>
  method === "lifecycle" && params.namespace.length === 0 && params.data["event"] !== "running";

// These are not redacted: only then do they tell the same pieces.
test.each([
  ["echo", echo, "completed"],
  ["nested", nested, "interrupted"],
  ["counting", counting, "completed"],
] as const)("a run of %s tells what LangGraph's own stream of events tells", async (name, graph, end) => {
  const told = await toldByLangGraph(graph as typeof echo);
  // Values that a graph promises for its end come before the end is told.
  const ordered = [...told.filter((event) => !isEnd(event)), ...told.filter(isEnd)];
  const expected = asProtocol(ordered, name).slice(0, -1);
  const { events } = await eventsOf(name);
  expect(events.map(briefly).map(values)).toEqual([
    ...expected.map(values),
    ["lifecycle", [], undefined, { event: end, graph_name: name }],
  ]);
});

test("followers are told the same of a run over REST, whatever its own stream shows", async () => {
  const { client } = held.server;
  const { events } = await eventsOf("calling");
  const modes = [
    "values",
    "updates",
    "messages-tuple",
    "messages",
    "custom",
    "tasks",
    "checkpoints",
    "debug",
  ];
  for (const streamMode of [["checkpoints"], modes, [...modes, "events"]] as StreamMode[][]) {
    const threadId = randomUUID();
    const told = await watch(place, threadId, gone.signal);
    await client.runs.create(threadId, "calling", { input, streamMode, ifNotExists: "create" });
    await ended(told);
    expect(told.map(briefly)).toEqual(events.map(briefly));
  }
});

const withoutRun = (key: string, value: unknown): unknown => (key === "run_id" ? undefined : value);

test("a message that calls tools is told block by block, one after the other", async () => {
  const { events } = await eventsOf("calling");
  const decided = events.filter(({ method, params }) => method === "messages" && params.node === "decide");
  const [{ params: first }] = decided as [Event];
  expect(decided.map(({ params }) => params.data["run_id"])).toEqual(decided.map(() => first.data["id"]));
  const shown = decided.map(({ params }) => JSON.parse(JSON.stringify(params.data, withoutRun)) as unknown);
  expect(shown).toEqual([
    { event: "message-start", id: first.data["id"], role: "ai" },
    { event: "content-block-start", index: 0, content: { type: "text", text: "" } },
    { event: "content-block-delta", index: 0, delta: { type: "text-delta", text: "Let " } },
    { event: "content-block-delta", index: 0, delta: { type: "text-delta", text: "me " } },
    { event: "content-block-delta", index: 0, delta: { type: "text-delta", text: "see." } },
    { event: "content-block-finish", index: 0, content: { type: "text", text: "Let me see." } },
    {
      event: "content-block-start",
      index: 1,
      content: { type: "tool_call_chunk", id: "call-1", name: "double", args: "" },
    },
    { event: "content-block-delta", index: 1, delta: { type: "tool-call-delta", args: '{"n"' } },
    { event: "content-block-delta", index: 1, delta: { type: "tool-call-delta", args: ":21}" } },
    {
      event: "content-block-finish",
      index: 1,
      content: { type: "tool_call", id: "call-1", name: "double", args: { n: 21 } },
    },
    {
      event: "content-block-start",
      index: 2,
      content: { type: "tool_call_chunk", id: "call-2", name: "double", args: "" },
    },
    { event: "content-block-delta", index: 2, delta: { type: "tool-call-delta", args: '{"n":1}' } },
    {
      event: "content-block-finish",
      index: 2,
      content: { type: "tool_call", id: "call-2", name: "double", args: { n: 1 } },
    },
    { event: "message-finish", usage: { input_tokens: 3, output_tokens: 4, total_tokens: 7 } },
  ]);
  const tools = events.filter(({ method }) => method === "tools").map(({ params }) => params.data);
  expect(tools.map(({ event, tool_call_id: id }) => `${String(event)} ${String(id)}`).toSorted()).toEqual([
    "tool-finished call-1",
    "tool-finished call-2",
    "tool-started call-1",
    "tool-started call-2",
  ]);
  // What a provider said beside the message stays inside.
  expect(JSON.stringify(events)).not.toContain("additional_kwargs");
});

const placesOfTools = (told: readonly Oracle[]): Set<string> =>
  new Set(told.filter(({ method }) => method === "tools").map((event) => String(briefly(event)[1])));

// Hooks show the tools of a graph by it, without those of the graphs in it.
test.each([
  ["calling", calling],
  ["callingWithin", callingWithin],
] as const)("the tools of %s are told under the task that calls them", async (name, graph) => {
  const { events } = await eventsOf(name);
  expect(placesOfTools(events)).toEqual(
    placesOfTools(await toldByLangGraph(graph as unknown as typeof echo)),
  );
});

const placesOfMessages = (told: readonly Oracle[]): string[] =>
  told
    .filter(({ params }) => Object(params.data).event === "message-start")
    .map((event) => String(briefly(event)[1]))
    .toSorted();

// Hooks show what comes under the task of a call as messages of the agent that the tool runs: the tool's own is none.
test.each([
  ["calling", calling],
  ["callingWithin", callingWithin],
] as const)("of %s the messages of models are told, those of tools by their calls", async (name, graph) => {
  const { events } = await eventsOf(name);
  const places = placesOfMessages(events);
  expect(places).toHaveLength(2);
  expect(places).toEqual(placesOfMessages(await toldByLangGraph(graph as unknown as typeof echo)));
});

test("a run that fails says so once, in plain words", async () => {
  const { events } = await eventsOf("failing", { value: 1 });
  expect(events.at(-1)?.params.data).toEqual({
    event: "failed",
    graph_name: "failing",
    error: "the node failed on purpose",
  });
  expect(roots(events)).toEqual(["running", "failed"]);
});

test("a transformer that fails at the very end does not fail its run", async () => {
  const { threadId, events } = await eventsOf("failingLate");
  expect(roots(events)).toEqual(["running", "completed"]);
  const [run] = await held.server.client.runs.list(threadId);
  expect(run?.status).toBe("success");
});

test("transformers that fail are left out, and their run ends as it does when nobody watches it", async () => {
  const { threadId, events } = await eventsOf("failingTransformers");
  expect(roots(events)).toEqual(["running", "completed"]);
  const [run] = await held.server.client.runs.list(threadId);
  expect(run?.status).toBe("success");
  expect(events.some(({ method }) => method === "values")).toBe(true);
  const letters = events.filter(({ params }) => params.data["name"] === "letters");
  expect(letters.at(-1)?.params.data["payload"]).toBe(3);
});

test("a stale answer with strict resume fails with its reason, and the question stays open", async () => {
  const { threadId, events } = await eventsOf("asking", { value: 1 });
  const question = events.find(({ method }) => method === "input.requested");
  const open = question?.params.data["interrupt_id"];
  const stale = "0".repeat(32);
  const respond = (id: unknown, number: number): ReturnType<typeof command> =>
    command(
      place,
      threadId,
      "input.respond",
      { interrupt_id: id, response: "yes", strict_resume: true },
      number,
    );
  expect(await respond(stale, 2)).toMatchObject({ type: "success" });
  await ended(events, 2);
  expect(events.at(-1)?.params.data).toMatchObject({
    event: "failed",
    reason: "not_pending",
    interrupt_ids: [stale],
    pending_ids: [open],
  });
  expect((await held.server.client.threads.get(threadId)).status).toBe("interrupted");
  expect(await respond(open, 3)).toMatchObject({ type: "success" });
  await ended(events, 3);
  expect(roots(events)).toEqual(["running", "interrupted", "running", "failed", "running", "completed"]);
});

test("a message begins and ends once, although another task of its node has ended before", async () => {
  const { events } = await eventsOf("shared", { messages: [] });
  const told = events.filter(({ method }) => method === "messages").map(({ params }) => params.data);
  expect(told.map(({ event }) => event).filter((event) => String(event).startsWith("message-"))).toEqual([
    "message-start",
    "message-finish",
  ]);
  const text = told.map(({ delta }) => (delta as { text?: string } | undefined)?.text ?? "").join("");
  expect(text).toBe("ask [REDACTED_EMAIL] now");
});

test("an answer with strict resume leaves no thread waiting on which nothing is asked", async () => {
  const { threadId, events } = await eventsOf("echo");
  const answer = { interrupt_id: "0".repeat(32), response: "yes", strict_resume: true };
  await command(place, threadId, "input.respond", answer, 2);
  await ended(events, 2);
  expect(events.at(-1)?.params.data).toMatchObject({ event: "failed", pending_ids: [] });
  const { threads } = held.server.client;
  expect(await threads.get(threadId)).toMatchObject({ status: "error", interrupts: {} });
  expect(await threads.search({ ids: [threadId], status: "interrupted" })).toEqual([]);
});

test("a question of a graph within is told where it is asked, and answered by plain input", async () => {
  const { threadId, events } = await eventsOf("nested");
  const asked = events.filter(({ method }) => method === "input.requested");
  expect(asked.map(({ params }) => params.data["payload"])).toEqual([{ question: "inside?" }]);
  expect(asked[0]?.params.namespace[0]).toMatch(/^inner:/);
  await startRun(place, threadId, "nested", "plainly");
  await ended(events, 2);
  expect(await command(place, threadId, "state.get", { keys: ["heard"] })).toMatchObject({
    result: { values: { heard: "plainly" } },
  });
});

test("runs that are cancelled or rolled back end for their watchers, and leave no question open", async () => {
  const gate = await startGate();
  const { client } = held.server;
  const threadId = randomUUID();
  const events = await watch(place, threadId, gone.signal);
  for (const [name, action] of [
    ["first", "interrupt"],
    ["second", "rollback"],
  ] as const) {
    const { result } = await startRun(
      place,
      threadId,
      "slow",
      { name, gate: gate.url },
      { metadata: { name } },
    );
    await gate.waitFor(name);
    await client.runs.cancel(threadId, String(Object(result).run_id), true, action);
  }
  await ended(events, 2);
  expect(roots(events)).toEqual(["running", "interrupted", "running", "interrupted"]);
  gate.open("third");
  await startRun(place, threadId, "slow", { name: "third" });
  await ended(events, 3);
  expect(roots(events).slice(4)).toEqual(["running", "completed"]);
  expect(new Set(events.map(({ event_id: id }) => id)).size).toBe(events.length);
  await gate.stop();
});

test.each(["interrupt", "rollback"] as const)(
  "graphs in the graph and calls of tools end with a run that is cancelled (%s), for their watchers",
  async (action) => {
    const gate = await startGate();
    const { client } = held.server;
    const threadId = randomUUID();
    const events = await watch(place, threadId, gone.signal);
    const { result } = await startRun(place, threadId, "usesWithin", { name: "gone", gate: gate.url });
    await gate.waitFor("gone");
    const told = (channel: string): string[] =>
      events
        .filter(({ method, params }) => method === channel && params.namespace.length > 0)
        .map(({ params: { namespace, data } }) => `${String(data["event"])} ${namespace.length}`);
    await expect.poll(() => told("tools")).toEqual(["tool-started 2"]);
    // Who has come in its midst does not know all that was begun, and what he is told is the same all the same.
    const since = events.findLast(({ method }) => method === "lifecycle")?.seq;
    const late = await watch(place, threadId, gone.signal, { since });
    await until(() => late.some(({ method }) => method === "tools"), "what came behind");
    await client.runs.cancel(threadId, String(Object(result).run_id), true, action);
    await Promise.all([ended(events), ended(late)]);
    const bySeq = new Map(events.map((event) => [event.seq, event]));
    expect(late).toEqual(late.map(({ seq }) => bySeq.get(seq)));
    expect(told("tools")).toEqual(["tool-started 2", "tool-error 2"]);
    const lives = told("lifecycle").toSorted();
    expect(lives).toEqual(["interrupted 1", "interrupted 2", "started 1", "started 2"]);
    expect(events.find(({ params }) => params.data["event"] === "tool-error")?.params.data).toEqual({
      event: "tool-error",
      tool_call_id: "call-1",
      message: "The run was stopped.",
    });
    await gate.stop();
  },
);

test("who has watched a run that is rolled back is shown what the thread holds without it", async () => {
  const gate = await startGate();
  const { client } = held.server;
  gate.open("kept");
  const { threadId, events } = await eventsOf("slow", { name: "kept", gate: gate.url });
  const { result } = await startRun(place, threadId, "slow", { name: "gone", gate: gate.url });
  await gate.waitFor("gone");
  const logs = (): unknown[] => events.filter(({ method }) => method === "values").map(logOf);
  await until(() => String(logs().at(-1)).endsWith("gone:begin"), "what the run has written");
  await client.runs.cancel(threadId, String(Object(result).run_id), true, "rollback");
  await ended(events, 2);
  const state = await client.threads.getState(threadId);
  expect(events.slice(-2).map(({ method, params }) => [method, params.data])).toEqual([
    ["values", state.values],
    ["lifecycle", { event: "interrupted" }],
  ]);
  expect(logs().at(-1)).toEqual(["kept:begin", "kept:work", "kept:finish"]);
  await gate.stop();
});

test("who has followed a thread that is deleted is told of the one that is made under its id", async () => {
  const { client } = held.server;
  const { threadId, events } = await eventsOf("echo");
  await startRun(place, threadId, "echo", { ...input, again: true });
  await ended(events, 2);
  await client.threads.delete(threadId);
  const before = events.length;
  const back = await watch(place, threadId, gone.signal, { since: events.at(-1)?.seq });
  await startRun(place, threadId, "echo", { ...input, again: "and again" });
  await Promise.all([ended(events, 3), ended(back)]);
  expect(events.slice(before)).toEqual(back);
  expect(roots(back)).toEqual(["running", "completed"]);
  const late = await watch(place, threadId, gone.signal, { since: events[before - 1]?.seq });
  await ended(late);
  expect(late).toEqual(back);
});

test("a run that is tried again goes on with new numbers, and what it told before is not told again", async () => {
  const { threadId, events } = await eventsOf("failing", { value: 1 });
  const [{ run_id: runId }] = (await held.server.client.runs.list(threadId)) as unknown as [
    { run_id: string },
  ];
  await startRun(place, threadId, "failing", { value: 2 });
  await ended(events, 2);
  const retried = await fetch(`${place.url}/threads/${threadId}/runs/${runId}/retry`, { method: "POST" });
  expect(retried.status).toBe(200);
  await ended(events, 3);
  expect(roots(events)).toEqual(["running", "failed", "running", "failed", "running", "failed"]);
  expect(events.map(({ seq }) => seq)).toEqual(
    events.map(({ seq }) => seq).toSorted((left, right) => left - right),
  );
  expect(new Set(events.map(({ event_id: id }) => id)).size).toBe(events.length);
  const again = await watch(place, threadId, gone.signal);
  await ended(again);
  expect(again).toEqual(events.slice(-again.length));
});

test("the graphs at work are a tree, and checkpoints are listed and branched from", async () => {
  const { threadId, events } = await eventsOf("echo");
  expect(await command(place, threadId, "agent.getTree", {})).toMatchObject({
    result: {
      tree: {
        namespace: [],
        status: "completed",
        graph_name: "echo",
        children: [{ status: "completed", graph_name: "answer" }],
      },
    },
  });
  const [run] = await held.server.client.runs.list(threadId);
  const itsRun = { run_id: run?.run_id };
  expect(await command(place, threadId, "agent.getTree", itsRun)).toMatchObject({ type: "success" });
  const { threadId: other } = await eventsOf("echo");
  expect(await command(place, other, "agent.getTree", itsRun)).toMatchObject({ error: "no_such_run" });
  const { result } = await command(place, threadId, "state.listCheckpoints", { limit: 2 });
  const [newest, before] = Object(result).checkpoints as { id: string; step: number }[];
  const told = events.filter(({ method }) => method === "checkpoints").map(({ params }) => params.data);
  expect([before?.id, newest?.id]).toEqual(told.slice(-2).map(({ id }) => id));
  const forked = await command(place, threadId, "state.fork", {
    checkpoint_id: before?.id,
    input: { topic: "fork" },
  });
  expect(forked).toMatchObject({ type: "success", result: { thread_id: threadId } });
  await ended(events, 2);
  expect(await command(place, threadId, "state.get", { keys: ["topic"] })).toMatchObject({
    result: { values: { topic: "fork" } },
  });
});

test.each([
  [{ method: "run.start" }, 400],
  [{ id: 1, method: "run.start", params: { assistant_id: "no such graph" } }, "invalid_argument"],
  [
    { id: 1, method: "run.start", params: { assistant_id: "echo", multitask_strategy: "any" } },
    "invalid_argument",
  ],
  [{ id: 1, method: "run.start", params: {} }, "invalid_argument"],
  [{ id: 1, method: "input.respond", params: { responses: [] } }, "invalid_argument"],
  [{ id: 1, method: "state.get", params: { keys: 1 } }, "invalid_argument"],
  [{ id: 1, method: "state.get", params: {} }, 404],
  [{ id: 1, method: "state.fork", params: { checkpoint_id: randomUUID() } }, 404],
  [{ id: 1, method: "input.inject", params: {} }, "not_supported"],
  [{ id: 1, method: "agent.getTree", params: { run_id: "x" } }, "invalid_argument"],
])("a command that is wrong is refused in the protocol's words: %j", async (body, fault) => {
  const url = `${place.url}/threads/${randomUUID()}/commands`;
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  const text = await response.text();
  const answer = response.status === 200 ? (JSON.parse(text) as Record<string, unknown>) : {};
  expect(answer["error"] ?? response.status).toBe(fault);
  expect(answer["message"] ?? text).toMatch(/\w{3,}/);
});

test.each([
  [{}, "channels"],
  [{ channels: [] }, "channels names none"],
  [{ channels: ["nothing"] }, "channels names none"],
  [{ channels: ["values"], since: -1 }, "since"],
  [{ channels: ["values"], since_event_id: "first" }, "cursor"],
])("a stream that asks for nothing is refused: %j", async (body, reason) => {
  const url = `${place.url}/threads/${randomUUID()}/stream`;
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  expect([response.status, await response.text()]).toEqual([400, expect.stringContaining(reason)]);
});

test("a thread may have any simple name here, and a name that could not be told is refused", async () => {
  const events = await watch(place, "user:42", gone.signal);
  await startRun(place, "user:42", "echo", input);
  await ended(events);
  const refused = await fetch(`${place.url}/threads/a%20b/commands`, { method: "POST", body: "{}" });
  expect([refused.status, await refused.text()]).toEqual([400, expect.stringContaining("Invalid thread ID")]);
});

test("what an agent says before it hands over to another one is finished, not broken off", async () => {
  const { events } = await eventsOf("handsOver");
  const ends = events
    .filter(({ method }) => method === "messages")
    .map(({ params: { data } }) => data["event"])
    .filter((event) => event === "message-finish" || event === "error");
  expect(ends).toEqual(["message-finish", "message-finish"]);
});
