// A request to a chat endpoint: what of it is read, what it costs at most, and how it is changed before it is sent.
// Whatever cannot be counted is not guessed: such a call is refused where a budget applies.
import { z } from "zod";
import { BudgetExceeded } from "../../errors.ts";
import type { ModelFacts } from "../catalogue.ts";
import { countChatTokens, countTokens } from "../tokens.ts";

const part = z.looseObject({
  type: z.string(),
  text: z.string().optional(),
  refusal: z.string().optional(),
  image_url: z.looseObject({ detail: z.string().optional() }).optional(),
});
const message = z.looseObject({
  role: z.string(),
  content: z.union([z.string(), z.array(part)]).nullish(),
  name: z.string().optional(),
});

const chatSchema = z.looseObject({
  model: z.string().min(1),
  messages: z.array(message).min(1),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({}).nullish(),
  n: z.int().min(1).nullish(),
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
  tools: z.array(z.unknown()).nullish(),
  functions: z.array(z.unknown()).nullish(),
});
export type ChatBody = z.infer<typeof chatSchema>;
type Message = z.infer<typeof message>;
type Part = z.infer<typeof part>;

// Reasoning models take no max_tokens; many servers that are not OpenAI's know nothing else.
const REASONS = /^(o\d|gpt-5|gpt-oss)/;

/**
 * The most that one image can cost, by the rules that the provider publishes: a base and 8 tiles, or 1,536 patches times
 * a factor. Of a model that is not listed the dearest is assumed.
 */
const images: readonly (readonly [prefix: string, low: number, high: number])[] = [
  ["gpt-4o-mini", 2833, 48_169],
  ["gpt-4.1-mini", 2489, 2489],
  ["gpt-4.1-nano", 3779, 3779],
  ["o4-mini", 2642, 2642],
  ["gpt-5-mini", 2489, 2489],
  ["gpt-5-nano", 3779, 3779],
  ["gpt-4.1", 85, 1445],
  ["gpt-4o", 85, 1445],
  ["gpt-5", 70, 1190],
  ["o1", 75, 1275],
  ["o3", 75, 1275],
];
const ANY_IMAGE = 48_169;
/** Templates of models that are not known may begin with a text of their own. */
const TEMPLATE = 128;
/** What sets a message apart from the next one, with a role that is usual. */
const FRAMING = 8;

/** Undefined: it is no request of the chat completions API. */
export function readChat(text: string): ChatBody | undefined {
  try {
    return chatSchema.parse(JSON.parse(text));
  } catch {
    return undefined; // the provider says what is wrong with it
  }
}

/** The ceiling of the answer that the caller gave; of two the larger, because a server may obey either. */
function capOf({ max_completion_tokens: most, max_tokens: old }: ChatBody): number | undefined {
  return most && old ? Math.max(most, old) : (most ?? old ?? undefined);
}

/** The ceiling that is sent when a budget applies: without one nobody knows what a call costs at most. */
export const ceilingOf = (body: ChatBody, facts: ModelFacts, fallback: number): number =>
  capOf(body) ?? facts.maxOutputTokens ?? fallback;

/**
 * Tokens of the prompt: text exactly, with the framing of messages; what providers do not publish how they count, such as
 * tools, at its size in bytes, which no tokenizer exceeds; images at the most they can cost.
 * @throws BudgetExceeded for parts that nobody can count
 */
export async function promptTokensOf(body: ChatBody, facts: ModelFacts): Promise<number> {
  const texts = body.messages.map(textsOf);
  const extra =
    bytesOf(body) + body.messages.flatMap(partsOf).reduce((sum, one) => sum + imageOf(one, facts), 0);
  if (facts.approximate) {
    // A tokenizer that is not known may split text into as many tokens as it has bytes, and no more.
    const bytes = texts.flat().reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    return bytes + extra + body.messages.reduce((sum, one) => sum + framingOf(one), 0) + TEMPLATE;
  }
  const first = body.messages.map(({ role, name }, index) => ({
    role,
    name,
    content: texts[index]?.[0] ?? "",
  }));
  const framed = await countChatTokens(first, facts.name);
  const rest = await Promise.all(
    texts.flatMap((list) => list.slice(1)).map((text) => countTokens(text, facts.name)),
  );
  return framed + extra + rest.reduce((sum, count) => sum + count, 0);
}

/** As it is sent: with the model that is asked, and where somebody is to pay for it, a ceiling and a bill. */
export function preparedBody(body: ChatBody, model: string, ceiling: number | undefined): string {
  const cap = ceiling !== undefined && capOf(body) === undefined ? { [capName(model)]: ceiling } : {};
  const isBilled = body.stream && ceiling !== undefined;
  const options = isBilled ? { stream_options: { ...body.stream_options, include_usage: true } } : {};
  return JSON.stringify({ ...body, model, ...cap, ...options });
}

/** Whether a client asks for the usage of a stream by itself. */
export const asksForBill = ({ stream_options: options }: ChatBody): boolean =>
  options?.["include_usage"] === true;

const capName = (model: string): string =>
  REASONS.test(model.replace(/^.*\//, "")) ? "max_completion_tokens" : "max_tokens";

/** Clients may give any role and any name. */
const framingOf = ({ role, name = "" }: Message): number =>
  Math.max(FRAMING, Buffer.byteLength(role)) + Buffer.byteLength(name);

const partsOf = ({ content }: Message): Part[] => (Array.isArray(content) ? content : []);

const textsOf = (one: Message): string[] =>
  typeof one.content === "string"
    ? [one.content]
    : partsOf(one).flatMap((each) => each.text ?? each.refusal ?? []);

// What is no part of a prompt. Anything else may be: some servers take documents, or instructions for their template.
const NO_PROMPT = new Set(
  (
    "model messages stream stream_options audio logit_bias metadata modalities prompt_cache_key reasoning " +
    "reasoning_effort safety_identifier service_tier stop tool_choice user verbosity"
  ).split(" "),
);
const isText = (value: unknown): boolean =>
  typeof value === "string" || (typeof value === "object" && value !== null);

/** Of everything in a request that becomes prompt and is no text of a message. */
function bytesOf(body: ChatBody): number {
  const given = Object.entries(body).flatMap(([name, value]) => (NO_PROMPT.has(name) ? [] : [value]));
  const rest = body.messages.flatMap(({ role: _role, content: _content, name: _name, ...more }) =>
    Object.values(more),
  );
  return [...given, ...rest]
    .filter(isText)
    .reduce((sum: number, one) => sum + Buffer.byteLength(JSON.stringify(one)), 0);
}

function imageOf(one: Part, facts: ModelFacts): number {
  if (one.type === "text" || one.type === "refusal") return 0;
  if (one.type !== "image_url")
    throw new BudgetExceeded(
      "A message holds a part that is neither text nor an image: what it costs cannot be counted before it is sent, and a budget applies. Nothing was sent.",
    );
  const [, low, high] = images.find(([prefix]) => facts.name.replace(/^.*\//, "").startsWith(prefix)) ?? [
    "",
    ANY_IMAGE,
    ANY_IMAGE,
  ];
  return one.image_url?.detail === "low" ? low : high;
}
