// Rows of holdfast.runs: accepting, finding and listing them. How they move on is in queue.ts and finish.ts.
import type { DataKey } from "../privacy/seal.ts";
import type { VaultEntry } from "../privacy/vault.ts";
import type { AuthFilter } from "./auth-filter.ts";
import type { Queryable } from "./database.ts";
import type { ThreadTtl } from "./expiry.ts";
import { openRows, placeOf, sealJson, sealText } from "./keys/sealed.ts";
import type { Reading, Readings } from "./keys/sealed.ts";
import type { ThreadKey } from "./keys/seals.ts";
import { packedEntries } from "./keys/vault.ts";
import { UNIQUE_VIOLATION, codeOf } from "./postgres.ts";
import type { RunState } from "./run-states.ts";

export interface RunRow {
  readonly run_id: string;
  readonly thread_id: string;
  readonly assistant_id: string;
  readonly state: RunState;
  readonly attempt: number;
  /** Attempts that ended because their server stopped in order; they do not count as failures. */
  readonly handovers: number;
  readonly multitask: string;
  readonly cancel: "interrupt" | "rollback" | null;
  readonly cancel_reason: string | null;
  readonly webhook: string | null;
  /** What was left of its time when the row was read, by the clock of the database; null before it has begun. */
  readonly left_ms: number | null;
  readonly metadata: Record<string, unknown>;
  readonly kwargs: Record<string, unknown>;
  readonly error: RunError | null;
  readonly created_at: Date;
  readonly updated_at: Date;
  readonly started_at: Date | null;
  readonly ended_at: Date | null;
  /** The how-manieth run of its thread it was to begin; null before. */
  readonly ordinal: number | null;
  /** Whether its events are told in the form of protocol v2 too. */
  readonly is_watched: boolean;
  /** Number of its first event that is shown under this ordinal. */
  readonly told_from: number;
}

/** A run that this process owns now, with what of its thread it needs. */
export interface OwnedRunRow extends RunRow {
  readonly auth: RunAuth | null;
  readonly thread_config: Record<string, unknown>;
  /** False for a thread that was never written to: nothing has to be loaded. */
  readonly has_checkpoints: boolean;
  /** The first attempt in this life of the database server: a crash may have taken the last events of those before. */
  readonly boot_attempt: number;
  /** The thread's key; null when nothing is sealed. */
  readonly data_key_id: string | null;
  readonly key?: DataKey | undefined;
}

/** Who asked for a run. */
export interface RunAuth {
  /** What authenticate() said, as JSON keeps it. */
  readonly user: { readonly identity: string; readonly [key: string]: unknown };
  readonly permissions: readonly string[];
}

/** Why a run failed: the class of the error and its message. */
export interface RunError {
  readonly error: string;
  readonly message: string;
  /** Of our own errors that say more than words. */
  readonly code?: string;
  readonly budget?: object;
}

export interface NewRun {
  readonly runId: string;
  readonly threadId: string;
  /** The thread's key: nothing is written if it has another. Undefined when nothing is sealed. */
  readonly threadKey?: ThreadKey | undefined;
  /** What was found in what is asked: kept before the run is there. */
  readonly vault?: readonly VaultEntry[] | undefined;
  readonly assistantId: string;
  /** What the assistant was when it was read: nothing is written if it was changed or deleted since. Unset: not asked. */
  readonly assistantRevision?: string | undefined;
  /** The owner when the state is running. */
  readonly workerId: string | null;
  readonly state: "running" | "ready" | "blocked" | "delayed";
  readonly multitask: string;
  readonly metadata: object;
  /** The thread's and the run's own win over it. */
  readonly assistantMetadata?: object | undefined;
  readonly kwargs: object;
  /** Merged into the thread's metadata: which graph and assistant it runs. */
  readonly threadMetadata: object;
  /** What the thread's runs are configured with from now on; undefined: with the same as before. */
  readonly threadConfig?: object | undefined;
  /** What that was made from, as it is stored: with another one, or none, nothing is written. */
  readonly configBefore?: string | undefined;
  readonly idemKey?: string | undefined;
  /** Seconds until it may start. */
  readonly afterSeconds?: number | undefined;
  /** Milliseconds it may take, from its first start. */
  readonly timeoutMs: number;
  readonly webhook?: string | undefined;
  /** When the state was made whose questions the run answers: nothing is written if the thread has another one. */
  readonly answersStateOf?: Date | undefined;
  /** Make the thread if it is missing; a temporary one goes soon after its run. */
  readonly creates?: "no" | "thread" | "temporary" | undefined;
  /** How long a thread that is made is kept; for ever without it. */
  readonly threadTtl?: ThreadTtl | null | undefined;
  /** Tell its events in the form of protocol v2 too, even if nobody has followed the thread so far. */
  readonly isWatched?: boolean | undefined;
  /** The first event, as a line of the log, if the run begins at once. */
  readonly firstLine?: string | undefined;
  /** The thread must be one that the caller may use. */
  readonly filter?: AuthFilter | undefined;
  /** Metadata of the thread if it is made. */
  readonly madeMetadata?: object | undefined;
  readonly auth?: RunAuth | undefined;
  /** The caller holds the thread's lock and has decided that this run may wait there or begin. */
  readonly isDecided?: boolean | undefined;
}

export const RUN_COLUMNS = `r.run_id, r.thread_id, r.assistant_id, r.state, r.attempt, r.handovers, r.multitask, r.cancel,
  r.cancel_reason, r.webhook, extract(epoch from r.deadline - now())::float8 * 1000 as left_ms, r.metadata, r.kwargs, r.error, r.created_at, r.updated_at, r.started_at, r.ended_at,
  r.ordinal, r.is_watched, r.told_from`;

// A life of the database server: a restart gives a new start time, recovery after a crash resets the statistics.
export const BOOT = `concat(pg_postmaster_start_time(), ' ', (select stats_reset from pg_stat_wal))`;

// A state update that this statement waited for is seen in the thread's row only, not in the snapshot.
const insertRunRow = `/* insertRun */
with assistant as (select from holdfast.assistants where assistant_id = $3 and revision = $18),
made as (
  insert into holdfast.threads (thread_id, status, metadata, config, is_temporary, has_waiting, ttl_minutes, ttl_strategy, begun, data_key_id)
  select $2, 'busy', coalesce($20::jsonb, '{}') || $8::jsonb, coalesce($29::jsonb, '{}'), $14 = 'temporary', $5 in ('blocked', 'delayed'),
         $17::float8, $23, ($5 in ('running', 'ready'))::int, $24::uuid
   where $14 <> 'no' and ($29::jsonb is null or $32::jsonb is null) and ($24 is null or $26::bytea is not null) and ($18::uuid is null or exists (select from assistant))
  on conflict (thread_id) do nothing returning thread_id, metadata, config, begun, data_key_id, false as was_written),
key as (
  insert into holdfast.data_keys (data_key_id, tenant_id, thread_id, kek_id, wrapped)
  select data_key_id, $27, thread_id, $25, $26 from made where data_key_id is not null),
taken as (
  update holdfast.threads
     set status = 'busy', expires_at = null, metadata = metadata || $8::jsonb, config = coalesce($29::jsonb, config), updated_at = now(),
         has_waiting = has_waiting or $5 in ('blocked', 'delayed'), begun = begun + ($5 in ('running', 'ready'))::int
   where thread_id = $2 and (status <> 'busy' and not is_temporary or $15::boolean) and data_key_id is not distinct from $24 and ($18::uuid is null or exists (select from assistant))
     and ($19::jsonb is null or metadata @> $19) and ($29::jsonb is null or config = coalesce($32::jsonb, '{}'))
     and ($30::timestamptz is null or date_trunc('milliseconds', state_updated_at) = $30)
  returning thread_id, metadata, config, begun, data_key_id, state_updated_at > created_at as was_written),
thread as (select * from made union all select * from taken),
kept as (
  insert into holdfast.vault_entries (token, thread_id, kind, value)
  select e.token, thread.thread_id, e.kind, decode(e.value, 'base64')
    from thread cross join json_to_recordset($28::json) as e (token text, kind text, value text)
  on conflict (token, thread_id) do nothing),
r as (
  insert into holdfast.runs (run_id, thread_id, assistant_id, worker_id, state, attempt, multitask, metadata, kwargs, idem_key,
    run_at, deadline, boot, started_at, webhook, auth, ordinal, is_watched)
  select $1, thread_id, $3, $4, $5, case when $5 = 'running' then 1 else 0 end, $6, coalesce($31::jsonb, '{}') || metadata || $7::jsonb, $9, $10,
    now() + $11 * interval '1 s', case when $5 = 'running' then now() + $12 * interval '1 ms' end,
    case when $5 = 'running' then ${BOOT} end, case when $5 = 'running' then now() end, $13, $21::json,
    case when $5 in ('running', 'ready') then begun end,
    $22 or exists (select from holdfast.watched_threads w where w.thread_id = $2)
    from thread
  returning *),
event as (
  insert into holdfast.run_events (run_id, seq, last, attempt, body)
  select run_id, 0, 0, attempt, $16 from r where $16::text is not null and state = 'running')
select ${RUN_COLUMNS}, r.auth, thread.config as thread_config, r.boot_attempt, thread.data_key_id,
       thread.was_written or exists (select from public.checkpoints c where c.thread_id = r.thread_id) as has_checkpoints
  from r join thread using (thread_id)`;

// What of a run is never sealed: enough to say whose it is and where it stands.
const findRunFactsRow = `/* findRunFacts */
select run_id, thread_id, assistant_id, state, attempt, cancel, metadata, is_watched from holdfast.runs where run_id = $1`;
const findRunRow = `/* findRun */ select ${RUN_COLUMNS} from holdfast.runs r where run_id = $1`;
const findWriterRow = `/* findWriter */
select run_id, $1::text as thread_id, kwargs, auth, (select config from holdfast.threads where thread_id = $1) as thread_config
  from holdfast.runs where run_id = (
  select case when metadata ->> 'run_id' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (metadata ->> 'run_id')::uuid end
    from public.checkpoints
   where thread_id = $1 and checkpoint_ns = '' and metadata ? 'run_id' order by checkpoint_id desc limit 1)`;
const findRunByKeyRow = `/* findRunByKey */ select ${RUN_COLUMNS} from holdfast.runs r where idem_key = $1`;

const listRunRows = `/* listRuns */
select ${RUN_COLUMNS} from holdfast.runs r
 where thread_id = $1 and ($2::text[] is null or state = any ($2)) and ($3::jsonb is null or metadata @> $3)
 order by ord limit $4 offset $5`;

const listUnfinishedRows = `/* listUnfinished */
select run_id, state, worker_id from holdfast.runs
 where thread_id = $1 and state in ('delayed', 'blocked', 'ready', 'running') order by ord for update`;

const countUnfinishedRow = `/* countUnfinished */
select count(*) filter (where state in ('delayed', 'blocked', 'ready'))::int as pending,
       coalesce(bool_or(state in ('ready', 'running')), false) as is_live,
       coalesce(bool_or(state = 'blocked'), false) as is_waiting,
       count(*)::int as all
  from holdfast.runs where thread_id = $1 and state in ('delayed', 'blocked', 'ready', 'running')`;

const listRunIdRows = `/* listRunIds */
select run_id as "runId", thread_id as "threadId", state = 'running' as "isRunning", ord from holdfast.runs r
 where state = any ($1::text[]) and state in ('delayed', 'blocked', 'ready', 'running')
   and ($2::text is null or thread_id = $2)
   and ($3::jsonb is null or exists (
     select from holdfast.threads t where t.thread_id = r.thread_id and t.metadata @> $3))
   and ($4::boolean is null or (state = 'running', ord) > ($4, $5::bigint))
 order by state = 'running', ord limit $6`;

/**
 * Accepts a run. Undefined: nothing was written, because the thread is missing, busy or not for the caller, or because the
 * assistant has changed.
 * "taken": its idempotency key was used before, or another run of the thread came first.
 */
export async function insertRun(on: Queryable, run: NewRun): Promise<OwnedRunRow | "taken" | undefined> {
  const { runId, threadKey, threadConfig, auth, firstLine } = run;
  const { key, row: newKey } = threadKey ?? {};
  const kwargs = JSON.stringify(run.kwargs);
  try {
    const [row] = await on.query<OwnedRunRow>(insertRunRow, [
      runId,
      run.threadId,
      run.assistantId,
      run.workerId,
      run.state,
      run.multitask,
      run.metadata,
      run.threadMetadata,
      sealJson(key, placeOf("runs.kwargs", [runId]), kwargs),
      run.idemKey ?? null,
      run.afterSeconds ?? 0,
      run.timeoutMs,
      run.webhook ?? null,
      run.creates ?? "no",
      run.isDecided ?? false,
      firstLine === undefined ? null : sealText(key, placeOf("run_events.body", [runId, 0]), firstLine),
      run.threadTtl?.minutes ?? null,
      run.assistantRevision ?? null,
      run.filter ?? null,
      run.madeMetadata ?? null,
      auth ? sealJson(key, placeOf("runs.auth", [runId]), JSON.stringify(auth)) : null,
      run.isWatched ?? false,
      run.threadTtl?.strategy ?? "delete",
      key?.id ?? null,
      newKey?.kek_id ?? null,
      newKey?.wrapped ?? null,
      newKey?.tenant_id ?? null,
      key && run.vault ? packedEntries(key, run.threadId, run.vault) : null,
      threadConfig
        ? sealJson(key, placeOf("threads.config", [run.threadId]), JSON.stringify(threadConfig))
        : null,
      run.answersStateOf ?? null,
      run.assistantMetadata ?? null,
      run.configBefore ?? null,
    ]);
    if (!row || !key) return row;
    on.seals.noteThread(run.threadId, key.id);
    // What was sealed need not be opened again.
    const open = { ...row, key, kwargs: JSON.parse(kwargs), auth: auth ?? null };
    return threadConfig ? { ...open, thread_config: { ...threadConfig } } : openConfig(on, open);
  } catch (error) {
    if (codeOf(error) === UNIQUE_VIOLATION) return "taken";
    throw error;
  }
}

type RunReading = Pick<RunRow, "run_id" | "thread_id" | "kwargs"> &
  Partial<Pick<OwnedRunRow, "error" | "auth" | "thread_config">>;

const ofThread: Reading<Pick<RunRow, "thread_id">> = {
  name: "threads.config",
  as: "json",
  row: (row) => [row.thread_id],
};

const RUN_READINGS: Readings<RunReading> = {
  kwargs: { name: "runs.kwargs", as: "json", row: (row) => [row.run_id] },
  error: { name: "runs.error", as: "json", row: (row) => [row.run_id] },
  auth: { name: "runs.auth", as: "json", row: (row) => [row.run_id] },
  thread_config: ofThread,
};

async function openConfig(on: Queryable, row: OwnedRunRow): Promise<OwnedRunRow> {
  const [open = row] = await openRows(on, [row], { thread_config: ofThread });
  return open;
}

/** Runs as they were read, opened. */
export const openRuns = <Row extends RunReading>(on: Queryable, rows: Row[]): Promise<Row[]> =>
  openRows(on, rows, RUN_READINGS as Readings<Row>);

/** What of a run can be read also when what was asked of it cannot. */
export type RunFacts = Pick<
  RunRow,
  "run_id" | "thread_id" | "assistant_id" | "state" | "attempt" | "cancel" | "metadata" | "is_watched"
>;

export async function findRunFacts(on: Queryable, runId: string): Promise<RunFacts | undefined> {
  const [row] = await on.query<RunFacts>(findRunFactsRow, [runId]);
  return row;
}

export async function findRun(on: Queryable, runId: string): Promise<RunRow | undefined> {
  const [row] = await openRuns(on, await on.query<RunRow>(findRunRow, [runId]));
  return row;
}

/** What was asked by whom of the run that wrote the newest checkpoint of a thread, or of the thread that it is a copy of. */
export async function findWriter(
  on: Queryable,
  threadId: string,
): Promise<Pick<OwnedRunRow, "kwargs" | "auth" | "thread_config"> | undefined> {
  type Writer = Pick<OwnedRunRow, "run_id" | "thread_id" | "kwargs" | "auth" | "thread_config">;
  const rows = await on.query<Writer>(findWriterRow, [threadId]);
  const [row] = await openRuns(on, rows);
  return row;
}

/** The run that was created with an idempotency key. */
export async function findRunByKey(on: Queryable, key: string): Promise<RunRow | undefined> {
  const [row] = await openRuns(on, await on.query<RunRow>(findRunByKeyRow, [key]));
  return row;
}

/** Runs of a thread, oldest first. */
export const listRuns = async (
  on: Queryable,
  threadId: string,
  query: {
    states: readonly RunState[] | undefined;
    metadata: object | undefined;
    limit: number;
    offset: number;
  },
): Promise<RunRow[]> => {
  const metadata = query.metadata ? JSON.stringify(query.metadata) : null;
  const values = [threadId, query.states ?? null, metadata, query.limit, query.offset];
  return openRuns(on, await on.query<RunRow>(listRunRows, values));
};

/** Runs of a thread that have not ended, oldest first, locked. Lock the thread first. */
export const listUnfinished = (
  transaction: Queryable,
  threadId: string,
): Promise<{ run_id: string; state: RunState; worker_id: string | null }[]> =>
  transaction.query(listUnfinishedRows, [threadId]);

export interface RunPlace {
  readonly runId: string;
  readonly threadId: string;
  readonly isRunning: boolean;
  /** Its place among all runs. */
  readonly ord: number;
}

/**
 * Runs in these states, of one thread or of all that the caller may see; running ones last, as the end of one lets the
 * next begin.
 * @param after the last one of the page before
 */
export const listRunIds = (
  on: Queryable,
  states: readonly RunState[],
  threadId: string | undefined,
  auth: AuthFilter | undefined,
  { after, limit }: { after: RunPlace | undefined; limit: number },
): Promise<RunPlace[]> =>
  on.query(listRunIdRows, [
    states,
    threadId ?? null,
    auth ?? null,
    after?.isRunning ?? null,
    after?.ord ?? null,
    limit,
  ]);

/** What waits and runs on a thread. Lock the thread first. */
export async function countUnfinished(
  transaction: Queryable,
  threadId: string,
): Promise<{ pending: number; is_live: boolean; is_waiting: boolean; all: number }> {
  const [row] = await transaction.query<{
    pending: number;
    is_live: boolean;
    is_waiting: boolean;
    all: number;
  }>(countUnfinishedRow, [threadId]);
  return row ?? { pending: 0, is_live: false, is_waiting: false, all: 0 };
}
