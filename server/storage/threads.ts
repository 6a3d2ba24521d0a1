// Rows of holdfast.threads. What a thread holds lives in its checkpoints; here is what is true of it as a whole.
import type { AuthFilter } from "./auth-filter.ts";
import type { Queryable } from "./database.ts";
import type { ThreadTtl } from "./expiry.ts";
import { openRows, placeOf, sealJson } from "./keys/sealed.ts";
import type { Readings } from "./keys/sealed.ts";

export interface ThreadRow {
  readonly thread_id: string;
  readonly status: "idle" | "busy" | "interrupted" | "error";
  readonly metadata: Record<string, unknown>;
  readonly config: Record<string, unknown>;
  readonly error: { error: string; message: string } | null;
  /** Made for one run only, and gone soon after it. */
  readonly is_temporary: boolean;
  readonly created_at: Date;
  readonly updated_at: Date;
  readonly state_updated_at: Date;
}

/** A thread with what GET /threads/:id/state answers. */
export interface StatefulThread extends ThreadRow {
  /** JSON text; null when it has to be computed, or is not wanted. */
  readonly state: string | null;
  readonly has_checkpoints: boolean;
}

export interface WholeThread extends StatefulThread {
  readonly ttl_minutes: number | null;
  readonly ttl_strategy: ThreadTtl["strategy"] | null;
  readonly expires_at: Date | null;
}

export interface LockedThread {
  readonly metadata: Record<string, unknown>;
  readonly is_busy: boolean;
  /** A temporary thread whose run is over. */
  readonly is_gone: boolean;
  readonly is_visible: boolean;
  readonly state_updated_at: Date;
}

const insertThreadRow = `/* insertThread */
with made as (
  insert into holdfast.threads (thread_id, metadata, ttl_minutes, ttl_strategy, expires_at, data_key_id)
  values ($1, $2, $3, $4, now() + $3 * interval '1 min', $5)
  on conflict (thread_id) do nothing returning *),
key as (
  insert into holdfast.data_keys (data_key_id, tenant_id, thread_id, kek_id, wrapped)
  select data_key_id, $6, thread_id, $7, $8 from made where data_key_id is not null)
select thread_id, status, metadata, config, error, is_temporary, created_at, updated_at, state_updated_at from made`;

const findThreadRow = `/* findThread */
select thread_id, status, metadata, config, error, is_temporary, created_at, updated_at, state_updated_at
  from holdfast.threads where thread_id = $1`;

const findConfigRow = `/* findThreadConfig */
select thread_id, config, config::text as stored from holdfast.threads where thread_id = $1`;

// While a run is live its checkpoints are newer than what the last one left.
const findWholeRow = `/* findWholeThread */
select thread_id, status, metadata, config, error, is_temporary, created_at, updated_at, state_updated_at,
       case when status <> 'busy' then state::text end as state,
       exists (select from public.checkpoints c where c.thread_id = t.thread_id) as has_checkpoints,
       ttl_minutes, ttl_strategy, expires_at
  from holdfast.threads t where thread_id = $1`;

const patchMetadataRow = `/* patchThreadMetadata */
update holdfast.threads set metadata = metadata || $2::jsonb, updated_at = now()
 where thread_id = $1 and (not is_temporary or status = 'busy') returning thread_id`;

// The status is read from the row that was locked: a look into runs would be older than a wait for the lock.
const lockThreadRow = `/* lockThread */
select metadata, state_updated_at, status = 'busy' as is_busy, is_temporary and status <> 'busy' as is_gone,
       $2::jsonb is null or metadata @> $2 as is_visible
  from holdfast.threads where thread_id = $1 for no key update`;

const touchThreadState = `/* touchThreadState */
update holdfast.threads
   set status = coalesce($2, resting), resting = coalesce($2, resting), state = $3::json, error = case when $2 is null then error end, updated_at = now(), state_updated_at = now(),
       expires_at = case when ttl_minutes is not null then now() + ttl_minutes * interval '1 min' end
 where thread_id = $1`;

// The same of the state alone.
const findStateRow = `/* findThreadState */
select thread_id, status, metadata, is_temporary, case when status <> 'busy' then state::text end as state
  from holdfast.threads where thread_id = $1`;

const findAtWorkRow = `/* findAtWork */
select (select run_id from holdfast.runs where thread_id = $1 and state in ('ready', 'running')) as live,
       exists (select from holdfast.runs where thread_id = $1 and state = 'blocked') as has_waiting`;

type ThreadReading = Pick<ThreadRow, "thread_id"> & {
  readonly config?: ThreadRow["config"];
  readonly error?: ThreadRow["error"];
  readonly state?: string | null;
};

const THREAD_READINGS: Readings<ThreadReading> = {
  config: { name: "threads.config", as: "json", row: (row) => [row.thread_id] },
  error: { name: "threads.error", as: "json", row: (row) => [row.thread_id] },
  state: { name: "threads.state", as: "json text", row: (row) => [row.thread_id] },
};

/** Threads as they were read, opened. */
export const openThreads = <Row extends ThreadReading>(on: Queryable, rows: Row[]): Promise<Row[]> =>
  openRows(on, rows, THREAD_READINGS as Readings<Row>);

/** The new thread, or undefined when the id is taken. */
export async function insertThread(
  on: Queryable,
  threadId: string,
  metadata: object,
  ttl: ThreadTtl | null = null,
): Promise<ThreadRow | undefined> {
  const { key, row: newKey } = on.seals.newOfThread(threadId) ?? {};
  const [row] = await on.query<ThreadRow>(insertThreadRow, [
    threadId,
    metadata,
    ttl?.minutes ?? null,
    ttl?.strategy ?? null,
    key?.id ?? null,
    newKey?.tenant_id ?? null,
    newKey?.kek_id ?? null,
    newKey?.wrapped ?? null,
  ]);
  if (row && key) on.seals.noteThread(threadId, key.id);
  return row;
}

export async function findThread(on: Queryable, threadId: string): Promise<ThreadRow | undefined> {
  const [row] = await openThreads(on, await on.query<ThreadRow>(findThreadRow, [threadId]));
  return row;
}

/** What the runs of a thread are configured with so far. */
export interface ThreadConfig {
  readonly config: Record<string, unknown>;
  /** The same as it is stored; undefined when there is no such thread. */
  readonly stored?: string | undefined;
}

export async function findThreadConfig(on: Queryable, threadId: string): Promise<ThreadConfig> {
  type Row = ThreadConfig & Pick<ThreadRow, "thread_id">;
  const [row] = await openThreads(on, await on.query<Row>(findConfigRow, [threadId]));
  return row ?? { config: {} };
}

/** A thread with its state, unless a run is live, and how long it is kept. */
export async function findWholeThread(on: Queryable, threadId: string): Promise<WholeThread | undefined> {
  const [row] = await openThreads(on, await on.query<WholeThread>(findWholeRow, [threadId]));
  return row;
}

/** Merges metadata, key by key. False: there is no such thread. */
export async function patchThreadMetadata(
  on: Queryable,
  threadId: string,
  metadata: object,
): Promise<boolean> {
  return (await on.query(patchMetadataRow, [threadId, metadata])).length > 0;
}

/** Keeps runs from starting until the transaction ends, and says whether one is live and the caller may see it. */
export async function lockThread(
  on: Queryable,
  threadId: string,
  auth?: AuthFilter,
): Promise<LockedThread | undefined> {
  const [row] = await on.query<LockedThread>(lockThreadRow, [threadId, auth ?? null]);
  return row;
}

/**
 * Notes what the state is now. Lock the thread first.
 * @param status undefined: what it was before the runs that are live or wait, with its error
 * @param state what GET /threads/:id/state answers, as JSON text; null when it has to be computed
 */
export async function updateThreadState(
  on: Queryable,
  threadId: string,
  status: "idle" | "interrupted" | undefined,
  state: string | null,
): Promise<void> {
  const key = state === null ? undefined : await on.seals.ofLocked(on, threadId);
  const sealed = state && sealJson(key, placeOf("threads.state", [threadId]), state);
  await on.query(touchThreadState, [threadId, status ?? null, sealed]);
}

type KnownState = Pick<ThreadRow, "thread_id" | "status" | "metadata" | "is_temporary"> & {
  readonly state: string | null;
};

/** The newest state of a thread as JSON text; null when it has to be computed. */
export async function findThreadState(on: Queryable, threadId: string): Promise<KnownState | undefined> {
  const [row] = await openThreads(on, await on.query<KnownState>(findStateRow, [threadId]));
  return row;
}

/** What works on a thread, or will as soon as it can; a run that begins at a later time does neither. */
export interface AtWorkOn {
  /** Id of the live run. */
  readonly live: string | null;
  /** Whether another run waits for it. */
  readonly has_waiting: boolean;
}

export async function findAtWork(on: Queryable, threadId: string): Promise<AtWorkOn> {
  const [row] = await on.query<AtWorkOn>(findAtWorkRow, [threadId]);
  return row ?? { live: null, has_waiting: false };
}
