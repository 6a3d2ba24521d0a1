// Assistants: those of the graphs, and those that clients make, change, go back with and delete.
import { randomUUID } from "node:crypto";
import type { Assistant, AssistantsSearchResponse } from "@langchain/langgraph-sdk";
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

test("a graph id is an assistant id everywhere", async () => {
  const byGraph = await assistants().get("echo");
  expect(byGraph).toMatchObject({
    graph_id: "echo",
    name: "echo",
    version: 1,
    metadata: { created_by: "system" },
  });
  const id = byGraph.assistant_id;
  expect(id).toBe("046b5dc7-2108-582c-9c6c-31d556d138f0");
  expect(await assistants().get(id)).toEqual(byGraph);
  expect(await assistants().get(id.toUpperCase())).toEqual(byGraph);
  for (const name of ["echo", id]) {
    const said = { input: { messages: [{ type: "human", content: "hi" }] } };
    const { thread_id: threadId } = await held.server.client.threads.create();
    const run = await held.server.client.runs.create(threadId, name, said);
    expect(run.assistant_id).toBe(id);
    await held.server.client.runs.join(threadId, run.run_id);
    expect((await held.server.client.threads.get(threadId)).metadata).toMatchObject({ assistant_id: id });
    expect(await held.server.client.runs.wait(null, name, said)).toMatchObject({ topic: "none" });
    const [batched] = await held.server.client.runs.createBatch([{ assistantId: name, ...said }]);
    expect(batched?.assistant_id).toBe(id);
    const { cron_id: cronId } = await held.server.client.crons.create(name, { schedule: "0 0 1 1 *" });
    expect((await held.server.client.crons.search({ assistantId: name })).map((one) => one.cron_id)).toEqual([
      cronId,
    ]);
    await held.server.client.crons.delete(cronId);
    expect((await assistants().getSchemas(name)).graph_id).toBe("echo");
    expect((await assistants().getGraph(name)).nodes).toHaveLength(4);
    expect(await assistants().getSubgraphs(name)).toEqual({});
    expect(idsOf(await assistants().getVersions(name))).toEqual([id]);
    expect((await assistants().setLatest(name, 1)).assistant_id).toBe(id);
    await expect(assistants().delete(name)).rejects.toThrow(/HTTP 409.*echo's own/);
  }
  const changed = await assistants().update("echo", { name: "Echo" });
  expect(changed).toMatchObject({ assistant_id: id, name: "Echo", version: 2 });
});

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

test("updating an assistant adds a version and latest goes back", async () => {
  const first = await assistants().create({
    graphId: "telling",
    name: "one",
    config: { configurable: { tone: "first" } },
    metadata: { team: "a", kept: true },
  });
  const id = first.assistant_id;
  const second = await assistants().update(id, {
    config: { configurable: { tone: "second" } },
    metadata: { team: "b" },
  });
  expect(second).toMatchObject({ name: "one", version: 2, metadata: { team: "b", kept: true } });
  expect(second.created_at).toBe(first.created_at);
  expect(Date.parse(second.updated_at)).toBeGreaterThan(Date.parse(first.updated_at));
  expect(await tellOf(id)).toMatchObject({ tone: "second", team: "b" });

  const restored = await assistants().setLatest(id, 1);
  expect(restored).toMatchObject({ version: 1, config: first.config, metadata: first.metadata });
  expect(await tellOf(id)).toMatchObject({ tone: "first", team: "a" });

  const third = await assistants().update(id, {
    graphId: "echo",
    description: "third",
    context: { mood: "m" },
  });
  expect(third).toMatchObject({ version: 3, graph_id: "echo", config: first.config });
  const versions = await assistants().getVersions(id);
  expect(versions.map(({ version }) => version)).toEqual([3, 2, 1]);
  expect(versions.map(({ graph_id: graphId }) => graphId)).toEqual(["echo", "telling", "telling"]);
  expect(Object.keys(versions[0] ?? {})).not.toContain("updated_at");
  expect((await assistants().getVersions(id, { limit: 1, offset: 1 })).map((one) => one.version)).toEqual([
    2,
  ]);
  expect((await assistants().getVersions(id, { metadata: { team: "b" } })).map((one) => one.version)).toEqual(
    [2],
  );
  await expect(assistants().setLatest(id, 9)).rejects.toThrow(/HTTP 404.*has no version 9/);
  expect((await assistants().get(id)).version).toBe(3);
});

test("updates at the same time each make a version, and none is lost", async () => {
  const { assistant_id: id } = await assistants().create({ graphId: "echo" });
  const keys = Array.from({ length: 10 }, (_, index) => `key${index}`);
  await Promise.all(keys.map((key) => assistants().update(id, { metadata: { [key]: true } })));
  const versions = await assistants().getVersions(id, { limit: 100 });
  expect(versions.map(({ version }) => version)).toEqual([11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
  expect(Object.keys((await assistants().get(id)).metadata ?? {}).toSorted()).toEqual(keys);
});

test("deleting an assistant returns its id and, if asked, its threads go too", async () => {
  const { client } = held.server;
  const made = await Promise.all([0, 1].map(() => assistants().create({ graphId: "telling" })));
  const [kept = "", gone = ""] = idsOf(made);
  const threadsOf = async (id: string): Promise<string[]> => {
    const threads = await Promise.all(Array.from({ length: 55 }, () => client.threads.create()));
    await Promise.all(threads.map(({ thread_id: one }) => client.runs.wait(one, id, { input: {} })));
    return threads.map(({ thread_id: one }) => one);
  };
  const [keptThreads, goneThreads] = [await threadsOf(kept), await threadsOf(gone)];
  await client.crons.create(gone, { schedule: "0 0 1 1 *" });

  expect(await assistants().delete(kept)).toEqual([kept]);
  expect(await assistants().delete(gone, { deleteThreads: true })).toEqual([gone]);
  await expect(assistants().get(gone)).rejects.toThrow("HTTP 404: Assistant not found");
  await expect(assistants().getVersions(gone)).rejects.toThrow("HTTP 404: Assistant not found");
  await expect(assistants().delete(gone)).rejects.toThrow("HTTP 404: Assistant not found");
  expect(await client.crons.search({ assistantId: gone })).toEqual([]);
  await expect(client.runs.wait(keptThreads[0] ?? "", kept, { input: {} })).rejects.toThrow(
    `HTTP 404: No assistant found for "${kept}".`,
  );

  const statusOf = async (thread: string): Promise<number> =>
    (await fetch(`${held.server.url}/threads/${thread}`)).status;
  expect(new Set(await Promise.all(goneThreads.map(statusOf)))).toEqual(new Set([404]));
  expect(new Set(await Promise.all(keptThreads.map(statusOf)))).toEqual(new Set([200]));
  const [run] = await client.runs.list(keptThreads[0] ?? "");
  expect(run).toMatchObject({ assistant_id: kept, status: "success" });
  expect(await client.threads.getState(keptThreads[0] ?? "")).toMatchObject({
    values: { told: { assistant: kept } },
  });
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

test("search pages visit every assistant exactly once", async () => {
  const team = randomUUID();
  const names = ["b", "a", "a", "c", "b", "a", "c"];
  const made: Assistant[] = [];
  for (const name of names)
    made.push(await assistants().create({ graphId: "echo", name, metadata: { team } }));
  const orders = ["asc", "desc"] as const;
  for (const sortBy of ["assistant_id", "graph_id", "name", "created_at", "updated_at"] as const) {
    for (const sortOrder of orders) {
      const seen: Assistant[] = [];
      for (let next: string | null = "0"; next !== null;) {
        const page: AssistantsSearchResponse = await assistants().search({
          metadata: { team },
          limit: 3,
          offset: Number(next),
          sortBy,
          sortOrder,
          includePagination: true,
        });
        seen.push(...page.assistants);
        next = page.next;
      }
      expect(idsOf(seen).toSorted()).toEqual(idsOf(made).toSorted());
      const keys = seen.map((one) => `${one[sortBy]} ${one.assistant_id}`);
      const sorted = keys.toSorted();
      expect(keys).toEqual(sortOrder === "asc" ? sorted : sorted.toReversed());
    }
  }
  const newestFirst = await assistants().search({ metadata: { team }, limit: 100 });
  expect(idsOf(newestFirst)).toEqual(idsOf(made).toReversed());
  const graphs = await assistants().search({ metadata: { created_by: "system" }, limit: 100 });
  expect(graphs.map((one) => one.graph_id).toSorted()).toEqual([
    "annotated",
    "deep",
    "echo",
    "endless",
    "made",
    "telling",
    "topical",
  ]);
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

test("each kind of graph answers schemas and xray graph", async () => {
  const kinds: [string, string, string[] | undefined, string[]][] = [
    ["zod", "telling", ["told"], ["__end__", "__start__", "tell"]],
    ["StateSchema", "echo", ["messages", "topic", "log"], ["__end__", "__start__", "answer", "prepare"]],
    ["a builder", "topical", ["messages", "topic", "log"], ["__end__", "__start__", "answer"]],
    ["a factory", "made", ["messages", "topic", "log"], ["__end__", "__start__", "answer"]],
    ["Annotation", "annotated", undefined, ["__end__", "__start__", "one"]],
    ["nested", "deep", ["depth"], DEEPEST],
  ];
  for (const [kind, graph, properties, nodes] of kinds) {
    const { assistant_id: id } = await assistants().create({ graphId: graph });
    const schemas = await assistants().getSchemas(id);
    expect(schemas.graph_id).toBe(graph);
    for (const schema of [schemas.state_schema, schemas.input_schema, schemas.output_schema])
      expect([kind, schema === null ? undefined : Object.keys(schema?.properties ?? {})]).toEqual([
        kind,
        properties,
      ]);
    const drawn = await assistants().getGraph(id, { xray: true });
    expect([kind, ...drawn.nodes.map((node) => String(node.id)).toSorted()]).toEqual([kind, ...nodes]);
    expect(drawn.edges.length).toBeGreaterThan(1);
  }
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
