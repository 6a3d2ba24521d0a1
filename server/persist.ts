// A short absence of the database ends no run and breaks no stream: what must be written or read is tried again.
// Only for statements that may run twice. What fails for good is told apart by the same mark.
import { sleep, uptime } from "./clock.ts";
import { AppError } from "./errors.ts";

/** How long an absence of the database is borne, in milliseconds. */
export const PATIENCE_MS = 15_000;
const EVERY_MS = 250;

/** Repeats `work` while it fails in a way that can pass, then throws its last error. */
export async function persistently<T>(
  work: () => Promise<T>,
  options: { forMs?: number; signal?: AbortSignal } = {},
): Promise<T> {
  const giveUpAt = uptime() + (options.forMs ?? PATIENCE_MS);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const mayPass = error instanceof AppError && error.retryable;
      if (!mayPass || uptime() > giveUpAt || options.signal?.aborted) throw error;
      await sleep(EVERY_MS, options.signal);
    }
  }
}

/** What `read` gives; undefined for what is gone, or cannot be read here. Throws what can pass, and faults of our own. */
export async function unlessLost<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof AppError && !error.retryable) return undefined;
    throw error;
  }
}
