// What of an item is embedded: the texts at paths into its value, found as LangGraph's own InMemoryStore finds them.
// "$" is the whole value; "a.b" a field; "a[0]", "a[-1]" and "a[*]" elements; "*" all there is; "{a,b.c}" several fields.
import { InputInvalid } from "../../errors.ts";

/** More than any model reads; what is longer would only be refused after it was sent. */
const MOST_CHARACTERS = 500_000;
const MOST_TEXTS = 256;
/** Values that are looked at on the way to the texts. */
const MOST_LOOKS = 200_000;

/**
 * The texts of a value, each once. Blank ones are left out: they have no meaning, and endpoints refuse them.
 * @throws InputInvalid when there are too many, or they are too long
 */
export function textsOf(value: object, paths: readonly string[]): string[] {
  const texts = new Set<string>();
  let [characters, looks] = [0, 0];
  const look = (): void => {
    looks += 1;
    if (looks > MOST_LOOKS) throw tooMuch(`more than ${MOST_LOOKS} values on the way to the texts`);
  };
  for (const path of paths) {
    for (const text of textsUnder(value, stepsOf(path), look)) {
      characters += text.length;
      if (characters > MOST_CHARACTERS) throw tooMuch(`more than ${MOST_CHARACTERS} characters`);
      if (text.trim() !== "") texts.add(text);
      if (texts.size > MOST_TEXTS) throw tooMuch(`more than ${MOST_TEXTS} texts`);
    }
  }
  return [...texts];
}

/** "a[0].{b,c}" is a, [0] and {b,c}. */
const stepsOf = (path: string): string[] => path.match(/\[[^\]]*\]?|\{[^}]*\}?|[^.[{]+/g) ?? [];

function* textsUnder(value: object, steps: readonly string[], look: () => void): Generator<string> {
  if (steps[0] === "$") yield jsonOf(value);
  yield* textsAt(value, steps, look);
}

function* textsAt(value: unknown, steps: readonly string[], look: () => void): Generator<string> {
  look();
  const [step, ...rest] = steps;
  if (step === undefined) yield* textOf(value);
  else if (isEnclosed(step, "[", "]")) {
    for (const one of elementsOf(value, step.slice(1, -1))) yield* textsAt(one, rest, look);
  } else if (isEnclosed(step, "{", "}")) {
    for (const field of step.slice(1, -1).split(",")) {
      const found = fieldAt(value, stepsOf(field.trim()));
      if (found !== undefined) yield* found === null ? ["null"] : textOf(found);
    }
  } else if (step === "*") {
    const all = typeof value === "object" && value !== null ? Object.values(value) : [];
    for (const one of all) yield* textsAt(one, rest, look);
  } else if (hasField(value, step)) yield* textsAt(value[step], rest, look);
}

function textOf(value: unknown): string[] {
  if (typeof value === "object") return value === null ? [] : [jsonOf(value)];
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean"
    ? [String(value)]
    : [];
}

function elementsOf(value: unknown, index: string): readonly unknown[] {
  if (!Array.isArray(value)) return [];
  if (index === "*") return value;
  const at = Number.parseInt(index, 10);
  const element: unknown = value.at(at);
  return Number.isNaN(at) || at < -value.length || at >= value.length ? [] : [element];
}

function fieldAt(value: unknown, steps: readonly string[]): unknown {
  if (steps.length === 0) return undefined;
  let found = value;
  for (const step of steps) {
    if (!hasField(found, step)) return undefined;
    found = found[step];
  }
  return found;
}

const hasField = (value: unknown, name: string): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && Object.hasOwn(value, name);

const isEnclosed = (step: string, from: string, to: string): boolean =>
  step.startsWith(from) && step.endsWith(to);

function jsonOf(value: unknown): string {
  // Indented it can be many times as long.
  if (JSON.stringify(value).length > MOST_CHARACTERS)
    throw tooMuch(`more than ${MOST_CHARACTERS} characters`);
  return JSON.stringify(value, null, 2);
}

const tooMuch = (what: string): InputInvalid =>
  new InputInvalid(
    `An item of the store has ${what} to embed. Name the fields that matter in \`index\`, or give \`index: false\`.`,
  );
