// Runs that this process stopped because the database took no writes. They have not failed, and stay ours for a while:
// whoever goes on with one begins its superstep again, and pays for the calls in it again, so the waits grow.
import { uptime } from "../clock.ts";

const FIRST_MS = 1000;
const LONGEST_MS = 30_000;

interface Attempt {
  readonly runId: string;
  readonly attempt: number;
}

export class Resting {
  readonly #until = new Map<string, number>();

  /** @param times how often it was given back without having failed */
  add(attempt: Attempt, times: number): void {
    this.#until.set(keyOf(attempt), uptime() + Math.min(LONGEST_MS, FIRST_MS * 2 ** times));
  }

  has(attempt: Attempt): boolean {
    return this.#until.has(keyOf(attempt));
  }

  isDue(attempt: Attempt): boolean {
    return uptime() >= (this.#until.get(keyOf(attempt)) ?? 0);
  }

  /** Forgets all others: they are not ours any more. */
  keep(held: readonly Attempt[]): void {
    const kept = new Set(held.map(keyOf));
    for (const key of this.#until.keys()) if (!kept.has(key)) this.#until.delete(key);
  }
}

const keyOf = ({ runId, attempt }: Attempt): string => `${runId}:${attempt}`;
