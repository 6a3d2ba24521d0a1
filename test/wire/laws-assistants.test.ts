// Laws of the wire: what the server says of itself, and assistants.
import { randomUUID } from "node:crypto";
import type { Assistant, AssistantsSearchResponse } from "@langchain/langgraph-sdk";
import { expect, test } from "vitest";
import { eachCluster } from "../support/cluster.ts";

const idsOf = (found: readonly { assistant_id: string }[]): string[] =>
  found.map(({ assistant_id: id }) => id);

/** A route that a feature has, by the flag that names it. */
/** What is asked to see that a feature is there. */
const FEATURES: Record<string, [path: string, body: object]> = {
  assistants: ["/assistants/search", {}],
  crons: ["/runs/crons/search", {}],
  stream_namespaces: ["/runs/stream?namespace=nowhere:1", { assistant_id: "echo", input: {} }],
};

const DEEPEST = ["__end__", "__start__", "upper:lower:bottom", "upper:lower:rise", "upper:sink"];
const ECHO = ["messages", "topic", "log"];

/** Kinds of graphs: how one was made, its id, the keys of its state's schema, its nodes with all subgraphs opened. */
const KINDS: [string, string, string[] | undefined, string[]][] = [
  ["zod", "telling", ["told"], ["__end__", "__start__", "tell"]],
  ["StateSchema", "echo", ECHO, ["__end__", "__start__", "answer", "prepare"]],
  ["a builder", "topical", ECHO, ["__end__", "__start__", "answer"]],
  ["a factory", "made", ECHO, ["__end__", "__start__", "answer"]],
  ["Annotation", "annotated", undefined, ["__end__", "__start__", "one"]],
  ["nested", "deep", ["depth"], DEEPEST],
];

eachCluster({ HOLDFAST_CONFIG: "test/fixtures/kinds.langgraph.json" }, (cluster) => {
  const assistants = () => cluster.client.assistants;

  /** What the graph `telling` was given by this assistant. */
  async function tellOf(assistant: string): Promise<object> {
    const { told } = Object(
      await cluster.client.runs.wait(await cluster.newThread(), assistant, { input: {} }),
    );
    return told;
  }

  test("info names only the features that are built", async () => {
    expect(await (await cluster.ask("/ok")).json()).toEqual({ ok: true });
    const { flags, ...about } = (await (await cluster.ask("/info")).json()) as { flags: object };
    expect(about).toEqual({
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      langgraph_js_version: "1.7.3",
      context: "js",
      privacy: { mode: "redact", graphs: {}, names: false, sealed: cluster.size > 1 },
      cache: expect.objectContaining({ store: "postgres" }),
    });
    const named = Object.entries(flags).filter(([, isBuilt]) => isBuilt !== false);
    expect(named).toEqual(Object.keys(FEATURES).map((feature) => [feature, true]));
    for (const [path, body] of Object.values(FEATURES)) {
      const answer = await cluster.post(path, body);
      expect([answer.status, await answer.text()]).toEqual([
        200,
        expect.not.stringContaining("event: values"),
      ]);
    }
  });

  test("a graph id is an assistant id everywhere", async () => {
    const { client } = cluster;
    const byGraph = await assistants().get("echo");
    const { assistant_id: id } = byGraph;
    expect(byGraph).toMatchObject({ graph_id: "echo", name: "echo", version: 1 });
    expect(byGraph.metadata).toEqual({ created_by: "system" });
    expect(id).toBe("046b5dc7-2108-582c-9c6c-31d556d138f0");
    expect(await assistants().get(id)).toEqual(byGraph);
    expect(await assistants().get(id.toUpperCase())).toEqual(byGraph);
    const said = { input: { messages: [{ type: "human", content: "hi" }] } };
    for (const name of ["echo", id]) {
      const threadId = await cluster.newThread();
      const run = await client.runs.create(threadId, name, said);
      expect(run.assistant_id).toBe(id);
      await client.runs.join(threadId, run.run_id);
      expect((await client.threads.get(threadId)).metadata).toMatchObject({ assistant_id: id });
      expect(await client.runs.wait(null, name, said)).toMatchObject({ topic: "none" });
      const [batched] = await client.runs.createBatch([{ assistantId: name, ...said }]);
      expect(batched?.assistant_id).toBe(id);
      const { cron_id: cronId } = await client.crons.create(name, { schedule: "0 0 1 1 *" });
      const crons = await client.crons.search({ assistantId: name });
      expect(crons.map((cron) => cron.cron_id)).toEqual([cronId]);
      await client.crons.delete(cronId);
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

  test("updating an assistant adds a version and latest goes back", async () => {
    const config = { configurable: { tone: "first" } };
    const metadata = { team: "a", kept: true };
    const first = await assistants().create({ graphId: "telling", name: "one", config, metadata });
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
    expect(restored).toMatchObject({ version: 1, config, metadata });
    expect(await tellOf(id)).toMatchObject({ tone: "first", team: "a" });

    const third = await assistants().update(id, { graphId: "echo", context: { mood: "m" } });
    expect(third).toMatchObject({ version: 3, graph_id: "echo", config });
    const versions = await assistants().getVersions(id);
    expect(versions.map(({ version, graph_id: graphId }) => [version, graphId])).toEqual([
      [3, "echo"],
      [2, "telling"],
      [1, "telling"],
    ]);
    const versionsBy = async (options: object): Promise<number[]> =>
      (await assistants().getVersions(id, options)).map(({ version }) => version);
    expect(await versionsBy({ limit: 1, offset: 1 })).toEqual([2]);
    expect(await versionsBy({ metadata: { team: "b" } })).toEqual([2]);
    await expect(assistants().setLatest(id, 9)).rejects.toThrow(/HTTP 404.*has no version 9/);
    expect((await assistants().get(id)).version).toBe(3);
  });

  test("deleting an assistant returns its id and, if asked, its threads go too", async () => {
    const { client } = cluster;
    const made = await Promise.all([0, 1].map(() => assistants().create({ graphId: "telling" })));
    const [kept = "", gone = ""] = idsOf(made);
    const threadsOf = async (id: string, count: number): Promise<string[]> => {
      const threads = await Promise.all(Array.from({ length: count }, () => cluster.newThread()));
      await Promise.all(threads.map((thread) => client.runs.wait(thread, id, { input: {} })));
      return threads;
    };
    // More than are deleted in one statement.
    const [keptThreads, goneThreads] = [await threadsOf(kept, 3), await threadsOf(gone, 55)];
    await client.crons.create(gone, { schedule: "0 0 1 1 *" });

    expect(await assistants().delete(kept)).toEqual([kept]);
    expect(await assistants().delete(gone, { deleteThreads: true })).toEqual([gone]);
    const missing = "HTTP 404: Assistant not found";
    await expect(assistants().get(gone)).rejects.toThrow(missing);
    await expect(assistants().getVersions(gone)).rejects.toThrow(missing);
    await expect(assistants().delete(gone)).rejects.toThrow(missing);
    expect(await client.crons.search({ assistantId: gone })).toEqual([]);
    const [thread = ""] = keptThreads;
    await expect(client.runs.wait(thread, kept, { input: {} })).rejects.toThrow(
      `HTTP 404: No assistant found for "${kept}".`,
    );

    const statusOf = async (one: string): Promise<number> => (await cluster.ask(`/threads/${one}`)).status;
    expect(new Set(await Promise.all(goneThreads.map(statusOf)))).toEqual(new Set([404]));
    expect(new Set(await Promise.all(keptThreads.map(statusOf)))).toEqual(new Set([200]));
    const [run] = await client.runs.list(thread);
    expect(run).toMatchObject({ assistant_id: kept, status: "success" });
    expect((await client.threads.getState(thread)).values).toMatchObject({ told: { assistant: kept } });
  });

  test("search pages visit every assistant exactly once", async () => {
    const team = randomUUID();
    const made: Assistant[] = [];
    for (const name of ["b", "a", "a", "c", "b", "a", "c"])
      made.push(await assistants().create({ graphId: "echo", name, metadata: { team } }));
    for (const sortBy of ["assistant_id", "graph_id", "name", "created_at", "updated_at"] as const) {
      for (const sortOrder of ["asc", "desc"] as const) {
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
        expect(keys).toEqual(sortOrder === "asc" ? keys.toSorted() : keys.toSorted().toReversed());
      }
    }
    const newestFirst = await assistants().search({ metadata: { team }, limit: 100 });
    expect(idsOf(newestFirst)).toEqual(idsOf(made).toReversed());
    const own = await assistants().search({ metadata: { created_by: "system" }, limit: 100 });
    const served = ["annotated", "deep", "echo", "endless", "made", "telling", "topical"];
    expect(own.map(({ graph_id: graphId }) => graphId).toSorted()).toEqual(served);
  });

  test("each kind of graph answers schemas and xray graph", async () => {
    for (const [kind, graph, properties, nodes] of KINDS) {
      const { assistant_id: id } = await assistants().create({ graphId: graph });
      const schemas = await assistants().getSchemas(id);
      expect(schemas.graph_id).toBe(graph);
      for (const schema of [schemas.state_schema, schemas.input_schema, schemas.output_schema]) {
        const keys = schema === null ? undefined : Object.keys(schema?.properties ?? {});
        expect([kind, keys]).toEqual([kind, properties]);
      }
      const drawn = await assistants().getGraph(id, { xray: true });
      expect([kind, ...drawn.nodes.map((node) => String(node.id)).toSorted()]).toEqual([kind, ...nodes]);
      expect(drawn.edges.length).toBeGreaterThan(1);
    }
  });
});
