// Vectors that were made before are not made again, and are those that were made.
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { cachedEmbedder } from "../../server/models/caching/vectors.ts";
import type { VectorCacheOptions } from "../../server/models/caching/vectors.ts";
import { embedderOf, embeddingsOf } from "../../server/models/embedder.ts";
import type { Embedder } from "../../server/storage/store/vectors.ts";
import { vectorOf } from "../fixtures/embed.ts";
import { openTestCaches } from "../support/caches.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { TEST_KEYS } from "../support/keys.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase(TEST_KEYS);
});
afterAll(() => scratch.close());

interface Rig {
  readonly embedder: Embedder;
  /** What the endpoint was asked for. */
  readonly asked: string[][];
}

async function rig(options: Partial<VectorCacheOptions> = {}, name = "ideas"): Promise<Rig> {
  const asked: string[][] = [];
  const embeddings = embeddingsOf(async (texts) => {
    asked.push(texts);
    return texts.map(vectorOf);
  });
  const { caches } = await openTestCaches(scratch.database);
  onTestFinished(() => caches.close());
  const inner = embedderOf(embeddings, { name, dims: 16, fields: ["$"], timeoutMs: 1000 });
  const usual = { caches, endpoint: "https://a", dims: 16, ttlMs: 60_000, mayKeep: () => true };
  return { embedder: cachedEmbedder(inner, { ...usual, ...options }), asked };
}

test("only texts that are not known are asked for, once each and in one request", async () => {
  const { embedder, asked } = await rig();
  await embedder.documents(["tea", "cat"]);
  const vectors = await embedder.documents(["cat", "milk", "tea", "milk", "dog"]);
  expect(asked).toEqual([
    ["tea", "cat"],
    ["milk", "dog"],
  ]);
  expect(vectors).toEqual(
    ["cat", "milk", "tea", "milk", "dog"].map((text) => Float32Array.from(vectorOf(text))),
  );
  expect(await embedder.queries(["dog"])).toEqual([vectors[4]]);
  expect(asked).toHaveLength(2);
});

test("another model, or one of the same name elsewhere, makes its own", async () => {
  const others = [await rig({}, "others"), await rig({ endpoint: "https://b" })];
  await (await rig()).embedder.documents(["shared"]);
  for (const { embedder } of others) await embedder.documents(["shared"]);
  expect(others.map(({ asked }) => asked)).toEqual([[["shared"]], [["shared"]]]);
});

test("of a text that may not be kept no vector is kept", async () => {
  const { embedder, asked } = await rig({ mayKeep: (text) => !text.includes("@") });
  for (let n = 0; n < 2; n += 1) await embedder.documents(["a@b.example", "plain"]);
  expect(asked).toEqual([["a@b.example", "plain"], ["a@b.example"]]);
});

test("a failure of the endpoint keeps nothing, and is told as without a cache", async () => {
  const { caches } = await openTestCaches(scratch.database);
  const failing = embeddingsOf(async () => Promise.reject(new TypeError("no")));
  const inner = embedderOf(failing, { name: "ideas", dims: 16, fields: ["$"], timeoutMs: 1000 });
  const embedder = cachedEmbedder(inner, { caches, endpoint: "", dims: 16, ttlMs: 1, mayKeep: () => true });
  await expect(embedder.documents(["x"])).rejects.toMatchObject({ code: "embedding_failed" });
  expect(caches.stats.embeddings.stored).toBe(0);
});
