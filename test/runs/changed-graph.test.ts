// A thread waits, and meanwhile its project gets a new version whose graph has no node of that name any more.
import type { Run } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { logOf, newThread, post, reaches } from "../fixtures/pair.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";

const graphs = ["direct", "inside", "sent", "aside"];
let scratch: TestDatabase;
let server: TestServer;
let threads: Map<string, string>;

const serve = (version: number): Promise<TestServer> =>
  startTestServer(scratch.url, {
    HOLDFAST_CONFIG: `test/fixtures/changed${version}.langgraph.json`,
    HOLDFAST_POOL_SIZE: "5",
  });

async function change(version: number): Promise<void> {
  await server.stop();
  server = await serve(version);
}

beforeAll(async () => {
  scratch = await testDatabase();
  server = await serve(1);
  threads = new Map();
  for (const graph of graphs) {
    const threadId = await newThread(server);
    await server.client.runs.wait(threadId, graph, { input: { log: [] } });
    threads.set(graph, threadId);
  }
  await change(2);
});
afterAll(async () => {
  await server.stop();
  await scratch.close();
});

const pointOf = async (threadId: string): Promise<unknown> =>
  (await server.client.threads.getState(threadId)).checkpoint.checkpoint_id;

const failedOn = (threadId: string): Promise<Run[]> => server.client.runs.list(threadId, { status: "error" });

test.each([
  ["direct", "ask"],
  ["inside", "ask"],
  ["sent", "ask"],
  // What it has brought already would go with it.
  ["aside", "note"],
])("an answer is not lost on a graph without a node that it was to go on at: %s", async (graph, node) => {
  const { client } = server;
  const threadId = threads.get(graph) ?? "";
  const point = await pointOf(threadId);
  const answer = { command: { resume: "yes" } };
  const told = await client.runs.wait(threadId, graph, { ...answer, raiseError: false });
  expect(told).toMatchObject({
    __error__: { error: "NodeMissing", message: expect.stringContaining(`"${node}"`) },
  });
  expect(await failedOn(threadId)).toHaveLength(1);
  expect(await pointOf(threadId)).toBe(point);
});

test("an answer is not lost either that comes with something for the state", async () => {
  const { client } = server;
  const { thread_id: threadId } = Object(await client.threads.copy(threads.get("direct") ?? ""));
  const answer = { command: { resume: "yes", update: { log: ["more"] } } };
  const told = await client.runs.wait(threadId, "direct", { ...answer, raiseError: false });
  expect(told).toMatchObject({ __error__: { error: "NodeMissing" } });
  expect(await logOf(server, threadId)).toEqual([]);
});

test.each(["direct", "sent"])("who says where to go is asked there, and may answer: %s", async (graph) => {
  const { client } = server;
  const { thread_id: threadId } = Object(await client.threads.copy(threads.get(graph) ?? ""));
  await client.runs.wait(threadId, graph, { command: { goto: "confirm" } });
  await client.runs.wait(threadId, graph, { command: { resume: "yes" } });
  expect(await logOf(server, threadId)).toEqual(["yes"]);
});

test("who does not want what waits sends a new input, or says where to go", async () => {
  const { client } = server;
  const threadId = threads.get("direct") ?? "";
  const copy = await client.threads.copy(threadId);
  for (const options of [{ input: { log: ["new"] } }, { command: { goto: "confirm" } }]) {
    await client.runs.wait(threadId, "direct", options);
    expect((await client.threads.getState(threadId)).next).toEqual(["confirm"]);
  }
  threads.set("direct", String(Object(copy).thread_id));
});

test("where the node is there again, the run is tried again", async () => {
  await change(1);
  for (const [graph, log] of [
    ["inside", ["yes"]],
    ["sent", ["yes"]],
    ["aside", ["yes", "noted"]],
  ] as const) {
    const threadId = threads.get(graph) ?? "";
    const [run] = await failedOn(threadId);
    if (!run) throw new Error("The run is gone.");
    await post(server, `/threads/${threadId}/runs/${run.run_id}/retry`);
    await reaches(server, run, "success");
    expect(await logOf(server, threadId)).toEqual(log);
  }
  const copied = threads.get("direct") ?? "";
  await server.client.runs.wait(copied, "direct", { command: { resume: "yes" } });
  expect(await logOf(server, copied)).toEqual(["yes"]);
});
