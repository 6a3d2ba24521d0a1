// What a search of the store asks of an item's value: a field and what it is compared with, as data for one statement.
import { InputInvalid } from "../errors.ts";
import type { AuthFilter } from "./auth-filter.ts";

const OPERATORS = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"] as const;

type Operator = (typeof OPERATORS)[number];

export interface Condition {
  /** A field at the top of the value. */
  readonly field: string;
  readonly operator: Operator | "$holds";
  readonly operand: unknown;
}

/** The item, its namespace and its key taken as one object, holds all that a handler of authorisation asked for. */
export const holding = (filter: AuthFilter): Condition => ({
  field: "",
  operator: "$holds",
  operand: JSON.parse(filter),
});

/**
 * The conditions of a filter: `{kind: "note", size: {$gte: 2, $lt: 9}}` is three.
 * @throws InputInvalid for an operator that is not one of ours
 */
export function conditionsOf(filter: Readonly<Record<string, unknown>> | null | undefined): Condition[] {
  return Object.entries(filter ?? {}).flatMap(([field, wanted]) =>
    operationsOf(wanted).map(([operator, operand]) => ({ field, operator, operand })),
  );
}

function operationsOf(wanted: unknown): [Operator, unknown][] {
  if (typeof wanted !== "object" || wanted === null || Array.isArray(wanted)) return [["$eq", wanted]];
  const entries = Object.entries(wanted);
  if (!entries.some(([name]) => name.startsWith("$"))) return [["$eq", wanted]];
  return entries.map(([name, operand]) => [operatorOf(name), operand]);
}

function operatorOf(name: string): Operator {
  const operator = OPERATORS.find((one) => one === name);
  if (operator) return operator;
  throw new InputInvalid(`A filter of the store knows the operators ${OPERATORS.join(", ")} and no other.`);
}
