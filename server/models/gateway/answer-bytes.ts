// The answer of a provider as bytes: passed on as they come, kept until it is known what they cost. What they say is read
// once, at the end, so that a token costs nothing here while it is on its way.
import { z } from "zod";
import { deadline } from "../../clock.ts";
import { sourceOf, withBody } from "../answer-body.ts";
import type { Source } from "../answer-body.ts";
import { Kept } from "./kept.ts";
import { paced } from "./pace.ts";

/** What a provider says that a call was. */
export interface Billed {
  readonly input: number;
  readonly cached: number;
  readonly output: number;
}

const usage = z.looseObject({
  prompt_tokens: z.int().min(0),
  completion_tokens: z.int().min(0),
  total_tokens: z.int().min(0).nullish(),
  prompt_tokens_details: z.looseObject({ cached_tokens: z.int().min(0).nullish() }).nullish(),
});
const spoken = z.record(z.string(), z.unknown());
const frame = z.looseObject({
  // Some send one that says nothing; what the frame says is text all the same.
  usage: usage.nullish().catch(undefined),
  choices: z
    .array(
      z.looseObject({
        index: z.int().nullish(),
        delta: spoken.nullish(),
        message: spoken.nullish(),
        finish_reason: z.string().nullish(),
      }),
    )
    .nullish(),
});
type Frame = z.infer<typeof frame>;

/** Of an answer of more than twice as many only the end is kept: the bill stands there. */
const KEPT_BYTES = 2_097_152;
/** How long a bill is waited for that comes after the reader has left. */
const BILL_MS = 2000;
const isDocument = (text: string): boolean => !/^\s*(data|event|id|retry|:)/.test(text);

/** Of an answer whose beginning was not kept: what is left is no JSON, but may hold a bill. */
function billsIn(text: string): string[] {
  if (text.trimStart().startsWith("{")) return [];
  const found = [...text.matchAll(/"usage"\s*:\s*(\{(?:[^{}]|\{[^{}]*\})*\})/g)].at(-1);
  return found ? [`{"usage":${found[1]}}`] : [];
}

/** Gets what was passed on, whether it came to its end, and whether only the last of it was kept. */
type OnEnd = (bytes: Uint8Array, isWhole: boolean, isTail: boolean) => Promise<void>;

interface Listening {
  /** So many answers at once were asked for; 1 if left out. */
  readonly choices?: number | undefined;
  /** Resolves when what was passed on can be seen; without it a stream is passed on as fast as it is read. */
  readonly shown?: (() => Promise<void>) | undefined;
  /** Gets what is still done after the reader has left: he may not wait for it, others may have to. */
  readonly onLeave?: ((leaving: Promise<void>) => void) | undefined;
}

/** The same answer, whose end is heard of: once, before its reader knows of it. */
export function heard(
  response: Response,
  onEnd: OnEnd,
  { choices = 1, shown, onLeave }: Listening = {},
): Response {
  const bare = sourceOf(response);
  if (!bare) {
    // Nobody will read it.
    void onEnd(new Uint8Array(), true, false).catch(() => undefined);
    return response;
  }
  const pace = shown && paced(bare, shown);
  const source = pace ?? bare;
  const kept = new Kept(KEPT_BYTES);
  let isOver = false;
  let leaving: Promise<void> | undefined;
  const end = async (isWhole: boolean): Promise<void> => {
    if (isOver) return;
    isOver = true;
    await onEnd(kept.bytes(), isWhole, kept.isTail);
  };
  const leave = async (reason: unknown): Promise<void> => {
    const rest = pace?.takeRest();
    if (rest) kept.push(rest);
    const isWhole = isFinished(kept.bytes(), choices) && (await readOn(source, kept));
    await Promise.allSettled([isWhole || source.cancel(reason), end(isWhole)]);
  };
  return withBody(response, {
    read: async () => {
      try {
        const piece = await source.read();
        if (piece.value) kept.push(piece.value);
        else if (!leaving) await end(true);
        return piece;
      } catch (error) {
        if (!leaving) await end(false);
        throw error;
      }
    },
    cancel: (reason) => {
      if (!leaving) {
        leaving = leave(reason);
        onLeave?.(leaving);
      }
      return leaving;
    },
  });
}

/** Reads to the end, for what comes after the last word. */
async function readOn(source: Source, kept: Kept): Promise<boolean> {
  const over = deadline(BILL_MS);
  over.addEventListener("abort", () => void source.cancel().catch(() => undefined), { once: true });
  try {
    for (;;) {
      const { value } = await source.read();
      if (!value) return !over.aborted;
      kept.push(value);
    }
  } catch {
    return false; // it broke off
  }
}

/**
 * The bill in an answer; undefined: there is none, because the answer broke off or the provider sends none. What stands
 * before the last of the text is none: some tell with the first piece what the prompt was, and no more.
 */
export function billIn(bytes: Uint8Array): Billed | undefined {
  for (const document of documentsIn(bytes).toReversed()) {
    const [one] = frameIn(document);
    if (one?.usage) return billed(one.usage);
    if (one && textsIn(one).length > 0) return undefined;
  }
  return undefined;
}

const billed = (found: z.infer<typeof usage>): Billed => ({
  input: found.prompt_tokens,
  cached: found.prompt_tokens_details?.cached_tokens ?? 0,
  // Some count a model's thoughts only in the total.
  output: Math.max(found.completion_tokens, (found.total_tokens ?? 0) - found.prompt_tokens),
});

/** Whether a stream has told all of its answers, so that only its bill or its last word is missing. */
export function isFinished(bytes: Uint8Array, choices = 1): boolean {
  if (Buffer.from(bytes.subarray(-64)).includes("data: [DONE]")) return true;
  const ends = framesOf(bytes, /"finish_reason"\s*:\s*"/).flatMap((one) => one.choices ?? []);
  return new Set(ends.flatMap((one) => (one.finish_reason ? (one.index ?? 0) : []))).size >= choices;
}

/** Whether an answer came in pieces: one that ends without its last word broke off, however politely. */
export const isStream = (bytes: Uint8Array): boolean => !isDocument(textOf(bytes));

/** Whether what a model said can be counted: of an answer in a form that is not known, not a word is found. */
export const isReadable = (bytes: Uint8Array): boolean =>
  bytes.length === 0 || framesOf(bytes).some(({ choices }) => choices);

/** All that a model said in an answer, for counting it: a text for each choice. */
export function spokenIn(bytes: Uint8Array): string[] {
  const texts = new Map<number, string>();
  for (const [index, said] of framesOf(bytes).flatMap(textsIn))
    texts.set(index, (texts.get(index) ?? "") + said);
  return [...texts.values()];
}

/** What a frame says, and of which choice. */
const textsIn = ({ choices }: Frame): [choice: number, text: string][] =>
  (choices ?? []).flatMap(({ index, delta, message }) => {
    const said = stringsIn(delta ?? message ?? {}).join("");
    return said === "" ? [] : [[index ?? 0, said]];
  });

/** Thoughts, refusals and calls of tools are billed like text, whatever a provider calls them. */
function stringsIn(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, one]) =>
    ["role", "id", "type", "index"].includes(key) ? [] : stringsIn(one),
  );
}

/** @param only frames that look like it: most of a long answer is not worth reading for its end */
const framesOf = (bytes: Uint8Array, only = /^/): Frame[] =>
  documentsIn(bytes)
    .filter((one) => only.test(one))
    .flatMap(frameIn);

function documentsIn(bytes: Uint8Array): string[] {
  const text = textOf(bytes);
  return isDocument(text)
    ? [text, ...billsIn(text)]
    : text.split("\n").flatMap((line) => (line.startsWith("data:") ? [line.slice(5)] : []));
}

const textOf = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");

function frameIn(document: string): Frame[] {
  try {
    return [frame.parse(JSON.parse(document))];
  } catch {
    return []; // [DONE], or half a frame of an answer that broke off
  }
}
