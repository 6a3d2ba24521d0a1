// How calls to one model are made: how long, how often, how many at a time. The names are those of the models file,
// and each tells its unit. A policy is always whole: what a file leaves out has a default.
import { z } from "zod";

const ms = (least: number): z.ZodInt => z.int().min(least).max(3_600_000);
const count = (least: number): z.ZodInt => z.int().min(least).max(1_000_000);

/** The fields of a policy, each of which may be left out. */
export const policyFields = {
  /** Longest wait for the headers of an answer; of one that is not streamed, for all of it, up to `total_ms`. */
  connect_ms: ms(1).optional(),
  /** Longest wait between the headers and the first piece of text. */
  first_token_ms: ms(1).optional(),
  /** Longest silence within an answer. */
  between_tokens_ms: ms(1).optional(),
  /** Longest time of a request with its waits, retries, fallbacks and the whole answer. */
  total_ms: ms(1).optional(),
  /** How often a call is made again after it failed in passing. */
  retries: z.int().min(0).max(20).optional(),
  /** The wait before the nth retry is random, up to `retry_base_ms` · 2ⁿ⁻¹ and never above `retry_max_ms`. */
  retry_base_ms: ms(0).optional(),
  retry_max_ms: ms(0).optional(),
  /** The breaker opens when more than this share of the last `breaker_window` calls failed … */
  breaker_threshold: z.number().gt(0).lt(1).optional(),
  breaker_window: z.int().min(1).max(10_000).optional(),
  /** … and there were at least so many. */
  breaker_min_calls: z.int().min(1).max(10_000).optional(),
  /** How long an open breaker lets nothing through; then one call tries. */
  breaker_open_ms: ms(1).optional(),
  /** Calls that are under way at a time, from the sending to the end of the answer. */
  concurrent: count(1).optional(),
  /** Calls that may wait for one of these to end. */
  queue: count(0).optional(),
  /** Longest wait for `concurrent`, and for the two limits below. */
  queue_ms: ms(0).optional(),
  requests_per_minute: count(1).optional(),
  tokens_per_minute: z.int().min(1).max(1_000_000_000).optional(),
};

const schema = z.strictObject(policyFields);
type Given = z.output<typeof schema>;
type Limit = "requests_per_minute" | "tokens_per_minute";

/** A whole policy; without one of the two limits per minute there is none. */
export type Policy = { readonly [Key in Exclude<keyof Given, Limit>]-?: NonNullable<Given[Key]> } & {
  readonly [Key in Limit]?: Given[Key];
};

/**
 * The defaults, then what each of `given` says, the last one first.
 * @param silenceMs default of the timeouts that bound a silence
 */
export function policyOf(silenceMs: number, ...given: readonly Given[]): Policy {
  const totalMs = Math.max(600_000, silenceMs);
  const policy: Policy = {
    connect_ms: silenceMs,
    // A model that thinks says nothing for minutes, and another call would cost the same once more.
    first_token_ms: Math.min(5 * silenceMs, totalMs),
    between_tokens_ms: silenceMs,
    total_ms: totalMs,
    retries: 2,
    retry_base_ms: 500,
    retry_max_ms: 8000,
    breaker_threshold: 0.5,
    breaker_window: 20,
    breaker_min_calls: 10,
    breaker_open_ms: 15_000,
    concurrent: 1000,
    queue: 1000,
    queue_ms: 30_000,
  };
  return Object.assign(policy, ...given.map(fieldsOf));
}

/** Only what is a field of a policy, and is set. */
function fieldsOf(given: Given): Partial<Policy> {
  const fields = Object.entries(given).filter(([key, value]) => key in policyFields && value !== undefined);
  return Object.fromEntries(fields);
}
