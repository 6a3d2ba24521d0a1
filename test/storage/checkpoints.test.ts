// What LangGraph's own suite does not ask of a saver: branches, order, deletion, adoption.
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { HumanMessage } from "@langchain/core/messages";
import type { BaseMessage } from "@langchain/core/messages";
import { Annotation, Command, interrupt, START, StateGraph } from "@langchain/langgraph";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LeaseLost } from "../../server/errors.ts";
import { Checkpoints } from "../../server/storage/checkpoints/checkpoints.ts";
import { migrate } from "../../server/storage/migrate.ts";
import { parallel, topical } from "../fixtures/graphs.ts";
import { createThreadRow } from "../support/checkpoints.ts";
import { emptyDatabase, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

const ask = (text: string): { messages: HumanMessage[] } => ({ messages: [new HumanMessage(text)] });
const contents = (values: { messages: { content: unknown }[] }): unknown[] =>
  values.messages.map((m) => m.content);

async function newThread(on: TestDatabase = scratch): Promise<{ configurable: { thread_id: string } }> {
  const threadId = randomUUID();
  await createThreadRow(on.database, threadId);
  return { configurable: { thread_id: threadId } };
}

function compile(saver: Checkpoints | PostgresSaver) {
  return topical.compile({ checkpointer: saver });
}

test("three edits of the same message keep their own answers and values", async () => {
  const graph = compile(new Checkpoints(scratch.database));
  const config = await newThread();
  await graph.invoke({ ...ask("first"), topic: "tea" }, config);
  await graph.invoke(ask("second"), config);
  const before = await Array.fromAsync(graph.getStateHistory(config));
  const editable = before.find((state) => state.next[0] === "answer" && state.values.messages.length === 3);
  const branches = [];
  for (const topic of ["red", "green", "blue"]) {
    const fork = await graph.updateState(editable?.config ?? {}, { topic });
    await graph.invoke(null, fork);
    branches.push((await graph.getState(config)).config);
  }
  const states = await Promise.all(branches.map((branch) => graph.getState(branch)));
  expect(states.map(({ values }) => [values.topic, values.log, contents(values).at(-1)])).toEqual([
    ["red+", ["tea", "red"], "about red: second"],
    ["green+", ["tea", "green"], "about green: second"],
    ["blue+", ["tea", "blue"], "about blue: second"],
  ]);
  expect((await graph.getState(before[0]?.config ?? {})).values.topic).toBe("tea++");
});

test("two owners of one thread that write at once do not mix their values", async () => {
  const config = await newThread();
  await compile(new Checkpoints(scratch.database)).invoke({ ...ask("start"), topic: "tea" }, config);
  const start = (await compile(new Checkpoints(scratch.database)).getState(config)).config;
  const ends = await Promise.all(
    ["left", "right"].map(async (side) => {
      const graph = compile(new Checkpoints(scratch.database));
      const values = await graph.invoke({ ...ask(side), topic: side }, start);
      const own = await Array.fromAsync(graph.getStateHistory(config));
      const stored = own.find((state) => state.values.topic === `${side}+`);
      return [contents(values), contents(stored?.values ?? { messages: [] })];
    }),
  );
  for (const [live, stored] of ends) expect(stored).toEqual(live);
});

test("what four parallel nodes wrote is read back in the order it was lived, 20 times of 20", async () => {
  const graph = parallel.compile({ checkpointer: new Checkpoints(scratch.database) });
  for (let trial = 0; trial < 20; trial += 1) {
    const config = await newThread();
    const lived = await graph.invoke(ask("go"), config);
    expect(contents((await graph.getState(config)).values)).toEqual(contents(lived));
  }
});

test("a run that goes on after its thread was deleted writes nothing and is told to stop", async () => {
  const config = await newThread();
  const threadId = config.configurable.thread_id;
  const losses: Error[] = [];
  const saver = new Checkpoints(scratch.database, { onLost: (error) => void losses.push(error) });
  const graph = compile(saver);
  await graph.invoke(ask("hello"), config);
  await saver.deleteThread(threadId);
  await expect(graph.invoke(ask("again"), config)).rejects.toBeInstanceOf(LeaseLost);
  expect(losses.length).toBeGreaterThan(0);
  const rows = await scratch.database.query("select 1 from public.checkpoints where thread_id = $1", [
    threadId,
  ]);
  expect(rows).toEqual([]);
});

test("deleting a thread while it is being written leaves no row behind", async () => {
  const saver = new Checkpoints(scratch.database);
  for (let trial = 0; trial < 10; trial += 1) {
    const config = await newThread();
    const threadId = config.configurable.thread_id;
    const running = compile(saver)
      .invoke(ask("hello"), config)
      .catch(() => undefined);
    await Promise.all([running, saver.deleteThread(threadId)]);
    const rows = await scratch.database.query(
      `select thread_id from public.checkpoints where thread_id = $1
       union all select thread_id from public.checkpoint_blobs where thread_id = $1
       union all select thread_id from public.checkpoint_writes where thread_id = $1`,
      [threadId],
    );
    expect(rows).toEqual([]);
  }
});

test("a database of the stock saver is adopted in place and its threads carry on", async () => {
  const adopted = await emptyDatabase();
  try {
    const stock = PostgresSaver.fromConnString(adopted.url);
    await stock.setup();
    const config = { configurable: { thread_id: randomUUID() } };
    await compile(stock).invoke({ ...ask("old"), topic: "tea" }, config);
    const before = await compile(stock).getState(config);
    await stock.end();
    await migrate(adopted.database);

    const graph = compile(new Checkpoints(adopted.database));
    expect((await graph.getState(config)).values).toEqual(before.values);
    await graph.invoke(ask("new"), config);
    const { values } = await graph.getState(config);
    expect(contents(values)).toEqual(["old", "about tea: old", "new", "about tea+: new"]);
    expect(values.log).toEqual(["tea", "tea+"]);
    expect(await Array.fromAsync(graph.getStateHistory(config))).toHaveLength(6);
  } finally {
    await adopted.close();
  }
});

test("what docs/checkpoints.md has adopted threads told makes them known by graph and open question", async () => {
  const adopted = await emptyDatabase();
  try {
    const stock = PostgresSaver.fromConnString(adopted.url);
    await stock.setup();
    const asking = new StateGraph(Annotation.Root({ said: Annotation<string> }))
      .addNode("ask", () => ({ said: String(interrupt("sure?")) }))
      .addEdge(START, "ask")
      .compile({ checkpointer: stock });
    const [waits, answered] = ["a", "b"].map((thread_id) => ({ configurable: { thread_id } }));
    for (const config of [waits, answered]) await asking.invoke({ said: "" }, config);
    await asking.invoke(new Command({ resume: "yes" }), answered);
    await stock.end();
    await migrate(adopted.database);

    const text = await readFile("docs/checkpoints.md", "utf8");
    const statements = [...text.matchAll(/```sql\n(.*?)```/gs)].map(([, statement = ""]) => statement);
    for (const statement of statements) await adopted.database.query(statement, []);
    const rows = await adopted.database.query(
      "select thread_id, status, metadata from holdfast.threads order by thread_id",
      [],
    );
    expect(rows).toEqual([
      { thread_id: "a", status: "interrupted", metadata: { graph_id: "support" } },
      { thread_id: "b", status: "idle", metadata: { graph_id: "support" } },
    ]);
  } finally {
    await adopted.close();
  }
});

test("the stock saver reads back what ours wrote", async () => {
  const config = await newThread();
  const ours = compile(new Checkpoints(scratch.database));
  await ours.invoke({ ...ask("one"), topic: "tea" }, config);
  await ours.invoke(ask("two"), config);
  const stock = PostgresSaver.fromConnString(scratch.url);
  try {
    await stock.setup();
    const [theirs, own] = await Promise.all([compile(stock).getState(config), ours.getState(config)]);
    expect(contents(theirs.values)).toEqual(contents(own.values));
    expect(theirs.values.messages.map((message: BaseMessage) => message.getType())).toEqual([
      "human",
      "ai",
      "human",
      "ai",
    ]);
    expect([theirs.values.topic, theirs.values.log, theirs.next]).toEqual([
      own.values.topic,
      own.values.log,
      own.next,
    ]);
  } finally {
    await stock.end();
  }
});

test("a run that is started again under its own id resumes instead of applying its input twice", async () => {
  const config = { ...(await newThread()), metadata: { run_id: randomUUID() } };
  const graph = topical.compile({ checkpointer: new Checkpoints(scratch.database) });
  await graph.invoke(ask("once"), { ...config, interruptBefore: ["answer"] });
  const values = await graph.invoke(ask("once"), config);
  expect(contents(values)).toEqual(["once", "about none: once"]);
});

test("the stock saver can carry on a thread of ours, and we carry on after it", async () => {
  const config = await newThread();
  const ours = compile(new Checkpoints(scratch.database));
  await ours.invoke({ ...ask("one"), topic: "tea" }, config);
  const stock = PostgresSaver.fromConnString(scratch.url);
  try {
    await compile(stock).invoke(ask("two"), config);
  } finally {
    await stock.end();
  }
  expect((await ours.invoke(ask("three"), config)).log).toEqual(["tea", "tea+", "tea++"]);
});

test("versions only grow, from any version of the stock saver, and siblings never share one", () => {
  const saver = new Checkpoints(scratch.database);
  const siblings = Array.from({ length: 1000 }, () => saver.getNextVersion(9));
  expect(new Set(siblings).size).toBe(1000);
  for (const version of siblings) {
    expect(version).toBeGreaterThan(9);
    expect(saver.getNextVersion(version)).toBeGreaterThan(version);
  }
});
