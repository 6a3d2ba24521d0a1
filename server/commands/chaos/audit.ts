// A second pair of eyes inside the scratch database: triggers note every move of a run and, at the moment of commit,
// who wrote for it. All SQL of the rig stands here.
import type { Queryable } from "../../storage/database.ts";
import { openRows } from "../../storage/keys/sealed.ts";
import type { RunState } from "../../storage/run-states.ts";

/** A change of a run's row. `was` is null for a new row, `state` for a deleted one. */
export interface Move {
  readonly n: number;
  /** Milliseconds by the database's clock. */
  readonly at: number;
  readonly run_id: string;
  readonly thread_id: string;
  readonly was: RunState | null;
  readonly state: RunState | null;
  readonly attempt_was: number | null;
  readonly attempt: number;
  readonly worker_id: string | null;
}

/** A write for a run, with the run as it was when the write was committed. */
export interface Write {
  readonly n: number;
  readonly at: number;
  readonly what: "events" | "checkpoint" | "checkpoint_write";
  /** The application_name of the connection: the instance. */
  readonly writer: string;
  readonly thread_id: string | null;
  readonly run_id: string | null;
  /** The attempt that wrote, where the row says it. */
  readonly attempt: number | null;
  readonly run_state: RunState | null;
  readonly run_attempt: number | null;
  readonly run_worker: string | null;
  /** The same transaction changed the run, so it may have ended it. */
  readonly is_ending: boolean;
}

export interface RunFact {
  readonly run_id: string;
  readonly thread_id: string;
  readonly state: RunState;
  readonly attempt: number;
  readonly handovers: number;
  readonly error: { error?: string; message?: string } | null;
}

export interface SegmentFact {
  readonly run_id: string;
  readonly seq: number;
  readonly last: number;
  readonly attempt: number;
}

export interface CheckpointFact {
  readonly thread_id: string;
  readonly checkpoint_id: string;
  readonly parent_checkpoint_id: string | null;
}

/** A run that was running when a fault struck its instance, and when that was by the database's clock. */
export interface Struck {
  readonly run_id: string;
  readonly attempt: number;
  readonly at: number;
}

// Deferred triggers run just before the commit: what they see of the run is what the fence in the statement has to
// have held on to. A stall there makes the time between the two as long as we like.
const install = `
create schema chaos;
create table chaos.moves (
  n bigint generated always as identity, at timestamptz not null default clock_timestamp(),
  run_id uuid, thread_id text, was text, state text, attempt_was int, attempt int, worker_id uuid);
create index on chaos.moves (run_id);
create table chaos.writes (
  n bigint generated always as identity, at timestamptz not null default clock_timestamp(),
  what text, writer text, thread_id text, run_id uuid, attempt int,
  run_state text, run_attempt int, run_worker uuid, is_ending boolean);
create index on chaos.writes (thread_id);
create index on chaos.writes (run_id);
create unlogged table chaos.stalls (
  writer text, what text, seconds float8 not null, is_noticed boolean not null, primary key (writer, what));

create function chaos.note_move() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    insert into chaos.moves (run_id, thread_id, state, attempt, worker_id)
    values (new.run_id, new.thread_id, new.state, new.attempt, new.worker_id);
  elsif tg_op = 'DELETE' then
    insert into chaos.moves (run_id, thread_id, was, attempt_was, attempt, worker_id)
    values (old.run_id, old.thread_id, old.state, old.attempt, old.attempt, old.worker_id);
  elsif (old.state, old.attempt, old.worker_id) is distinct from (new.state, new.attempt, new.worker_id) then
    insert into chaos.moves (run_id, thread_id, was, state, attempt_was, attempt, worker_id)
    values (new.run_id, new.thread_id, old.state, new.state, old.attempt, new.attempt, new.worker_id);
  end if;
  return null;
end $$;
create trigger chaos_moves after insert or update or delete on holdfast.runs
  for each row execute function chaos.note_move();

create function chaos.stall(kind text) returns void language plpgsql as $$
declare
  me text := concat(kind, pg_current_xact_id());
begin
  if current_setting('chaos.stalled', true) is distinct from me then
    perform set_config('chaos.stalled', me, true);
    perform case when not is_noticed then set_config('client_connection_check_interval', '0', true) end, pg_sleep(seconds)
       from chaos.stalls where writer = current_setting('application_name') and what = kind;
  end if;
end $$;

create function chaos.note_events() returns trigger language plpgsql as $$
begin
  if current_setting('chaos.rewriting', true) = new.run_id::text then
    return null;
  end if;
  perform chaos.stall('events');
  insert into chaos.writes (what, writer, thread_id, run_id, attempt, run_state, run_attempt, run_worker, is_ending)
  select 'events', current_setting('application_name'), r.thread_id, new.run_id, new.attempt,
         r.state, r.attempt, r.worker_id, coalesce(r.xmin = pg_current_xact_id()::xid, false)
    from (select 1) as one left join holdfast.runs r on r.run_id = new.run_id;
  return null;
end $$;
create constraint trigger chaos_events after insert on holdfast.run_events
  deferrable initially deferred for each row execute function chaos.note_events();

-- A log that is put together anew is written by whoever does it; what comes out is judged by its numbers.
create function chaos.note_rewriting() returns trigger language plpgsql as $$
begin
  perform set_config('chaos.rewriting', old.run_id::text, true);
  return null;
end $$;
create trigger chaos_rewriting after delete on holdfast.run_events
  for each row execute function chaos.note_rewriting();

create function chaos.note_checkpoint() returns trigger language plpgsql as $$
declare
  whose uuid;
begin
  perform chaos.stall(tg_argv[0]);
  if tg_argv[0] = 'checkpoint' then whose := (new.metadata ->> 'run_id')::uuid;
  else whose := new.run_id;
  end if;
  insert into chaos.writes (what, writer, thread_id, run_id, run_state, run_attempt, run_worker, is_ending)
  select tg_argv[0], current_setting('application_name'), new.thread_id, whose, r.state, r.attempt, r.worker_id,
         coalesce(r.xmin = pg_current_xact_id()::xid, false)
    from (select 1) as one left join holdfast.runs r on r.run_id = whose;
  return null;
end $$;
create constraint trigger chaos_checkpoints after insert or update on public.checkpoints
  deferrable initially deferred for each row execute function chaos.note_checkpoint('checkpoint');
create constraint trigger chaos_checkpoint_writes after insert or update on public.checkpoint_writes
  deferrable initially deferred for each row execute function chaos.note_checkpoint('checkpoint_write');`;

const moves = `
select n, extract(epoch from at)::float8 * 1000 as at, run_id, thread_id, was, state, attempt_was, attempt, worker_id
  from chaos.moves where thread_id = any ($1::text[]) order by n`;
const writes = `
select n, extract(epoch from at)::float8 * 1000 as at, what, writer, thread_id, run_id, attempt, run_state, run_attempt,
       run_worker, is_ending
  from chaos.writes
 where thread_id = any ($1::text[]) or run_id in (select run_id from chaos.moves where thread_id = any ($1::text[]))
 order by n`;
const runs = `
select run_id, thread_id, state, attempt, handovers, error
  from holdfast.runs where thread_id = any ($1::text[]) order by ord`;
const segments = `
select run_id, seq, last, attempt from holdfast.run_events
 where run_id in (select run_id from holdfast.runs where thread_id = any ($1::text[])) order by run_id, seq`;
const checkpoints = `
select thread_id, checkpoint_id, parent_checkpoint_id from public.checkpoints
 where thread_id = any ($1::text[]) and checkpoint_ns = '' order by thread_id, checkpoint_id`;
const struck = `
select run_id, attempt, $2::float8 as at from holdfast.runs where state = 'running' and worker_id = any ($1::uuid[])`;
const unfinished = `
select count(*)::int as count from holdfast.runs
 where thread_id = any ($1::text[]) and state in ('delayed', 'blocked', 'ready', 'running')`;

export async function installAudit(on: Queryable): Promise<void> {
  await on.query(install);
}

export const listMoves = (on: Queryable, threadIds: readonly string[]): Promise<Move[]> =>
  on.query(moves, [threadIds]);
export const listWrites = (on: Queryable, threadIds: readonly string[]): Promise<Write[]> =>
  on.query(writes, [threadIds]);
export const listRunFacts = async (on: Queryable, threadIds: readonly string[]): Promise<RunFact[]> =>
  openRows(on, await on.query<RunFact>(runs, [threadIds]), {
    error: { name: "runs.error", as: "json", row: (run) => [run.run_id] },
  });
export const listSegmentFacts = (on: Queryable, threadIds: readonly string[]): Promise<SegmentFact[]> =>
  on.query(segments, [threadIds]);
export const listCheckpointFacts = (on: Queryable, threadIds: readonly string[]): Promise<CheckpointFact[]> =>
  on.query(checkpoints, [threadIds]);

/** Runs that these workers execute at this moment, struck at `at`. */
export const listStruck = (on: Queryable, workerIds: readonly string[], at: number): Promise<Struck[]> =>
  on.query(struck, [workerIds, at]);

export async function countUnfinished(on: Queryable, threadIds: readonly string[]): Promise<number> {
  const [row] = await on.query<{ count: number }>(unfinished, [threadIds]);
  return row?.count ?? 0;
}

/** Milliseconds by the database's clock. */
export async function databaseNow(on: Queryable): Promise<number> {
  const [row] = await on.query<{ at: number }>(
    `select extract(epoch from clock_timestamp())::float8 * 1000 as at`,
  );
  return row?.at ?? 0;
}

/**
 * From now on a commit of this instance that writes such rows takes so much longer.
 * @param stall.isNoticed whether the database ends it as soon as its client is gone, as it does where it can tell
 */
export async function stallCommits(
  on: Queryable,
  writer: string,
  { what, seconds, isNoticed }: { what: Write["what"]; seconds: number; isNoticed: boolean },
): Promise<void> {
  await on.query("insert into chaos.stalls (writer, what, seconds, is_noticed) values ($1, $2, $3, $4)", [
    writer,
    what,
    seconds,
    isNoticed,
  ]);
}

/** Whether a commit of this instance is being stalled. */
export async function isStalled(on: Queryable, writer: string): Promise<boolean> {
  const rows = await on.query(
    "select from pg_stat_activity where application_name = $1 and datname = current_database() and wait_event = 'PgSleep'",
    [writer],
  );
  return rows.length > 0;
}

/**
 * Breaks connections of an instance off in the database: all of them, one, or the one that listens.
 * @returns how many
 */
export async function terminateBackends(
  on: Queryable,
  writer: string,
  which: "all" | "one" | "listening",
): Promise<number> {
  const chosen =
    which === "listening" ? "pid in (select pid from pg_locks where locktype = 'advisory')" : "true";
  const rows = await on.query(
    `select pg_terminate_backend(pid) from (
       select pid from pg_stat_activity where application_name = $1 and datname = current_database() and ${chosen}
        order by random() limit $2) as chosen`,
    [writer, which === "one" ? 1 : 100],
  );
  return rows.length;
}

/** NOTIFY does nothing in sessions that begin after this: a function of that name stands before PostgreSQL's own. */
export async function silenceNotify(on: Queryable, databaseName: string): Promise<void> {
  await on.query(`
    create function public.pg_notify(text, text) returns void language sql as 'select';
    alter database ${databaseName} set search_path = public, pg_catalog`);
}

export async function dropDatabase(on: Queryable, name: string): Promise<void> {
  await on.query(`drop database if exists ${name} with (force)`);
}

/** Names of databases that begin so. */
export async function listDatabases(on: Queryable, prefix: string): Promise<string[]> {
  const rows = await on.query<{ datname: string }>(
    "select datname from pg_database where starts_with(datname, $1)",
    [prefix],
  );
  return rows.map(({ datname }) => datname);
}
