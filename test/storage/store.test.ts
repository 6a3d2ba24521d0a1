// Items of the store in PostgreSQL: exact prefixes, filters, time to live, and plans that use an index.
import { randomUUID } from "node:crypto";
import {
  assert,
  asyncProperty,
  array,
  constantFrom,
  dictionary,
  integer,
  jsonValue,
  oneof,
  option,
  record,
  tuple,
} from "fast-check";
import type { Arbitrary } from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { InputInvalid, StoreNamespaceInvalid } from "../../server/errors.ts";
import { conditionsOf } from "../../server/storage/store/filter.ts";
import { listNamespaces } from "../../server/storage/store/namespaces.ts";
import type { NamespaceMatch } from "../../server/storage/store/namespaces.ts";
import { deleteExpiredItems, findItems, searchItems, writeItems } from "../../server/storage/store/store.ts";
import type { StoreItem } from "../../server/storage/store/store.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
beforeAll(async () => void (scratch = await testDatabase()));
afterAll(() => scratch.close());

type Value = Record<string, unknown>;

const put = (
  namespace: readonly string[],
  key: string,
  value: Value = {},
  ttlMinutes: number | null = null,
) => writeItems(scratch.database, [{ namespace, key, value, ttlMinutes }]);
const get = async (
  namespace: readonly string[],
  key: string,
  refreshesTtl = false,
): Promise<StoreItem | null> =>
  (await findItems(scratch.database, [{ namespace, key }], refreshesTtl))[0] ?? null;
const search = (
  prefix: readonly string[],
  more: { filter?: Value; limit?: number; offset?: number; refreshesTtl?: boolean } = {},
) =>
  searchItems(scratch.database, {
    prefix,
    conditions: conditionsOf(more.filter),
    limit: more.limit ?? 1000,
    offset: more.offset ?? 0,
    refreshesTtl: more.refreshesTtl ?? false,
  });

const byBytes = (one: string, other: string): number => Buffer.compare(Buffer.from(one), Buffer.from(other));
const startsWith = (namespace: readonly string[], prefix: readonly string[]): boolean =>
  prefix.every((label, index) => namespace[index] === label);

// Labels that are near each other in byte order, and near the separator.
const near = constantFrom("1", "10", "1-", "1/", "1\u0001");
const odd = constantFrom("-", "/", "a", "A", "ä", "\u{10ffff}", "\u0001", " ", "%", "_", "\\", "*x");
const label = oneof({ weight: 3, arbitrary: near }, { weight: 1, arbitrary: odd });
const namespaces = array(label, { minLength: 1, maxLength: 3 });

test("search under a prefix never returns a sibling prefix", async () => {
  const items = array(tuple(namespaces, constantFrom("k", "k.", "/", "")), { maxLength: 12 });
  const law = asyncProperty(items, array(label, { maxLength: 3 }), async (places, prefix) => {
    const root = randomUUID();
    await writeItems(
      scratch.database,
      places.map(([namespace, key]) => ({
        namespace: [root, ...namespace],
        key,
        value: {},
        ttlMinutes: null,
      })),
    );
    const wanted = new Set(
      places
        .filter(([namespace]) => startsWith(namespace, prefix))
        .map(([namespace, key]) => JSON.stringify([[root, ...namespace], key])),
    );
    const found = (await search([root, ...prefix])).map(({ namespace, key }) =>
      JSON.stringify([namespace, key]),
    );
    expect(found.toSorted()).toEqual([...wanted].toSorted());
  });
  await assert(law, { numRuns: 100 });
});

test("t,1 is not t,10, nor anything else that begins like it", async () => {
  const root = randomUUID();
  for (const sibling of ["10", "1-", "1/", "1 ", "1\u{10ffff}"]) await put([root, sibling], "other");
  await put([root, "1"], "mine");
  await put([root, "1", "deep"], "below");
  expect((await search([root, "1"])).map(({ key }) => key)).toEqual(["mine", "below"]);
});

test("pages in the order of namespaces and keys visit every item exactly once", async () => {
  const root = randomUUID();
  for (const [namespace, key] of [
    ["b", "1"],
    ["a", "2"],
    ["a", "1"],
    ["c", "0"],
    ["a", "B"],
  ] as const)
    await put([root, namespace], key);
  const pages = [
    await search([root], { limit: 2 }),
    await search([root], { limit: 2, offset: 2 }),
    await search([root], { limit: 2, offset: 4 }),
  ];
  expect(pages.flat().map(({ namespace, key }) => `${namespace[1]}${key}`)).toEqual([
    "a1",
    "a2",
    "aB",
    "b1",
    "c0",
  ]);
});

const OPERATORS = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"] as const;
const scalar = oneof(
  constantFrom<unknown>(
    0,
    1,
    -1,
    1.5,
    10,
    9,
    "",
    "a",
    "B",
    "ä",
    "10",
    "9",
    "\u{1f600}",
    "\uffff",
    true,
    false,
    null,
  ),
  constantFrom<unknown>([1], [], { a: 1 }, {}),
);
const field = constantFrom("x", "y", "$z", "a.b");
const filters: Arbitrary<Value> = dictionary(
  field,
  oneof(
    scalar,
    dictionary(constantFrom(...OPERATORS), scalar, { minKeys: 1, maxKeys: 2 }),
    dictionary(constantFrom("$in", "$nin"), array(scalar, { maxLength: 4 }), { minKeys: 1, maxKeys: 2 }),
  ),
  { maxKeys: 2 },
);

/** What a filter means, written down a second time. */
function matches(value: Value, filter: Value): boolean {
  return Object.entries(filter).every(([name, wanted]) => {
    const has = Object.hasOwn(value, name);
    const isOperation =
      typeof wanted === "object" && wanted !== null && Object.keys(wanted).some((key) => key.startsWith("$"));
    const operations = isOperation ? Object.entries(wanted as Value) : [["$eq", wanted] as const];
    return operations.every(([operator, operand]) =>
      has ? holds(value[name], operator, operand) : operator === "$ne" || operator === "$nin",
    );
  });
}

function holds(value: unknown, operator: string, operand: unknown): boolean {
  const isEqual = JSON.stringify(value) === JSON.stringify(operand);
  if (operator === "$eq") return isEqual;
  if (operator === "$ne") return !isEqual;
  const isListed = Array.isArray(operand) && operand.some((one) => holds(value, "$eq", one));
  if (operator === "$in") return isListed;
  if (operator === "$nin") return !isListed;
  let order: number | undefined;
  if (typeof value === "number" && typeof operand === "number") order = value - operand;
  if (typeof value === "string" && typeof operand === "string") order = byBytes(value, operand);
  if (order === undefined) return false;
  if (operator === "$gt") return order > 0;
  if (operator === "$gte") return order >= 0;
  return operator === "$lt" ? order < 0 : order <= 0;
}

test("a filter finds exactly the items that match it", async () => {
  const values = array(dictionary(field, scalar, { maxKeys: 3 }), { minLength: 1, maxLength: 6 });
  const law = asyncProperty(values, filters, async (all, filter) => {
    const root = randomUUID();
    await writeItems(
      scratch.database,
      all.map((value, index) => ({ namespace: [root], key: String(index), value, ttlMinutes: null })),
    );
    const found = (await search([root], { filter })).map(({ key }) => key);
    expect(found).toEqual(all.flatMap((value, index) => (matches(value, filter) ? [String(index)] : [])));
  });
  await assert(law, { numRuns: 300 });
});

test("an unknown operator is refused instead of matching nothing", () => {
  expect(() => conditionsOf({ size: { $near: 3 } })).toThrow(InputInvalid);
  expect(() => conditionsOf({ size: { $gt: 3, plain: 1 } })).toThrow(InputInvalid);
  for (const operator of ["$in", "$nin"])
    expect(() => conditionsOf({ size: { [operator]: 3 } })).toThrow("takes a list");
});

test("a value is read as it was written", async () => {
  const law = asyncProperty(dictionary(constantFrom("a", "b", "__proto__x"), jsonValue()), async (value) => {
    const storable = JSON.parse(JSON.stringify(value).replaceAll(String.raw`\u0000`, "0")) as Value;
    if (!JSON.stringify(storable).isWellFormed()) return;
    await put(["values"], "one", storable);
    expect((await get(["values"], "one"))?.value).toEqual(storable);
  });
  await assert(law, { numRuns: 100 });
});

/** The namespaces an answer should hold, worked out in memory. */
function expected(
  all: readonly string[][],
  by: readonly NamespaceMatch[],
  maxDepth: number | null,
): string[][] {
  const found = all.filter((namespace) =>
    by.every(({ at, labels }) => {
      if (labels.length > namespace.length) return false;
      const part =
        at === "prefix"
          ? namespace.slice(0, labels.length)
          : namespace.slice(namespace.length - labels.length);
      return labels.every((one, index) => one === "*" || one === part[index]);
    }),
  );
  const cut = found.map((namespace) => namespace.slice(0, maxDepth ?? namespace.length));
  const paths = new Set(cut.map((namespace) => JSON.stringify(namespace)));
  return [...paths]
    .map((text) => JSON.parse(text) as string[])
    .toSorted((one, other) => byBytes(`${one.join(".")}.`, `${other.join(".")}.`));
}

test("namespaces are listed once, cut to a depth, by prefix and suffix with wildcards", async () => {
  const labels = constantFrom("a", "b", "ab", "-", "/");
  const pattern = array(oneof(labels, constantFrom("*")), { maxLength: 2 });
  const query = record({
    prefix: pattern,
    suffix: option(pattern),
    maxDepth: option(integer({ min: 1, max: 4 })),
    limit: integer({ min: 1, max: 5 }),
    offset: integer({ min: 0, max: 3 }),
  });
  const all = array(array(labels, { minLength: 1, maxLength: 3 }), { maxLength: 8 });
  const law = asyncProperty(all, query, async (given, { prefix, suffix, maxDepth, limit, offset }) => {
    const root = randomUUID();
    const places = given.map((namespace) => [root, ...namespace]);
    const writes = places.flatMap((namespace) =>
      ["1", "2"].map((key) => ({ namespace, key, value: {}, ttlMinutes: null })),
    );
    await writeItems(scratch.database, writes);
    const by: NamespaceMatch[] = [{ at: "prefix", labels: [root, ...prefix] }];
    if (suffix) by.push({ at: "suffix", labels: suffix });
    const listed = await listNamespaces(scratch.database, { matches: by, maxDepth, limit, offset });
    expect(listed).toEqual(expected(places, by, maxDepth).slice(offset, offset + limit));
  });
  await assert(law, { numRuns: 200 });
});

const LONG_AGO =
  "update holdfast.store_items set expires_at = now() - interval '1 s', created_at = now() - interval '1 day' where namespace[1] = $1";

test("an item past its time is shown to nobody, even before it is swept away", async () => {
  const root = randomUUID();
  await put([root], "over", { n: 1 }, 1);
  await scratch.database.query(LONG_AGO, [root]);
  await put([root, "x"], "young", { n: 1 }, 1);
  expect(await get([root], "over", true)).toBeNull();
  expect((await search([root], { refreshesTtl: true })).map(({ key }) => key)).toEqual(["young"]);
  const under: NamespaceMatch = { at: "prefix", labels: [root] };
  const page = { matches: [under], maxDepth: null, limit: 10, offset: 0 };
  expect(await listNamespaces(scratch.database, page)).toEqual([[root, "x"]]);
  await put([root], "over", { n: 2 });
  const again = await get([root], "over");
  expect(again?.value).toEqual({ n: 2 });
  expect(again?.created_at).toEqual(again?.updated_at); // it is a new item
});

const minutesLeft = async (root: string): Promise<number[]> =>
  (
    await scratch.database.query<{ left: number }>(
      "select round(extract(epoch from expires_at - now()) / 60)::int as left from holdfast.store_items where namespace[1] = $1 order by key",
      [root],
    )
  ).map(({ left }) => left);

test("reading an item begins its time anew only when it is asked to, and a write sets its time", async () => {
  const root = randomUUID();
  await put([root], "a", {}, 60);
  await put([root], "b", {}, 30);
  const age = "update holdfast.store_items set expires_at = now() + interval '5 min' where namespace[1] = $1";
  await scratch.database.query(age, [root]);
  await get([root], "a", false);
  await search([root], { refreshesTtl: false });
  expect(await minutesLeft(root)).toEqual([5, 5]);
  await get([root], "a", true);
  expect(await minutesLeft(root)).toEqual([60, 5]);
  await search([root], { offset: 1, limit: 1, refreshesTtl: true });
  expect(await minutesLeft(root)).toEqual([60, 30]);
  await put([root], "b", {}, 10);
  await put([root], "a", {});
  expect(await minutesLeft(root)).toEqual([null, 10]);
});

test("reading waits for nobody who writes", async () => {
  const root = randomUUID();
  await put([root], "a", { n: 1 }, 60);
  await scratch.database.transaction(async (transaction) => {
    const write = { namespace: [root], key: "a", value: { n: 2 }, ttlMinutes: 60 };
    await writeItems(transaction, [write]);
    expect((await get([root], "a", true))?.value).toEqual({ n: 1 });
    expect(await search([root], { refreshesTtl: true })).toMatchObject([{ value: { n: 1 } }]);
  });
  expect((await get([root], "a"))?.value).toEqual({ n: 2 });
});

test("expired items are taken away a few at a time, the longest overdue first, and others stay", async () => {
  const root = randomUUID();
  for (const key of ["a", "b", "c"]) await put([root], key, {}, 1);
  await scratch.database.query(LONG_AGO, [root]);
  await put([root], "young", {}, 1);
  await put([root], "eternal");
  expect([
    await deleteExpiredItems(scratch.database, 2),
    await deleteExpiredItems(scratch.database, 2),
  ]).toEqual([2, 1]);
  expect(await deleteExpiredItems(scratch.database, 2)).toBe(0);
  expect((await search([root])).map(({ key }) => key)).toEqual(["eternal", "young"]);
});

test("a name that no index entry could hold is refused", async () => {
  await expect(put(["a".repeat(1500)], "b".repeat(600))).rejects.toThrow(/longer than 2000 bytes/);
  await expect(put([], "key")).rejects.toBeInstanceOf(InputInvalid);
  await expect(put(["a", ""], "key")).rejects.toBeInstanceOf(StoreNamespaceInvalid);
  // Random, so that it cannot be stored in less.
  const long = Array.from({ length: 55 }, () => randomUUID())
    .join("")
    .slice(0, 1990);
  await put([randomUUID().slice(0, 4)], long);
});

test("many writers of the same keys in any order all succeed", async () => {
  const root = randomUUID();
  const keys = Array.from({ length: 20 }, (_, index) => String(index));
  const write = (order: readonly string[], by: number): Promise<boolean> =>
    writeItems(
      scratch.database,
      order.map((key) => ({ namespace: [root], key, value: { by }, ttlMinutes: 1 })),
    );
  const writers = Array.from({ length: 8 }, (_, by) => write(by % 2 ? keys : keys.toReversed(), by));
  expect(await Promise.all(writers)).toEqual(writers.map(() => true));
  expect(new Set((await search([root])).map(({ value }) => value["by"])).size).toBe(1);
});
