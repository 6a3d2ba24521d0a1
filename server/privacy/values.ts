// Redacts what is no mere text: state, messages, arguments, bodies. A value in which nothing is found stays the same
// object; one in which something is found is copied as far down as that, and the original is left alone.
import type { Fields } from "../fields.ts";
import { isAnswer, withWholeTexts } from "./blocks.ts";
import { isMessage, isPlainObject } from "./envelopes.ts";
import { labelOf, redactLabelled } from "./labels.ts";
import type { RedactText } from "./labels.ts";

// Names that official clients and LangGraph make up: a long number in one is no telephone number.
const IDENTIFIER =
  /^(?:[a-z][a-z0-9_-]{0,24}[-_:])?[\da-f]{8}-(?:[\da-f]{4}-){3}[\da-f]{12}$|^(?:call|toolu|chatcmpl|msg|resp|rs|fc|run)[-_][\w-]{4,64}$|^[\da-f]{32}$/i;
// Where such names stand. Anywhere else a text is a text.
const NAMED = /(?:^id|_id|Id)$/;
// Deeper than any state that can be stored.
const MAX_DEPTH = 500;
const TOO_DEEP = "[REDACTED]";
const LONG_NUMBER = 100_000_000;
/** Under this name a provider tells an answer again, each token by itself. */
const TOKENS = "logprobs";
/** Under this name a message holds what it was made of. */
const MADE_OF = "lc_kwargs";

/**
 * @param look the same as `redact`, for what is only looked at: nobody counts what it finds
 * @returns `value` itself when nothing was found in it
 */
export function redactValue<Value>(value: Value, redact: RedactText, look = redact): Value {
  return walk(value, { redact, look }, "", 0) as Value; // the same form, with other texts
}

interface Eyes {
  readonly redact: RedactText;
  readonly look: RedactText;
}

function walk(value: unknown, eyes: Eyes, key: string, depth: number): unknown {
  const { redact } = eyes;
  if (typeof value === "string") return textOf(value, redact, key);
  if (typeof value === "number" || typeof value === "bigint") return numberOf(value, redact, key);
  if (typeof value !== "object" || value === null) return value;
  if (key === TOKENS && textsOfTokens(value).some((text) => redact(text) !== text)) return null;
  // Nobody has looked any deeper.
  if (depth > MAX_DEPTH) return TOO_DEEP;
  // What stands in a list has no name but the list's.
  const ofItems = labelOf(key) === undefined ? "" : key;
  if (Array.isArray(value)) return items(value, eyes, ofItems, depth + 1);
  if (value instanceof Map) return entries(value, eyes, depth + 1);
  if (value instanceof Set) {
    const before = [...value];
    const after = items(before, eyes, ofItems, depth + 1);
    return after === before ? value : new Set(after);
  }
  if (value instanceof Error) return errorOf(value, redact);
  if (value instanceof Date || value instanceof RegExp || isBinary(value)) return value;
  if (isMade(value)) {
    const made: unknown = value.toJSON();
    const after = walk(made, eyes, "", depth + 1);
    return after === made ? value : after;
  }
  return fields(value, eyes, depth + 1);
}

function textOf(value: string, redact: RedactText, key: string): string {
  if (NAMED.test(key) && IDENTIFIER.test(value)) return value;
  const label = labelOf(key);
  return redact(label === undefined ? value : redactLabelled(label, value, redact));
}

/** A number that is long enough for a telephone, card or social security number, as the text it is. */
function numberOf(value: number | bigint, redact: RedactText, key: string): unknown {
  const label = labelOf(key);
  const given = label === undefined ? value : redactLabelled(label, value, redact);
  if (given !== value) return given;
  if (typeof value === "number" && (!Number.isSafeInteger(value) || Math.abs(value) < LONG_NUMBER))
    return value;
  const text = redact(String(value));
  return text === String(value) ? value : text;
}

/** What the tokens in each list say together. */
function textsOfTokens(value: unknown): string[] {
  if (Array.isArray(value)) {
    const tokens = value.map((one: unknown): unknown => (typeof one === "string" ? one : Object(one).token));
    return [tokens.filter((one) => typeof one === "string").join("")];
  }
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(textsOfTokens) : [];
}

function items(before: readonly unknown[], eyes: Eyes, key: string, depth: number): readonly unknown[] {
  let after: unknown[] | undefined;
  for (let index = 0; index < before.length; index += 1) {
    const item = before[index];
    const redacted = walk(item, eyes, key, depth);
    if (redacted !== item) (after ??= [...before])[index] = redacted;
  }
  return after ?? before;
}

function entries(before: Map<unknown, unknown>, eyes: Eyes, depth: number): Map<unknown, unknown> {
  const all = [...before].map(
    ([key, item]) => [key, walk(key, eyes, "", depth), walk(item, eyes, String(key), depth)] as const,
  );
  if (all.every(([key, name, item]) => name === key && before.get(key) === item)) return before;
  const after = new Map<unknown, unknown>();
  const free = freeNames((taken) => after.has(taken) || before.has(taken));
  for (const [key, name, item] of all) {
    const isNew = name !== key && typeof name === "string";
    after.set(isNew ? free(name) : name, item);
  }
  return after;
}

/**
 * Two names that become the same would lose what stands under one of them. What was tried once is not tried again:
 * thousands of names may become one.
 */
function freeNames(isTaken: (name: string) => boolean): (name: string) => string {
  const tried = new Map<string, number>();
  return (name) => {
    let nth = tried.get(name) ?? 1;
    let free: string;
    for (free = nthOf(name, nth); isTaken(free); free = nthOf(name, nth)) nth += 1;
    tried.set(name, nth);
    return free;
  };
}

const nthOf = (name: string, nth: number): string => (nth === 1 ? name : `${name}_${nth}`);

function errorOf(error: Error, redact: RedactText): Error {
  const message = redact(error.message);
  if (message === error.message) return error;
  // Only name and message are kept of an error anywhere.
  const copy = new Error(message);
  Object.defineProperty(copy, "name", { value: error.name, configurable: true, writable: true });
  return copy;
}

/** A plain object, a message, or anything else that is stored by its own fields. */
function fields(before: object, eyes: Eyes, depth: number): object {
  const { redact, look } = eyes;
  const given = before as Fields;
  let after: Fields | undefined;
  let free: ((name: string) => string) | undefined;
  // What a message was made of stands on it again, under the same names: most of it need not be looked at twice.
  let clean: Fields | undefined;
  for (const key of Object.keys(before)) {
    const item = given[key];
    const hasBlocks = key === "content" && Array.isArray(item);
    if (clean !== undefined && item !== undefined && clean[key] === item && !hasBlocks) continue;
    const name = redact(key);
    const whole = hasBlocks && isAnswer(before) ? withWholeTexts(item, look) : item;
    const redacted = walk(whole, eyes, key, depth);
    if (redacted === item && name === key) {
      if (key === MADE_OF && isPlainObject(item)) clean = item;
      continue;
    }
    after ??= copyOf(before);
    if (name !== key) Reflect.deleteProperty(after, key);
    free ??= freeNames((taken) => Object.hasOwn(after ?? before, taken));
    const place = name === key ? key : free(name);
    // Assigning to __proto__ would set the prototype and lose the value.
    Object.defineProperty(after, place, {
      value: redacted,
      enumerable: true,
      writable: true,
      configurable: true,
    });
  }
  return after ?? before;
}

/** The same object again, with fields that may be changed. */
function copyOf(value: object): Fields {
  const own: Record<PropertyKey, PropertyDescriptor> = Object.getOwnPropertyDescriptors(value);
  for (const key of Reflect.ownKeys(own)) own[key] = { ...own[key], configurable: true };
  return Object.create(Reflect.getPrototypeOf(value), own) as Fields;
}

const isBinary = (value: object): boolean => ArrayBuffer.isView(value) || value instanceof ArrayBuffer;

const isMade = (value: object): value is { toJSON(): unknown } =>
  "toJSON" in value && typeof value.toJSON === "function" && !isMessage(value);
