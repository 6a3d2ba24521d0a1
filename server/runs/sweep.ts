// Takes away what nobody needs any more: threads and items of the store whose time is over, rows of events that can be
// one, old call-backs, minutes of limits, what is cached.
// Each instance looks from time to time; a lock lets one of them do a job, in small transactions that may all be lost.
import { sleep } from "../clock.ts";
import { AppError, messageOf } from "../errors.ts";
import { faultPoint } from "../faults.ts";
import { deleteExpiredCaches } from "../storage/caches/entries.ts";
import { deleteThreads, keepLatest, lockPrunable } from "../storage/checkpoints/prune.ts";
import { compactRun, lockUncompacted, settleCompacted } from "../storage/compact.ts";
import type { Database, Queryable } from "../storage/database.ts";
import { clearExpiry, lockExpired, lockLeftOver, tryJob } from "../storage/expiry.ts";
import { expireCalls } from "../storage/model-calls.ts";
import { deleteOldRateLimits } from "../storage/rate-limits.ts";
import { deleteExpiredItems } from "../storage/store/store.ts";
import { deleteIdleWatches } from "../storage/watched.ts";
import { deleteOldWebhooks } from "../storage/webhooks.ts";
import type { Log } from "../telemetry/log.ts";

export interface SweepOptions {
  readonly database: Database;
  readonly log: Log;
  readonly everyMs?: number;
  /** How long a run has to be over before its events are put together: its readers are gone by then. */
  readonly compactAfterMs?: number;
}

/** Does one small piece of work and says how much it found; 0 ends the job for now. */
type Job = (transaction: Queryable, options: SweepOptions) => Promise<number>;

const EVERY_MS = 5000;
const COMPACT_AFTER_MS = 30_000;
// Large enough that a long answer is a handful of rows, small enough that a reader in the middle wastes little.
const SEGMENT_BYTES = 64 * 1024;
const MOST_THREADS = 20;
const MOST_WEBHOOKS = 500;
const MOST_ITEMS = 500;
const MOST_WATCHES = 500;
const MOST_LIMITS = 500;
const MOST_CACHED = 500;
const DELIVERED_DAYS = 7;
const PARKED_DAYS = 90;
// So that one job does not keep the others waiting for ever.
const MOST_PIECES = 500;

const jobs: Readonly<Record<string, Job>> = {
  "threads.expired": expireThreads,
  "runs.compacted": compactNext,
  "store.expired": (transaction) => deleteExpiredItems(transaction, MOST_ITEMS),
  "threads.unwatched": (transaction) => deleteIdleWatches(transaction, MOST_WATCHES),
  "limits.expired": (transaction) => deleteOldRateLimits(transaction, MOST_LIMITS),
  "caches.expired": (transaction) => deleteExpiredCaches(transaction, MOST_CACHED),
  // One in a transaction: each locks several counters in their order, and two of them would not.
  "calls.expired": (transaction) => expireCalls(transaction, 1),
  "webhooks.removed": (transaction) =>
    deleteOldWebhooks(transaction, {
      deliveredDays: DELIVERED_DAYS,
      parkedDays: PARKED_DAYS,
      limit: MOST_WEBHOOKS,
    }),
};

export function startSweep(options: SweepOptions): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const loop = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await sweep(options, stopping.signal);
      await sleep(options.everyMs ?? EVERY_MS, stopping.signal);
    }
  };
  const looping = loop();
  return {
    stop: async () => {
      stopping.abort();
      await looping;
    },
  };
}

/** Does every job until it finds nothing more, or another instance is at it. */
export async function sweep(options: SweepOptions, signal?: AbortSignal): Promise<void> {
  for (const [name, job] of Object.entries(jobs)) {
    try {
      const count = await repeat(options, { name, job, signal });
      if (count > 0) options.log.info(name, { count });
    } catch (error) {
      options.log.warn("sweep.failed", { job: name, reason: messageOf(error) });
    }
  }
}

async function repeat(
  options: SweepOptions,
  { name, job, signal }: { name: string; job: Job; signal: AbortSignal | undefined },
): Promise<number> {
  let count = 0;
  for (let piece = 0; piece < MOST_PIECES; piece += 1) {
    if (signal?.aborted) break;
    const found = await options.database.transaction(async (transaction) => {
      const isMine = await tryJob(transaction, name);
      return isMine ? await job(transaction, options) : 0;
    });
    if (found === 0) break;
    count += found;
  }
  return count;
}

async function expireThreads(transaction: Queryable): Promise<number> {
  const due = [
    ...(await lockExpired(transaction, MOST_THREADS)),
    ...(await lockLeftOver(transaction, MOST_THREADS)),
  ];
  // Their status says that nothing runs; the runs themselves have the last word.
  const { live } = await lockPrunable(
    transaction,
    due.map((thread) => thread.thread_id),
  );
  const over = due.filter((thread) => !live.includes(thread.thread_id));
  const toDelete = over.filter(({ strategy }) => strategy === "delete").map((thread) => thread.thread_id);
  const toPrune = over.filter(({ strategy }) => strategy !== "delete").map((thread) => thread.thread_id);
  await deleteThreads(transaction, toDelete, { keepsPendingWebhooks: true });
  for (const threadId of toPrune) await keepLatest(transaction, threadId);
  await clearExpiry(transaction, [...toPrune, ...live]);
  faultPoint("sweep.expired");
  return over.length;
}

async function compactNext(transaction: Queryable, options: SweepOptions): Promise<number> {
  const run = await lockUncompacted(transaction, options.compactAfterMs ?? COMPACT_AFTER_MS);
  if (!run) return 0;
  try {
    await compactRun(transaction, run, SEGMENT_BYTES);
  } catch (error) {
    // A log that cannot be read stays as it is, and must not keep all others from their turn.
    if (!(error instanceof AppError) || error.retryable) throw error;
    options.log.error("run.unreadable", { run_id: run.run_id, code: error.code, reason: error.message });
    await settleCompacted(transaction, run.run_id, 1);
  }
  faultPoint("sweep.compacted");
  return 1;
}
