// How many there are of what a page shows a part of. Counting reads all that match, and people turn pages of the same
// search again and again: a count that took long is remembered for a hundred times as long, so that it costs a hundredth
// of the time at most. What is counted quickly is counted each time, and so exact.
import { uptime } from "../clock.ts";

const LONGEST_MS = 60_000;
const MOST = 200;

interface Known {
  readonly total: number;
  readonly until: number;
}

export class Totals {
  readonly #known = new Map<string, Known>();
  readonly #counting = new Map<string, Promise<number>>();
  readonly #cheapMs: number;
  readonly #times: number;

  constructor({ cheapMs, times }: { cheapMs: number; times: number } = { cheapMs: 20, times: 100 }) {
    this.#cheapMs = cheapMs;
    this.#times = times;
  }

  /** @param key names what is counted; who asks while it is being counted gets the same answer */
  of(key: string, count: () => Promise<number>): Promise<number> {
    const known = this.#known.get(key);
    if (known && known.until > uptime()) return Promise.resolve(known.total);
    const counting =
      this.#counting.get(key) ?? this.#count(key, count).finally(() => this.#counting.delete(key));
    this.#counting.set(key, counting);
    return counting;
  }

  async #count(key: string, count: () => Promise<number>): Promise<number> {
    const startedAt = uptime();
    const total = await count();
    const tookMs = uptime() - startedAt;
    this.#known.delete(key);
    if (tookMs <= this.#cheapMs) return total;
    const [oldest] = this.#known.keys();
    if (oldest !== undefined && this.#known.size >= MOST) this.#known.delete(oldest);
    this.#known.set(key, { total, until: uptime() + Math.min(tookMs * this.#times, LONGEST_MS) });
    return total;
  }
}
