// The circuit breaker of one model. Closed, it counts; open, it lets nothing through for a time; half-open, it lets one
// call try, whose first token closes it and whose failure opens it again. A verdict that comes after the state it was
// given in has passed is not counted.
import { CircuitState, CountBreaker } from "cockatiel";
import { now, uptime } from "../../clock.ts";
import type { Policy } from "./policy.ts";

export type BreakerState = "closed" | "open" | "half-open" | "isolated";

/** The right to make one call, and the place to say what became of it; only the first of the last three counts. */
export interface Pass {
  /** Its first token came: enough for a call that tries. */
  begun(): void;
  succeed(): void;
  fail(): void;
  /** Nothing was learned: the caller left, or nothing was sent. */
  drop(): void;
}

const MAX_ISOLATED_MS = 3_600_000;

export class Breaker {
  readonly #counts: CountBreaker;
  readonly #openMs: number;
  readonly #onState: (state: BreakerState) => void;
  #state: BreakerState = "closed";
  #until = 0;
  #isTrying = false;
  /** Of states: a pass belongs to the one it was given in. */
  #nth = 0;

  constructor(policy: Policy, onState: (state: BreakerState) => void) {
    this.#counts = new CountBreaker({
      threshold: policy.breaker_threshold,
      size: policy.breaker_window,
      minimumNumberOfCalls: Math.min(policy.breaker_min_calls, policy.breaker_window),
    });
    this.#openMs = policy.breaker_open_ms;
    this.#onState = onState;
  }

  get state(): BreakerState {
    return this.#state;
  }

  /** Why no call may be made; undefined when one may. */
  get shut(): string | undefined {
    if (this.#state === "closed") return undefined;
    if (this.#state === "half-open") return this.#isTrying ? "breaker half-open, a call tries it" : undefined;
    const left = this.#until - uptime();
    return left > 0 ? `breaker open until ${new Date(now() + left).toISOString()}` : undefined;
  }

  /** @returns undefined when it is shut */
  enter(): Pass | undefined {
    if (this.shut !== undefined) return undefined;
    if (this.#state === "open" || this.#state === "isolated") this.#become("half-open");
    const isTrial = this.#state === "half-open";
    if (isTrial) this.#isTrying = true;
    return this.#pass(isTrial);
  }

  /** Lets nothing through for so long, because another process has learned what this one would learn too. */
  isolate(ms: number): void {
    const until = uptime() + Math.min(ms, MAX_ISOLATED_MS);
    this.#until = Math.max(this.#until, until);
    if (this.#state !== "open") this.#become("isolated");
  }

  #pass(isTrial: boolean): Pass {
    let nth = this.#nth;
    let isTrying = isTrial;
    let isOver = false;
    const once = (verdict: () => void): void => {
      if (isOver || nth !== this.#nth) return;
      isOver = true;
      verdict();
    };
    const begun = (): void => {
      if (!isTrying || isOver || nth !== this.#nth) return;
      isTrying = false;
      this.#close();
      nth = this.#nth;
    };
    return {
      begun,
      succeed: () => {
        begun();
        once(() => this.#counts.success(CircuitState.Closed));
      },
      fail: () => once(() => (isTrying || this.#counts.failure(CircuitState.Closed)) && this.#open()),
      drop: () => once(() => (this.#isTrying &&= !isTrying)),
    };
  }

  #open(): void {
    this.#until = uptime() + this.#openMs;
    this.#become("open");
  }

  #close(): void {
    this.#counts.success(CircuitState.HalfOpen); // forgets what was counted before
    this.#become("closed");
  }

  #become(state: BreakerState): void {
    this.#nth += 1;
    this.#isTrying = false;
    this.#state = state;
    this.#onState(state);
  }
}
