// What guards each model: its policy, its places, its limits per minute and its breaker, made when it is first asked for.
// Names come from requests too, so only so many are kept; a model in use, paused or broken is not forgotten.
import { Breaker } from "./breaker.ts";
import type { BreakerState } from "./breaker.ts";
import { Bucket } from "./bucket.ts";
import { Bulkhead } from "./bulkhead.ts";
import type { Policy } from "./policy.ts";

export interface Gate {
  readonly policy: Policy;
  readonly bulkhead: Bulkhead;
  readonly bucket: Bucket;
  readonly breaker: Breaker;
}

const MAX_MODELS = 1000;

export class Gates {
  readonly #policyOf: (model: string) => Policy;
  readonly #onState: (model: string, state: BreakerState, policy: Policy) => void;
  readonly #gates = new Map<string, Gate>();

  constructor(
    policyOf: (model: string) => Policy,
    onState: (model: string, state: BreakerState, policy: Policy) => void,
  ) {
    this.#policyOf = policyOf;
    this.#onState = onState;
  }

  of(model: string): Gate {
    const known = this.#gates.get(model);
    if (known) return known;
    if (this.#gates.size >= MAX_MODELS) this.#forgetOne();
    const policy = this.#policyOf(model);
    const gate = {
      policy,
      bulkhead: new Bulkhead(policy),
      bucket: new Bucket({ requests: policy.requests_per_minute, tokens: policy.tokens_per_minute }),
      breaker: new Breaker(policy, (state) => this.#onState(model, state, policy)),
    };
    this.#gates.set(model, gate);
    return gate;
  }

  states(): ReadonlyMap<string, BreakerState> {
    return new Map([...this.#gates].map(([model, { breaker }]) => [model, breaker.state]));
  }

  #forgetOne(): void {
    for (const [model, { bulkhead, bucket, breaker }] of this.#gates) {
      if (!bulkhead.isIdle || !bucket.isIdle || breaker.shut !== undefined) continue;
      this.#gates.delete(model);
      return;
    }
  }
}
