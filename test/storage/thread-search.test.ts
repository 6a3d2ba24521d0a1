// Thread search over a filled table: each page and each count comes from an index, and values are found exactly.
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  COUNT_THREADS,
  LIST_THREADS,
  countThreads,
  filterValues,
  listThreads,
  pageValues,
} from "../../server/storage/thread-search.ts";
import { holds } from "../../server/storage/json-match.ts";
import { filterOf } from "../../server/storage/auth-filter.ts";
import { findThread } from "../../server/storage/threads.ts";
import type { ThreadFilter, ThreadPage } from "../../server/storage/thread-search.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

const ROWS = 30_000;
const SORTS = ["thread_id", "status", "created_at", "updated_at", "state_updated_at"] as const;
const page: ThreadPage = { sortBy: "created_at", sortOrder: "desc", limit: 10, offset: 0, withState: true };

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
  // Times in steps of ten threads, so that there are ties; some threads are temporary, a few are busy.
  await scratch.database.query(
    `insert into holdfast.threads (thread_id, status, metadata, created_at, updated_at, state_updated_at, state, is_temporary)
     select gen_random_uuid()::text, case when n % 1000 = 0 then 'busy' when n % 100 = 0 then 'error' else 'idle' end,
            jsonb_build_object('graph_id', 'agent', 'user', concat('u', n % 3000)),
            now() - (n / 10) * interval '1 s', now() - (n / 7) * interval '1 s', now() - (n / 3) * interval '1 s',
            json_build_object('values', json_build_object('n', n, 'text', repeat('word ', 200))), n % 50 = 7
       from generate_series(1, $1) as n`,
    [ROWS],
  );
  await scratch.database.query("vacuum analyze holdfast.threads");
});
afterAll(() => scratch.close());

async function planOf(statement: string, values: readonly unknown[]): Promise<string> {
  const lines = await scratch.database.query<Record<string, string>>(`explain ${statement}`, values);
  return lines.map((line) => line["QUERY PLAN"]).join("\n");
}

const READS_ALL = /Seq Scan on threads|Sort Key/;

test.each(
  SORTS.flatMap((sortBy) => [{ sortBy, sortOrder: "asc" } as const, { sortBy, sortOrder: "desc" } as const]),
)("a page sorted by $sortBy $sortOrder reads no more than it shows", async (order) => {
  expect(await planOf(LIST_THREADS, pageValues({ ...page, ...order }))).not.toMatch(READS_ALL);
  const everybody = { ...page, ...order, metadata: { graph_id: "agent" } };
  expect(await planOf(LIST_THREADS, pageValues(everybody))).not.toMatch(READS_ALL);
});

test.each<[string, ThreadFilter]>([
  ["metadata that few threads hold", { metadata: { user: "u77" } }],
  ["a status that few threads have", { status: "busy" }],
  ["ids", { ids: ["a", "b"] }],
  ["what the caller may see", { auth: filterOf({ user: "u77" }) }],
  [
    "the graph of all, and what the caller may see",
    { metadata: { graph_id: "agent" }, auth: filterOf({ user: "u77" }) },
  ],
  ["metadata and values", { metadata: { user: "u77" }, values: { n: 77 } }],
])("threads found by %s, and their count, come from an index", async (_, filter) => {
  for (const sortBy of SORTS) {
    expect(await planOf(LIST_THREADS, pageValues({ ...page, ...filter, sortBy }))).not.toMatch(
      /Seq Scan on threads/,
    );
  }
  expect(await planOf(COUNT_THREADS, filterValues(filter))).not.toMatch(/Seq Scan on threads/);
});

test("the count of all threads is read from an index alone", async () => {
  expect(await planOf(COUNT_THREADS, filterValues({}))).toMatch(/Index Only Scan/);
  expect(await countThreads(scratch.database, {})).toBe((ROWS / 50) * 49);
});

test("no search is prepared: a plan for any values would read the whole table", async () => {
  await findThread(scratch.database, "none");
  for (const sortBy of SORTS) await listThreads(scratch.database, { ...page, sortBy });
  await countThreads(scratch.database, {});
  const prepared = await scratch.database.query<{ name: string }>(
    "select name from pg_prepared_statements where statement like '%from holdfast.threads%'",
  );
  expect(prepared).toEqual([{ name: "findThread" }]);
});

test("the state of a page's threads is read only when it is wanted", async () => {
  const [bare] = await listThreads(scratch.database, { ...page, withState: false });
  const [whole] = await listThreads(scratch.database, page);
  expect([bare?.state, typeof whole?.state, bare?.thread_id]).toEqual([null, "string", whole?.thread_id]);
});

test("values that jsonb cannot hold hide nothing else of a state", async () => {
  const backslash = String.fromCodePoint(92);
  const hard = {
    nul: "a\0\0b",
    half: "\ud800x",
    literal: `${backslash}u0000`,
    both: `${backslash}\0`,
    emoji: "🙂",
  };
  await scratch.database.query("insert into holdfast.threads (thread_id, state) values ('hard', $1)", [
    JSON.stringify({ values: { hard, plain: [1, { deep: true }] } }),
  ]);
  const found = async (values: object) =>
    (await listThreads(scratch.database, { ...page, values })).map((row) => row.thread_id);
  expect(await found({ plain: [{ deep: true }] })).toEqual(["hard"]);
  expect(await found({ hard: { literal: hard.literal, emoji: "🙂" } })).toEqual(["hard"]);
  expect(
    await found({ hard: { nul: "a\ufffd\ufffdb", half: "\ufffdx", both: `${backslash}\ufffd` } }),
  ).toEqual(["hard"]);
  expect(await found({ hard: { literal: "\ufffd" } })).toEqual([]);
});

// What JSON escapes, and what looks like an escape; names that are everywhere in JavaScript.
const unit = fc.constantFrom(
  "a",
  "\0",
  "\ud800",
  "\udc00",
  "\u{1f600}",
  "\\",
  "u0000",
  "ud800",
  '"',
  "\n",
  "\ufffd",
);
const text = fc.string({ unit, maxLength: 5 });
const name = fc.oneof(fc.constantFrom("a", "b", "__proto__", "constructor", "values"), text);
const { json } = fc.letrec<{ json: unknown }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 3, depthSize: "medium" },
    fc.oneof(text, fc.constantFrom<unknown>(null, true, 0, -0, 1, 1.5, 1e300, 5e-324, 2 ** 53)),
    fc.array(tie("json"), { maxLength: 3 }),
    fc
      .array(fc.tuple(name, tie("json")), { maxLength: 3 })
      .map((entries) => Object.fromEntries(entries) as unknown),
  ),
}));
const storable = (value: string): string => value.toWellFormed().replaceAll("\0", "\ufffd");

/** As the database takes it: names too. */
function asSearched(value: unknown): unknown {
  if (typeof value === "string") return storable(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(asSearched);
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [storable(key), asSearched(part)]));
}

test("threads are found by any part of any values, whatever is written in them", async () => {
  const ids = Array.from({ length: 40 }, (_, index) => `any ${index}`);
  let found = 0;
  const states = fc.array(fc.dictionary(name, json, { minKeys: 1, maxKeys: 3 }), {
    minLength: 40,
    maxLength: 40,
  });
  const law = fc.asyncProperty(states, fc.nat(39), async (all, chosen) => {
    await scratch.database.query("delete from holdfast.threads where thread_id = any ($1)", [ids]);
    await scratch.database.query(
      "insert into holdfast.threads (thread_id, state) select i, s::json from unnest($1::text[], $2::text[]) as x (i, s)",
      [ids, all.map((values) => JSON.stringify({ values }))],
    );
    const searched = all.map((values) => asSearched(values) as Record<string, unknown>);
    for (const [key, part] of Object.entries(searched[chosen] ?? {})) {
      const values = Object.fromEntries([[key, part]]);
      const expected = ids.filter((_, index) => holds(searched[index], values));
      const rows = await listThreads(scratch.database, { ...page, ids, values, limit: 100 });
      expect(rows.map((row) => row.thread_id).toSorted()).toEqual(expected.toSorted());
      expect(await countThreads(scratch.database, { ids, values })).toBe(expected.length);
      expect(expected).toContain(ids[chosen]);
      found += expected.length;
    }
  });
  await fc.assert(law, { numRuns: 25 });
  expect(found).toBeGreaterThan(40);
});
