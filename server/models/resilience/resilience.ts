// Calls to models that fail in passing: made again, made of another model, kept within limits, or not made at all while
// a model is down. An answer is handed on only once it has begun, and from then on nothing is made again, so that no
// text ever comes twice.
import { sleep, uptime } from "../../clock.ts";
import { ModelBusy, ModelFailed } from "../../errors.ts";
import type { BreakerState, Pass } from "./breaker.ts";
import { makeCall } from "./call.ts";
import type { Aside, Outcome } from "./call.ts";
import { Gates } from "./gates.ts";
import type { Gate } from "./gates.ts";
import type { Policy } from "./policy.ts";
import { waitForLimits } from "./refusal.ts";

export interface Sent {
  readonly model: string;
  /** Of all HTTP calls of this request, from 1. */
  readonly nth: number;
  /** Aborts when the call is not wanted any more, also while its body is read. */
  readonly signal: AbortSignal;
  /** For what is done during the call and is no business of the model, such as counting it; also while its body is read. */
  readonly aside: Aside;
}

export interface Ask {
  /** The model asked for, then its fallbacks. */
  readonly chain: readonly string[];
  /** Worst case in tokens, for the limit of tokens per minute. */
  readonly tokens: number;
  /** Whether a stream is asked for; true if left out. Of an answer in one piece the headers may come last. */
  readonly isStream?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * One HTTP call. Rejects on network errors; a refusal is a Response with its status. An AppError is passed on as it is:
   * it is never retried and says nothing of the model.
   */
  send(call: Sent): Promise<Response>;
}

export interface Answered {
  /** Begun, or a refusal of the provider. Its body has to be read or cancelled. */
  readonly response: Response;
  readonly model: string;
  /** HTTP calls that were made. */
  readonly calls: number;
}

export type ResilienceEvent =
  /** One HTTP call up to its first token, its refusal or its end. `what` names the outcome. */
  | {
      readonly type: "call";
      readonly model: string;
      readonly kind: Outcome["kind"];
      readonly what: string;
      readonly ms: number;
    }
  | { readonly type: "retry"; readonly model: string; readonly what: string; readonly waitMs: number }
  | { readonly type: "fallback"; readonly model: string; readonly to: string; readonly what: string }
  | { readonly type: "busy"; readonly model: string; readonly what: string }
  | { readonly type: "breaker"; readonly model: string; readonly state: BreakerState };

export interface ResilienceOptions {
  readonly policyOf: (model: string) => Policy;
  /** A breaker of this process opened, for so many milliseconds. */
  readonly onOpen?: (model: string, ms: number) => void;
  /** For metrics and logs. Must not throw. */
  readonly onEvent?: (event: ResilienceEvent) => void;
}

/** Why a model did not answer. */
interface Failure {
  readonly model: string;
  readonly what: string;
  readonly isBusy?: true;
  /** Of the provider, to be handed on if nothing better comes. */
  readonly response?: Response;
  readonly waitMs?: number | undefined;
  /** No other call could do better. */
  readonly isFinal?: boolean;
}

/** One request on its way through the chain. */
interface Way {
  readonly ask: Ask;
  readonly endsAt: number;
  calls: number;
}

type Result = Failure | { readonly answer: Response };

/** A provider may ask for any time; after so long it is tried again. */
const MAX_PAUSE_MS = 300_000;

export class Resilience {
  readonly #options: ResilienceOptions;
  readonly #gates: Gates;

  constructor(options: ResilienceOptions) {
    this.#options = options;
    this.#gates = new Gates(options.policyOf, (model, state, policy) => {
      this.#tell({ type: "breaker", model, state });
      if (state === "open") options.onOpen?.(model, policy.breaker_open_ms);
    });
  }

  /**
   * Asks the first model of the chain that answers.
   * @returns an answer that has begun; or the last refusal, if the last failure was one
   * @throws ModelFailed or ModelBusy naming what happened to each model; the reason of the signal; an AppError of `send`
   */
  async ask(ask: Ask): Promise<Answered> {
    const [first = ""] = ask.chain;
    const way: Way = { ask, endsAt: uptime() + this.#gates.of(first).policy.total_ms, calls: 0 };
    const failures: Failure[] = [];
    for (const [index, model] of ask.chain.entries()) {
      const next = ask.chain[index + 1];
      const result = await this.#askOne(model, way, next !== undefined);
      if ("answer" in result) return { response: result.answer, model, calls: way.calls };
      failures.push(result);
      if (result.isFinal || uptime() >= way.endsAt) break;
      if (next !== undefined) this.#tell({ type: "fallback", model, to: next, what: result.what });
    }
    const last = failures.at(-1);
    if (last?.response) return { response: last.response, model: last.model, calls: way.calls };
    throw failed(failures);
  }

  /** Another process's breaker opened: this one calls the model no more for so long, and then tries one call. */
  isolate(model: string, ms: number): void {
    this.#gates.of(model).breaker.isolate(ms);
  }

  /** Of the models that were asked. A state that has lasted its time stays until the next call. */
  states(): ReadonlyMap<string, BreakerState> {
    return this.#gates.states();
  }

  /** Within the bulkhead of the model: one place, whatever is retried, until the answer ends. */
  async #askOne(model: string, way: Way, hasNext: boolean): Promise<Result> {
    const gate = this.#gates.of(model);
    if (gate.breaker.shut !== undefined) return { model, what: gate.breaker.shut };
    const leave = await gate.bulkhead.enter(patience(gate.policy, way, hasNext), way.ask.signal);
    if (!leave) return this.#busy(model, `${gate.policy.concurrent} calls under way (concurrent)`);
    try {
      const result = await this.#askAgain(model, gate, { way, hasNext, leave });
      if (!("answer" in result)) leave();
      return result;
    } catch (error) {
      leave();
      throw error;
    }
  }

  async #askAgain(
    model: string,
    gate: Gate,
    { way, hasNext, leave }: { way: Way; hasNext: boolean; leave: () => void },
  ): Promise<Result> {
    const { policy, bucket, breaker } = gate;
    let last: Failure | undefined;
    for (let retry = 0; ; retry += 1) {
      if (!(await bucket.take(way.ask.tokens, patience(policy, way, hasNext), way.ask.signal)))
        return last ?? this.#busy(model, "its limit per minute is reached");
      const pass = breaker.enter();
      if (!pass) return last ?? { model, what: breaker.shut ?? "breaker open" };
      const result = await this.#call(model, gate, { way, pass, leave });
      if ("answer" in result || result.isFinal || retry >= policy.retries) return result;
      last = result;
      const waitMs = (result.waitMs ?? 0) + backoff(policy, retry);
      if (uptime() + waitMs >= way.endsAt || breaker.shut !== undefined) return result;
      if (hasNext && (result.waitMs ?? 0) > policy.retry_max_ms) return result;
      this.#tell({ type: "retry", model, what: result.what, waitMs });
      await sleep(waitMs, way.ask.signal);
      way.ask.signal?.throwIfAborted();
    }
  }

  async #call(
    model: string,
    { policy, bucket }: Gate,
    { way, pass, leave }: { way: Way; pass: Pass; leave: () => void },
  ): Promise<Result> {
    const { ask, endsAt } = way;
    way.calls += 1;
    const nth = way.calls;
    const sentAt = uptime();
    const outcome = await makeCall({
      send: (signal, aside) => ask.send({ model, nth, signal, aside }),
      policy,
      isStream: ask.isStream ?? true,
      endsAt,
      signal: ask.signal,
      onEnd: (end) => {
        leave();
        if (end === "left") pass.drop();
        else if (end === "whole") pass.succeed();
        else pass.fail();
      },
    }).catch((error: unknown) => {
      pass.drop();
      throw error;
    });
    const what = nameOf(outcome);
    this.#tell({ type: "call", model, kind: outcome.kind, what, ms: uptime() - sentAt });
    if (outcome.kind === "broken") {
      pass.fail();
      return { model, what };
    }
    if (outcome.kind === "begun") {
      pass.begun();
      bucket.pause(Math.min(waitForLimits(outcome.response.headers, ask.tokens), MAX_PAUSE_MS));
      return { answer: outcome.response };
    }
    const { response, isFault, isPassing, waitMs } = outcome.refusal;
    if (isFault) pass.fail();
    else pass.succeed();
    if (!isPassing) return { model, what, response, isFinal: true };
    const pauseMs = Math.max(waitMs ?? 0, waitForLimits(response.headers, ask.tokens));
    bucket.pause(Math.min(pauseMs, MAX_PAUSE_MS));
    return { model, what, response, waitMs };
  }

  #busy(model: string, what: string): Failure {
    this.#tell({ type: "busy", model, what });
    return { model, what, isBusy: true };
  }

  #tell(event: ResilienceEvent): void {
    this.#options.onEvent?.(event);
  }
}

/** How long a model may be waited for: less while another one could answer. */
function patience({ queue_ms: queue, retry_max_ms: short }: Policy, way: Way, hasNext: boolean): number {
  return Math.min(hasNext ? Math.min(queue, short) : queue, way.endsAt - uptime());
}

/** Full jitter: those who failed together do not come again together. */
function backoff({ retry_base_ms: base, retry_max_ms: most }: Policy, retry: number): number {
  return Math.random() * Math.min(base * 2 ** retry, most);
}

function nameOf(outcome: Outcome): string {
  if (outcome.kind === "begun") return "begun";
  return outcome.kind === "refused" ? `HTTP ${outcome.refusal.status}` : outcome.what;
}

function failed(failures: readonly Failure[]): ModelBusy | ModelFailed {
  const what = failures.map((one) => `${one.model}: ${one.what}`).join("; ");
  if (failures.length > 0 && failures.every(({ isBusy }) => isBusy)) return new ModelBusy(what);
  return new ModelFailed(`No model answered (${what}). Try again later.`, { retryable: true });
}
