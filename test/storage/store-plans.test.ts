// The statements of the store read what they answer and little more, on a table of hundreds of thousands of items.
import { afterAll, beforeAll, expect, test } from "vitest";
import { readExactSql, readRankedSql, readVectorsSql } from "../../server/storage/store/meaning.ts";
import { listNamespacesSql } from "../../server/storage/store/namespaces.ts";
import {
  deleteExpiredSql,
  findItemsSql,
  searchItemsSql,
  writeItemsSql,
} from "../../server/storage/store/store.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { explain } from "../support/explain.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
  // One tenant has half of all items, in one namespace; the others have ten each. One in a hundred expires.
  await scratch.database.query(`
    insert into holdfast.store_items (path, key, value, ttl_minutes, expires_at)
    select case when n % 2 = 0 then '.users.big.' else '.users.u' || n / 20 || '.notes.' end, 'k' || n,
           jsonb_build_object('n', n, 'kind', 'note'),
           case when n % 100 = 0 then 1 end, case when n % 100 = 0 then now() + n * interval '1 s' end
      from generate_series(1, 200000) as n`);
  await scratch.database.query(`
    insert into holdfast.store_vectors (path, key, embedder, item_updated_at, coarse, exact)
    select path, key, 'any', updated_at, repeat('ab', 20)::bytea, repeat('ab', 80)::bytea
      from holdfast.store_items where (value ->> 'n')::int % 5 <> 0`);
  await scratch.database.query("vacuum analyze holdfast.store_items");
  await scratch.database.query("vacuum analyze holdfast.store_vectors");
});
afterAll(() => scratch.close());

const item = { path: ".users.u7.notes.", key: "new", value: {}, ttl: 1 };
const NONE = [null, null, null];

// The whole table and its index are some 4,500 blocks.
test.each([
  ["a read of two items", findItemsSql, [[".users.u7.notes.", ".users.big."], ["k141", "k2"], true], 60],
  [
    "a search in a small namespace",
    searchItemsSql,
    [".users.u7.", ".users.u7/", "[]", 10, 0, true, null, ""],
    60,
  ],
  [
    "the first page of half the table",
    searchItemsSql,
    [".users.big.", ".users.big/", "[]", 10, 0, false, null, ""],
    40,
  ],
  [
    "the first page of all",
    searchItemsSql,
    [".", "/", '[{"field":"n","operator":"$gt","operand":1}]', 10, 0, true, null, ""],
    300,
  ],
  [
    "a search where nothing is",
    searchItemsSql,
    [".users.u7x.", ".users.u7x/", "[]", 10, 0, true, null, ""],
    20,
  ],
  ["the namespaces at a depth of 1", listNamespacesSql, [".", "/", "[]", 1, 100, 0], 30],
  ["the first namespaces", listNamespacesSql, [".", "/", "[]", null, 5, 0], 60],
  ["the namespaces of one user", listNamespacesSql, [".users.u7.", ".users.u7/", "[]", null, 100, 0], 20],
  [
    "a write and a delete",
    writeItemsSql,
    [JSON.stringify([item, { ...item, key: "k141", value: null }]), ...NONE, []],
    120,
  ],
  ["the items that are over", deleteExpiredSql, [10], 20],
  [
    "the vectors of a small namespace",
    readVectorsSql,
    [".users.u7.", ".users.u7/", "[]", "", "any", 1000, 4_000_000, false],
    60,
  ],
  [
    "a later page of the vectors of half the table",
    readVectorsSql,
    [".users.big.", ".users.big/", "[]", "k150000", "any", 100, 4_000_000, false],
    700,
  ],
  [
    "exact vectors of two items",
    readExactSql,
    [[".users.u7.notes.", ".users.big."], ["k141", "k2"], ["1", "1"], "any"],
    40,
  ],
  [
    "two items that were found",
    readRankedSql,
    [[".users.u7.notes.", ".users.big."], ["k141", "k2"], ["1", "1"], true],
    60,
  ],
  [
    "items without vectors in a small namespace",
    searchItemsSql,
    [".users.u7.", ".users.u7/", "[]", 10, 0, true, "any", ""],
    120,
  ],
] as const)("%s looks into an index and at few blocks", async (_, statement, values, most) => {
  // PostgreSQL may plan for these values, or once for all.
  for (const mode of ["force_custom_plan", "force_generic_plan"] as const) {
    const { nodes, blocks } = await explain(scratch.database, statement, values, mode);
    const whole = nodes.filter(
      (node) => node["Relation Name"]?.startsWith("store_") && node["Node Type"] === "Seq Scan",
    );
    expect(whole).toEqual([]);
    expect(blocks).toBeLessThan(most);
  }
});

test.each([
  ["of items", searchItemsSql, [".users.u7.", ".users.u7/", "[]", 10, 0, false, null, ""]],
  ["of vectors", readVectorsSql, [".users.u7.", ".users.u7/", "[]", "", "any", 1000, 4_000_000, false]],
] as const)("a prefix is both ends of a range in the index %s", async (_, statement, values) => {
  const { nodes } = await explain(scratch.database, statement, values);
  const conditions = nodes.flatMap((node) => node["Index Cond"] ?? []);
  expect(conditions).toContainEqual(expect.stringMatching(/path(, key\))? >= .* AND .*path < /));
});
