// Assistants: those of the graphs, and those that clients make, change, go back with and delete.
import { randomUUID } from "node:crypto";
import type { Assistant } from "@langchain/langgraph-sdk";
import { expect, test } from "vitest";
import { useServer } from "../support/server.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/kinds.langgraph.json" });
const assistants = () => held.server.client.assistants;

const DEEPEST = ["__end__", "__start__", "upper:lower:bottom", "upper:lower:rise", "upper:sink"];

const nodesAt = async (xray: boolean | number): Promise<string[]> =>
  (await assistants().getGraph("deep", { xray })).nodes.map(({ id }) => String(id)).toSorted();

const search = (body: object): Promise<Response> =>
  fetch(`${held.server.url}/assistants/search`, { method: "POST", body: JSON.stringify(body) });

const idsOf = (found: readonly { assistant_id: string }[]): string[] =>
  found.map(({ assistant_id: id }) => id);

async function tellOf(assistant: string, options: object = {}): Promise<object> {
  const { thread_id: threadId } = await held.server.client.threads.create();
  const { told } = Object(await held.server.client.runs.wait(threadId, assistant, { input: {}, ...options }));
  return told;
}

test("an assistant has what it was made with, or what its graph's own has", async () => {
  const bare = await assistants().create({ graphId: "telling" });
  const nothing = { name: "telling", description: null, version: 1, config: {}, context: {}, metadata: {} };
  expect(bare).toMatchObject({ ...nothing, graph_id: "telling" });
  const said = {
    name: "Friendly",
    description: "Says hello",
    config: { configurable: { tone: "warm" }, tags: ["a"], recursion_limit: 7 },
    context: { mood: "good" },
    metadata: { team: "a" },
  };
  const assistantId = randomUUID();
  const made = await assistants().create({ graphId: "telling", assistantId, ...said });
  expect(made).toMatchObject({ ...said, assistant_id: assistantId, graph_id: "telling", version: 1 });
  expect(Object.keys(made)).not.toContain("revision");
  expect(await assistants().get(assistantId)).toEqual(made);
  expect(await tellOf(assistantId)).toEqual({
    tone: "warm",
    mood: "good",
    team: "a",
    assistant: assistantId,
  });
  const own = {
    config: { configurable: { tone: "cold" } },
    context: { mood: "bad" },
    metadata: { team: "b" },
  };
  expect(await tellOf(assistantId, own)).toMatchObject({ tone: "cold", mood: "bad", team: "b" });
});

test("creating an assistant twice is 409 unless do_nothing, and never changes the first", async () => {
  const first = await assistants().create({ graphId: "echo", name: "first" });
  const again = { graphId: "echo", assistantId: first.assistant_id, name: "second" };
  await expect(assistants().create(again)).rejects.toThrow("HTTP 409: Assistant already exists");
  expect(await assistants().create({ ...again, ifExists: "do_nothing" })).toEqual(first);
  const same = { graphId: "echo", assistantId: randomUUID() };
  const tries = await Promise.allSettled(Array.from({ length: 8 }, () => assistants().create(same)));
  expect(tries.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  expect(await assistants().getVersions(same.assistantId)).toHaveLength(1);
});

test("updates at the same time each make a version, and none is lost", async () => {
  const { assistant_id: id } = await assistants().create({ graphId: "echo" });
  const keys = Array.from({ length: 10 }, (_, index) => `key${index}`);
  await Promise.all(keys.map((key) => assistants().update(id, { metadata: { [key]: true } })));
  const versions = await assistants().getVersions(id, { limit: 100 });
  expect(versions.map(({ version }) => version)).toEqual([11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
  expect(Object.keys((await assistants().get(id)).metadata ?? {}).toSorted()).toEqual(keys);
});

test("threads of an assistant with a live run are not deleted, nor is the assistant", async () => {
  const { client } = held.server;
  const { assistant_id: id } = await assistants().create({ graphId: "endless" });
  const { thread_id: threadId } = await client.threads.create();
  const run = await client.runs.create(threadId, id, { input: {} });
  await expect(assistants().delete(id, { deleteThreads: true })).rejects.toThrow("HTTP 409: Thread is busy");
  expect((await assistants().get(id)).version).toBe(1);
  // Without its threads it goes, and the run does not need it.
  expect(await assistants().delete(id)).toEqual([id]);
  expect((await client.runs.get(threadId, run.run_id)).status).toMatch(/pending|running/);
  await client.runs.cancel(threadId, run.run_id, true);
  expect((await client.runs.get(threadId, run.run_id)).status).toBe("interrupted");
});

test("search finds by graph, by part of the name and by metadata, and count agrees with it", async () => {
  const team = { id: randomUUID(), tags: ["x", "y"] };
  const make = (graphId: string, name: string): Promise<Assistant> =>
    assistants().create({ graphId, name, metadata: { team } });
  const percent = await make("echo", "100%_Sure");
  const plain = await make("topical", "1000 sure");
  const within = { metadata: { team: { id: team.id } } };
  const found = async (query: { graphId?: string; name?: string }): Promise<string[]> => {
    const rows = await assistants().search({ ...within, ...query });
    expect(await assistants().count({ ...within, ...query })).toBe(rows.length);
    return idsOf(rows).toSorted();
  };
  const both = idsOf([percent, plain]).toSorted();
  expect(await found({})).toEqual(both);
  expect(await found({ name: "SURE" })).toEqual(both);
  expect(await found({ name: "0%_s" })).toEqual([percent.assistant_id]);
  expect(await found({ name: "%" })).toEqual([percent.assistant_id]);
  expect(await found({ graphId: "topical" })).toEqual([plain.assistant_id]);
  expect(await found({ graphId: "topical", name: "%" })).toEqual([]);
  expect(await assistants().count({ metadata: { team: { tags: ["y"], id: team.id } } })).toBe(2);
  expect(await assistants().search({ ...within, name: "%", select: ["name", "version"] })).toEqual([
    { name: "100%_Sure", version: 1 },
  ]);
  expect(await assistants().search({ ...within, name: "%", select: [] })).toEqual([
    expect.objectContaining({ name: "100%_Sure" }),
  ]);
});

test("pagination headers give the full count and the next offset only when there is more", async () => {
  const metadata = { created_by: "system" };
  const pageOf = async (query: object): Promise<(string | null)[]> => {
    const { headers } = await search({ metadata, ...query });
    return [headers.get("x-pagination-total"), headers.get("x-pagination-next")];
  };
  expect(await pageOf({ limit: 3 })).toEqual(["7", "3"]);
  expect(await pageOf({ limit: 3, offset: 3 })).toEqual(["7", "6"]);
  expect(await pageOf({ limit: 3, offset: 6 })).toEqual(["7", null]);
  expect(await pageOf({ limit: 7 })).toEqual(["7", null]);
  expect(await pageOf({ offset: 50 })).toEqual(["7", null]);
});

test("a graph is drawn as deep as xray says", async () => {
  expect(await nodesAt(false)).toEqual(["__end__", "__start__", "upper"]);
  expect(await nodesAt(1)).toEqual(["__end__", "__start__", "upper:lower", "upper:sink"]);
  expect(await nodesAt(2)).toEqual(DEEPEST);
});

test("subgraphs answer their schemas by namespace, deeper ones if asked", async () => {
  const depth = { properties: { depth: { type: "string" } } };
  const all = await assistants().getSubgraphs("deep", { recurse: true });
  expect(Object.keys(all)).toEqual(["upper", "upper|lower"]);
  expect(all["upper|lower"]).toMatchObject({ state: depth, input: depth, output: depth });
  expect(Object.keys(all["upper"] ?? {})).toEqual(["state", "input", "output", "config"]);
  expect(Object.keys(await assistants().getSubgraphs("deep"))).toEqual(["upper"]);
  expect(Object.keys(await assistants().getSubgraphs("deep", { namespace: "upper" }))).toEqual(["upper"]);
  const inner = await assistants().getSubgraphs("deep", { namespace: "upper|lower", recurse: true });
  expect(Object.keys(inner)).toEqual(["upper|lower"]);
  expect(await assistants().getSubgraphs("deep", { namespace: "nowhere" })).toEqual({});
});

test("an unknown assistant is 404 on its own routes and when a run asks for it", async () => {
  for (const id of ["nobody", randomUUID()]) {
    const asks: (() => Promise<unknown>)[] = [
      () => assistants().get(id),
      () => assistants().update(id, { name: "x" }),
      () => assistants().getVersions(id),
      () => assistants().setLatest(id, 1),
      () => assistants().delete(id),
      () => assistants().getGraph(id),
      () => assistants().getSchemas(id),
      () => assistants().getSubgraphs(id),
    ];
    for (const ask of asks) await expect(ask()).rejects.toThrow("HTTP 404: Assistant not found");
    const { thread_id: threadId } = await held.server.client.threads.create();
    await expect(held.server.client.runs.wait(threadId, id, { input: {} })).rejects.toThrow(
      `HTTP 404: No assistant found for "${id}". Make sure the assistant ID is for a valid assistant or a valid graph ID.`,
    );
  }
});
