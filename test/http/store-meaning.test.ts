// Search by meaning over the routes of the store, through the official client, with an endpoint that gives vectors.
import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { startFakeEmbeddings } from "../support/embeddings.ts";
import { makeProject } from "../support/project.ts";
import { startTestServer, useServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";

const fake = await startFakeEmbeddings();
afterEach(() => {
  fake.next = {};
  fake.requests.length = 0;
});
afterAll(() => fake.stop());

const held = useServer({
  HOLDFAST_CONFIG: "test/fixtures/meaning.langgraph.json",
  HOLDFAST_CACHE_EMBEDDINGS_DAYS: "0",
  OPENAI_BASE_URL: fake.url,
  HOLDFAST_MODEL_TIMEOUT_MS: "1000",
});
const store = () => held.server.client.store;

const send = (method: string, path: string, body: unknown, server: TestServer = held.server) =>
  fetch(server.url + path, { method, body: JSON.stringify(body) });
const seen = async (response: Promise<Response>): Promise<unknown[]> => {
  const answer = await response;
  return [answer.status, answer.headers.get("x-holdfast-code"), await answer.text()];
};
const vectorsOf = async (root: string): Promise<string[]> => {
  const sql = "select key from holdfast.store_vectors where path like $1 order by key";
  return (await held.scratch.database.query<{ key: string }>(sql, [`.${root}.%`])).map(({ key }) => key);
};

/** Keys and scores, the nearest first. */
async function found(prefix: string[], query: string, more: object = {}): Promise<unknown[]> {
  const { items } = await store().searchItems(prefix, { query, ...more });
  return items.map(({ key, score }) => [key, score === undefined ? null : Number(score.toFixed(3))]);
}

async function put(namespace: string[], texts: Record<string, string>, more: object = {}): Promise<void> {
  for (const [key, text] of Object.entries(texts)) await store().putItem(namespace, key, { text, ...more });
}

// The last two have nothing to do with drinks: what is equally near comes in the order of its key.
const FACTS = {
  a: "eats bread",
  b: "has a cat and a dog",
  c: "likes tea",
  d: "drinks coffee with a cat",
};

test("what is nearest in meaning comes first, with its score", async () => {
  const user = randomUUID();
  await put([user], FACTS);
  expect((await found([user], "thirsty")).map((one) => (one as unknown[])[0])).toEqual(["c", "d", "a", "b"]);
  const { items } = await store().searchItems([user], { query: "thirsty", limit: 1 });
  expect(items[0]).toMatchObject({ namespace: [user], key: "c", value: { text: "likes tea" } });
  expect(items[0]?.score).toBeGreaterThan(0.9);
  expect(items[0]?.createdAt).toMatch(/Z$/);
  const plain = await store().searchItems([user]);
  expect(plain.items.map((item) => "score" in item)).toEqual([false, false, false, false]);
});

test("filter, limit and offset hold for a ranking too", async () => {
  const user = randomUUID();
  await put([user], FACTS, { kind: "fact" });
  await store().putItem([user], "e", { text: "thirsty", kind: "mood" });
  const keys = async (more: object): Promise<unknown[]> =>
    (await found([user], "drink", more)).map((one) => (one as unknown[])[0]);
  expect(await keys({ filter: { kind: "fact" } })).toEqual(["c", "d", "a", "b"]);
  expect(await keys({ filter: { kind: "fact" }, limit: 2, offset: 1 })).toEqual(["d", "a"]);
  expect(await keys({ filter: { kind: { $ne: "fact" } } })).toEqual(["e"]);
  expect(await keys({ offset: 5 })).toEqual([]);
});

test("a ranking never holds what stands under a sibling prefix", async () => {
  const root = randomUUID();
  for (const sibling of ["10", "1-", "1/", "1 "]) await put([root, sibling], { other: "tea" });
  await put([root, "1"], { mine: "bread" });
  await put([root, "1", "deep"], { below: "cat" });
  expect((await found([root, "1"], "tea")).map((one) => (one as unknown[])[0])).toEqual(["mine", "below"]);
});

test("an item says of which fields it is found, or that it is not to be found", async () => {
  const user = randomUUID();
  const write = (key: string, index: false | string[] | null, value: object) =>
    store().putItem([user], key, value as Record<string, unknown>, { index });
  await write("b", ["deep.note"], { text: "bread", deep: { note: "tea" } });
  await write("c", false, { text: "tea" });
  await write("a", null, { tags: ["bread", "coffee"] }); // by the fields of langgraph.json; the nearest tag counts
  await write("d", null, { other: "tea" });
  await write("e", ["text"], { text: " " });
  expect(await found([user], "drink")).toEqual([
    ["a", 1],
    ["b", 1],
    ["c", null],
    ["d", null],
    ["e", null],
  ]);
  expect(await found([user], "drink", { limit: 2, offset: 1 })).toEqual([
    ["b", 1],
    ["c", null],
  ]);
  expect(await found([user], "drink", { limit: 2, offset: 3 })).toEqual([
    ["d", null],
    ["e", null],
  ]);
  expect(await vectorsOf(user)).toEqual(["a", "b"]);
  expect(fake.requests[0]).toMatchObject({ model: "ideas", input: ["tea"] });
});

test("an item that is written anew, deleted or over takes its vectors along", async () => {
  const user = randomUUID();
  for (const key of ["a", "b", "c", "d"]) await store().putItem([user], key, { text: "tea" }, { ttl: 60 });
  await store().putItem([user], "a", { text: "bread" });
  await store().putItem([user], "b", { text: "tea" }, { index: false });
  await store().deleteItem([user], "c");
  expect(await vectorsOf(user)).toEqual(["a", "d"]);
  await held.scratch.database.query(
    "update holdfast.store_items set expires_at = now() - interval '1 s' where path = $1 and key = 'd'",
    [`.${user}.`],
  );
  expect(await found([user], "tea")).toEqual([
    ["a", 0],
    ["b", null],
  ]);
  await held.scratch.database.query("delete from holdfast.store_items where expires_at <= now()");
  expect(await vectorsOf(user)).toEqual(["a"]);
});

test("being found begins an item's time anew, unless it is not to", async () => {
  const user = randomUUID();
  await store().putItem([user], "a", { text: "tea" }, { ttl: 60 });
  await store().putItem([user], "b", { text: "bread" }, { ttl: 60 });
  const age = "update holdfast.store_items set expires_at = now() + interval '5 min' where path = $1";
  await held.scratch.database.query(age, [`.${user}.`]);
  const left = async (): Promise<unknown[]> => {
    const sql =
      "select round(extract(epoch from expires_at - now()) / 60)::int as left from holdfast.store_items where path = $1 order by key";
    return (await held.scratch.database.query<{ left: number }>(sql, [`.${user}.`])).map((row) => row.left);
  };
  await found([user], "tea", { refreshTtl: false });
  expect(await left()).toEqual([5, 5]);
  await found([user], "tea", { limit: 1 });
  expect(await left()).toEqual([60, 5]);
  expect(await found([user], "tea")).toHaveLength(2);
});

const write = (user: string): Promise<unknown[]> =>
  seen(send("PUT", "/store/items", { namespace: [user], key: "a", value: { text: "new" } }));

describe("when vectors cannot be had", () => {
  test.each([
    ["the endpoint fails", { status: 500 }, /HTTP 500.*Try again later/],
    ["the key is refused", { status: 401 }, /HTTP 401.*OPENAI_API_KEY/],
    ["a text is too long for it", { status: 400 }, /HTTP 400.*fewer fields/],
    ["it is silent", { silent: true }, /within 1000 ms \(HOLDFAST_MODEL_TIMEOUT_MS\)/],
    ["vectors have another length", { vector: [1, 2] }, /2 dimensions.*dims.*16/],
  ] as const)("because %s, nothing is written and the error says why", async (_, next, says) => {
    const user = randomUUID();
    await put([user], { a: "tea" });
    fake.next = next;
    expect(await write(user)).toEqual([502, "embedding_failed", expect.stringMatching(says)]);
    expect(await seen(send("POST", "/store/items/search", { query: "tea" }))).toEqual([
      502,
      "embedding_failed",
      expect.stringMatching(says),
    ]);
    fake.next = {};
    expect(await store().getItem([user], "a")).toMatchObject({ value: { text: "tea" } });
    expect(await found([user], "drink")).toEqual([["a", 1]]);
  });

  test("what needs none is written all the same", async () => {
    const user = randomUUID();
    fake.next = { status: 500 };
    await store().putItem([user], "a", { text: "tea" }, { index: false });
    await store().putItem([user], "b", { other: "tea" });
    expect((await store().searchItems([user])).items).toHaveLength(2);
    expect(fake.requests).toEqual([]);
  });
});

const refused = (says: RegExp): unknown[] => [400, "input_invalid", expect.stringMatching(says)];

test("what is too much is refused before anybody is asked", async () => {
  const user = randomUUID();
  const item = { namespace: [user], key: "a" };
  const many = { tags: Array.from({ length: 300 }, (_, index) => `tag ${index}`) };
  expect(await seen(send("PUT", "/store/items", { ...item, value: many }))).toEqual(refused(/256 texts/));
  const wide = { rows: Array.from({ length: 10_000 }, () => null) };
  const paths = Array.from({ length: 100 }, (_, index) => `rows[*].field${index}`);
  expect(await seen(send("PUT", "/store/items", { ...item, value: wide, index: paths }))).toEqual(
    refused(/200000 values/),
  );
  const long = { text: "tea ".repeat(200_000) };
  expect(await seen(send("PUT", "/store/items", { ...item, value: long }))).toEqual(
    refused(/500000 characters/),
  );
  const ask = (body: object) =>
    seen(send("POST", "/store/items/search", { namespace_prefix: [user], ...body }));
  expect(await ask({ query: "tea ".repeat(3000) })).toEqual(refused(/10000 characters/));
  expect(fake.requests).toEqual([]);
  expect(await ask({ query: "tea", offset: 9995, limit: 10 })).toEqual(refused(/10000 items/));
  expect(await vectorsOf(user)).toEqual([]);
  expect((await store().searchItems([user])).items).toEqual([]);
});

describe("another embedder on the same database", () => {
  let other: TestServer;
  const more = { HOLDFAST_CONFIG: "test/fixtures/embed.langgraph.json" };
  beforeAll(async () => void (other = await startTestServer(held.scratch.url, more)));
  afterAll(() => other.stop());

  test("compares only vectors of its own; items are found again once they are written again", async () => {
    const user = randomUUID();
    await put([user], { a: "tea", b: "coffee" });
    const ranked = async (): Promise<unknown[]> =>
      (await other.client.store.searchItems([user], { query: "drink" })).items.map(({ key, score }) => [
        key,
        score === undefined,
      ]);
    expect(await ranked()).toEqual([
      ["a", true],
      ["b", true],
    ]);
    await other.client.store.putItem([user], "b", { text: "coffee" });
    expect(await ranked()).toEqual([
      ["b", false],
      ["a", true],
    ]);
    expect(await found([user], "drink")).toEqual([
      ["a", 1],
      ["b", null],
    ]);
  });

  test("code of the user makes the vectors, of the whole value by default", async () => {
    const user = randomUUID();
    await other.client.store.putItem([user], "a", { any: { thing: "cat" } });
    const { items } = await other.client.store.searchItems([user], { query: "animals" });
    expect(items[0]?.score).toBeGreaterThan(0.9);
    expect(fake.requests).toEqual([]);
  });
});

test("whoever sees only his own finds only his own, and writes over nobody else's", async () => {
  const { path } = makeProject({
    auth: { path: `${resolve("test/fixtures/auth.ts")}:filtered` },
    store: { index: { embed: `${resolve("test/fixtures/embed.ts")}:embed`, dims: 16, fields: ["text"] } },
  });
  const server = await startTestServer(held.scratch.url, { HOLDFAST_CONFIG: path });
  const of = (user: string) =>
    new Client({
      apiUrl: server.url,
      defaultHeaders: { authorization: `Bearer ${user}` },
      callerOptions: { maxRetries: 0 },
    }).store;
  const room = randomUUID();
  await of("alice").putItem([room], "a", { text: "tea with a cat" });
  await of("bob").putItem([room], "b", { text: "tea" });
  const ranked = async (user: string): Promise<unknown[]> =>
    (await of(user).searchItems([room], { query: "drink" })).items.map(({ key, score }) => [
      key,
      score?.toFixed(1),
    ]);
  expect(await ranked("alice")).toEqual([["a", "0.7"]]);
  expect(await ranked("bob")).toEqual([["b", "1.0"]]);
  await expect(of("alice").putItem([room], "b", { text: "bread" })).rejects.toThrow(/404/);
  expect(await ranked("bob")).toEqual([["b", "1.0"]]);
  await server.stop();
});
