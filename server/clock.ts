// Time. The only place that sleeps, so that every wait is bounded and can be aborted.
import { setTimeout as delay } from "node:timers/promises";

/** Milliseconds since the epoch. */
export const now = (): number => Date.now();

/**
 * Whole milliseconds since this process began: for how long something takes, lasts or is waited for. The clock on the
 * wall may be set while it does.
 */
export const uptime = (): number => Math.floor(performance.now());

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

/** Lets everything that is already due happen first. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Lets promises that are kept already go on first, and all that follows from them: no turn of the event loop is waited. */
export const promisesFirst = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve));

/** Calls `work` once in `ms`, unless the returned function is called before. */
export function later(ms: number, work: () => void): () => void {
  const timer = setTimeout(work, ms);
  return () => clearTimeout(timer);
}

/** Calls `work` every `ms` until the returned function is called. Keeps no process alive. */
export function every(ms: number, work: () => void): () => void {
  const timer = setInterval(work, ms);
  timer.unref();
  return () => clearInterval(timer);
}

/** What `work` comes to, or the signal's reason as soon as it aborts; what comes later is left alone. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Something did not come in time. */
export class Late extends Error {
  override readonly name = "Late";
}

/** What `work` comes to within `ms`; what comes later is left alone. @throws Late */
export async function within<T>(work: Promise<T>, ms: number): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const stop = later(ms, () => reject(new Late(`It did not answer within ${ms} ms.`)));
  try {
    return await Promise.race([work, promise]);
  } finally {
    stop();
  }
}
