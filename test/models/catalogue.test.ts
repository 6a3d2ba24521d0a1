// What is known of models: the operator's file wins over what is shipped, a wrong file stops the start, and money is
// counted exactly.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { ConfigInvalid } from "../../server/errors.ts";
import { costOf, openCatalogue } from "../../server/models/catalogue.ts";
import type { Catalogue } from "../../server/models/catalogue.ts";
import { encodingOf } from "../../server/models/tokens.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-models-"));
});
afterEach(() => void shipped());
afterAll(() => rm(folder, { recursive: true, force: true }));

const shipped = (): Catalogue => openCatalogue({ modelsFile: undefined, modelTimeoutMs: 7000 });

async function opened(file: object | string): Promise<Catalogue> {
  const path = join(folder, "models.json");
  await writeFile(path, typeof file === "string" ? file : JSON.stringify(file));
  return openCatalogue({ modelsFile: path, modelTimeoutMs: 7000 });
}

test("without a file the shipped prices and the defaults hold, and silences are those of HOLDFAST_MODEL_TIMEOUT_MS", () => {
  const facts = shipped().of("gpt-4.1-mini");

  expect(facts).toMatchObject({ encoding: "o200k_base", approximate: false, fallback: [] });
  expect(facts.price).toEqual({ input: 0.4, cached: 0.1, output: 1.6 });
  expect(facts.policy).toMatchObject({
    connect_ms: 7000,
    first_token_ms: 35_000,
    between_tokens_ms: 7000,
    retries: 2,
  });
  expect(facts.policy.requests_per_minute).toBeUndefined();
});

test.each([
  ["gpt-4.1-mini-2025-04-14", { input: 0.4, cached: 0.1, output: 1.6 }],
  ["gpt-4o-2024-05-13", { input: 5, cached: 5, output: 15 }],
  ["text-embedding-3-small", { input: 0.02, cached: 0.02, output: 0 }],
  ["offline-extractive", { input: 0, cached: 0, output: 0 }],
  ["ft:gpt-4.1-mini:acme", undefined],
  ["constructor", undefined],
])("%s costs what is listed, or nobody knows", (model, expected) => {
  expect(shipped().of(model).price).toEqual(expected);
});

const price = (input: number): object => ({ price: { input, output: 1 } });

test("an exact name wins over the longest beginning, which wins over what is shipped", async () => {
  const { of } = await opened({
    models: { "*": price(1), "gpt-4*": price(2), "gpt-4.1*": price(3), "gpt-4.1": price(4) },
  });

  expect(["o3", "gpt-4o", "gpt-4.1-mini", "gpt-4.1"].map((model) => of(model).price?.input)).toEqual([
    1, 2, 3, 4,
  ]);
});

test("what a line leaves out comes from the file's defaults, then from what is shipped", async () => {
  const { of } = await opened({
    defaults: { retries: 5, concurrent: 3 },
    models: { "gpt-4.1": { retries: 0, max_output_tokens: 99 } },
  });

  expect(of("gpt-4.1")).toMatchObject({ maxOutputTokens: 99, price: { input: 2, cached: 0.5, output: 8 } });
  expect(of("gpt-4.1").policy).toMatchObject({ retries: 0, concurrent: 3, retry_base_ms: 500 });
  expect(of("o3").policy).toMatchObject({ retries: 5, concurrent: 3 });
});

test("an encoding of the file is what tokens are counted with, exactly", async () => {
  const { of } = await opened({ models: { "our-deployment": { encoding: "cl100k_base" } } });

  expect(of("our-deployment")).toMatchObject({ encoding: "cl100k_base", approximate: false });
  expect(encodingOf("our-deployment")).toEqual({ encoding: "cl100k_base", approximate: false });
  expect(encodingOf("another")).toEqual({ encoding: "o200k_base", approximate: true });
});

test("a request goes by the first rule that fits, once", async () => {
  const { route } = await opened({
    route: [
      { from: "gpt-4.1", to: "gpt-4.1-mini", max_prompt_tokens: 500, tools: false },
      { from: "gpt-4.1*", to: "o3", tools: true },
      { from: "o3", to: "gpt-5" },
    ],
  });

  expect(route("gpt-4.1", { promptTokens: 500, hasTools: false })).toBe("gpt-4.1-mini");
  expect(route("gpt-4.1", { promptTokens: 501, hasTools: false })).toBe("gpt-4.1");
  expect(route("gpt-4.1", { promptTokens: 1, hasTools: true })).toBe("o3");
  expect(route("gpt-4o", { promptTokens: 1, hasTools: true })).toBe("gpt-4o");
});

test("a model is no fallback of itself", async () => {
  const { of } = await opened({ models: { "*": { fallback: ["a", "b", "a"] } } });

  expect([of("m").fallback, of("a").fallback]).toEqual([["a", "b"], ["b"]]);
});

const line = (fields: object): object => ({ models: { "gpt-4.1": fields } });
test.each([
  ["not json", "it is not JSON"],
  [{ model: {} }, 'Unrecognized key: "model"'],
  [line({ prize: 1 }), 'models.gpt-4.1: Unrecognized key: "prize"'],
  [line({ price: { input: -1, output: 1 } }), "models.gpt-4.1.price.input"],
  [
    line({ price: { input: 0.000_000_1, output: 1 } }),
    "models.gpt-4.1.price.input: has more than six decimals",
  ],
  [line({ retries: 1.5 }), "models.gpt-4.1.retries"],
  [line({ encoding: "p50k" }), "models.gpt-4.1.encoding"],
  [{ defaults: { price: { input: 1, output: 1 } } }, "defaults: Unrecognized key"],
  [{ route: [{ from: "a" }] }, "route.0.to"],
  [line({ fallback: ["gpt-4.1"] }), "fallback leads from gpt-4.1 back to it"],
  [
    { models: { a: { fallback: ["b"] }, b: { fallback: ["x", "c"] }, c: { fallback: ["b"] } } },
    "fallback leads from b",
  ],
  [
    {
      route: [
        { from: "a*", to: "b" },
        { from: "b", to: "ab" },
      ],
    },
    "route leads from a* back to it (a*, b)",
  ],
])("%j stops the start with one sentence that names the place", async (file, message) => {
  const opening = opened(file);

  await expect(opening).rejects.toThrow(message);
  await expect(opening).rejects.toBeInstanceOf(ConfigInvalid);
});

test("a file that is not there stops the start", () => {
  expect(() => openCatalogue({ modelsFile: "/nowhere/models.json", modelTimeoutMs: 1 })).toThrow(
    /^HOLDFAST_MODELS names \/nowhere\/models.json, which cannot be read: .*\.$/,
  );
});

const dollars = fc.integer({ min: 0, max: 100_000_000 }).map((millionths) => millionths / 1_000_000);
const tokens = fc.integer({ min: 0, max: 10_000_000 });

const millionths = (amount: number): bigint => BigInt(amount.toFixed(6).replace(".", ""));

test("a cost is the exact sum in millionths of a dollar, rounded up once", () => {
  fc.assert(
    fc.property(
      dollars,
      dollars,
      dollars,
      tokens,
      tokens,
      tokens,
      (input, cached, output, fresh, kept, out) => {
        const cost = costOf({ input, cached, output }, { input: fresh + kept, cached: kept, output: out });
        const exact =
          BigInt(fresh) * millionths(input) +
          BigInt(kept) * millionths(cached) +
          BigInt(out) * millionths(output);
        expect(BigInt(cost) * 1_000_000n).toBeGreaterThanOrEqual(exact);
        expect(BigInt(cost - 1) * 1_000_000n).toBeLessThan(exact === 0n ? 1n : exact);
      },
    ),
  );
});

test("what costs anything costs at least a millionth, and nothing costs nothing", () => {
  const nano = { input: 0.05, cached: 0.005, output: 0.4 };

  expect(costOf(nano, { input: 1, cached: 1, output: 0 })).toBe(1);
  expect(costOf(nano, { input: 0, cached: 0, output: 0 })).toBe(0);
});
