// How runs move from waiting to running and from a dead worker to a live one.
// Lock order everywhere: the thread, then its runs. What only reads hints (a heartbeat, a notification) decides nothing:
// each statement here looks again.
import type { DataKey } from "../privacy/seal.ts";
import type { Queryable } from "./database.ts";
import { BOOT, RUN_COLUMNS, openRuns } from "./runs.ts";
import type { OwnedRunRow } from "./runs.ts";
import { AppError } from "../errors.ts";

// The graph is what a run was accepted with: its assistant may run another one by now, or be gone.
export const claimRows = `/* claimRuns */
with next as (
  select run_id, ${BOOT} as boot from holdfast.runs
   where state = 'ready' and run_at <= now() and metadata ->> 'graph_id' = any ($3::text[])
   order by run_at, ord limit $2 for update skip locked),
r as (
  update holdfast.runs u set state = 'running', worker_id = $1, attempt = u.attempt + 1, updated_at = now(), boot = next.boot,
         boot_attempt = case when u.boot is distinct from next.boot then u.attempt + 1 else u.boot_attempt end,
         started_at = coalesce(u.started_at, now()), deadline = coalesce(u.deadline, now() + $4 * interval '1 ms'),
         is_watched = u.is_watched or exists (select from holdfast.watched_threads w where w.thread_id = u.thread_id)
    from next where u.run_id = next.run_id
  returning u.*)
select ${RUN_COLUMNS}, r.auth, r.boot_attempt, t.config as thread_config, t.data_key_id,
       exists (select from public.checkpoints c where c.thread_id = r.thread_id) as has_checkpoints
  from r join holdfast.threads t using (thread_id)`;

const findLeftRow = `/* findLeft */
select from holdfast.runs
 where state = 'ready' and run_at <= now() and updated_at < now() - interval '30 s'
   and metadata ->> 'graph_id' = any ($1::text[]) limit 1`;

const lockWaitingRows = `/* lockWaitingThreads */
select t.thread_id from holdfast.threads t
 where t.has_waiting
   and not exists (select from holdfast.runs l where l.thread_id = t.thread_id and l.state in ('ready', 'running'))
   and (exists (select from holdfast.runs w where w.thread_id = t.thread_id
       and (w.state = 'blocked' or w.state = 'delayed' and w.run_at <= now()))
     or not exists (select from holdfast.runs w where w.thread_id = t.thread_id and w.state = 'delayed'))
 order by t.thread_id limit $1 for no key update of t skip locked`;

const lockThreadRow = `/* lockThreads */
select thread_id from holdfast.threads where thread_id = any ($1::text[]) order by thread_id for no key update`;

const wakeRows = `/* wakeDelayed */
update holdfast.runs set state = 'blocked', updated_at = now()
 where thread_id = any ($1::text[]) and state = 'delayed' and run_at <= now()`;

const promoteRows = `/* promoteRuns */
with next as (
  select distinct on (r.thread_id) r.run_id, t.begun + 1 as ordinal from holdfast.runs r
    join holdfast.threads t using (thread_id)
   where r.thread_id = any ($1::text[]) and r.state = 'blocked'
     and not exists (select from holdfast.runs l where l.thread_id = r.thread_id and l.state in ('ready', 'running'))
   order by r.thread_id, r.ord),
promoted as (
  update holdfast.runs r set state = 'ready', run_at = now(), updated_at = now(), ordinal = next.ordinal
    from next where r.run_id = next.run_id returning r.run_id, r.thread_id),
open as (
  select r.thread_id, bool_or(r.state in ('delayed', 'blocked') and p.run_id is null) as has_waiting
    from holdfast.runs r left join promoted p using (run_id)
   where r.thread_id = any ($1::text[]) and r.state in ('delayed', 'blocked', 'ready', 'running') group by r.thread_id),
settled as (
  update holdfast.threads t
     set has_waiting = coalesce(o.has_waiting, false), updated_at = now(),
         begun = t.begun + (select count(*) from promoted p where p.thread_id = t.thread_id),
         status = case when o.thread_id is not null then 'busy' else t.resting end,
         expires_at = case when o.thread_id is not null then null
           when t.status <> 'busy' then t.expires_at
           when t.is_temporary then now() + interval '10 min'
           else now() + t.ttl_minutes * interval '1 min' end
    from unnest($1::text[]) as asked (thread_id)
    left join open o using (thread_id)
   where t.thread_id = asked.thread_id)
select run_id, thread_id from promoted`;

// A write of the dead that is still under way holds its runs until it has ended; the others need not wait for it, and
// whoever beats next asks for those again. They keep their places: half an answer is shown, and goes on before those that
// nobody has begun.
const requeueRows = `/* requeueRuns */
with orphan as (
  select r.run_id from holdfast.runs r
   where r.state = 'running' and (r.worker_id = any ($1::uuid[])
      or not exists (select from holdfast.instances i where i.worker_id = r.worker_id))
     for no key update skip locked)
update holdfast.runs r set state = 'ready', worker_id = null, updated_at = now()
  from orphan where r.run_id = orphan.run_id
returning r.run_id`;

const listHeldRows = `/* listHeldRuns */
select run_id, attempt, cancel is not null as is_cancelled from holdfast.runs where worker_id = $1 and state = 'running'`;

const releaseRows = `/* releaseRuns */
update holdfast.runs set state = 'ready', worker_id = null, updated_at = now(), handovers = handovers + $4
 where worker_id = $1 and state = 'running' and (run_id, attempt) in (
   select h.run_id, h.attempt from unnest($2::uuid[], $3::int[]) as h (run_id, attempt))
returning run_id`;

/** A run that was claimed, and why it cannot be executed if it cannot. */
export interface ClaimedRunRow extends OwnedRunRow {
  readonly unreadable?: AppError;
}

/**
 * Takes up to `limit` ready runs of these graphs: each belongs to one worker, in a new attempt. One that cannot be read
 * is taken too, and says why: what was asked of it was altered, or its key is gone.
 */
export async function claimRuns(
  on: Queryable,
  claim: { workerId: string; limit: number; graphIds: readonly string[]; timeoutMs: number },
): Promise<ClaimedRunRow[]> {
  const values = [claim.workerId, claim.limit, claim.graphIds, claim.timeoutMs];
  const rows = await on.query<OwnedRunRow>(claimRows, values);
  return Promise.all(rows.map((row) => openClaimed(on, row)));
}

async function openClaimed(on: Queryable, row: OwnedRunRow): Promise<ClaimedRunRow> {
  let key: DataKey | undefined;
  try {
    key = row.data_key_id === null ? undefined : await on.seals.key(on, row.data_key_id);
    const [opened = row] = await openRuns(on, [row]);
    return { ...opened, key };
  } catch (error) {
    if (!(error instanceof AppError) || error.retryable) throw error;
    return { ...row, key, unreadable: error };
  }
}

/** Whether runs of these graphs are ready for so long that whoever else takes runs does not take them. */
export async function hasLeftRuns(on: Queryable, graphIds: readonly string[]): Promise<boolean> {
  return (await on.query(findLeftRow, [graphIds])).length > 0;
}

/** Threads whose next run could begin but was not promoted, or where nothing waits any more, locked. */
export async function lockWaitingThreads(transaction: Queryable, limit: number): Promise<string[]> {
  const rows = await transaction.query<{ thread_id: string }>(lockWaitingRows, [limit]);
  return rows.map(({ thread_id: threadId }) => threadId);
}

export async function lockThreads(transaction: Queryable, threadIds: readonly string[]): Promise<void> {
  await transaction.query(lockThreadRow, [threadIds]);
}

/** Makes the next run of each thread ready, if none is live, and sets the thread's status. Lock the threads first. */
export async function promoteRuns(transaction: Queryable, threadIds: readonly string[]): Promise<string[]> {
  await transaction.query(wakeRows, [threadIds]);
  const rows = await transaction.query<{ run_id: string }>(promoteRows, [threadIds]);
  return rows.map(({ run_id: runId }) => runId);
}

/** Gives back the runs of these workers, and those whose worker is not registered; but none that a write still holds. */
export async function requeueRuns(on: Queryable, deadWorkerIds: readonly string[]): Promise<string[]> {
  const rows = await on.query<{ run_id: string }>(requeueRows, [deadWorkerIds]);
  return rows.map(({ run_id: runId }) => runId);
}

/** Runs that the database says this worker executes. */
export const listHeldRuns = (
  on: Queryable,
  workerId: string,
): Promise<{ run_id: string; attempt: number; is_cancelled: boolean }[]> =>
  on.query(listHeldRows, [workerId]);

/** Gives back runs that the worker holds. A hand-over, or a database that was away, is no failed attempt. */
export async function releaseRuns(
  on: Queryable,
  workerId: string,
  runs: readonly { runId: string; attempt: number }[],
  hasFailed: boolean,
): Promise<string[]> {
  const rows = await on.query<{ run_id: string }>(releaseRows, [
    workerId,
    runs.map(({ runId }) => runId),
    runs.map(({ attempt }) => attempt),
    hasFailed ? 0 : 1,
  ]);
  return rows.map(({ run_id: runId }) => runId);
}
