// Filters of authorisation in SQL: the same rows as the official matcher means, and none when in doubt.
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { filterOf } from "../../server/storage/auth-filter.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

const key = fc.constantFrom(
  "owner",
  "team",
  "n",
  "",
  "__proto__",
  "constructor",
  "toString",
  "0",
  "$eq",
  "ä\u{1f600}",
);
const scalar = fc.constantFrom<string | number | boolean | null>(
  "",
  "a",
  "\uffff",
  "\u{1f600}",
  "$eq",
  "1",
  -1,
  1e300,
  -0,
  1e21,
  5e-324,
  9007199254740991,
  0.1,
  "b",
  "A",
  0,
  1,
  1.5,
  true,
  false,
  null,
);
const value = fc.oneof(
  scalar,
  fc.array(scalar, { maxLength: 3 }),
  fc.constant({ a: "b" }),
  fc.constant([["a"]]),
);
const metadata = fc.dictionary(key, value, { maxKeys: 4 });
const condition = fc.oneof(
  scalar,
  scalar.map(($eq) => ({ $eq })),
  scalar.map(($contains) => ({ $contains })),
  fc.array(scalar, { maxLength: 2 }).map(($contains) => ({ $contains })),
);
const filter = fc.dictionary(key, condition, { maxKeys: 3 });

/** What the official servers mean; they leave out empty operands, which here count as any other. */
function isMatching(row: Record<string, unknown>, wanted: Record<string, unknown>): boolean {
  return Object.entries(wanted).every(([name, one]) => {
    const held = Object.hasOwn(row, name) ? row[name] : undefined;
    if (typeof one !== "object" || one === null) return held === one;
    const { $eq, $contains } = one as { $eq?: unknown; $contains?: unknown };
    if ("$eq" in one) return held === $eq;
    return Array.isArray(held) && [$contains].flat().every((part) => held.includes(part));
  });
}

test("what a filter shows is what the official matcher means, for any metadata", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(metadata, { minLength: 1, maxLength: 8 }), filter, async (rows, wanted) => {
      const found = await scratch.database.query<{ n: number }>(
        `select n::int as n from jsonb_array_elements($1::jsonb) with ordinality as r (metadata, n) where metadata @> $2::jsonb`,
        [JSON.stringify(rows), filterOf(wanted)],
      );
      const expected = rows.flatMap((row, index) => (isMatching(row, wanted) ? [index + 1] : []));
      expect(found.map(({ n }) => n)).toEqual(expected);
    }),
    { numRuns: 300 },
  );
});

test.each([
  [{ owner: undefined }],
  [{ owner: { $in: ["a"] } }],
  [{ owner: {} }],
  [{ owner: ["a"] }],
  [{ owner: { $eq: "a", $contains: "a" } }],
  [{ owner: { $eq: ["a"] } }],
  [{ owner: { $contains: [{}] } }],
  [{ owner: { $contains: undefined } }],
  [{ owner: Number.NaN }],
  [{ owner: "a\0" }],
  [{ "a\ud800": "a" }],
  [{ owner: () => "a" }],
])("%o is no filter, and so shows nothing", (wanted) => {
  expect(() => filterOf(wanted)).toThrow("Auth of langgraph.json");
});
