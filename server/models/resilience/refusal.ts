// What a provider says beside its answers: that it refuses and whether that passes, how long to wait, what is left of its
// limits. A refusal's body is read up to a bound and handed on in an equivalent response.
import { now } from "../../clock.ts";

export interface Refusal {
  /** The same status and headers, and the body as far as it was read. */
  readonly response: Response;
  readonly status: number;
  /** Trying again can help. */
  readonly isPassing: boolean;
  /** The provider is at fault, which counts for the breaker. */
  readonly isFault: boolean;
  /** How long it asks to wait; undefined when it does not say. */
  readonly waitMs: number | undefined;
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
/** Of another body than was sent, these would lie. */
const OF_THE_BODY = ["content-encoding", "content-length", "transfer-encoding"];

/** @param body what was read of it; none, if it has none */
export function refusalOf(response: Response, body?: Uint8Array<ArrayBuffer>): Refusal {
  const { status, statusText } = response;
  const headers = new Headers(response.headers);
  for (const name of OF_THE_BODY) headers.delete(name);
  const isFault = status === 408 || status >= 500;
  const isLimit = status === 429 && !isQuotaSpent(body ?? new Uint8Array());
  return {
    response: body ? new Response(body, { status, statusText, headers }) : response,
    status,
    isPassing: isFault || isLimit || status === 409,
    isFault,
    waitMs: waitOf(headers),
  };
}

/** Such a 429 does not pass by itself. */
function isQuotaSpent(body: Uint8Array): boolean {
  return /"(?:code|type)"\s*:\s*"insufficient_quota"/.test(Buffer.from(body).toString("utf8"));
}

function waitOf(headers: Headers): number | undefined {
  const exact = numberOf(headers.get("retry-after-ms"));
  if (exact !== undefined) return exact;
  const after = headers.get("retry-after");
  const seconds = numberOf(after);
  if (seconds !== undefined) return seconds * 1000;
  const date = Date.parse(after ?? "");
  return Number.isNaN(date) ? undefined : Math.max(date - now(), 0);
}

/**
 * How long until a request like this one fits into what the provider says is left; 0 when it fits now. A limit fills
 * evenly, and `reset` is when it will be full.
 */
export function waitForLimits(headers: Headers, tokens: number): number {
  return Math.max(waitForLimit(headers, "requests", 1), waitForLimit(headers, "tokens", tokens));
}

function waitForLimit(headers: Headers, kind: "requests" | "tokens", needed: number): number {
  const left = numberOf(headers.get(`x-ratelimit-remaining-${kind}`));
  const reset = durationOf(headers.get(`x-ratelimit-reset-${kind}`));
  if (left === undefined || reset === undefined || left >= needed) return 0;
  const limit = numberOf(headers.get(`x-ratelimit-limit-${kind}`));
  const share = limit === undefined || limit <= left ? 1 : (needed - left) / (limit - left);
  return Math.ceil(reset * Math.min(share, 1));
}

function numberOf(text: string | null): number | undefined {
  return text !== null && /^\s*\d+(\.\d+)?\s*$/.test(text) ? Number(text) : undefined;
}

/** `12ms`, `1s`, `6m0s`, `1h2m3.5s`, or plain seconds. */
function durationOf(text: string | null): number | undefined {
  const seconds = numberOf(text);
  if (seconds !== undefined) return seconds * 1000;
  if (text === null || !/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) return undefined;
  return [...text.matchAll(/([\d.]+)(ms|s|m|h|d)/g)].reduce(
    (sum, [, amount = "", unit = ""]) => sum + Number(amount) * (UNITS[unit] ?? 0),
    0,
  );
}
