// Search by meaning inside a graph: what nodes write at one moment is embedded in one request, and written whole or not.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { startFakeEmbeddings } from "../support/embeddings.ts";
import { testDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { startTestServer, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const fake = await startFakeEmbeddings();
let gate: Gate;
beforeAll(async () => void (gate = await startGate()));
afterEach(() => {
  fake.next = {};
  fake.requests.length = 0;
});
afterAll(() => Promise.all([fake.stop(), gate.stop()]));

const SETTINGS = {
  HOLDFAST_CONFIG: "test/fixtures/meaning.langgraph.json",
  HOLDFAST_CACHE_EMBEDDINGS_DAYS: "0",
  OPENAI_BASE_URL: fake.url,
};
const held = useServer(SETTINGS);

async function run(
  graph: string,
  input: object,
  client = held.server.client,
): Promise<Record<string, unknown>> {
  const { thread_id: threadId } = await client.threads.create();
  return (await client.runs.wait(threadId, graph, { input: { ...input } })) as Record<string, unknown>;
}

const keysOf = async (user: string): Promise<string[]> =>
  (await held.server.client.store.searchItems(["ideas", user])).items.map(({ key }) => key);

test("a node finds what an earlier run kept, by its meaning", async () => {
  const user = randomUUID();
  await run("noting", { user, texts: ["likes tea", "has a cat", "!likes tea"] });
  expect(fake.requests).toMatchObject([{ input: ["likes tea", "has a cat"] }]);
  const { found } = await run("asking", { user, query: "animals" });
  expect(found).toEqual([
    { key: "has a cat", score: expect.closeTo(1, 1) },
    { key: "likes tea", score: expect.any(Number) },
    { key: "!likes tea", score: null },
  ]);
});

test("an edge that searches by meaning decides after an update of the state too", async () => {
  const user = randomUUID();
  const { threads, store } = held.server.client;
  await store.putItem(["ideas", user], "a", { text: "likes tea" });
  const { thread_id: threadId } = await threads.create({ graphId: "choosing" });
  const next = async (query: string): Promise<string[]> => {
    await threads.updateState(threadId, { values: { user, query }, asNode: "begin" });
    return (await threads.getState(threadId)).next;
  };
  expect([await next("thirsty"), await next("animals")]).toEqual([["known"], ["unknown"]]);
});

test("a run whose texts cannot be embedded fails, says why, and writes nothing", async () => {
  const user = randomUUID();
  fake.next = { status: 503 };
  await expect(run("noting", { user, texts: ["likes tea", "!plain"] })).rejects.toThrow(
    /^EmbeddingFailed: .*HTTP 503.*Nothing was written/,
  );
  expect(await keysOf(user)).toEqual([]);
});

test("a run that was taken over while its texts were embedded writes neither items nor vectors", async () => {
  const server = await startTestServer(held.scratch.url, { ...SETTINGS, HOLDFAST_DRAIN_MS: "10000" });
  const user = randomUUID();
  const { thread_id: threadId } = await server.client.threads.create();
  const input = { user, texts: ["likes tea"], gate: gate.url };
  const { run_id: runId } = await server.client.runs.create(threadId, "noting", { input });
  await gate.waitFor(user);
  const takeOver = "update holdfast.runs set attempt = attempt + 1, worker_id = $2 where run_id = $1";
  await held.scratch.database.query(takeOver, [runId, randomUUID()]);
  gate.open(user);
  await server.stop();
  expect(fake.requests).toHaveLength(1);
  expect(await keysOf(user)).toEqual([]);
  expect(
    await held.scratch.database.query("select 1 from holdfast.store_vectors where path like $1", [
      `%${user}%`,
    ]),
  ).toEqual([]);
});

test("a server that dies between the vectors and the write leaves the old item whole, and another writes the new", async () => {
  const scratch = await testDatabase();
  const start = async (more: object): Promise<{ running: Running; client: Client }> => {
    const settings = { DATABASE_URL: scratch.url, PORT: "0", ...SETTINGS, ...more };
    const running = startHoldfast(["serve"], settings);
    await running.says("Ready on ");
    const apiUrl = /Ready on (\S+)/.exec(running.out())?.[1] ?? "";
    return { running, client: new Client({ apiUrl, callerOptions: { maxRetries: 0 } }) };
  };
  const kept = (): Promise<unknown[]> =>
    scratch.database.query(
      `select i.value, encode(v.exact, 'hex') as exact, v.item_updated_at = i.updated_at as is_own
         from holdfast.store_items i join holdfast.store_vectors v using (path, key)`,
    );
  const dying = await start({ HOLDFAST_FAULT: "store.writing:1" });
  const user = randomUUID();
  await dying.client.store.putItem(["ideas", user], "likes tea", { text: "bread" });
  const before = await kept();
  fake.requests.length = 0;
  await expect(run("noting", { user, texts: ["likes tea"] }, dying.client)).rejects.toThrow(
    /fetch failed|terminated/,
  );
  await dying.running.ended;
  expect(fake.requests).toMatchObject([{ input: ["likes tea"] }]);
  expect(await kept()).toEqual(before);
  const { running, client } = await start({});
  const isWritten = async (): Promise<boolean> =>
    (await client.store.getItem(["ideas", user], "likes tea"))?.value["text"] === "likes tea";
  await until(isWritten, "the run to go on");
  const { items } = await client.store.searchItems(["ideas", user], { query: "drink" });
  expect(items).toMatchObject([{ key: "likes tea", score: expect.closeTo(1, 1) }]);
  running.process.kill();
  await running.ended;
  await scratch.close();
});
