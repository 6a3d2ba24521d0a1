// What makes vectors is code of others: what it answers is looked at, and it is never waited for without end.
import { expect, test } from "vitest";
import { useModelEndpoint } from "../../server/config.ts";
import { embedderOf, embeddingsOf } from "../../server/models/embedder.ts";
import type { EmbeddingsLike } from "../../server/models/embedder.ts";
import { readGraphsFile } from "../../server/runs/graph/graphs.ts";
import { openEmbedder } from "../../server/runs/graph/store-index.ts";
import type { Embedder } from "../../server/storage/store/vectors.ts";
import { vectorOf } from "../fixtures/embed.ts";
import { startFakeEmbeddings } from "../support/embeddings.ts";
import { startFakeModel } from "../support/model.ts";

const make = (embeddings: EmbeddingsLike): Embedder =>
  embedderOf(embeddings, { name: "x", dims: 2, fields: ["$"], timeoutMs: 200 });
const answering = (answer: unknown): Embedder => make(embeddingsOf(async () => answer as number[][]));

test.each([
  ["no list", null, /not one vector for each of 1 texts/],
  ["too few", [], /not one vector for each of 1 texts/],
  ["a text", ["ab"], /no list of numbers/],
  ["another length", [[1, 2, 3]], /3 dimensions.*says 2/],
  ["what is no number", [[1, Number.NaN]], /no number/],
  ["a number that float4 cannot hold", [[1, 1e300]], /no number/],
])("%s is no vector", async (_, answer, says) => {
  const failing = answering(answer).documents(["a"]);
  await expect(failing).rejects.toMatchObject({ code: "embedding_failed", retryable: false });
  await expect(failing).rejects.toThrow(says);
});

test("lists of float4 are vectors too", async () => {
  const [vector] = await answering([Float32Array.of(1, 0.5)]).documents(["a"]);
  expect(vector).toEqual(Float32Array.of(1, 0.5));
});

test("code that throws is told by the class of its error and never by its words", async () => {
  const embedder = make(embeddingsOf(async () => Promise.reject(new TypeError("secret"))));
  await expect(embedder.queries(["a"])).rejects.toThrow(/failed \(TypeError\)/);
  await expect(embedder.queries(["a"])).rejects.not.toThrow(/secret/);
});

test("code that never answers is left after its time, and at once when nobody waits any more", async () => {
  const embedder = make(embeddingsOf(() => new Promise(() => undefined)));
  await expect(embedder.documents(["a"])).rejects.toThrow(/within 200 ms/);
  const gone = new AbortController();
  const asked = embedder.documents(["a"], gone.signal);
  gone.abort(new Error("the run was cancelled"));
  await expect(asked).rejects.toThrow("the run was cancelled");
});

const open = async (embed: string, hasEndpoint = true): Promise<Embedder | undefined> => {
  const file = await readGraphsFile("test/fixtures/embed.langgraph.json");
  return openEmbedder(
    { ...file, storeIndex: { embed, dims: 16, fields: ["$"] } },
    { timeoutMs: 1000, hasEndpoint },
  );
};

test("LangChain's Embeddings make vectors of what is searched for in their own way", async () => {
  const embedder = await open("./embed.ts:embeddings");
  expect(await embedder?.queries(["QUERY"])).toEqual(await embedder?.documents(["tea"]));
});

test.each([
  ["cohere:embed-english-v3.0", /must be openai:<model> or a file/],
  ["./embed.ts:missing", /it exports .*not missing/],
  ["./embed.ts:nothing", /neither a function nor has it embedDocuments/],
])("%s stops the start with one sentence", async (embed, says) => {
  await expect(open(embed)).rejects.toThrow(says);
  await expect(open(embed)).rejects.toMatchObject({ code: "config_invalid" });
});

test("vectors of OpenAI's newer models are asked for in the wanted length, of others as they are", async () => {
  const fake = await startFakeEmbeddings();
  useModelEndpoint({ baseUrl: fake.url, apiKey: "none" });
  for (const model of ["text-embedding-3-large", "ideas"]) {
    const embedder = await open(`openai:${model}`);
    expect(embedder?.name).toBe(`openai:${model}/16`);
    expect(await embedder?.documents(["tea", "cat"])).toEqual(
      ["tea", "cat"].map((text) => Float32Array.from(vectorOf(text))),
    );
  }
  expect(fake.requests).toEqual([
    expect.objectContaining({ model: "text-embedding-3-large", input: ["tea", "cat"], dimensions: 16 }),
    expect.not.objectContaining({ dimensions: 16 }),
  ]);
  await fake.stop();
  const gone = (await open("openai:ideas"))?.queries(["tea"]);
  await expect(gone).rejects.toMatchObject({ code: "embedding_failed", retryable: true });
});

test("the offline model gives vectors too, packed as OpenAI packs them", async () => {
  const offline = await startFakeModel();
  useModelEndpoint({ baseUrl: offline.url, apiKey: "none" });
  const embedder = await open("openai:text-embedding-3-small");
  const [one, other, again] = (await embedder?.documents(["tea", "cat", "tea"])) ?? [];
  expect(one).toHaveLength(16);
  expect(again).toEqual(one);
  expect(other).not.toEqual(one);
  await offline.stop();
});

test("a model of OpenAI needs an endpoint", async () => {
  await expect(open("openai:text-embedding-3-small", false)).rejects.toThrow(/needs OPENAI_API_KEY/);
});
