// Search by meaning against LangGraph's own InMemoryStore as the oracle: the same texts, the same order, the same scores.
import { randomUUID } from "node:crypto";
import { InMemoryStore } from "@langchain/langgraph-checkpoint";
import {
  array,
  assert,
  asyncProperty,
  constantFrom,
  dictionary,
  integer,
  letrec,
  oneof,
  option,
  record,
} from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { embedderOf, embeddingsOf } from "../../server/models/embedder.ts";
import { conditionsOf, holding } from "../../server/storage/store/filter.ts";
import { queryVectors, searchByMeaning, withVectors } from "../../server/storage/store/meaning.ts";
import type { IndexedWrite, RankedItem } from "../../server/storage/store/meaning.ts";
import { writeItems } from "../../server/storage/store/store.ts";
import { textsOf } from "../../server/storage/store/texts.ts";
import { boundsOf, pack, scoreOf, unit } from "../../server/storage/store/vectors.ts";
import type { Embedder } from "../../server/storage/store/vectors.ts";
import { DIMS, embeddings, vectorOf } from "../fixtures/embed.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
beforeAll(async () => void (scratch = await testDatabase()));
afterAll(() => scratch.close());

type Value = Record<string, unknown>;
type Numbers = (text: string) => number[];

const embedderFor = (numbers: Numbers, dims: number, name = "any"): Embedder =>
  embedderOf(
    embeddingsOf(async (texts) => texts.map(numbers)),
    { name, dims, fields: ["$"], timeoutMs: 5000 },
  );
const ideas = embedderFor(vectorOf, DIMS);

const put = async (writes: readonly Partial<IndexedWrite>[], embedder: Embedder | undefined = ideas) => {
  const whole = writes.map((one) => ({ namespace: [], key: "k", value: {}, ttlMinutes: null, ...one }));
  return writeItems(scratch.database, await withVectors(whole, embedder));
};

interface Search {
  readonly filter?: Value | undefined;
  readonly owner?: string;
  readonly limit?: number;
  readonly offset?: number;
}

async function search(
  prefix: readonly string[],
  query: string,
  { filter, owner, limit = 1000, offset = 0 }: Search = {},
  embedder = ideas,
): Promise<RankedItem[]> {
  const vector = (await queryVectors(embedder, [query])).get(query) ?? new Float32Array();
  const conditions = [
    ...conditionsOf(filter),
    ...(owner ? [holding(JSON.stringify({ owner }) as never)] : []),
  ];
  const page = { prefix, conditions, limit, offset, refreshesTtl: true };
  return searchByMeaning(scratch.database, { ...page, vector, embedder });
}

/** A score as float4 can tell it. */
const rounded = (score: number | undefined): number | undefined =>
  score === undefined ? undefined : Math.round(score * 1e5) / 1e5;

const word = constantFrom("tea", "coffee", "cat", "dog", "train", "bread", "and", "the", "zebra");
const sentence = array(word, { minLength: 1, maxLength: 4 }).map((words) => words.join(" "));
const items = array(
  record({
    labels: array(constantFrom("1", "10", "1-"), { minLength: 1, maxLength: 2 }),
    value: record({ note: sentence, kind: constantFrom("a", "b"), tags: array(sentence, { maxLength: 3 }) }),
    index: constantFrom<false | string[] | undefined>(
      false,
      undefined,
      ["note"],
      ["tags[*]", "note"],
      ["none"],
    ),
  }),
  { maxLength: 10 },
);
const asked = record({
  prefix: array(constantFrom("1", "10"), { maxLength: 2 }),
  query: sentence,
  filter: option(record({ kind: constantFrom<unknown>("a", { $ne: "a" }) }), { nil: undefined }),
  limit: integer({ min: 1, max: 6 }),
  offset: integer({ min: 0, max: 6 }),
});

test("items come in the order and with the scores of the InMemoryStore, and each page is a part of its list", async () => {
  const law = asyncProperty(items, asked, async (given, { prefix, query, filter, limit, offset }) => {
    const root = randomUUID();
    const oracle = new InMemoryStore({
      index: { dims: DIMS, embeddings: embeddings as never, fields: ["$"] },
    });
    const all = given.map(({ labels, value, index }, n) => ({
      namespace: [root, ...labels],
      key: String(n),
      value,
      index,
    }));
    for (const { namespace, key, value, index } of all) await oracle.put(namespace, key, value, index);
    await put(all);
    const expected = await oracle.search([root, ...prefix], {
      query,
      limit: 1000,
      ...(filter && { filter }),
    });
    const found = await search([root, ...prefix], query, { filter });
    expect(found).toHaveLength(expected.length);
    const scores = new Map(expected.map(({ key, score }) => [key, score]));
    for (const [at, { key, value, score }] of found.entries()) {
      expect(value).toEqual(all[Number(key)]?.value);
      // Of the same length and with the same score at each place: only what is equally near may change places.
      const places = [expected[at]?.score, scores.get(key)];
      for (const one of places) expect(rounded(one)).toBe(rounded(score));
    }
    const page = await search([root, ...prefix], query, { filter, limit, offset });
    expect(page).toEqual(found.slice(offset, offset + limit));
  });
  await assert(law, { numRuns: 150 });
});

/** Numbers of a text that differ from all others by very little, or by much. */
const noise =
  (spread: number): Numbers =>
  (text) => {
    let state = Buffer.from(text).reduce((all, one) => (all * 31 + one) >>> 0, 7);
    return Array.from({ length: 48 }, (_, at) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.sin(at) + spread * (state / 2 ** 32 - 0.5);
    });
  };

test.each([
  ["far from", 4],
  ["so near to each other that only their exact vectors tell", 0.002],
])("items in several pages, %s, come in the exact order", async (_, spread) => {
  const numbers = noise(spread);
  const embedder = embedderFor(numbers, 48, `noise ${spread}`);
  const root = randomUUID();
  const keys = Array.from({ length: 2300 }, (_unused, n) => `k${n}`);
  await put(
    keys.map((key) => ({ namespace: [root, key.slice(-1)], key, value: { text: key }, index: ["text"] })),
    embedder,
  );
  const query = unit(Float32Array.from(numbers("query")));
  const exact = keys
    .map((key) => {
      const { exact: bytes } = pack("any", [Float32Array.from(numbers(key))]);
      return { key, score: scoreOf(bytes, query) };
    })
    .toSorted((one, other) => other.score - one.score);
  for (const [limit, offset] of [
    [10, 0],
    [3, 997],
    [1000, 1500],
  ] as const) {
    const found = await search([root], "query", { limit, offset }, embedder);
    expect(found.map(({ key, score }) => ({ key, score }))).toEqual(exact.slice(offset, offset + limit));
  }
});

test("no item is left out between two pages, also if its key begins with the last one of the first", async () => {
  const root = randomUUID();
  const keys = Array.from({ length: 1200 }, (_, n) => "a".repeat(n + 1));
  await put(keys.map((key) => ({ namespace: [root], key, value: { text: "tea" }, index: ["text"] })));
  const found = await search([root], "drink", { limit: 1200 });
  expect(found.map(({ key }) => key)).toEqual(keys);
  expect(found.filter(({ score }) => score === undefined)).toEqual([]);
});

test("coarse vectors bound the score, whatever the numbers are", async () => {
  const numbers = array(oneof(integer({ min: -5, max: 5 }), constantFrom(1e-30, -1e30, 0.1, 123.456)), {
    minLength: 5,
    maxLength: 5,
  });
  const law = asyncProperty(array(numbers, { minLength: 1, maxLength: 4 }), numbers, async (all, asking) => {
    const query = unit(Float32Array.from(asking));
    const { coarse, exact } = pack(
      "any",
      all.map((one) => Float32Array.from(one)),
    );
    const { lower, upper } = boundsOf(coarse, query);
    const score = scoreOf(exact, query);
    expect(score).toBeGreaterThanOrEqual(lower);
    expect(score).toBeLessThanOrEqual(upper);
    expect(Math.abs(score)).toBeLessThanOrEqual(1);
  });
  await assert(law, { numRuns: 1000 });
});

/** The texts that the InMemoryStore sends to be embedded. */
async function oracleTexts(value: Value, path: string): Promise<string[]> {
  const texts: string[] = [];
  const noting = {
    embedDocuments: async (given: string[]) => {
      texts.push(...given);
      return given.map(() => [1]);
    },
  };
  const store = new InMemoryStore({ index: { dims: 1, embeddings: noting as never } });
  await store.put(["a"], "k", value, [path]);
  return texts;
}

test("a path finds the texts that it finds in the InMemoryStore", async () => {
  const name = constantFrom("a", "b", "$", "0", "*");
  const { tree } = letrec((tie) => ({
    tree: oneof(
      { maxDepth: 4 },
      constantFrom<unknown>("x", "y z", 1.5, true, null),
      array(tie("tree"), { maxLength: 3 }),
      dictionary(name, tie("tree"), { maxKeys: 3 }),
    ),
  }));
  const part = constantFrom(
    "a",
    "b",
    "$",
    "*",
    "[0]",
    "[-1]",
    "[*]",
    "[9]",
    "[x]",
    "{a,b}",
    "{a.b, $}",
    "{b,missing}",
    "{}",
    "",
  );
  const path = array(part, { maxLength: 4 }).map((parts) => parts.join(".").replaceAll(".[", "["));
  const law = asyncProperty(dictionary(name, tree, { maxKeys: 3 }), path, async (value, one) => {
    expect(textsOf(value, [one]).toSorted()).toEqual((await oracleTexts(value as Value, one)).toSorted());
  });
  await assert(law, { numRuns: 1000 });
});

test("a field that every object inherits is no text of an item", () => {
  expect(textsOf({}, ["constructor.name", "{toString}", "__proto__"])).toEqual([]);
});

test("whoever may see only his own finds only his own", async () => {
  const root = randomUUID();
  await put([
    { namespace: [root], key: "a", value: { text: "tea", owner: "alice" } },
    { namespace: [root], key: "b", value: { text: "tea tea", owner: "bob" } },
    { namespace: [root], key: "c", value: { text: "x", owner: "alice" }, index: false },
    { namespace: [root], key: "d", value: { text: "x", owner: "bob" }, index: false },
  ]);
  expect((await search([root], "drink", { owner: "alice" })).map(({ key }) => key)).toEqual(["a", "c"]);
});

test("texts that several items share are embedded once, and the last write of a key alone", async () => {
  const requests: string[][] = [];
  const noting = embedderOf(
    embeddingsOf(async (texts) => {
      requests.push(texts);
      return texts.map(vectorOf);
    }),
    { name: "any", dims: DIMS, fields: ["text"], timeoutMs: 5000 },
  );
  const root = randomUUID();
  await put(
    [
      { namespace: [root], key: "a", value: { text: "old" } },
      { namespace: [root], key: "a", value: { text: "tea" } },
      { namespace: [root], key: "b", value: { text: "tea" } },
      { namespace: [root], key: "c", value: { text: "cat" } },
      { namespace: [root], key: "d", value: null },
    ],
    noting,
  );
  expect(requests).toEqual([["tea", "cat"]]);
  expect((await search([root], "drink")).map(({ key, score }) => [key, Math.round(score ?? -9)])).toEqual([
    ["a", 1],
    ["b", 1],
    ["c", 0],
  ]);
});

test("vectors are those of the item as it is, whoever else writes to it at the same moment", async () => {
  const root = randomUUID();
  const keys = Array.from({ length: 12 }, (_, n) => String(n));
  const texts = ["tea", "cat", "train", "bread"];
  const write = (order: readonly string[], text: string | undefined): Promise<boolean> =>
    put(
      order.map((key) => ({
        namespace: [root],
        key,
        value: { text },
        index: text === undefined ? false : ["text"],
      })),
    );
  for (let round = 0; round < 8; round += 1) {
    const writers = [...texts, undefined, undefined].map((text, by) =>
      write((by + round) % 2 ? keys : keys.toReversed(), text),
    );
    expect(new Set(await Promise.all(writers))).toEqual(new Set([true]));
    for (const text of texts) {
      const found = await search([root], text);
      expect(found).toHaveLength(keys.length);
      for (const { value, score } of found)
        expect(rounded(score)).toBe(value["text"] === undefined ? undefined : value["text"] === text ? 1 : 0);
    }
  }
});

test("an item that an older server wrote anew has no vectors any more", async () => {
  const root = randomUUID();
  await put([{ namespace: [root], value: { text: "tea" } }]);
  const older = `update holdfast.store_items set value = '{"text": "bread"}', updated_at = now() where path = $1`;
  await scratch.database.query(older, [`.${root}.`]);
  expect(await search([root], "tea")).toMatchObject([{ value: { text: "bread" } }]);
  expect((await search([root], "tea"))[0]).not.toHaveProperty("score");
});
