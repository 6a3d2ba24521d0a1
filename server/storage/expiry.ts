// What time takes away: threads whose time is over.
import type { Queryable } from "./database.ts";

/** How long a thread is kept after its last activity, and what happens then. */
export interface ThreadTtl {
  readonly minutes: number;
  readonly strategy: "delete" | "keep_latest";
}

export interface ExpiredThread {
  readonly thread_id: string;
  readonly strategy: "delete" | "keep_latest";
}

const setThreadTtlRow = `/* setThreadTtl */
update holdfast.threads
   set ttl_minutes = $2, ttl_strategy = $3,
       expires_at = case when status <> 'busy' and not is_temporary then now() + $2 * interval '1 min' else expires_at end
 where thread_id = $1`;

const tryJobRow = `/* tryJob */ select pg_try_advisory_xact_lock(hashtextextended($1, 8)) as is_mine`;

// A busy thread is looked at again when its run has ended, which counts its time anew. One that a cron will come to is
// still in use: it would take its schedule along.
const lockExpiredRows = `/* lockExpired */
select thread_id, case when is_temporary then 'delete' else coalesce(ttl_strategy, 'delete') end as strategy
  from holdfast.threads
 where expires_at <= now() and status <> 'busy'
   and (ttl_strategy = 'keep_latest' or not exists (
     select from holdfast.crons c where c.thread_id = threads.thread_id and c.is_enabled and c.next_run_at is not null))
 order by expires_at limit $1 for update skip locked`;

const lockLeftOverRows = `/* lockLeftOver */
select thread_id, 'delete' as strategy from holdfast.threads
 where is_temporary and expires_at is null and status <> 'busy' and created_at < now() - interval '1 hour'
 order by created_at limit $1 for update skip locked`;

const clearExpiryRows = `/* clearExpiry */ update holdfast.threads set expires_at = null where thread_id = any ($1::text[])`;

/**
 * The time a thread is kept, as a client says it: minutes, or minutes and what happens then.
 * @param defaultMinutes for a thread that says nothing itself; 0 keeps it
 */
export function ttlOf(
  ttl: number | { ttl: number; strategy?: ThreadTtl["strategy"] | null | undefined } | null | undefined,
  otherwise: ThreadTtl | null,
): ThreadTtl | null {
  if (typeof ttl === "number") return { minutes: ttl, strategy: "delete" };
  if (ttl) return { minutes: ttl.ttl, strategy: ttl.strategy ?? "delete" };
  return otherwise;
}

/** Sets, changes or (with null) removes the time a thread is kept. */
export async function setThreadTtl(on: Queryable, threadId: string, ttl: ThreadTtl | null): Promise<void> {
  await on.query(setThreadTtlRow, [threadId, ttl?.minutes ?? null, ttl?.strategy ?? null]);
}

/** Whether this transaction may do a job that one instance does at a time. */
export async function tryJob(transaction: Queryable, job: string): Promise<boolean> {
  const [row] = await transaction.query<{ is_mine: boolean }>(tryJobRow, [job]);
  return row?.is_mine ?? false;
}

/** Threads whose time is over, locked, the longest overdue first. */
export const lockExpired = (transaction: Queryable, limit: number): Promise<ExpiredThread[]> =>
  transaction.query(lockExpiredRows, [limit]);

/** Temporary threads that no run will end any more, locked. */
export const lockLeftOver = (transaction: Queryable, limit: number): Promise<ExpiredThread[]> =>
  transaction.query(lockLeftOverRows, [limit]);

/** Forgets when threads expire; their next run counts anew. */
export async function clearExpiry(on: Queryable, threadIds: readonly string[]): Promise<void> {
  await on.query(clearExpiryRows, [threadIds]);
}
