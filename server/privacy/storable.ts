// What PostgreSQL's jsonb can hold. A value goes in only if it comes out as it was: what JSON would change in silence
// (NaN to null, a Map to {}) is refused.
import { InputPoisoned, ValueUnserialisable } from "../errors.ts";

/** Whether a text has neither a NUL character nor half a surrogate pair. */
export const isStorable = (text: string): boolean => text.isWellFormed() && !text.includes("\0");

/**
 * A value that code made, as JSON has it: dates are texts, fields that are undefined are gone.
 * @throws ValueUnserialisable when JSON cannot hold it, InputPoisoned when PostgreSQL cannot
 */
export function storableOf(value: unknown): object {
  const plain: unknown = JSON.parse(textOf(value) ?? "null");
  if (typeof plain === "object" && plain !== null && !Array.isArray(plain)) return plain;
  throw refusal("is not an object with named fields");
}

function textOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value, (key: string, item: unknown) => kept(key, item));
  } catch (error) {
    if (error instanceof TypeError) throw refusal("holds a BigInt or refers to itself", error);
    throw error;
  }
}

function kept(key: string, item: unknown): unknown {
  if (typeof item === "function" || typeof item === "symbol") throw refusal("holds a function or a symbol");
  if (item instanceof Map || item instanceof Set) throw refusal("holds a Map or a Set");
  if (typeof item === "number" && !Number.isFinite(item)) throw refusal("holds NaN or a number without end");
  if (isStorable(key) && (typeof item !== "string" || isStorable(item))) return item;
  throw new InputPoisoned("A value for the store holds a NUL character or half a surrogate pair.");
}

const refusal = (what: string, cause?: unknown): ValueUnserialisable =>
  new ValueUnserialisable(`A value for the store ${what}. Give an object that JSON can hold.`, { cause });
