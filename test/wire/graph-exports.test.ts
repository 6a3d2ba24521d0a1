// What langgraph.json may name, as its users know it: graphs in every form and kind of file, and functions that make one
// of the configuration of a run.
import { expect, test } from "vitest";
import { eachCluster } from "../support/cluster.ts";
import { told } from "../support/frames.ts";

eachCluster({ HOLDFAST_CONFIG: "test/fixtures/any/langgraph.json" }, (cluster) => {
  const on = (threadId: string | null, graph: string, configurable: Record<string, unknown> = {}) => {
    const options = { input: {}, config: { configurable }, streamMode: "updates" as const };
    const { runs } = cluster.client;
    return told(threadId ? runs.stream(threadId, graph, options) : runs.stream(null, graph, options));
  };

  test.each([
    ["a builder", "builder", { tell: { log: ["built"] } }],
    ["a promise", "promised", { tell: { log: ["built"] } }],
    ["a coat around a graph", "coated", { tell: { log: ["built"] } }],
    ["a default export of a .js file", "plain", { tell: { told: "js" } }],
  ])("%s runs, with and without a thread", async (_, graph, update) => {
    for (const threadId of [null, await cluster.newThread()])
      expect(await on(threadId, graph)).toEqual([["updates", update]]);
    expect((await cluster.client.assistants.getGraph(graph)).nodes).toHaveLength(3);
  });

  test("a function is called for each run, with the run's configuration", async () => {
    expect(await on(null, "made")).toEqual([["updates", { alone: { told: "alone plain true;" } }]]);
    const two = { nodes: "a,b", tone: "warm" };
    const threadId = await cluster.newThread();
    expect(await on(threadId, "made", two)).toEqual([
      ["updates", { a: { told: "a warm true;" } }],
      ["updates", { b: { told: "a warm true;b warm true;" } }],
    ]);
    expect(await on(threadId, "made", { nodes: "c" })).toEqual([
      ["updates", { c: { told: "a warm true;b warm true;c warm true;" } }],
    ]);
  });

  test("a thread is read and changed through the graph of the run that wrote it, and so is its copy", async () => {
    const { threads, runs } = cluster.client;
    const threadId = await cluster.newThread();
    const config = { configurable: { nodes: "a,b" } };
    await runs.wait(threadId, "made", { input: {}, config, interruptBefore: ["b"] });
    const told1 = "a plain true;";
    for (const id of [undefined, (await threads.getState(threadId)).checkpoint])
      expect(await threads.getState(threadId, id)).toMatchObject({ next: ["b"], values: { told: told1 } });
    const history = await threads.getHistory(threadId);
    expect(history.map(({ next }) => next)).toEqual([["b"], ["a"], ["__start__"]]);
    await threads.updateState(threadId, { values: { told: "by hand;" }, asNode: "a" });
    expect(await threads.getState(threadId)).toMatchObject({ next: ["b"], values: { told: "by hand;" } });
    expect((await threads.get(threadId)).status).toBe("interrupted");
    const { thread_id: copy } = await threads.copy(threadId);
    const copied = (await threads.getHistory(copy)).map(({ next }) => next);
    expect(copied).toEqual([["b"], ["b"], ["a"], ["__start__"]]);
    const values = await runs.wait(threadId, "made", { input: null, config });
    expect(values).toMatchObject({ told: "by hand;b plain true;" });
    const other = { configurable: { nodes: "c,d" } };
    await runs.wait(threadId, "made", { input: {}, config: other, interruptBefore: ["d"] });
    expect(await threads.getState(threadId, (await threads.getState(threadId)).checkpoint)).toMatchObject({
      next: ["d"],
    });
  });

  test("a thread is read although whoever wrote it elsewhere named his runs in a way of his own", async () => {
    const threadId = await cluster.newThread();
    await on(threadId, "made", { nodes: "a" });
    await cluster.scratch.database.query(
      `update public.checkpoints set metadata = metadata || '{"run_id": "my first"}' where thread_id = $1`,
      [threadId],
    );
    const [newest] = await cluster.client.threads.getHistory(threadId);
    expect(newest).toMatchObject({ values: { told: "a plain true;" } });
  });

  test("an assistant's graph is the one of its own configuration", async () => {
    const { assistants } = cluster.client;
    const config = { configurable: { nodes: "x,y", tone: "own" } };
    const { assistant_id: id } = await assistants.create({ graphId: "made", config });
    const nodes = (await assistants.getGraph(id)).nodes.map((node) => String(node.id));
    expect(nodes.toSorted()).toEqual(["__end__", "__start__", "x", "y"]);
    expect(Object.keys((await assistants.getSchemas(id)).state_schema?.properties ?? {})).toEqual(["told"]);
    expect((await on(null, id)).map(([, data]) => Object.keys(Object(data)))).toEqual([["x"], ["y"]]);
  });

  test("a function that makes nothing without a configuration is served, and says why a run fails", async () => {
    expect(await on(null, "strict", { user: "ada" })).toEqual([
      ["updates", { greet: { told: "hello ada" } }],
    ]);
    const threadId = await cluster.newThread();
    const failure = { error: "TypeError", message: "configurable.user is missing" };
    const { threads } = cluster.client;
    for (const [user, state] of [
      [undefined, { values: {}, next: [] }],
      [null, { values: { told: "hello ada" } }],
    ] as const) {
      expect(await on(threadId, "strict", user === undefined ? undefined : { user })).toEqual([
        ["error", failure],
      ]);
      expect((await threads.get(threadId)).status).toBe("error");
      expect(await threads.getState(threadId)).toMatchObject(state);
      await on(threadId, "strict", { user: "ada" });
    }
    // What a run brings holds for those after it.
    expect(await on(threadId, "strict")).toEqual([["updates", { greet: { told: "hello ada" } }]]);
    await expect(
      threads.updateState((await threads.create({ graphId: "strict" })).thread_id, { values: {} }),
    ).rejects.toThrow(/HTTP 400/);
    expect(await on(threadId, "strict", { user: "bob" })).toEqual([
      ["updates", { greet: { told: "hello bob" } }],
    ]);
    expect((await cluster.client.threads.getState(threadId)).values).toEqual({ told: "hello bob" });
    for (const server of cluster.servers)
      expect(server.out()).toContain(
        "Graph strict (./made.mts:strict) cannot be made without the configuration",
      );
  });
});
