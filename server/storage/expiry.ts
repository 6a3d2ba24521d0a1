// What time takes away: threads whose time is over, and the many small rows of a run's events once it has ended.
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

// A busy thread is looked at again when its run has ended, which counts its time anew.
const lockExpiredRows = `/* lockExpired */
select thread_id, case when is_temporary then 'delete' else coalesce(ttl_strategy, 'delete') end as strategy
  from holdfast.threads
 where expires_at <= now() and status <> 'busy' order by expires_at limit $1 for update skip locked`;

const lockLeftOverRows = `/* lockLeftOver */
select thread_id, 'delete' as strategy from holdfast.threads
 where is_temporary and expires_at is null and status <> 'busy' and created_at < now() - interval '1 hour'
 order by created_at limit $1 for update skip locked`;

const clearExpiryRows = `/* clearExpiry */ update holdfast.threads set expires_at = null where thread_id = any ($1::text[])`;

const lockUncompactedRow = `/* lockUncompacted */
select run_id from holdfast.runs
 where segments > 16 and ended_at < now() - $1 * interval '1 ms' and state in ('success', 'error', 'timeout', 'interrupted')
 order by ended_at limit 1 for no key update skip locked`;

// Rows that follow each other in number and attempt become one, up to a size; a jump in the numbers stays a border.
// A log that is larger than that keeps more rows than would be looked for again: it counts as done.
const compactRunRows = `/* compactRun */
with old as (delete from holdfast.run_events where run_id = $1 returning seq, last, attempt, body),
bordered as (
  select seq, last, attempt, body, octet_length(body) + 1 as size,
         seq = lag(last) over w + 1 and attempt = lag(attempt) over w as goes_on
    from old window w as (order by seq)),
piece as (
  select seq, last, attempt, body, size, count(*) filter (where goes_on is not true) over (order by seq) as piece
    from bordered),
part as (
  select seq, last, attempt, body, piece,
         (sum(size) over (partition by piece order by seq) - size) / $2 as part
    from piece),
merged as (
  insert into holdfast.run_events (run_id, seq, last, attempt, body)
  select $1, min(seq), max(last), attempt, string_agg(body, chr(10) order by seq)
    from part group by piece, floor(part), attempt
  returning 1)
update holdfast.runs set segments = least((select count(*) from merged), 16) where run_id = $1`;

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

/** A run that ended `afterMs` ago and whose events stand in many rows, locked. */
export async function lockUncompacted(transaction: Queryable, afterMs: number): Promise<string | undefined> {
  const [row] = await transaction.query<{ run_id: string }>(lockUncompactedRow, [afterMs]);
  return row?.run_id;
}

/** Puts the events of an ended run into few rows of about `maxBytes`; numbers and lines stay as they are. Lock the run first. */
export async function compactRun(transaction: Queryable, runId: string, maxBytes: number): Promise<void> {
  await transaction.query(compactRunRows, [runId, maxBytes]);
}
