// Requests and tokens of one model per minute, counted in this process. A bucket holds one minute's worth and fills
// evenly: within any time t no more leaves it than one minute's worth and what t fills in. It can be paused.
import { sleep, uptime } from "../../clock.ts";

const MINUTE = 60_000;

/** Below zero it owes: who took that waits until it is filled in, so that waiting is in order and exact. */
class Level {
  readonly size: number;
  #level: number;
  #at = uptime();

  constructor(size: number) {
    this.size = size;
    this.#level = size;
  }

  /** Milliseconds until so much is there. */
  waitFor(amount: number): number {
    const at = uptime();
    const filled = (Math.max(at - this.#at, 0) * this.size) / MINUTE;
    this.#level = Math.min(this.#level + filled, this.size);
    this.#at = at;
    const missing = Math.min(amount, this.size) - this.#level;
    return missing <= 0 ? 0 : Math.ceil((missing * MINUTE) / this.size);
  }

  /** More than a whole bucket is never waited for, so it is never taken. */
  add(amount: number): void {
    this.#level += Math.sign(amount) * Math.min(Math.abs(amount), this.size);
  }
}

export class Bucket {
  readonly #requests: Level | undefined;
  readonly #tokens: Level | undefined;
  #pausedUntil = 0;

  constructor(perMinute: { requests?: number | undefined; tokens?: number | undefined }) {
    this.#requests = perMinute.requests === undefined ? undefined : new Level(perMinute.requests);
    this.#tokens = perMinute.tokens === undefined ? undefined : new Level(perMinute.tokens);
  }

  /** Full, and not paused: a fresh one would be the same. */
  get isIdle(): boolean {
    return this.#waitFor(this.#requests?.size ?? 0, this.#tokens?.size ?? 0) <= 0;
  }

  /** Nothing leaves for so long, also for those who wait already. */
  pause(ms: number): void {
    this.#pausedUntil = Math.max(this.#pausedUntil, uptime() + ms);
  }

  /**
   * Takes one request of so many tokens, and waits until they are there.
   * @returns false, having taken nothing, when that would take longer than `withinMs`
   * @throws the reason of the signal; what was taken is given back
   */
  async take(tokens: number, withinMs: number, signal?: AbortSignal): Promise<boolean> {
    signal?.throwIfAborted();
    // Looked at once: a tick of the clock between two looks would be longer than no time at all.
    const at = uptime();
    const until = at + withinMs;
    let readyAt = at + this.#waitFor(1, tokens);
    if (readyAt > until) return false;
    this.#add(-1, -tokens);
    while (uptime() < readyAt) {
      await sleep(readyAt - uptime(), signal);
      // A pause may have begun meanwhile.
      readyAt = Math.max(readyAt, this.#pausedUntil);
      if (readyAt <= until && !signal?.aborted) continue;
      this.#add(1, tokens);
      signal?.throwIfAborted();
      return false;
    }
    return true;
  }

  #waitFor(requests: number, tokens: number): number {
    const filled = Math.max(this.#requests?.waitFor(requests) ?? 0, this.#tokens?.waitFor(tokens) ?? 0);
    return Math.max(filled, this.#pausedUntil - uptime());
  }

  #add(requests: number, tokens: number): void {
    this.#requests?.add(requests);
    this.#tokens?.add(tokens);
  }
}
