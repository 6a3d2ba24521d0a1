// Which passages a search found may be remembered: until the collection changes, for the same question, without a text.
import { afterAll, beforeAll, expect, test } from "vitest";
import { CollectionNotFound } from "../../server/errors.ts";
import { search } from "../../server/retrieval/search.ts";
import { cachedSearch } from "../../server/retrieval/search-cache.ts";
import type { Passage } from "../../server/services.ts";
import type { Caches } from "../../server/storage/caches/caches.ts";
import { openCaches } from "../../server/storage/caches/open.ts";
import { defaultScope as scope } from "../../server/storage/scope.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { index, makeFolder } from "./folder.ts";

let db: TestDatabase;
let caches: Caches;
beforeAll(async () => {
  db = await testDatabase();
  const config = { cacheUrl: undefined, cacheFail: "open" } as const;
  caches = await openCaches(config, db.database, openLog("error"));
});
afterAll(async () => {
  await caches.close();
  await db.close();
});

const ask = (collection: string, query: string, limit = 5): Promise<Passage[]> =>
  cachedSearch({ database: db.database, scope, caches, ttlMs: 60_000 }, { collection, query, limit });
const hits = (): number => caches.stats.passages.hits;

const TEA = {
  "a.md": "Tea from Assam is strong.",
  "b.md": "Tea from Ceylon is light. Tea, tea!",
  "c.md": "Coffee.",
};

test("the same question is answered from memory, just as the search answers it, and another one is not", async () => {
  await index(db.database, "tea", [(await makeFolder(TEA)).path]);
  const first = await ask("tea", "strong tea");
  const before = hits();
  expect(await ask("tea", "  strong\n tea ")).toEqual(first);
  expect(first).toEqual(
    await search(db.database, scope, { collection: "tea", query: "strong tea", limit: 5 }),
  );
  expect(hits() - before).toBe(1);
  expect(await ask("tea", "strong tea", 1)).toEqual(first.slice(0, 1));
  expect((await ask("tea", "coffee")).map(({ source_id: id }) => id)).toEqual(["c.md"]);
  expect(hits() - before).toBe(1);
});

test("a question that finds nothing is remembered too", async () => {
  await index(db.database, "none", [(await makeFolder(TEA)).path]);
  const before = hits();
  expect([await ask("none", "zeppelin"), await ask("none", "zeppelin"), hits() - before]).toEqual([
    [],
    [],
    1,
  ]);
});

test("what is remembered ends with the next change of the collection", async () => {
  const folder = await makeFolder(TEA);
  await index(db.database, "change", [folder.path]);
  await ask("change", "ceylon");
  await folder.write({ "d.md": "Ceylon is an island. Ceylon." });
  await index(db.database, "change", [folder.path]);
  expect((await ask("change", "ceylon")).map(({ source_id: id }) => id)).toContain("d.md");
});

test("nothing of a document or a question is in what is stored", async () => {
  await index(db.database, "words", [(await makeFolder(TEA)).path]);
  await ask("words", "assam");
  const rows = await db.database.query("select * from holdfast.cache_entries where kind = 'passages'");
  expect(rows.length).toBeGreaterThan(0);
  expect(Buffer.from(JSON.stringify(rows)).toString().toLowerCase()).not.toContain("assam");
});

test("a collection that does not exist is said to be missing", async () => {
  await expect(ask("nowhere", "tea")).rejects.toThrow(CollectionNotFound);
});
