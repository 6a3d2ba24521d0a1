// What a model said in pieces that nobody put together: a provider that gives the blocks of its pieces no number leaves
// one block for each piece in the whole message too, and none of them may hold all of a value.
import type { RedactText } from "./labels.ts";

/** Under these a block of an answer holds its text. */
const TEXTS = ["text", "thinking", "reasoning"] as const;
type Place = (typeof TEXTS)[number];

/** Whether a message, or the plain object of one, is what a model said: others say with each block something whole. */
export const isAnswer = (value: object): boolean =>
  ("type" in value && value.type === "ai") || ("role" in value && value.role === "assistant");

/**
 * Blocks of one kind that follow each other as one block, where they hold together what they do not hold alone.
 * @returns `content` itself when there are none
 */
export function withWholeTexts(content: unknown, redact: RedactText): unknown {
  if (!Array.isArray(content)) return content;
  const after = runsOf(content).flatMap((run) => joined(run, redact));
  return after.length === content.length ? content : after;
}

/** Blocks in a row that hold a text of one kind; whatever holds none stands alone. */
function runsOf(content: readonly unknown[]): unknown[][] {
  const runs: unknown[][] = [];
  for (const block of content) {
    const run = runs.at(-1);
    const place = placeOf(block);
    const isSame = place !== undefined && placeOf(run?.[0]) === place && typeOf(run?.[0]) === typeOf(block);
    if (run && isSame) run.push(block);
    else runs.push([block]);
  }
  return runs;
}

const typeOf = (block: unknown): unknown => Object(block).type;

function joined(run: readonly unknown[], redact: RedactText): readonly unknown[] {
  const place = placeOf(run[0]);
  if (!place || run.length === 1) return run;
  const texts = run.map((block) => String(Object(block)[place]));
  const all = texts.join("");
  if (redact(all) === texts.map(redact).join("")) return run;
  return [{ ...Object.assign({}, ...run), [place]: all }];
}

function placeOf(block: unknown): Place | undefined {
  if (typeof block !== "object" || block === null) return undefined;
  return TEXTS.find((name) => typeof Object(block)[name] === "string");
}
