// Pruning a thread takes nothing that its newest state needs: what is read, and what goes on from it, is the same.
import { randomUUID } from "node:crypto";
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import {
  Command,
  DeltaValue,
  END,
  MessagesDeltaValue,
  MessagesValue,
  START,
  StateGraph,
  StateSchema,
  interrupt,
} from "@langchain/langgraph";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { Checkpoints } from "../../server/storage/checkpoints/checkpoints.ts";
import { deleteThreads, keepLatest, lockPrunable } from "../../server/storage/checkpoints/prune.ts";
import { createThreadRow } from "../support/checkpoints.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
let checkpointer: Checkpoints;

beforeAll(async () => {
  scratch = await testDatabase();
  checkpointer = new Checkpoints(scratch.database);
});
afterAll(() => scratch.close());

const reply = (state: { messages: { text: string }[] }) => ({
  messages: [new AIMessage(`re: ${state.messages.at(-1)?.text ?? ""}`)],
  turns: state.messages.length,
});

const plain = () =>
  new StateGraph(new StateSchema({ messages: MessagesValue, turns: z.number().default(0) }))
    .addNode("answer", reply)
    .addEdge(START, "answer")
    .addEdge("answer", END)
    .compile({ checkpointer });

const every5 = { snapshotFrequency: 5 };
const { valueSchema, inputSchema, reducer } = MessagesDeltaValue;
const deltaMessages = new DeltaValue(valueSchema, { inputSchema, reducer, ...every5 });
const listed = () =>
  new DeltaValue(z.array(z.string()).default([]), {
    inputSchema: z.array(z.string()),
    reducer: (all: string[], added: string[][]) => [...all, ...added.flat()],
    ...every5,
  });

/** Messages as deltas, a whole value every fifth update; `notes` is a delta written once, `never` one that is not. */
const delta = () =>
  new StateGraph(new StateSchema({ messages: deltaMessages, notes: listed(), never: listed() }))
    .addNode("answer", (state) => ({
      messages: reply(state).messages,
      ...(state.messages.length === 1 ? { notes: ["first"] } : {}),
    }))
    .addEdge(START, "answer")
    .addEdge("answer", END)
    .compile({ checkpointer });

/** A subgraph of two steps that asks a person between them, and one that remembers, under an outer graph of deltas. */
const Nested = new StateSchema({ messages: MessagesDeltaValue, approved: z.string().default("") });
const asking = new StateGraph(Nested)
  .addNode("draft", () => ({ messages: [new AIMessage("draft")] }))
  .addNode("ask", () => ({ approved: String(interrupt("ok?")), messages: [new AIMessage("asked")] }))
  .addEdge(START, "draft")
  .addEdge("draft", "ask")
  .addEdge("ask", END)
  .compile();
const Memory = new StateSchema({ messages: MessagesDeltaValue, seen: z.number().default(0) });
const remembering = new StateGraph(Memory)
  .addNode("count", (state) => ({
    seen: state.seen + 1,
    messages: [new AIMessage(`seen ${state.seen + 1}`)],
  }))
  .addEdge(START, "count")
  .addEdge("count", END)
  .compile({ checkpointer: true });
const nested = () =>
  new StateGraph(Nested)
    .addNode("memory", remembering)
    .addNode("approval", asking)
    .addEdge(START, "memory")
    .addEdge("memory", "approval")
    .addEdge("approval", END)
    .compile({ checkpointer });

interface Any {
  invoke(input: unknown, config: object): Promise<unknown>;
  getState(config: object, options?: { subgraphs: boolean }): Promise<unknown>;
}

async function newThread(): Promise<string> {
  const threadId = randomUUID();
  await createThreadRow(scratch.database, threadId);
  return threadId;
}

const at = (threadId: string) => ({ configurable: { thread_id: threadId } });
const say = (text: string) => ({ messages: [new HumanMessage({ content: text, id: randomUUID() })] });
const stateOf = async (graph: Any, threadId: string): Promise<unknown> =>
  JSON.parse(JSON.stringify(await graph.getState(at(threadId), { subgraphs: true })));

const prune = (threadId: string): Promise<number> =>
  scratch.database.transaction(async (transaction) => {
    await lockPrunable(transaction, [threadId]);
    return keepLatest(transaction, threadId);
  });

async function countOf(table: string, threadId: string): Promise<number> {
  const [row] = await scratch.database.query<{ n: number }>(
    `select count(*) as n from public.${table} where thread_id = $1`,
    [threadId],
  );
  return row?.n ?? -1;
}

/** Two threads with the same past; the first is pruned. Both must then look and go on alike. */
async function comparePruned(graph: Any, past: unknown[], future: unknown[]): Promise<string> {
  const [pruned, whole] = [await newThread(), await newThread()];
  for (const input of past) for (const id of [pruned, whole]) await graph.invoke(input, at(id));
  const before = await stateOf(graph, pruned);
  await prune(pruned);
  expect(await stateOf(graph, pruned)).toEqual(before);
  for (const input of future) {
    for (const id of [pruned, whole]) await graph.invoke(input, at(id));
    expect(gistOf(await stateOf(graph, pruned))).toEqual(gistOf(await stateOf(graph, whole)));
  }
  return pruned;
}

/** What two threads can have in common: texts, values and what comes next, not their ids. */
function gistOf(state: unknown): unknown {
  const { values, next, tasks } = state as {
    values: Record<string, unknown>;
    next: string[];
    tasks: { interrupts: { value: unknown }[]; state?: unknown }[];
  };
  const { messages, ...rest } = values as { messages?: { kwargs: { content: unknown } }[] };
  return {
    texts: messages?.map(({ kwargs }) => kwargs.content),
    rest,
    next,
    tasks: tasks.map(({ interrupts, state: inner }) => ({
      interrupts: interrupts.map(({ value }) => value),
      inner: inner && typeof inner === "object" && "values" in inner ? gistOf(inner) : null,
    })),
  };
}

test("a thread of plain values keeps one checkpoint and goes on", async () => {
  const threadId = await comparePruned(plain(), [say("a"), say("b"), say("c")], []);
  expect(await countOf("checkpoints", threadId)).toBe(1);
  expect(await countOf("checkpoint_writes", threadId)).toBe(0);
  expect(await countOf("checkpoint_blobs", threadId)).toBeLessThanOrEqual(3);
  await comparePruned(plain(), [say("a"), say("b")], [say("c"), say("d")]);
});

test.each([1, 2, 3, 4, 5, 6, 9])(
  "a thread of deltas keeps the chain back to its last whole value, after %i turns",
  async (turns) => {
    const past = Array.from({ length: turns }, (_, index) => say(`m${index}`));
    const threadId = await comparePruned(delta(), past, [say("x"), say("y"), say("z")]);
    expect(await countOf("checkpoints", threadId)).toBeGreaterThan(1);
  },
);

test("a delta that is written often does not make a thread grow", async () => {
  const graph = plainDelta();
  const threadId = await newThread();
  for (let turn = 0; turn < 12; turn += 1) await graph.invoke(say(`m${turn}`), at(threadId));
  expect(await countOf("checkpoints", threadId)).toBe(36);
  await prune(threadId);
  // At most five updates since the last whole value, in steps that do not all update it.
  expect(await countOf("checkpoints", threadId)).toBeLessThan(12);
});

const plainDelta = () =>
  new StateGraph(new StateSchema({ messages: deltaMessages }))
    .addNode("answer", (state) => ({ messages: reply(state).messages }))
    .addEdge(START, "answer")
    .addEdge("answer", END)
    .compile({ checkpointer });

test("a delta that is seldom written keeps its writes, not the steps between", async () => {
  const graph = delta();
  const threadId = await newThread();
  for (let turn = 0; turn < 20; turn += 1) await graph.invoke(say(`m${turn}`), at(threadId));
  const before = await stateOf(graph, threadId);
  await prune(threadId);
  expect(await countOf("checkpoints", threadId)).toBeLessThan(10);
  expect(await stateOf(graph, threadId)).toEqual(before);
  await graph.updateState(at(threadId), { notes: ["second"] }, "answer");
  await prune(threadId);
  expect((await graph.getState(at(threadId))).values["notes"]).toEqual(["first", "second"]);
});

test("history shows what can still be read, and what is only replayed is not found", async () => {
  const graph = plainDelta();
  const threadId = await newThread();
  for (const text of ["a", "b"]) await graph.invoke(say(text), at(threadId));
  await prune(threadId);
  const history = await Array.fromAsync(graph.getStateHistory(at(threadId)));
  expect(history.map(({ values }) => values["messages"].length)).toEqual([4]);
  expect(await countOf("checkpoints", threadId)).toBeGreaterThan(1);
  expect(await checkpointer.getTuple(history[0]?.parentConfig ?? {})).toBeUndefined();
});

test("an interrupted subgraph can still be answered, and the one that remembers still does", async () => {
  const go = [say("one"), new Command({ resume: "yes" })];
  const answered = [new Command({ resume: "no" }), say("three"), new Command({ resume: "yes" })];
  const threadId = await comparePruned(nested(), [...go, say("two")], answered);
  const { values } = await nested().getState(at(threadId));
  const texts: string[] = values.messages.map((one: { text: string }) => one.text);
  expect([0, 4, 8].map((turn) => texts.slice(turn, turn + 4).join(", "))).toEqual([
    "one, seen 1, draft, asked",
    "two, seen 2, draft, asked",
    "three, seen 3, draft, asked",
  ]);
});

test("subgraphs of tasks that are over leave nothing", async () => {
  const threadId = await newThread();
  const graph = nested();
  for (let turn = 0; turn < 4; turn += 1) {
    await graph.invoke(say(`m${turn}`), at(threadId));
    await graph.invoke(new Command({ resume: "yes" }), at(threadId));
  }
  await prune(threadId);
  const rows = await scratch.database.query<{ ns: string }>(
    "select distinct checkpoint_ns as ns from public.checkpoints where thread_id = $1 order by 1",
    [threadId],
  );
  expect(rows.map(({ ns }) => ns)).toEqual(["", "memory"]);
});

test("pruning twice takes nothing the second time, and a thread without checkpoints is no error", async () => {
  const threadId = await newThread();
  const graph = delta();
  for (const text of ["a", "b", "c", "d"]) await graph.invoke(say(text), at(threadId));
  expect(await prune(threadId)).toBeGreaterThan(0);
  expect(await prune(threadId)).toBe(0);
  expect(await prune(randomUUID())).toBe(0);
});

test("a branch that was left keeps no value alive, the newest one all of its own", async () => {
  const graph = plain();
  const threadId = await newThread();
  await graph.invoke(say("a"), at(threadId));
  const { config } = await graph.getState(at(threadId));
  await graph.invoke(say("left"), at(threadId));
  await graph.invoke(say("taken"), config);
  const before = await stateOf(graph, threadId);
  await prune(threadId);
  expect(await stateOf(graph, threadId)).toEqual(before);
  expect(await countOf("checkpoints", threadId)).toBe(1);
});

test("a graph that stores whole values again can still read the deltas before", async () => {
  const threadId = await newThread();
  await plainDelta().invoke(say("a"), at(threadId));
  await plainDelta().invoke(say("b"), at(threadId));
  const now = new StateGraph(new StateSchema({ messages: MessagesValue, turns: z.number().default(0) }))
    .addNode("answer", () => ({ turns: 7 }))
    .addEdge(START, "answer")
    .addEdge("answer", END)
    .compile({ checkpointer });
  await now.updateState(at(threadId), { turns: 5 }, "answer");
  const before = await stateOf(now, threadId);
  await prune(threadId);
  expect(await stateOf(now, threadId)).toEqual(before);
});

test("only threads that exist are found, and those with a run are named", async () => {
  const [idle, live] = [await newThread(), await newThread()];
  await addRun(live, "delayed");
  await addRun(idle, "success");
  const locked = await scratch.database.transaction((one) => lockPrunable(one, [idle, live, randomUUID()]));
  expect(locked).toEqual({ found: [idle, live].toSorted(), live: [live] });
});

test("a deleted thread leaves no row in any table", async () => {
  const threadId = await newThread();
  await plain().invoke(say("a"), at(threadId));
  const runId = await addRun(threadId, "success");
  await scratch.database.query(
    "insert into holdfast.run_events (run_id, seq, last, attempt, body) values ($1, 0, 0, 1, '')",
    [runId],
  );
  const hook = "insert into holdfast.webhooks (webhook_id, run_id, url, payload) values ($1, $2, 'x', '{}')";
  await scratch.database.query(hook, [randomUUID(), runId]);
  await scratch.database.transaction((one) => deleteThreads(one, [threadId]));
  const left = await scratch.database.query(
    `select 'threads' from holdfast.threads where thread_id = $1
     union all select 'runs' from holdfast.runs where thread_id = $1
     union all select 'events' from holdfast.run_events where run_id = $2
     union all select 'webhooks' from holdfast.webhooks where run_id = $2
     union all select 'checkpoints' from public.checkpoints where thread_id = $1
     union all select 'blobs' from public.checkpoint_blobs where thread_id = $1
     union all select 'writes' from public.checkpoint_writes where thread_id = $1`,
    [threadId, runId],
  );
  expect(left).toEqual([]);
});

async function addRun(threadId: string, state: string): Promise<string> {
  const [runId, assistantId] = [randomUUID(), "00000000-0000-4000-8000-000000000001"];
  await scratch.database.query(
    "insert into holdfast.assistants (assistant_id, graph_id, name) values ($1, 'g', 'g') on conflict do nothing",
    [assistantId],
  );
  await scratch.database.query(
    "insert into holdfast.runs (run_id, thread_id, assistant_id, state, kwargs) values ($1, $2, $3, $4, '{}')",
    [runId, threadId, assistantId, state],
  );
  return runId;
}
