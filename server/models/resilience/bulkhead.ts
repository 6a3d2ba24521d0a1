// So many calls of one model at a time, and so many that wait, in the order they came. A place that is left goes to the
// first who waits; one who gives up, or whose caller has gone, stands in nobody's way.
import { later } from "../../clock.ts";

interface Waiter {
  readonly take: () => void;
}

export class Bulkhead {
  readonly #concurrent: number;
  readonly #queue: number;
  #active = 0;
  readonly #waiting = new Set<Waiter>();

  constructor(options: { concurrent: number; queue: number }) {
    this.#concurrent = options.concurrent;
    this.#queue = options.queue;
  }

  get isIdle(): boolean {
    return this.#active === 0;
  }

  /**
   * @returns what leaves again, any number of times; undefined when there was no place within the time
   * @throws the reason of the signal
   */
  async enter(withinMs: number, signal?: AbortSignal): Promise<(() => void) | undefined> {
    signal?.throwIfAborted();
    if (this.#active < this.#concurrent) {
      this.#active += 1;
      return this.#place();
    }
    if (this.#waiting.size >= this.#queue || withinMs <= 0) return undefined;
    return this.#wait(withinMs, signal);
  }

  async #wait(withinMs: number, signal?: AbortSignal): Promise<(() => void) | undefined> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter = { take: () => resolve(true) };
    const giveUp = (): void => {
      if (this.#waiting.delete(waiter)) resolve(false);
    };
    this.#waiting.add(waiter);
    signal?.addEventListener("abort", giveUp, { once: true });
    const stop = later(withinMs, giveUp);
    const isIn = await promise;
    stop();
    signal?.removeEventListener("abort", giveUp);
    const leave = isIn ? this.#place() : undefined;
    // The place may have come in the same turn as the abort.
    if (signal?.aborted) leave?.();
    signal?.throwIfAborted();
    return leave;
  }

  #place(): () => void {
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const [next] = this.#waiting;
      if (!next) this.#active -= 1;
      else {
        this.#waiting.delete(next);
        next.take();
      }
    };
  }
}
