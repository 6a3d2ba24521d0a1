// What this process knows of each tool by its name: a breaker that keeps calls from one that fails, and figures of how
// long calls take and how many fail. Tools of the same name are one, so that a graph that is made anew for each run
// forgets nothing.
import { Breaker } from "../models/resilience/breaker.ts";
import type { BreakerState } from "../models/resilience/breaker.ts";
import { policyOf } from "../models/resilience/policy.ts";
import type { Ending } from "./failure.ts";

export interface ToolStats {
  /** Calls that were executed, those that were refused left out. */
  readonly calls: number;
  /** How many of them failed or took too long. */
  readonly errors: number;
  /** The median of the last 100 in milliseconds; null before the first. */
  readonly p50_ms: number | null;
  readonly breaker: BreakerState;
}

const KEPT_TIMES = 100;
const POLICY = policyOf(0, { breaker_window: 10, breaker_min_calls: 5, breaker_open_ms: 30_000 });

class Tally {
  readonly breaker = new Breaker(POLICY, () => {});
  #calls = 0;
  #errors = 0;
  readonly #times: number[] = [];

  count(ms: number, ending: Ending): void {
    this.#times[this.#calls % KEPT_TIMES] = ms;
    this.#calls += 1;
    if (ending !== "done") this.#errors += 1;
  }

  get stats(): ToolStats {
    const times = this.#times.toSorted((a, b) => a - b);
    return {
      calls: this.#calls,
      errors: this.#errors,
      p50_ms: times[times.length >> 1] ?? null,
      breaker: this.breaker.state,
    };
  }
}

const tallies = new Map<string, Tally>();

export function tallyOf(name: string): Tally {
  const tally = tallies.get(name) ?? new Tally();
  tallies.set(name, tally);
  return tally;
}

/** How the tools of this process do, by name. */
export const toolStats = (): Record<string, ToolStats> =>
  Object.fromEntries([...tallies].map(([name, { stats }]) => [name, stats]));
