// What a search of the store asks of an item's value: a field and what it is compared with, as data for one statement.
import { InputInvalid } from "../../errors.ts";
import type { AuthFilter } from "../auth-filter.ts";

const OPERATORS = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin"] as const;

type Operator = (typeof OPERATORS)[number];

export interface Condition {
  /** A field at the top of the value. */
  readonly field: string;
  readonly operator: Operator | "$holds";
  readonly operand: unknown;
}

/**
 * Whether item `i` meets all conditions that stand in a parameter such as $3.
 * Numbers are compared as numbers, texts by their bytes; two values of different kinds have no order.
 */
export const meets = (parameter: string): string => `not exists (
      select 1
        from jsonb_array_elements(${parameter}::jsonb) as c,
             lateral (select i.value -> (c ->> 'field') as is, c -> 'operand' as asked) as f,
             lateral (select jsonb_typeof(f.is) as of_is, jsonb_typeof(f.asked) as of_asked) as t,
             lateral (select case
               when t.of_is = 'number' and t.of_asked = 'number'
                 then case when f.is < f.asked then -1 when f.is > f.asked then 1 else 0 end
               when t.of_is = 'string' and t.of_asked = 'string'
                 then case when (f.is #>> '{}') collate "C" < (f.asked #>> '{}') then -1
                           when (f.is #>> '{}') collate "C" > (f.asked #>> '{}') then 1 else 0 end
             end as order_of) as o,
             lateral (select exists (
               select from jsonb_array_elements(case when t.of_asked = 'array' then f.asked else '[]' end) as e
                where e = f.is) as has) as l
       where not coalesce(case c ->> 'operator'
         when '$eq' then f.is = f.asked
         when '$ne' then f.is is distinct from f.asked
         when '$gt' then o.order_of > 0
         when '$gte' then o.order_of >= 0
         when '$lt' then o.order_of < 0
         when '$lte' then o.order_of <= 0
         when '$in' then l.has
         when '$nin' then not l.has
         when '$holds' then i.value || jsonb_build_object('namespace', i.namespace, 'key', i.key) @> f.asked
       end, false))`;

/** Conditions as PostgreSQL gets to see them: code of a graph may hand in a date, or what is no JSON at all. */
export const asJson = (conditions: readonly Condition[]): Condition[] =>
  JSON.parse(JSON.stringify(conditions)) as Condition[];

/** The item, its namespace and its key taken as one object, holds all that a handler of authorisation asked for. */
export const holding = (filter: AuthFilter): Condition => ({
  field: "",
  operator: "$holds",
  operand: JSON.parse(filter),
});

/**
 * The conditions of a filter: `{kind: "note", size: {$gte: 2, $lt: 9}}` is three.
 * @throws InputInvalid for an operator that is not one of ours, and for `$in` and `$nin` of what is no list
 */
export function conditionsOf(filter: Readonly<Record<string, unknown>> | null | undefined): Condition[] {
  return Object.entries(filter ?? {}).flatMap(([field, wanted]) =>
    operationsOf(wanted).map(([operator, operand]) => ({ field, operator, operand })),
  );
}

/**
 * A filter as it became of what it is compared with.
 * @param keep what is kept of a value
 */
export function filterAsKept<Filter extends Readonly<Record<string, unknown>> | null | undefined>(
  filter: Filter,
  keep: <Value>(value: Value) => Value,
): Filter {
  const kept = Object.entries(filter ?? {}).map(([field, wanted]) => {
    // Under its field: what a name says of a value counts for what it is compared with too.
    const under = (operand: unknown): unknown => Object.values(keep({ [field]: operand }))[0];
    const [name = field] = Object.keys(keep({ [field]: null }));
    if (!hasOperators(wanted)) return [name, under(wanted)];
    return [name, Object.fromEntries(Object.entries(wanted).map(([one, operand]) => [one, under(operand)]))];
  });
  return (filter && Object.fromEntries(kept)) as Filter; // the same fields
}

const hasOperators = (wanted: unknown): wanted is object =>
  typeof wanted === "object" &&
  wanted !== null &&
  !Array.isArray(wanted) &&
  Object.keys(wanted).some((name) => name.startsWith("$"));

function operationsOf(wanted: unknown): [Operator, unknown][] {
  if (!hasOperators(wanted)) return [["$eq", wanted]];
  return Object.entries(wanted).map(([name, operand]) => {
    const operator = operatorOf(name);
    if ((operator === "$in" || operator === "$nin") && !Array.isArray(operand))
      throw new InputInvalid(`A filter's ${operator} takes a list of values.`);
    return [operator, operand];
  });
}

function operatorOf(name: string): Operator {
  const operator = OPERATORS.find((one) => one === name);
  if (operator) return operator;
  throw new InputInvalid(`A filter of the store knows the operators ${OPERATORS.join(", ")} and no other.`);
}
