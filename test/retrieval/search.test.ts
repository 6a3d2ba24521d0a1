import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CollectionNotFound } from "../../server/errors.ts";
import { search } from "../../server/retrieval/search.ts";
import { defaultScope } from "../../server/storage/scope.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { find, index, makeFolder } from "./folder.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await testDatabase();
});
afterAll(() => db.close());

interface Sample {
  readonly title: string;
  readonly text: string;
}

/** BM25 as the textbook has it, over words divided by spaces; the title counts twice. */
function bm25(corpus: ReadonlyMap<string, Sample>, query: string): Map<string, number> {
  const documents = [...corpus].map(([id, { title, text }]) => ({
    id,
    words: `${title} ${title} ${text}`.split(" "),
  }));
  const mean = documents.reduce((sum, { words }) => sum + words.length, 0) / documents.length;
  const scores = new Map<string, number>();
  for (const term of query.split(" ")) {
    const df = documents.filter(({ words }) => words.includes(term)).length;
    const idf = Math.log(1 + (documents.length - df + 0.5) / (df + 0.5));
    for (const { id, words } of documents) {
      const tf = words.filter((word) => word === term).length;
      const part = (idf * tf * 2.5) / (tf + 1.5 * (0.25 + (0.75 * words.length) / mean));
      if (tf > 0) scores.set(id, (scores.get(id) ?? 0) + part);
    }
  }
  return scores;
}

const words = (min: number, max: number): fc.Arbitrary<string> =>
  fc
    .array(fc.constantFrom(..."amber birch cedar delta ember fjord grove".split(" ")), {
      minLength: min,
      maxLength: max,
    })
    .map((list) => list.join(" "));

test("passages come in the order and with the scores of BM25", async () => {
  const corpora = fc.array(fc.record({ title: words(1, 3), text: words(1, 30) }), {
    minLength: 1,
    maxLength: 15,
  });
  let number = 0;
  await fc.assert(
    fc.asyncProperty(corpora, words(1, 5), async (samples, query) => {
      number += 1;
      const collection = `corpus-${number}`;
      const corpus = new Map(samples.map((sample, at) => [`c.jsonl#${at}`, sample]));
      const lines = samples.map((sample, at) => JSON.stringify({ _id: at, ...sample }));
      const folder = await makeFolder({ "c.jsonl": lines.join("\n") });
      await index(db.database, collection, [folder.path], { language: "simple" });

      const passages = await search(db.database, defaultScope, { collection, query, limit: 20 });
      const expected = bm25(corpus, query);
      expect(new Set(passages.map(({ source_id }) => source_id))).toEqual(new Set(expected.keys()));
      for (const [at, { source_id, score }] of passages.entries()) {
        expect(score).toBeCloseTo(expected.get(source_id) ?? Number.NaN, 4);
        expect(score).toBeLessThanOrEqual(passages[at - 1]?.score ?? Infinity);
      }
    }),
    { numRuns: 15, seed: 7 },
  );
});

test("a passage says where it stands, and the limit is kept", async () => {
  const folder = await makeFolder({ "a.md": "# Tides\n\nThe moon pulls the sea.", "b.md": "# Sea\n\nSalt." });
  await index(db.database, "passage", [folder.path]);
  const [first, ...others] = await search(db.database, defaultScope, {
    collection: "passage",
    query: "who pulls the seas",
    limit: 1,
  });
  expect(others).toEqual([]);
  expect(first).toEqual({
    chunk_id: expect.any(Number),
    source_id: "a.md",
    title: "Tides",
    ordinal: 0,
    score: expect.any(Number),
    body: "# Tides\n\nThe moon pulls the sea.",
  });
});

test("the parts of a compound are found alone: IL-6, HIV/AIDS", async () => {
  const folder = await makeFolder({ "a.txt": "Levels of IL-6 rose.", "b.txt": "A study of HIV/AIDS care." });
  await index(db.database, "compounds", [folder.path]);
  expect(await find(db.database, "compounds", "IL 6")).toEqual(["a.txt"]);
  expect(await find(db.database, "compounds", "il-6")).toEqual(["a.txt"]);
  expect(await find(db.database, "compounds", "hiv")).toEqual(["b.txt"]);
});

test.for(["", "   ", "the of and", "!?", "\0", "\uD800", "' or 1=1 --", "a & b | !c <-> (d"])(
  "a query without a known word finds nothing and fails nothing: %j",
  async (query) => {
    const folder = await makeFolder({ "a.txt": "Nothing in common." });
    await index(db.database, "quiet", [folder.path]);
    expect(await find(db.database, "quiet", query)).toEqual([]);
  },
);

test("a very long query is cut and answered at once", { timeout: 5000 }, async () => {
  const folder = await makeFolder({ "a.txt": "amber waves" });
  await index(db.database, "long", [folder.path]);
  expect(await find(db.database, "long", `amber ${"a".repeat(300_000)}`)).toEqual(["a.txt"]);
  expect(await find(db.database, "long", "a".repeat(300_000))).toEqual([]);
  expect(await find(db.database, "long", "amber waves 😀".repeat(30_000))).toEqual(["a.txt"]);
});

test("an unknown collection is refused by name, with the command that makes it", async () => {
  const ask = search(db.database, defaultScope, { collection: "nowhere", query: "x", limit: 3 });
  await expect(ask).rejects.toThrow(CollectionNotFound);
  await expect(ask).rejects.toThrow(/nowhere.*holdfast index/);
});
