// The store inside a graph: what a node keeps is there for every later run, and only the owner of a run writes for it.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { collect, startTestServer, useServer } from "../support/server.ts";

const SETTINGS = { HOLDFAST_CONFIG: "test/fixtures/store.langgraph.json" };
const held = useServer(SETTINGS);
let gate: Gate;
beforeAll(async () => void (gate = await startGate()));
afterAll(() => gate.stop());

const newUser = (): string => randomUUID();

/** Runs a graph on a thread of its own. */
async function run(graph: string, input: Record<string, unknown>): Promise<Record<string, unknown>> {
  const { thread_id: threadId } = await held.server.client.threads.create();
  return (await held.server.client.runs.wait(threadId, graph, { input })) as Record<string, unknown>;
}

const itemsOf = async (user: string): Promise<unknown[]> =>
  (await held.server.client.store.searchItems(["notes", user])).items.map(({ value }) => value["text"]);

test("what a node keeps is there in the next run on another thread", async () => {
  const user = newUser();
  expect(await run("remembering", { user, note: "likes tea" })).toMatchObject({ seen: ["wrote likes tea"] });
  expect(await run("remembering", { user, note: "likes jam" })).toMatchObject({
    seen: ["likes tea", "wrote likes jam"],
  });
  expect(await run("remembering", { user })).toMatchObject({ seen: ["likes jam", "likes tea"] });
  expect(await run("remembering", { user: newUser() })).toMatchObject({ seen: [] });
});

test("clients and nodes see one store", async () => {
  const user = newUser();
  await held.server.client.store.putItem(["notes", user], "by client", { kind: "note" });
  expect(await run("remembering", { user, note: "by node" })).toMatchObject({
    seen: ["by client", "wrote by node"],
  });
  expect(await held.server.client.store.getItem(["notes", user], "by node")).toMatchObject({
    value: { kind: "note", text: "by node" },
  });
});

test("a subgraph uses the same store, and so does a run that streams events", async () => {
  const user = newUser();
  expect(await run("outer", { user, note: "inside" })).toMatchObject({ seen: ["wrote inside"] });
  const { thread_id: threadId } = await held.server.client.threads.create();
  const frames = await collect(
    held.server.client.runs.stream(threadId, "outer", {
      input: { user, note: "streamed" },
      streamMode: ["events", "values"],
      streamSubgraphs: true,
    }),
  );
  expect(frames.findLast(({ event }) => event === "values")?.data).toMatchObject({
    seen: ["inside", "wrote streamed"],
  });
});

test("nodes that write to one key at the same moment leave one value, and none of them fails", async () => {
  const user = newUser();
  await held.server.client.store.putItem(["pairs", user], "old", { by: "client" });
  expect(await run("pair", { user })).not.toHaveProperty("__error__");
  const { items } = await held.server.client.store.searchItems(["pairs", user]);
  expect(items.map(({ key }) => key)).toEqual(["shared"]);
  expect(["one", "two"]).toContain(items[0]?.value["by"]);
});

test("a run that was taken over while its node worked writes nothing more to the store", async () => {
  const server = await startTestServer(held.scratch.url, { ...SETTINGS, HOLDFAST_DRAIN_MS: "10000" });
  const [zombie, owner] = [randomUUID(), randomUUID()];
  const start = async (user: string): Promise<string> => {
    const { thread_id: threadId } = await server.client.threads.create();
    const input = { user, note: "mine", gate: gate.url };
    const { run_id: runId } = await server.client.runs.create(threadId, "late", { input });
    await gate.waitFor(user);
    return runId;
  };
  const [taken] = [await start(zombie), await start(owner)];
  // Another instance claims the first run, as it would after a pause of this one.
  const takeOver = "update holdfast.runs set attempt = attempt + 1, worker_id = $2 where run_id = $1";
  await held.scratch.database.query(takeOver, [taken, randomUUID()]);
  gate.open(zombie);
  gate.open(owner);
  await server.stop(); // both runs are at their end
  expect(await itemsOf(owner)).toEqual(["mine"]);
  expect(await itemsOf(zombie)).toEqual([]);
});

test("an edge that looks into the store decides after a run and after an update of the state", async () => {
  const user = newUser();
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  expect(await client.runs.wait(threadId, "routed", { input: { user } })).toMatchObject({ seen: ["right"] });
  await client.store.putItem(["ways", user], "next", {});
  await client.threads.updateState(threadId, { values: { user }, asNode: "begin" });
  expect((await client.threads.getState(threadId)).next).toEqual(["left"]);
});

test("a search by meaning in a node fails the run and says what to do", async () => {
  await expect(run("meaning", { user: newUser() })).rejects.toThrow(/^StoreSearchUnavailable: .*`filter`/);
});

test("a value that JSON would change in silence fails the run, and nothing is kept", async () => {
  const user = newUser();
  await expect(run("unfit", { user })).rejects.toThrow(/^ValueUnserialisable: .*a Map or a Set/);
  expect(await itemsOf(user)).toEqual([]);
});
