// Rows of holdfast.runs. A run is written by its owner only: (run, worker, attempt) of a running row.
import type { RunState } from "../runs/run.ts";
import type { Queryable } from "./database.ts";
import { codeOf, UNIQUE_VIOLATION } from "./postgres.ts";

export interface RunRow {
  readonly run_id: string;
  readonly thread_id: string;
  readonly assistant_id: string;
  readonly state: RunState;
  readonly attempt: number;
  readonly multitask: string;
  readonly metadata: Record<string, unknown>;
  readonly kwargs: Record<string, unknown>;
  readonly error: RunError | null;
  readonly created_at: Date;
  readonly updated_at: Date;
}

/** Why a run failed: the class of the error and its message. */
export interface RunError {
  readonly error: string;
  readonly message: string;
}

export interface NewRun {
  readonly runId: string;
  readonly threadId: string;
  readonly assistantId: string;
  readonly workerId: string;
  readonly multitask: string;
  readonly metadata: object;
  readonly kwargs: object;
  /** Merged into the thread's metadata: which graph and assistant it runs. */
  readonly threadMetadata: object;
}

const insertRunRow = `/* insertRun */
with thread as (
  update holdfast.threads set status = 'busy', error = null, metadata = metadata || $8::jsonb, updated_at = now()
   where thread_id = $2 returning thread_id)
insert into holdfast.runs (run_id, thread_id, assistant_id, worker_id, state, multitask, metadata, kwargs)
select $1, thread_id, $3, $4, 'running', $5, $6, $7 from thread
returning run_id, thread_id, assistant_id, state, attempt, multitask, metadata, kwargs, error, created_at, updated_at`;

const findRunRow = `/* findRun */
select run_id, thread_id, assistant_id, state, attempt, multitask, metadata, kwargs, error, created_at, updated_at
  from holdfast.runs where run_id = $1`;

// Lock order everywhere: the thread, then its run.
const finishRunRow = `/* finishRun */
with thread as (
  select thread_id from holdfast.threads
   where thread_id = (select thread_id from holdfast.runs where run_id = $1) for no key update),
run as (
  update holdfast.runs r set state = $4, error = $5::json, updated_at = now()
    from thread
   where r.run_id = $1 and r.thread_id = thread.thread_id and r.worker_id = $2 and r.attempt = $3 and r.state = 'running'
  returning r.thread_id)
update holdfast.threads t set status = $6, error = $5::json, updated_at = now(), state_updated_at = now()
  from run where t.thread_id = run.thread_id returning t.thread_id`;

const listOrphanRows = `/* listOrphanRuns */
select r.run_id from holdfast.runs r
 where r.state = 'running' and (r.worker_id = any ($1::uuid[])
    or not exists (select from holdfast.instances i where i.worker_id = r.worker_id))`;

const failRunRows = `/* failRuns */
with thread as (
  select t.thread_id from holdfast.threads t join holdfast.runs r using (thread_id)
   where r.run_id = any ($1::uuid[]) order by t.thread_id for no key update of t),
lost as (
  update holdfast.runs r set state = 'error', error = $2::json, updated_at = now()
    from thread
   where r.thread_id = thread.thread_id and r.run_id = any ($1::uuid[]) and r.state = 'running'
  returning r.run_id, r.thread_id),
freed as (
  update holdfast.threads t set status = 'error', error = $2::json, updated_at = now()
    from lost where t.thread_id = lost.thread_id)
insert into holdfast.run_events (run_id, seq, event, data)
select run_id, coalesce((select max(seq) + 1 from holdfast.run_events e where e.run_id = lost.run_id), 0), 'error', $2::text
  from lost returning run_id`;

/** The run, already running; "busy" when another run of the thread is live, "missing" without the thread. */
export async function insertRun(on: Queryable, run: NewRun): Promise<RunRow | "busy" | "missing"> {
  try {
    const [row] = await on.query<RunRow>(insertRunRow, [
      run.runId,
      run.threadId,
      run.assistantId,
      run.workerId,
      run.multitask,
      run.metadata,
      JSON.stringify(run.kwargs),
      run.threadMetadata,
    ]);
    return row ?? "missing";
  } catch (error) {
    if (codeOf(error) === UNIQUE_VIOLATION) return "busy";
    throw error;
  }
}

export async function findRun(on: Queryable, runId: string): Promise<RunRow | undefined> {
  const [row] = await on.query<RunRow>(findRunRow, [runId]);
  return row;
}

/** Ends a run and frees its thread. False: the run is no longer this owner's; nothing was written. */
export async function finishRun(
  on: Queryable,
  owner: { runId: string; workerId: string; attempt: number },
  end: { state: RunState; error: RunError | null; threadStatus: string },
): Promise<boolean> {
  const error = end.error ? JSON.stringify(end.error) : null;
  const { runId, workerId, attempt } = owner;
  const rows = await on.query(finishRunRow, [runId, workerId, attempt, end.state, error, end.threadStatus]);
  return rows.length > 0;
}

/** Running runs that belong to one of `workerIds`, or to no instance there is. */
export async function listOrphanRuns(on: Queryable, workerIds: readonly string[]): Promise<string[]> {
  const rows = await on.query<{ run_id: string }>(listOrphanRows, [workerIds]);
  return rows.map(({ run_id: runId }) => runId);
}

/** Ends those of `runIds` that are running still, and appends the error to their streams. Returns their ids. */
export async function failRuns(on: Queryable, runIds: readonly string[], error: RunError): Promise<string[]> {
  const rows = await on.query<{ run_id: string }>(failRunRows, [runIds, JSON.stringify(error)]);
  return rows.map(({ run_id: runId }) => runId);
}
