// The clock of one call: the longest wait of each phase, and the end of the whole request. One timer at a time, which
// looks again when something could have become too long: hearing a token costs no timer.
import { later, uptime } from "../../clock.ts";

export type Phase = "connect_ms" | "first_token_ms" | "between_tokens_ms";

export class Watch {
  readonly #endsAt: number;
  readonly #onLate: (what: string) => void;
  #phase: Phase = "connect_ms";
  #limit = Infinity;
  /** Since when something is waited for; Infinity while nobody does. */
  #since = Infinity;
  #stop: () => void = () => undefined;

  /** @param onLate told once, what the model did, with the name of the limit */
  constructor(endsAt: number, onLate: (what: string) => void) {
    this.#endsAt = endsAt;
    this.#onLate = onLate;
  }

  /** From here on no wait may be longer than `limit`; one begins. */
  enter(phase: Phase, limit: number): void {
    this.#phase = phase;
    this.#limit = limit;
    this.#since = uptime();
    this.#look();
  }

  /** Something is waited for: a reader that takes its time is no silence of the model. */
  wait(): void {
    this.#since = uptime();
  }

  heard(): void {
    this.#since = Infinity;
  }

  /** Does something of our own meanwhile: whatever that takes is no silence of the model. */
  async aside<T>(work: () => Promise<T>): Promise<T> {
    this.heard();
    try {
      return await work();
    } finally {
      this.wait();
    }
  }

  stop(): void {
    this.#stop();
  }

  #look(): void {
    this.#stop();
    const at = uptime();
    if (at >= this.#endsAt) return this.#onLate("did not end in time (total_ms)");
    const left = Math.min(this.#since, at) + this.#limit - at;
    if (this.#since !== Infinity && left <= 0)
      return this.#onLate(`sent nothing for ${this.#limit} ms (${this.#phase})`);
    const next = this.#since === Infinity ? this.#limit : left;
    this.#stop = later(Math.max(Math.min(next, this.#endsAt - at), 1), () => this.#look());
  }
}
