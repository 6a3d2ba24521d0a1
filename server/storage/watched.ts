// Threads that somebody follows by protocol v2, and their runs in the order in which they began.
import type { Queryable } from "./database.ts";
import { openSegments } from "./events.ts";

/** What the numbers of a run's events follow from. */
export interface WatchedRun {
  readonly run_id: string;
  readonly ordinal: number;
  readonly told_from: number;
}

/** Where a thread is that is there: the answer to the question at place `n`, from 1. */
interface NextRow {
  readonly n: number;
  /** Tells the thread from another one that is made under its id later. */
  readonly life: string;
  /** How many of its runs have begun. */
  readonly begun: number;
}

/** The same with its next run, if that has begun. */
export type NextWatched = NextRow & (ToldRun | { readonly run_id: null });

export interface ToldRun extends WatchedRun {
  /** When it was rolled back: nothing but that is left to tell. */
  readonly undone_at: Date | null;
}

const watchRow = `/* watchThread */
insert into holdfast.watched_threads as w (thread_id) values ($1)
on conflict (thread_id) do update set created_at = now() where w.created_at < now() - interval '10 min'`;

// Who begins to follow may have read a state that the newest run is still to change, or has left half done: its end is
// told, although nothing else of it was. No index finds it, but a thread is opened seldom.
const watchNewestRow = `/* watchNewest */
update holdfast.runs r set is_watched = true
  from holdfast.threads t
 where t.thread_id = $1 and r.thread_id = $1 and not r.is_watched and (r.state in ('ready', 'running') or r.ordinal = t.begun)`;

const findNewestRow = `/* findNewestWatched */
select run_id, ordinal, told_from from holdfast.runs
 where thread_id = $1 and is_watched and ordinal is not null and (attempt > 0 or ended_at is null) order by ordinal desc limit 1`;

// Of those that were rolled back, or never began, only the one where somebody stopped, and the newest, have something to say.
const listNextRows = `/* listNextWatched */
select q.n::int as n, t.created_at::text as life, t.begun, r.run_id, r.ordinal, r.told_from, r.undone_at
  from unnest($1::text[], $2::int[]) with ordinality as q (thread_id, ordinal, n)
  join holdfast.threads t using (thread_id)
  left join lateral (
    (select run_id, ordinal, told_from, null::timestamptz as undone_at from holdfast.runs
      where thread_id = q.thread_id and is_watched and ordinal >= q.ordinal
        and (attempt > 0 or ended_at is null or ordinal in (q.ordinal, t.begun)) order by ordinal limit 1)
    union all
    select run_id, ordinal, 0, created_at from holdfast.undone_runs u
     where u.thread_id = q.thread_id and u.ordinal in (q.ordinal, t.begun) and u.ordinal >= q.ordinal
     order by ordinal limit 1) r on true`;

const findUndoneRow = `/* findUndone */
select run_id, ordinal, 0 as told_from, created_at as undone_at from holdfast.undone_runs where thread_id = $1 and ordinal = $2`;

// The newest checkpoint is the one with the greatest id: ids begin with the time.
const findClockRow = `/* findClock */
select (select c.checkpoint ->> 'ts' from public.checkpoints c
         where c.thread_id = $1 and c.checkpoint_ns = '' order by c.checkpoint_id desc limit 1) as checkpoint_ts,
       e.run_id, e.seq, e.last, e.body
  from (select) as one left join lateral (
    select run_id, seq, last, body from holdfast.run_events
     where run_id = (select r.run_id from holdfast.runs r
       where r.thread_id = $1 and r.is_watched and r.ordinal <= $2
         and exists (select from holdfast.run_events x where x.run_id = r.run_id)
       order by r.ordinal desc limit 1)
     order by seq desc limit 1) e on true`;

const deleteIdleRows = `/* deleteIdleWatches */
with idle as (
  select w.thread_id from holdfast.watched_threads w
   where w.created_at < now() - interval '1 day'
     and not exists (select from holdfast.threads t where t.thread_id = w.thread_id)
   limit $1 for update skip locked)
delete from holdfast.watched_threads w using idle where w.thread_id = idle.thread_id returning 1`;

/**
 * From now on, for a day at least, the thread's runs are told in the form of protocol v2 too; of the one that is live, or
 * was last, the end. The thread need not exist yet.
 */
export async function watchThread(on: Queryable, threadId: string): Promise<void> {
  await on.query(watchRow, [threadId]);
  await on.query(watchNewestRow, [threadId]);
}

/** The run of a thread that began last; one that was cancelled before it began did not. */
export async function findNewestWatched(on: Queryable, threadId: string): Promise<WatchedRun | undefined> {
  const [row] = await on.query<WatchedRun>(findNewestRow, [threadId]);
  return row;
}

/** The run that was this one of its thread, if it was rolled back. */
export async function findUndone(
  on: Queryable,
  threadId: string,
  ordinal: number,
): Promise<ToldRun | undefined> {
  const [row] = await on.query<ToldRun>(findUndoneRow, [threadId, ordinal]);
  return row;
}

/** For each question whose thread is there, its first run with this ordinal or a later one. */
export const listNextWatched = (
  on: Queryable,
  questions: readonly { threadId: string; ordinal: number }[],
): Promise<NextWatched[]> =>
  on.query(listNextRows, [
    questions.map(({ threadId }) => threadId),
    questions.map(({ ordinal }) => ordinal),
  ]);

/** The time of a thread's newest checkpoint, and the end of its log up to the run with this ordinal. */
export async function findClock(
  on: Queryable,
  threadId: string,
  ordinal: number,
): Promise<{ checkpointTs: string | null; body: string | null }> {
  const [row] = await on.query<{
    checkpoint_ts: string | null;
    run_id: string | null;
    seq: number;
    last: number;
    body: string;
  }>(findClockRow, [threadId, ordinal]);
  const checkpointTs = row?.checkpoint_ts ?? null;
  if (!row || row.run_id === null) return { checkpointTs, body: null };
  const { run_id: runId, seq, last, body } = row;
  const [segment] = await openSegments(on, runId, [{ n: 1, state: null, seq, last, body }]);
  return { checkpointTs, body: segment?.body ?? null };
}

/** Forgets up to `limit` watched threads that were never made, or are gone, and that nobody follows any more. */
export const deleteIdleWatches = async (transaction: Queryable, limit: number): Promise<number> =>
  (await transaction.query(deleteIdleRows, [limit])).length;
