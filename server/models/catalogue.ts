// What is known of each model: how it counts, what it costs, how it is called and what stands in for it. The operator's
// file wins over what is shipped. Money is counted in integers, and a call is never told cheaper than it was.
import type { Config } from "../config.ts";
import type { Encoding } from "./encoding.ts";
import { matches, readModelsFile } from "./models-file.ts";
import type { ModelEntry, ModelsFile } from "./models-file.ts";
import prices from "./prices.json" with { type: "json" };
import { policyOf } from "./resilience/policy.ts";
import type { Policy } from "./resilience/policy.ts";
import { encodingOf, preferEncodings } from "./tokens.ts";

/** US dollars for a million tokens. */
export interface Price {
  readonly input: number;
  /** Of tokens that the provider had cached. */
  readonly cached: number;
  readonly output: number;
}

export interface ModelFacts {
  readonly name: string;
  readonly encoding: Encoding;
  /** The tokenizer is not known: counts with `encoding` are near, not exact. */
  readonly approximate: boolean;
  /** Absent: nobody has told. */
  readonly price?: Price;
  /** Ceiling of one answer in tokens; absent: none of this model's own. */
  readonly maxOutputTokens?: number;
  /** Models to ask, in this order, when this one fails; never the model itself. */
  readonly fallback: readonly string[];
  readonly policy: Policy;
}

interface Asked {
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  readonly hasTools: boolean;
}

export interface Catalogue {
  /** Of any name: what no file and no table knows has the defaults. */
  readonly of: (model: string) => ModelFacts;
  /** Whether a prompt has to be counted to know which model is asked. */
  readonly hasRoutes: boolean;
  /** The model that is to be asked instead, by the first rule that fits; else the model itself. */
  readonly route: (model: string, asked: Asked) => string;
}

/** Most names whose facts are kept: names come from requests too. */
const MAX_KEPT = 1000;
const DATED = /-\d{4}-\d{2}-\d{2}$/;
const PICO_PER_MICRO = 1_000_000n;

/**
 * Reads the file that HOLDFAST_MODELS names. From then on this process counts tokens with the encodings it gives.
 * @throws ConfigInvalid naming the place in the file that is wrong
 */
export function openCatalogue(config: Pick<Config, "modelsFile" | "modelTimeoutMs">): Catalogue {
  const file = readModelsFile(config.modelsFile);
  preferEncodings((model) => entryOf(file, model)?.encoding);
  const kept = new Map<string, ModelFacts>();
  return {
    of: (model) => {
      const facts = kept.get(model) ?? factsOf(file, model, config.modelTimeoutMs);
      if (kept.size >= MAX_KEPT) kept.clear();
      kept.set(model, facts);
      return facts;
    },
    hasRoutes: file.route.length > 0,
    route: (model, asked) => file.route.find((rule) => fits(rule, model, asked))?.to ?? model,
  };
}

/**
 * What a call costs in millionths of a US dollar, rounded up once.
 * @param tokens `input` are those of the whole prompt, `cached` those among them that the provider had cached
 * @example costOf({ input: 0.4, cached: 0.1, output: 1.6 }, { input: 1000, cached: 0, output: 100 }) // 560
 */
export function costOf(
  price: Price,
  tokens: { readonly input: number; readonly cached: number; readonly output: number },
): number {
  const cached = Math.min(tokens.cached, tokens.input);
  const pico =
    BigInt(tokens.input - cached) * picoPerToken(price.input) +
    BigInt(cached) * picoPerToken(price.cached) +
    BigInt(tokens.output) * picoPerToken(price.output);
  return Number((pico + PICO_PER_MICRO - 1n) / PICO_PER_MICRO);
}

/** A dollar for a million tokens is a millionth for one: a million of its millionths, exact for six decimals. */
const picoPerToken = (dollars: number): bigint => BigInt(Math.round(dollars * 1_000_000));

function factsOf(file: ModelsFile, model: string, silenceMs: number): ModelFacts {
  const entry = entryOf(file, model) ?? {};
  const price = entry.price ?? shippedPrice(model);
  return {
    name: model,
    ...encodingOf(model),
    ...(entry.encoding ? { encoding: entry.encoding, approximate: false } : {}),
    ...(price ? { price: { ...price, cached: price.cached ?? price.input } } : {}),
    ...(entry.max_output_tokens ? { maxOutputTokens: entry.max_output_tokens } : {}),
    fallback: [...new Set(entry.fallback)].filter((name) => name !== model),
    policy: policyOf(silenceMs, file.defaults, entry),
  };
}

/** The name itself, else the longest beginning. */
function entryOf({ models }: ModelsFile, model: string): ModelEntry | undefined {
  if (Object.hasOwn(models, model)) return models[model];
  const [longest] = Object.keys(models)
    .filter((key) => key.endsWith("*") && matches(key, model))
    .toSorted((a, b) => b.length - a.length);
  return longest === undefined ? undefined : models[longest];
}

/** A dated snapshot costs what its model costs, unless it is listed. */
function shippedPrice(model: string): ModelEntry["price"] {
  const listed = new Map<string, NonNullable<ModelEntry["price"]>>(Object.entries(prices.models));
  return listed.get(model) ?? listed.get(model.replace(DATED, ""));
}

type Rule = ModelsFile["route"][number];
const fits = (rule: Rule, model: string, { promptTokens, hasTools }: Asked): boolean =>
  matches(rule.from, model) &&
  promptTokens <= (rule.max_prompt_tokens ?? Infinity) &&
  (rule.tools ?? hasTools) === hasTools;
