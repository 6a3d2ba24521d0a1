// What PostgreSQL decides of JSON, decided here: for values that it sees only sealed. Each answer is that of jsonb.
//
// Recursion ends with the shallower of two values, and what is asked for is one of them. It came through readBody, which
// lets no body be deeper than 100 levels, or from code of ours or of a graph, which JSON.stringify has walked the same
// way. So a stored value may be as deep as it likes.
// Lists are compared element by element with each other, so a comparison is bounded: beyond that it is refused.
import { InputInvalid } from "../errors.ts";
import type { Condition } from "./store/filter.ts";

type Fields = Readonly<Record<string, unknown>>;

interface Item {
  readonly namespace: readonly string[];
  readonly key: string;
  readonly value: Fields;
}

/**
 * Whether a value holds another, as `value @> wanted`: fields and elements may be left out, the order and the number of
 * elements do not count. Only a list that is itself the value holds a scalar: `["a"]` holds `"a"`, `[["a"]]` does not
 * hold `["a"]`, and `{"tags": ["a"]}` does not hold `{"tags": "a"}`.
 */
export function holds(value: unknown, wanted: unknown): boolean {
  if (Array.isArray(value) && !isNested(wanted)) return value.includes(wanted);
  return contains(value, wanted, { left: MOST_STEPS });
}

/** A few hundredths of a second. */
const MOST_STEPS = 2_000_000;

interface Steps {
  left: number;
}

function spend(steps: Steps, count: number): void {
  steps.left -= count;
  if (steps.left < 0)
    throw new InputInvalid(
      "What is asked of a value holds lists that are too long to compare. Ask for less.",
    );
}

/**
 * Whether an item meets all conditions, as `meets` of store/filter.ts says it in SQL.
 * @param conditions as JSON has them: a date is a text. An operand that is undefined is missing, as a field may be.
 */
export const meetsAll = (item: Item, conditions: readonly Condition[]): boolean =>
  conditions.every((condition) => meetsOne(item, condition));

function meetsOne({ namespace, key, value }: Item, { field, operator, operand }: Condition): boolean {
  if (operator === "$holds") return holds({ ...value, namespace, key }, operand);
  // Missing is undefined here and NULL in SQL, where JSON's null is a value as any other.
  const is = Object.hasOwn(value, field) ? value[field] : undefined;
  if (operator === "$eq") return is !== undefined && isEqual(is, operand);
  if (operator === "$ne") return !isEqual(is, operand);
  if (operator === "$in") return isOneOf(is, operand);
  if (operator === "$nin") return !isOneOf(is, operand);
  const order = orderOf(is, operand);
  if (order === undefined) return false;
  if (operator === "$gt") return order > 0;
  if (operator === "$gte") return order >= 0;
  return operator === "$lt" ? order < 0 : order <= 0;
}

function contains(value: unknown, wanted: unknown, steps: Steps): boolean {
  spend(steps, 1);
  if (!isNested(value) || !isNested(wanted)) return value === wanted;
  if (Array.isArray(value) || Array.isArray(wanted))
    return Array.isArray(value) && Array.isArray(wanted) && listContains(value, wanted, steps);
  return Object.entries(wanted).every(
    ([name, part]) => Object.hasOwn(value, name) && contains(value[name], part, steps),
  );
}

const listContains = (list: readonly unknown[], wanted: readonly unknown[], steps: Steps): boolean =>
  wanted.every((part) => {
    if (isNested(part)) return list.some((one) => contains(one, part, steps));
    spend(steps, list.length / 8); // comparing scalars is so much cheaper
    return list.includes(part);
  });

const isOneOf = (value: unknown, list: unknown): boolean =>
  value !== undefined && Array.isArray(list) && list.some((one) => isEqual(value, one));

/** Not isDeepStrictEqual: that tells -0 from 0. */
function isEqual(one: unknown, other: unknown): boolean {
  if (!isNested(one) || !isNested(other)) return one === other;
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const entries = Object.entries(one);
  return (
    entries.length === Object.keys(other).length &&
    entries.every(([name, part]) => Object.hasOwn(other, name) && isEqual(part, other[name]))
  );
}

/** Below, at or above 0; undefined for two values of different kinds, and for kinds that have no order. */
function orderOf(one: unknown, other: unknown): number | undefined {
  if (typeof one === "number" && typeof other === "number") return Math.sign(one - other);
  // JavaScript's own order is that of UTF-16, where characters outside the basic plane come before some within.
  if (typeof one === "string" && typeof other === "string")
    return Buffer.compare(Buffer.from(one), Buffer.from(other));
  return undefined;
}

const isNested = (value: unknown): value is Fields => typeof value === "object" && value !== null;
