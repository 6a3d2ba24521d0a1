// Time. The only place that sleeps, so that every wait is bounded and can be aborted.
import { setTimeout as delay } from "node:timers/promises";

/** Milliseconds since the epoch. */
export const now = (): number => Date.now();

/** Waits `ms`; resolves early, without an error, when `signal` aborts. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return;
  try {
    await delay(ms, undefined, signal ? { signal } : {});
  } catch (error) {
    if (!signal?.aborted) throw error;
  }
}

/** A signal that aborts after `ms` or with any of `signals`, whichever comes first. */
export function deadline(ms: number, ...signals: (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any([AbortSignal.timeout(ms), ...signals.filter((signal) => signal !== undefined)]);
}
