// Equal requests at the same time: one of them is made, and the others wait for what it brings. One that fails makes the
// next in line try, so that a provider in trouble is not asked by all at once; nobody waits beyond his time.
import { deadline, uptime } from "../../clock.ts";

/** How a flight ends: with something for all; with something that only its own asker can use; or not at all. */
export type Landing<Value> =
  | { readonly value: Value }
  | { readonly isPrivate: true }
  | { readonly isLost: true };

/** What somebody gets who asks. */
export type Turn<Value> =
  /** He leads, and has to land it. */
  | { readonly land: (landing: Landing<Value>, kept?: Promise<void>) => void }
  | { readonly value: Value }
  /** Nothing came that he could use, or not in time. */
  | "alone";

/** Who has followed so many that were lost asks for himself: a provider that fails slowly is not waited for in a row. */
const MOST_LOST = 3;

interface Flight<Value> {
  readonly landing: Promise<Landing<Value>>;
  readonly endsAt: number;
}

export class Flights<Value> {
  readonly #flights = new Map<string, Flight<Value>>();

  /**
   * @param ms the longest wait, and the longest time that others wait for one who leads
   * @throws the reason of the signal
   */
  async join(key: string, ms: number, signal?: AbortSignal): Promise<Turn<Value>> {
    const endsAt = uptime() + ms;
    for (let lost = 0; lost < MOST_LOST; lost += 1) {
      const flight = this.#flights.get(key);
      if (!flight || flight.endsAt <= uptime()) return this.#lead(key, endsAt);
      const landing = await landed(flight.landing, Math.min(endsAt, flight.endsAt) - uptime(), signal);
      signal?.throwIfAborted();
      if (landing && "value" in landing) return landing;
      if (landing && "isPrivate" in landing) return "alone";
      if (uptime() >= endsAt) return "alone";
    }
    return "alone";
  }

  #lead(key: string, endsAt: number): Turn<Value> {
    const { promise, resolve } = Promise.withResolvers<Landing<Value>>();
    const flight = { landing: promise, endsAt };
    this.#flights.set(key, flight);
    const forget = (): void => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    return {
      // Who comes while a value is being kept would not find it yet.
      land: (landing, kept) => {
        if (kept) void kept.finally(forget);
        else forget();
        resolve(landing);
      },
    };
  }
}

/** Undefined when it is too late, or nobody waits any more. */
async function landed<Value>(
  landing: Promise<Landing<Value>>,
  ms: number,
  signal: AbortSignal | undefined,
): Promise<Landing<Value> | undefined> {
  const over = deadline(Math.max(1, ms), signal);
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const onOver = (): void => resolve(undefined);
  over.addEventListener("abort", onOver, { once: true });
  if (over.aborted) onOver();
  try {
    return await Promise.race([landing, promise]);
  } finally {
    over.removeEventListener("abort", onOver);
  }
}
