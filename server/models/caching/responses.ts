// Answers of models that were given before. A hit costs nothing and reserves nothing; equal requests at the same time make
// one call. Kept is only an answer that its graph's guard leaves as it is, which is looked at again when it is read: rules
// that came later hold for what was kept before.
import { later, uptime } from "../../clock.ts";
import type { Caches } from "../../storage/caches/caches.ts";
import { sourceOf, withBody } from "../answer-body.ts";
import { heard } from "../gateway/answer-bytes.ts";
import type { ChatBody } from "../gateway/chat-call.ts";
import type { CallContext, CallRequest } from "../gateway/context.ts";
import { answerBytes, answerFrom, answerIn, replayed, wholeOf } from "./answer.ts";
import type { Answer } from "./answer.ts";
import { identityOf, mayBeCached } from "./cacheable.ts";
import type { CacheRule } from "./cacheable.ts";
import { Flights } from "./flights.ts";
import type { Landing } from "./flights.ts";

export interface Question {
  readonly request: CallRequest;
  /** What the request says of the cache. */
  readonly wish: string | undefined;
  readonly body: ChatBody;
  /** Asked first. */
  readonly model: string;
  /** The longest time that a call may take, in milliseconds. */
  readonly totalMs: number;
}

interface Called {
  readonly response: Response;
  readonly model: string;
}

interface Found {
  readonly answer: Answer;
  readonly ageMs: number;
}

type Guarded = Pick<CallContext, "guard">;

export class ResponseCache {
  readonly #caches: Caches;
  readonly #rule: CacheRule;
  readonly #ttlMs: number;
  readonly #flights = new Flights<Found>();

  constructor(caches: Caches, { rule, ttlMs }: { rule: CacheRule; ttlMs: number }) {
    this.#caches = caches;
    this.#rule = rule;
    this.#ttlMs = ttlMs;
  }

  /**
   * An answer that is kept, or what `call` brings.
   * @throws CacheUnavailable, and what `call` throws
   */
  async answer(question: Question, context: Guarded, call: () => Promise<Called>): Promise<Response> {
    const { request, wish, body, model, totalMs } = question;
    if (!mayBeCached(body, this.#rule, wish)) return (await call()).response;
    const key = await this.#caches.keyOf(context.guard.mode, ...identityOf(request, body, model));
    if (key === undefined) return (await call()).response;
    const turn = await this.#flights.join(key, totalMs, request.init.signal ?? undefined);
    if (turn === "alone") return (await call()).response;
    if ("value" in turn) {
      this.#caches.stats.responses.shared += 1;
      return this.#replay(turn.value, body);
    }
    const { signal } = request.init;
    const lose = (): void => land({ isLost: true });
    const land: typeof turn.land = (landing, kept) => {
      signal?.removeEventListener("abort", lose);
      turn.land(landing, kept);
    };
    // Who is not waited for any more may never read what he asked for.
    signal?.addEventListener("abort", lose, { once: true });
    try {
      const found = await this.#find(key, context);
      if (found) {
        land({ value: found });
        return this.#replay(found, body);
      }
      const { response, model: answering } = await call();
      if (!response.ok || !response.body) {
        lose();
        return response;
      }
      const end = async (bytes: Uint8Array, isWhole: boolean): Promise<void> => {
        const landing = landingOf(bytes, isWhole);
        const isToKeep = "value" in landing && answering === model;
        land(landing, isToKeep ? this.#keep(key, landing.value.answer, context) : undefined);
      };
      if (body.stream === true) return attended(heard(response, end), lose);
      // It is there already: nobody waits until its reader comes to it.
      const bytes = new Uint8Array(await response.arrayBuffer());
      await end(bytes, true);
      const { status, statusText, headers } = response;
      return new Response(bytes, { status, statusText, headers });
    } catch (error) {
      lose();
      throw error;
    }
  }

  async #find(key: string, { guard }: Guarded): Promise<Found | undefined> {
    const hit = (await this.#caches.get("responses", [key])).get(key);
    const answer = hit && answerFrom(hit.value);
    return hit && answer && isUnchanged(guard, answer) ? { answer, ageMs: hit.ageMs } : undefined;
  }

  async #keep(key: string, answer: Answer, { guard }: Guarded): Promise<void> {
    if (!isUnchanged(guard, answer)) return;
    await this.#caches.put("responses", [{ key, value: answerBytes(answer), ttlMs: this.#ttlMs }]);
  }

  #replay({ answer, ageMs }: Found, { stream, stream_options: options }: ChatBody): Response {
    const hasUsage = options?.["include_usage"] === true;
    return replayed(answer, { isStream: stream === true, hasUsage, ageMs });
  }
}

/** So long a reader may rest while others wait for what he reads: he may be waiting for one of them. */
const REST_MS = 1000;

/** The same stream; `onRest` is called when its reader stops reading, or does not begin. */
function attended(response: Response, onRest: () => void): Response {
  const source = sourceOf(response);
  if (!source) return response;
  /** Since when its reader has something to do; undefined while he waits for more. */
  let since: number | undefined = uptime();
  let stop: (() => void) | undefined;
  const look = (): void => {
    const left = since === undefined ? REST_MS : since + REST_MS - uptime();
    if (left <= 0) onRest();
    else stop = later(left, look);
  };
  look();
  return withBody(response, {
    read: async () => {
      since = undefined;
      try {
        const piece = await source.read();
        if (!piece.value) stop?.();
        return piece;
      } catch (error) {
        stop?.();
        throw error;
      } finally {
        since = uptime();
      }
    },
    cancel: (reason) => {
      stop?.();
      return source.cancel(reason);
    },
  });
}

function isUnchanged(guard: CallContext["guard"], answer: Answer): boolean {
  const whole = wholeOf(answer);
  return guard.value(whole) === whole;
}

/** Clients leave a stream when they are told that it is done, before it ends. */
const isDone = (bytes: Uint8Array): boolean => Buffer.from(bytes.subarray(-64)).includes("data: [DONE]");

function landingOf(bytes: Uint8Array, isWhole: boolean): Landing<Found> {
  if (!isWhole && !isDone(bytes)) return { isLost: true };
  const answer = answerIn(bytes);
  return answer ? { value: { answer, ageMs: 0 } } : { isPrivate: true };
}
