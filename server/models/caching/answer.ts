// A whole answer of a model as it is kept: what it said, piece by piece, and what it cost. Only what is understood to the
// last field is kept, so that nothing gets by whoever looks at its texts, and what is replayed is all that was said.
import { z } from "zod";
import { uuidv7 } from "../../ids.ts";

/** What of a message may be kept. */
const piece = z.strictObject({
  content: z.string().optional(),
  refusal: z.string().optional(),
  reasoning_content: z.string().optional(),
});
type Piece = z.infer<typeof piece>;

const answer = z.strictObject({
  model: z.string(),
  created: z.number(),
  system_fingerprint: z.string().optional(),
  service_tier: z.string().optional(),
  pieces: z.array(piece),
  usage: z.looseObject({}).optional(),
});
export type Answer = z.infer<typeof answer>;

/** Of what is far longer only the end may have been heard. */
const MOST_BYTES = 4_000_000;

const text = z.string().nullish();
const nothing = z.array(z.unknown()).max(0).nullish();
const words = z.strictObject({
  role: text,
  content: text,
  refusal: text,
  reasoning_content: text,
  annotations: nothing,
  tool_calls: nothing,
  function_call: z.null().optional(),
  audio: z.null().optional(),
});
const choice = z.strictObject({
  index: z.literal(0).optional(),
  delta: words.optional(),
  message: words.optional(),
  finish_reason: text,
  logprobs: z.null().optional(),
  // What a provider's own filter found to be harmless is of no use later.
  content_filter_results: z.unknown().optional(),
});
const frame = z.strictObject({
  id: z.unknown().optional(),
  object: z.unknown().optional(),
  obfuscation: z.unknown().optional(),
  prompt_filter_results: z.unknown().optional(),
  created: z.number().optional(),
  model: z.string().optional(),
  system_fingerprint: text,
  service_tier: text,
  choices: z.array(choice).max(1),
  usage: z.looseObject({}).nullish(),
});
type Frame = z.infer<typeof frame>;

/** Undefined: it is not whole, did not end by itself, or says something that is not understood here. */
export function answerIn(bytes: Uint8Array): Answer | undefined {
  if (bytes.length > MOST_BYTES) return undefined;
  const frames = framesIn(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8"));
  if (!frames) return undefined;
  const choices = frames.flatMap((one) => one.choices);
  const pieces = choices.flatMap(({ delta, message }) => pieceOf(delta ?? message ?? {}));
  if (choices.findLast((one) => one.finish_reason)?.finish_reason !== "stop") return undefined;
  const heads = frames.toReversed();
  const fingerprint = heads.find((one) => one.system_fingerprint)?.system_fingerprint;
  const tier = heads.find((one) => one.service_tier)?.service_tier;
  const usage = heads.find((one) => one.usage)?.usage;
  return {
    model: frames[0]?.model ?? "",
    created: frames[0]?.created ?? 0,
    ...(fingerprint ? { system_fingerprint: fingerprint } : {}),
    ...(tier ? { service_tier: tier } : {}),
    pieces,
    ...(usage ? { usage } : {}),
  };
}

/** All that an answer holds, its texts in one piece each, for whoever looks for what must not be kept. */
export const wholeOf = ({ pieces, created: _at, ...rest }: Answer): object => ({
  ...rest,
  message: joined(pieces),
});

export const answerBytes = (one: Answer): Buffer => Buffer.from(JSON.stringify(one));

/** Undefined: these are not the bytes of an answer. */
export function answerFrom(bytes: Buffer): Answer | undefined {
  try {
    return answer.parse(JSON.parse(bytes.toString("utf8")));
  } catch {
    return undefined;
  }
}

/**
 * The answer as a provider would give it, in one piece or as a stream. It has an id of its own: messages are known by it,
 * and one that came twice would take the place of the first.
 */
export function replayed(
  one: Answer,
  asked: { readonly isStream: boolean; readonly hasUsage: boolean; readonly ageMs: number },
): Response {
  const headers = { "x-holdfast-cache": "hit", age: String(Math.floor(asked.ageMs / 1000)) };
  const { pieces, usage, ...rest } = one;
  const head = { id: `chatcmpl-${uuidv7()}`, ...rest };
  if (!asked.isStream) {
    const message = { role: "assistant", content: "", refusal: null, ...joined(pieces) };
    const choices = [{ index: 0, message, finish_reason: "stop", logprobs: null }];
    return Response.json({ ...head, object: "chat.completion", choices, usage }, { headers });
  }
  const chunk = (choices: object[], more: object = {}): string =>
    `data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", choices, ...more })}\n\n`;
  const delta = (said: object, reason: string | null = null): string =>
    chunk([{ index: 0, delta: said, finish_reason: reason }]);
  const frames = [
    delta({ role: "assistant", content: "" }),
    ...pieces.flatMap(inWords).map((said) => delta(said)),
    delta({}, "stop"),
    ...(asked.hasUsage && usage ? [chunk([], { usage })] : []),
    "data: [DONE]\n\n",
  ];
  return new Response(frames.join(""), {
    headers: { ...headers, "content-type": "text/event-stream; charset=utf-8" },
  });
}

function framesIn(body: string): Frame[] | undefined {
  const documents = body.trimStart().startsWith("{")
    ? [body]
    : body.split("\n").flatMap((line) => (line.startsWith("data:") ? [line.slice(5).trim()] : []));
  try {
    return documents
      .filter((one) => one !== "[DONE]")
      .map((one) => frame.parse(JSON.parse(one, withoutNull)));
  } catch {
    return undefined;
  }
}

/** Servers of models add fields of their own, and most of the time they say nothing in them. */
const withoutNull = (_: string, value: unknown): unknown => (value === null ? undefined : value);

function pieceOf({ content, refusal, reasoning_content: thought }: z.infer<typeof words>): Piece[] {
  if (!content && !refusal && !thought) return [];
  return [
    {
      ...(content ? { content } : {}),
      ...(refusal ? { refusal } : {}),
      ...(thought ? { reasoning_content: thought } : {}),
    },
  ];
}

function joined(pieces: readonly Piece[]): Piece {
  const whole: Record<string, string> = {};
  for (const one of pieces)
    for (const [name, said] of Object.entries(one)) whole[name] = (whole[name] ?? "") + said;
  return whole;
}

/** An answer that came in one piece is told word by word. */
function inWords(one: Piece, _: number, { length }: readonly Piece[]): Piece[] {
  if (length > 1) return [one];
  return Object.entries(one).flatMap(([name, whole]) => wordsOf(whole).map((word) => ({ [name]: word })));
}

const wordsOf = (whole: string | undefined): string[] => whole?.match(/\S+\s*|\s+/g) ?? [];
