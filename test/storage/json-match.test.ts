// Values that PostgreSQL cannot read are matched in memory: its own answers are the measure of ours.
import fc from "fast-check";
import type { Arbitrary } from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { holds, meetsAll } from "../../server/storage/json-match.ts";
import { conditionsOf, meets } from "../../server/storage/store/filter.ts";
import type { Condition } from "../../server/storage/store/filter.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
beforeAll(async () => void (scratch = await testDatabase()));
afterAll(() => scratch.close());

type Fields = Record<string, unknown>;
interface Case {
  readonly item: { readonly namespace: string[]; readonly key: string; readonly value: Fields };
  readonly conditions: readonly Condition[];
}

const HOLDS = `select (pair -> 0) @> (pair -> 1) as answer
  from jsonb_array_elements($1::jsonb) with ordinality as given (pair, n) order by n`;
const MEETS = `select ${meets("(given.one -> 'conditions')")} as answer
  from jsonb_array_elements($1::jsonb) with ordinality as given (one, n),
       lateral (select one #> '{item,value}' as value, one #>> '{item,key}' as key,
                       array(select jsonb_array_elements_text(one #> '{item,namespace}')) as namespace) as i
 order by n`;

async function askPostgres(statement: string, casesJson: string): Promise<boolean[]> {
  const rows = await scratch.database.query<{ answer: boolean }>(statement, [casesJson]);
  return rows.map(({ answer }) => answer);
}

// Few names and values, so that they meet; some are traps of JavaScript, others sort differently in UTF-16.
const name = fc.constantFrom("a", "b", "", "0", "length", "__proto__", "constructor", "namespace", "key");
const text = fc.string({ unit: "binary", maxLength: 3 }).map((any) => any.replaceAll("\0", "0"));
const known = ["", "a", "b", "B", "ä", "1", "\uffff", "\u{1f600}", 0, -0, 1, -1, 1.5, 1e300, -1e300, 5e-324];
const scalar = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom<unknown>(...known, true, false, null) },
  { weight: 1, arbitrary: fc.oneof(text, fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true })) },
);
const fieldsOf = (part: Arbitrary<unknown>): Arbitrary<Fields> =>
  fc.array(fc.tuple(name, part), { maxLength: 4 }).map((entries): Fields => Object.fromEntries(entries));
const { json } = fc.letrec<{ json: unknown }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 4, depthSize: "large" },
    scalar,
    fc.array(tie("json"), { maxLength: 4 }),
    fieldsOf(tie("json")),
  ),
}));
const dice = fc.infiniteStream(fc.nat(9)).map((stream) => (): number => stream.next().value);

/** What the value holds, mostly: parts of it left out, doubled and in another order, few of them changed. */
function partOf(value: unknown, roll: () => number): unknown {
  if (typeof value !== "object" || value === null) return roll() === 0 ? "a" : value;
  if (!Array.isArray(value)) {
    const kept = Object.entries(value).filter(() => roll() > 3);
    return Object.fromEntries(kept.toReversed().map(([field, part]) => [field, partOf(part, roll)]));
  }
  const kept = value.flatMap((part) => Array.from({ length: roll() % 3 }, () => partOf(part, roll)));
  return roll() === 0 ? (kept[0] ?? null) : kept.toReversed();
}

const pair = fc
  .tuple(json, json, dice)
  .map(([value, other, roll]) => [value, roll() > 1 ? partOf(value, roll) : other] as const);

const operator = fc.constantFrom("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$holds");
const condition = fc.record({
  field: name,
  operator,
  operand: fc.oneof(scalar, json, fc.constant(undefined)),
});
const item = fc.record({ namespace: fc.array(text, { maxLength: 2 }), key: text, value: fieldsOf(json) });
const filtered = fc
  .tuple(item, fc.array(condition, { maxLength: 3 }), dice)
  .map(([one, conditions, roll]): Case => {
    const whole = { ...one.value, namespace: one.namespace, key: one.key };
    const near = (asked: Condition): Condition => {
      if (roll() < 3) return asked;
      if (asked.operator === "$holds") return { ...asked, operand: partOf(whole, roll) };
      const field = Object.keys(one.value)[0] ?? asked.field;
      const same = Object.hasOwn(one.value, field) ? one.value[field] : undefined;
      const part = roll() < 5 ? partOf(same, roll) : same;
      const isOfList = asked.operator === "$in" || asked.operator === "$nin";
      return { ...asked, field, operand: isOfList ? [asked.operand ?? null, part ?? null] : part };
    };
    return { item: one, conditions: conditions.map(near) };
  });

/** Many cases at a time, all as PostgreSQL has them. @returns how many had the rarer answer */
async function agree<One>(one: Arbitrary<One>, statement: string, answer: (one: One) => boolean) {
  let [yes, no] = [0, 0];
  const many = fc.array(one, { minLength: 1, maxLength: 200, size: "max" });
  const law = fc.asyncProperty(many, async (cases) => {
    const answers = await askPostgres(statement, JSON.stringify(cases));
    expect(cases.filter((each, index) => answer(each) !== answers[index])).toEqual([]);
    yes += answers.filter(Boolean).length;
    no += answers.filter((isTrue) => !isTrue).length;
  });
  await fc.assert(law, { numRuns: 40, interruptAfterTimeLimit: 15_000, markInterruptAsFailure: true });
  return Math.min(yes, no);
}

test("a search by what a value holds finds the same whether or not values are sealed", async () => {
  expect(await agree(pair, HOLDS, ([value, wanted]) => holds(value, wanted))).toBeGreaterThan(300);
});

test("a filter finds the same items whether or not values are sealed", async () => {
  expect(await agree(filtered, MEETS, (one) => meetsAll(one.item, one.conditions))).toBeGreaterThan(300);
});

test.each([
  [`["a", "b"]`, `"a"`, true],
  [`[["a"]]`, `["a"]`, false],
  [`{"tags": ["a"]}`, `{"tags": "a"}`, false],
  [`"a"`, `["a"]`, false],
  [`[[1, 2], [3]]`, `[[3, 3], [2]]`, true],
  [`[{}]`, `[[]]`, false],
  [`{}`, `{"__proto__": {}}`, false],
  [`[1, -0, 10e299, 0.10]`, `[1.0, 0, 1e300, 0.1]`, true],
])("of %s and %s: that the one holds the other is %s, as in PostgreSQL", async (value, wanted, isHeld) => {
  expect(await askPostgres(HOLDS, `[[${value}, ${wanted}]]`)).toEqual([isHeld]);
  expect(holds(JSON.parse(value), JSON.parse(wanted))).toBe(isHeld);
});

test.each<[Fields, Fields, boolean]>([
  [{}, { a: null }, false],
  [{ a: {} }, { a: { b: 1 } }, false],
  [{}, { a: { $ne: null } }, true],
  [{ a: null }, { a: { $ne: null } }, false],
  [{ a: [] }, { a: {} }, false],
  [{ a: { ["__proto__"]: {} } }, { a: { b: 1 } }, false],
  [{ a: null }, { a: { $gte: null } }, false],
  [{ a: "2" }, { a: { $gt: 1 } }, false],
  [{ a: "\u{1f600}" }, { a: { $gt: "\uffff" } }, true],
])("the filter of %o by %o answers %s, as in PostgreSQL", async (value, filter, isFound) => {
  const one: Case = { item: { namespace: ["n"], key: "k", value }, conditions: conditionsOf(filter) };
  expect(await askPostgres(MEETS, JSON.stringify([one]))).toEqual([isFound]);
  expect(meetsAll(one.item, one.conditions)).toBe(isFound);
});

test("a value nested far deeper than any request is matched without harm", () => {
  let deep: unknown = 1;
  for (let level = 0; level < 100_000; level += 1) deep = { a: [deep] };
  expect(holds(deep, { a: [{ a: [{}] }] })).toBe(true);
  expect(meetsAll({ namespace: [], key: "", value: { deep } }, conditionsOf({ deep: { a: [] } }))).toBe(
    false,
  );
});
