import { afterAll, beforeAll, expect, test } from "vitest";
import { CollectionNotFound, InputInvalid } from "../../server/errors.ts";
import {
  ensureCollection,
  findCollection,
  findCollectionSql,
  listCollections,
  listCollectionsSql,
  lockCollection,
  lockCollectionSql,
  vacuum,
} from "../../server/storage/documents/collections.ts";
import type { Collection } from "../../server/storage/documents/collections.ts";
import { deleteCollection } from "../../server/storage/documents/delete-collection.ts";
import {
  deleteDocuments,
  deleteDocumentsSql,
  findDocuments,
  findDocumentsSql,
  insertDocuments,
  listDocuments,
  listDocumentsSql,
} from "../../server/storage/documents/documents.ts";
import type { DocumentRow } from "../../server/storage/documents/documents.ts";
import { rankPassages, rankPassagesSql } from "../../server/storage/documents/passages.ts";
import { defaultScope } from "../../server/storage/scope.ts";
import type { Scope } from "../../server/storage/scope.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await testDatabase();
});
afterAll(() => db.close());

const stranger: Scope = { tenantId: "stranger" };
const WORDS = "amber birch cedar delta ember fjord grove heron islet jetty karst lemon mango nylon".split(
  " ",
);

/** mulberry32: a seeded source of numbers in [0, 1). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function rowOf(file: string, random: () => number): DocumentRow {
  const text = (): string =>
    Array.from(
      { length: 1 + Math.floor(random() * 12) },
      () => WORDS[Math.floor(random() * WORDS.length)],
    ).join(" ");
  const chunks = Array.from({ length: 1 + Math.floor(random() * 3) }, text);
  return { file, record: "", source_id: file, title: text(), sha256: "00", chunks };
}

async function replace(collection: Collection, rows: readonly DocumentRow[]): Promise<void> {
  await db.database.transaction(async (transaction) => {
    await lockCollection(transaction, defaultScope, collection);
    await deleteDocuments(transaction, defaultScope, { collection, keys: rows });
    await insertDocuments(transaction, defaultScope, { collection, rows });
  });
}

async function remove(collection: Collection, rows: readonly DocumentRow[]): Promise<void> {
  await db.database.transaction(async (transaction) => {
    await lockCollection(transaction, defaultScope, collection);
    await deleteDocuments(transaction, defaultScope, { collection, keys: rows });
  });
}

/** How many numbers of a collection differ from what its chunks say. */
async function wrongNumbers(collection: Collection): Promise<number> {
  const [row] = await db.database.query<{ wrong: number }>(
    `with c as (select * from holdfast.collections where collection_id = $1),
     said as (
       select k.chunk_id, u.lexeme, cardinality(u.positions) as tf, k.length
         from c join holdfast.documents d using (collection_id) join holdfast.chunks k using (document_id),
              unnest(to_tsvector(c.language::regconfig, concat_ws(E'\\n', d.title, d.title, k.body))) u),
     df as (select lexeme, count(*) as df from said group by 1)
     select (select count(*) from df full join (select * from holdfast.terms where collection_id = $1 and df <> 0) t
               using (lexeme) where df.df is distinct from t.df)
          + (select count(*) from said full join (select * from holdfast.postings where collection_id = $1) p
               using (chunk_id, lexeme) where said.tf is distinct from p.tf or said.length is distinct from p.length)
          + (select count(*) from c where documents <> (select count(*) from holdfast.documents where collection_id = $1)
               or chunks <> (select count(*) from holdfast.chunks where collection_id = $1)
               or lexemes <> (select coalesce(sum(tf), 0) from said)) as wrong`,
    [collection.collection_id],
  );
  return row?.wrong ?? Number.NaN;
}

test("frequencies and totals are exact after eight writers replaced and deleted the same documents", async () => {
  const collection = await ensureCollection(db.database, defaultScope, { name: "busy" });
  const writers = Array.from({ length: 8 }, async (_, writer) => {
    const random = randomFrom(writer + 1);
    for (let round = 0; round < 15; round += 1) {
      const files = new Set(Array.from({ length: 4 }, () => `/doc-${Math.floor(random() * 12)}`));
      const rows = [...files].map((file) => rowOf(file, random));
      await (random() < 0.3 ? remove(collection, rows) : replace(collection, rows));
    }
  });
  await Promise.all(writers);
  const [summary] = await listCollections(db.database, defaultScope);
  expect(summary?.documents).toBeGreaterThan(0);
  expect(await wrongNumbers(collection)).toBe(0);
});

test("a document with more chunks than one statement takes is stored whole", async () => {
  const collection = await ensureCollection(db.database, defaultScope, { name: "large" });
  const chunks = Array.from({ length: 1200 }, (_, at) => `piece ${at} ${"amber ".repeat(600)}`);
  await replace(collection, [{ ...rowOf("/large", randomFrom(1)), chunks }]);
  const [stored] = await db.database.query<{ n: number; last: number }>(
    `select count(*) as n, max(ordinal) as last from holdfast.chunks where collection_id = $1`,
    [collection.collection_id],
  );
  expect(stored).toEqual({ n: 1200, last: 1199 });
  expect(await wrongNumbers(collection)).toBe(0);
});

test("another tenant sees, writes and deletes nothing", async () => {
  const collection = await ensureCollection(db.database, defaultScope, { name: "mine" });
  const row = { ...rowOf("/mine", randomFrom(2)), chunks: ["amber"] };
  await replace(collection, [row]);
  const ask = { collection: "mine", query: "amber", limit: 5, lexemes: 5 };
  expect(await rankPassages(db.database, defaultScope, ask)).toHaveLength(1);

  expect(await rankPassages(db.database, stranger, ask)).toEqual([]);
  expect(await findDocuments(db.database, stranger, { collection, keys: [row] })).toEqual([]);
  const range = { collection, from: { file: "", record: "" }, before: "~", limit: 5 };
  expect(await listDocuments(db.database, stranger, range)).toEqual([]);
  expect(await findCollection(db.database, stranger, "mine")).toBeUndefined();
  expect(await listCollections(db.database, stranger)).toEqual([]);
  expect(await deleteDocuments(db.database, stranger, { collection, keys: [row] })).toBe(0);
  await insertDocuments(db.database, stranger, { collection, rows: [rowOf("/theirs", randomFrom(3))] });
  await expect(deleteCollection(db.database, stranger, "mine")).rejects.toThrow(CollectionNotFound);
  expect(await listDocuments(db.database, defaultScope, range)).toHaveLength(1);
  expect(await wrongNumbers(collection)).toBe(0);
});

test("a deleted collection leaves no row behind and no other collection is touched", async () => {
  const random = randomFrom(4);
  const kept = await ensureCollection(db.database, defaultScope, { name: "kept" });
  const gone = await ensureCollection(db.database, defaultScope, { name: "gone" });
  const rows = Array.from({ length: 1100 }, (_, at) => rowOf(`/doc-${at}`, random));
  await replace(gone, rows);
  await replace(kept, rows.slice(0, 5));
  expect(await deleteCollection(db.database, defaultScope, "gone")).toBe(1100);
  const [left] = await db.database.query<{ n: number }>(
    `select (select count(*) from holdfast.documents where collection_id = $1)
          + (select count(*) from holdfast.chunks where collection_id = $1)
          + (select count(*) from holdfast.terms where collection_id = $1)
          + (select count(*) from holdfast.postings where collection_id = $1) as n`,
    [gone.collection_id],
  );
  expect(left?.n).toBe(0);
  expect(await findCollection(db.database, defaultScope, "gone")).toBeUndefined();
  expect(await wrongNumbers(kept)).toBe(0);
});

test("a collection keeps its language, and an unknown language is refused by name", async () => {
  await ensureCollection(db.database, defaultScope, { name: "german", language: "german" });
  expect(await ensureCollection(db.database, defaultScope, { name: "german" })).toMatchObject({
    language: "german",
  });
  const other = ensureCollection(db.database, defaultScope, { name: "german", language: "french" });
  await expect(other).rejects.toThrow(InputInvalid);
  const klingon = ensureCollection(db.database, defaultScope, { name: "other", language: "klingon" });
  await expect(klingon).rejects.toThrow(/klingon.*english/);
});

test("no statement reads a whole table once the tables are filled", async () => {
  const random = randomFrom(5);
  const collection = await ensureCollection(db.database, defaultScope, { name: "plans" });
  for (let batch = 0; batch < 5; batch += 1) {
    const rows = Array.from({ length: 500 }, (_, at): DocumentRow => {
      const title = Array.from({ length: 8 }, (__, word) => `unique${batch}x${at}x${word}`).join(" ");
      return { ...rowOf(`/plan-${batch}-${at}`, random), title };
    });
    await replace(collection, rows);
  }
  await vacuum(db.database);
  const key = ["default", collection.collection_id];
  const files = [
    ["/plan-1-1", "/plan-2-2"],
    ["", ""],
  ];
  const plans: [string, unknown[]][] = [
    [rankPassagesSql, ["default", "plans", "unique1x7x0 unique2x30x1 amber", 10, 64]],
    [findDocumentsSql, [...key, ...files]],
    [deleteDocumentsSql, [...key, ...files]],
    [listDocumentsSql, [...key, "/plan-1", "", "/plan-2", 5]],
    [findCollectionSql, ["default", "plans"]],
    [lockCollectionSql, key],
    [listCollectionsSql, ["default"]],
  ];
  const wholeReads: string[] = [];
  for (const [statement, values] of plans) {
    const lines = await db.database.query<Record<string, string>>(`explain ${statement}`, values);
    const plan = lines.map((line) => line["QUERY PLAN"]).join("\n");
    if (/Seq Scan on (documents|chunks|terms|postings)/.test(plan)) wholeReads.push(statement, plan);
  }
  expect(wholeReads).toEqual([]);
});
