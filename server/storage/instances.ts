// Rows of holdfast.instances: which server processes exist. One that lives beats each second and holds a session
// advisory lock, so that its death, however it comes, frees the lock at once. Only the database's clock counts.
import type { Queryable } from "./database.ts";

/** What an instance learns with each heartbeat. */
export interface Pulse {
  /** What time it is by the database, in milliseconds. */
  readonly at: number;
  /** False: others took this instance for dead and have its runs. */
  readonly is_known: boolean;
  /** Other instances that live. */
  readonly others: number;
  /** Whether one of them takes runs. */
  readonly has_takers: boolean;
  /** Runs of this instance that somebody cancelled. */
  readonly cancelled: readonly { run_id: string; cancel: "interrupt" | "rollback" }[];
  readonly has_suspects: boolean;
  readonly has_ready: boolean;
  /** Delayed runs that are due, or threads whose next run nobody has promoted, or that seem to wait and do not. */
  readonly has_waiting: boolean;
  readonly has_crons: boolean;
  readonly has_webhooks: boolean;
}

// Draining is whoever takes no runs: since it stops, has no slots, or its clock is wrong.
const insertInstanceRow = `/* insertInstance */
insert into holdfast.instances (worker_id, has_lock, is_draining) values ($1, $2, $3)
on conflict (worker_id) do update set has_lock = excluded.has_lock, beat_at = clock_timestamp()
returning xmax = 0 as is_new`;

const lockInstanceRow = `/* lockInstance */
select pg_try_advisory_lock(hashtextextended($1::uuid::text, 7)) as is_locked`;

const beatRow = `/* beat */
with me as (
  update holdfast.instances set beat_at = clock_timestamp(), is_draining = $2 where worker_id = $1 returning worker_id)
select extract(epoch from clock_timestamp())::float8 * 1000 as at, exists (select from me) as is_known,
  (select count(*)::int from holdfast.instances where worker_id <> $1 and beat_at > now() - interval '15 s') as others,
  exists (select from holdfast.instances where worker_id <> $1 and beat_at > now() - interval '15 s' and not is_draining) as has_takers,
  (select coalesce(json_agg(json_build_object('run_id', run_id, 'cancel', cancel)), '[]') from holdfast.runs
    where worker_id = $1 and state = 'running' and cancel is not null) as cancelled,
  exists (select from holdfast.instances where worker_id <> $1
      and beat_at not between now() - interval '1.2 s' and now() + interval '15 s')
    or exists (select from holdfast.runs r where r.state = 'running'
      and not exists (select from holdfast.instances i where i.worker_id = r.worker_id)) as has_suspects,
  exists (select from holdfast.runs where state = 'ready' and run_at <= now()) as has_ready,
  exists (select from holdfast.runs where state = 'delayed' and run_at <= now())
    or exists (select from holdfast.threads t where t.has_waiting
      and not exists (select from holdfast.runs r where r.thread_id = t.thread_id and r.state in ('ready', 'running'))
      and (exists (select from holdfast.runs r where r.thread_id = t.thread_id and r.state = 'blocked')
        or not exists (select from holdfast.runs r where r.thread_id = t.thread_id and r.state = 'delayed'))) as has_waiting,
  exists (select from holdfast.crons where is_enabled and next_run_at <= now()) as has_crons,
  exists (select from holdfast.webhooks where state = 'pending' and next_at <= now()) as has_webhooks`;

// The lock is free as soon as the process is gone; a heartbeat that recent may come from one that is just connecting
// again. Without a sign of life for 15 s a process counts as dead even if the server of the database still sees it. One whose
// last is still to come died before the clock of the database was set back: who lives has beaten since.
const lockDeadRows = `/* lockDeadInstances */
select worker_id from holdfast.instances
 where worker_id <> $1 and (beat_at not between now() - interval '15 s' and now() + interval '15 s' or (has_lock and beat_at < now() - interval '1.5 s'
   and pg_try_advisory_xact_lock(hashtextextended(worker_id::text, 7))))
   for update skip locked`;

const deleteInstanceRows = `/* deleteInstances */ delete from holdfast.instances where worker_id = any ($1::uuid[])`;

/** Registers the instance; true when it was not registered. With `hasLock` its session must already hold the lock, or a reaper would take it for dead. */
export async function insertInstance(
  on: Queryable,
  workerId: string,
  { hasLock, isDraining }: { hasLock: boolean; isDraining: boolean },
): Promise<boolean> {
  const [row] = await on.query<{ is_new: boolean }>(insertInstanceRow, [workerId, hasLock, isDraining]);
  return row?.is_new ?? true;
}

/** Takes the instance's lock for the life of the session. False: another session of it still has the lock. */
export async function lockInstance(session: Queryable, workerId: string): Promise<boolean> {
  const [row] = await session.query<{ is_locked: boolean }>(lockInstanceRow, [workerId]);
  return row?.is_locked ?? false;
}

/** Notes that the instance lives and says what there is to do. */
export async function beat(on: Queryable, workerId: string, isDraining: boolean): Promise<Pulse> {
  const [row] = await on.query<Pulse>(beatRow, [workerId, isDraining]);
  if (!row) throw new Error("A select without a table gave no row.");
  return row;
}

/** Other instances that are dead; locked until the transaction ends, so that one reaper acts. */
export async function lockDeadInstances(transaction: Queryable, workerId: string): Promise<string[]> {
  const rows = await transaction.query<{ worker_id: string }>(lockDeadRows, [workerId]);
  return rows.map(({ worker_id: dead }) => dead);
}

export async function deleteInstances(on: Queryable, workerIds: readonly string[]): Promise<void> {
  await on.query(deleteInstanceRows, [workerIds]);
}

/** What time it is by the database, in milliseconds. */
export async function readClock(on: Queryable): Promise<number> {
  const [row] = await on.query<{ at: number }>(
    "/* readClock */ select extract(epoch from clock_timestamp())::float8 * 1000 as at",
  );
  if (!row) throw new Error("A select without a table gave no row.");
  return row.at;
}

// A write that changes nothing is refused as others are. Asked for its settings, a connection to a server that is no
// primary any more would answer well, and stay.
const tryWriteRow = `/* tryWrite */ update holdfast.instances set is_draining = is_draining where false`;

/** Resolves when the database takes writes. @throws DatabaseUnavailable */
export async function tryWrite(on: Queryable): Promise<void> {
  await on.query(tryWriteRow);
}
