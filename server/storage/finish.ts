// How runs end: by their owner, by a cancel, or without a trace. Lock order: the thread, then its runs.
import { AppError } from "../errors.ts";
import { uuidv7 } from "../ids.ts";
import { PUT_BACK, WRITE_CHECKPOINTS, isStored, packed } from "./checkpoints/form.ts";
import type { CheckpointKey, CheckpointWrite } from "./checkpoints/form.ts";
import type { Queryable } from "./database.ts";
import { deleteRunEvents } from "./events.ts";
import { isOwn } from "./fence.ts";
import type { Owner } from "./fence.ts";
import { placeOf, sealJson, sealText } from "./keys/sealed.ts";
import { insertNotes, packedNotes } from "./model-calls.ts";
import type { Note } from "./model-calls.ts";
import type { RunState } from "./run-states.ts";
import { RUN_COLUMNS, openRuns } from "./runs.ts";
import type { RunError, RunRow } from "./runs.ts";

export interface RunEnd {
  readonly state: Extract<RunState, "success" | "error" | "timeout" | "interrupted">;
  readonly error: RunError | null;
  readonly threadStatus: "idle" | "interrupted" | "error";
  /** What GET /threads/:id/state will answer, as JSON text; null when it has to be computed. */
  readonly threadState: string | null;
  /** Events that are not written yet. */
  readonly rest: { readonly seq: number; readonly last: number; readonly body: string } | undefined;
  /** Checkpoints that are not written yet. */
  readonly points: readonly CheckpointWrite[];
  /** The newest checkpoint that was stored before: it must still be there. */
  readonly newest?: CheckpointKey | undefined;
  /** Of calls to models of any run; they are stored in any case. */
  readonly notes: readonly Note[];
  /** How many rows of events the run has. */
  readonly segments: number;
  /** The number of the event that must be in the log already; undefined for none. */
  readonly after: number | undefined;
  /** The body of the call-back that the run asked for, as JSON text. */
  readonly webhook: { readonly id: string; readonly payload: string } | undefined;
}

const finishRunRow = `/* finishRun */
with thread as (select thread_id from holdfast.threads where thread_id = $5 for no key update),
held as (
  update holdfast.runs u set state = $8, error = $9::json, segments = $13 + case when u.attempt > 1 then 17 else 0 end, updated_at = now(), ended_at = now()
    from thread
   where u.run_id = $4 and u.thread_id = thread.thread_id and ${isOwn("u", { worker: "$6", attempt: "$7" })}
     and u.cancel is distinct from 'rollback'
     and ($18::int is null or $18 = (
       select e.last from holdfast.run_events e where e.run_id = $4 and e.seq <= $18 order by e.seq desc limit 1))
     and ${isStored("$5", "$21", "$22::text")}
  returning 1 as n, u.run_id, u.thread_id, u.webhook),
${WRITE_CHECKPOINTS},
noted as (${insertNotes("$20")}),
rest as (
  insert into holdfast.run_events (run_id, seq, last, attempt, body)
  select run_id, $14, $15, $7, $16 from held where $16::text is not null on conflict (run_id, seq) do nothing),
outbox as (
  insert into holdfast.webhooks (webhook_id, run_id, url, payload)
  select $11::uuid, run_id, webhook, $12::json from held where webhook is not null and $12::json is not null)
update holdfast.threads t
   set status = case when t.has_waiting then 'busy' else $10 end, resting = $10, error = $19::json, state = $17::json,
       updated_at = now(), state_updated_at = now(),
       expires_at = case when t.has_waiting then null when t.is_temporary then now() + interval '10 min'
         when t.ttl_minutes is not null then now() + t.ttl_minutes * interval '1 min' end
  from held where t.thread_id = held.thread_id
returning t.has_waiting`;

// One that waits behind others has no place among the runs of its thread. Who sent it there waits for its end all the same.
// Whoever saw the first try of one has seen an end: its new place would stand before that of the live run.
const placeBlockedRows = `/* placeBlocked */
with waiting as (
  select run_id, thread_id, row_number() over (partition by thread_id order by ord) as n from holdfast.runs
   where run_id = any ($1::uuid[]) and state = 'blocked' and attempt = 0 and is_watched and ordinal is null),
thread as (
  update holdfast.threads t set begun = t.begun + w.many
    from (select thread_id, max(n) as many from waiting group by thread_id) w where t.thread_id = w.thread_id
  returning t.thread_id, t.begun - w.many as before)
update holdfast.runs r set ordinal = thread.before + waiting.n
  from waiting join thread using (thread_id) where r.run_id = waiting.run_id`;

// The end of a run that was next, and never began, is told: who opens the thread now may have read that it is to come.
// One that was tried before has left checkpoints: what the thread says of its state was true before them.
const cancelPendingRows = `/* cancelPending */
with r as (
  update holdfast.runs set state = 'interrupted', cancel = 'interrupt', cancel_reason = $2, updated_at = now(), ended_at = now(),
         segments = case when attempt > 0 then 17 else 0 end, is_watched = is_watched or attempt = 0
   where run_id = any ($1::uuid[]) and state in ('delayed', 'blocked', 'ready')
  returning *),
thread as (
  update holdfast.threads set state = null, resting = 'idle', error = null
   where thread_id in (select thread_id from r where attempt > 0))
select ${RUN_COLUMNS} from r where webhook is not null`;

const insertWebhookRow = `/* insertWebhook */
insert into holdfast.webhooks (webhook_id, run_id, url, payload) values ($1, $2, $3, $4)`;

// Who has watched one, and is away, is told when he comes back; and who has read what one left half done, and follows only now.
const NOTE_UNDONE = `undone as (
  insert into holdfast.undone_runs (thread_id, ordinal, run_id)
  select thread_id, ordinal, run_id from gone where ordinal is not null)`;

// What was to be told of its end goes with it: it holds what the thread was at, and who deletes the thread finds it by its runs.
const UNTOLD = `untold as (delete from holdfast.webhooks w using gone where w.run_id = gone.run_id)`;

// A rollback that was asked for while the run had an owner holds, whatever is asked of it afterwards.
const deletePendingRows = `/* deletePending */
with gone as (
  delete from holdfast.runs
   where run_id = any ($1::uuid[]) and state in ('delayed', 'blocked', 'ready') and ($2::boolean or cancel = 'rollback')
  returning *),
${NOTE_UNDONE},
${UNTOLD}
select run_id, thread_id, attempt, told_from from gone`;

const requestCancelRows = `/* requestCancel */
update holdfast.runs set cancel = $2, cancel_reason = $3, updated_at = now()
 where run_id = any ($1::uuid[]) and state = 'running' and cancel is distinct from 'rollback'`;

const lockRunRows = `/* lockRuns */
select run_id, thread_id, state, attempt, metadata, told_from from holdfast.runs where run_id = any ($1::uuid[]) order by ord for update`;

const deleteOwnRow = `/* deleteOwnRun */
with gone as (delete from holdfast.runs r where run_id = $1 and ${isOwn("r", { worker: "$2", attempt: "$3" })} returning *),
${NOTE_UNDONE},
${UNTOLD}
select told_from from gone`;

const deleteRunRow = `/* deleteRun */
with gone as (delete from holdfast.runs where run_id = $1 returning run_id),
${UNTOLD}
select from gone`;

// Its writes may hang on a checkpoint of the run before. What only the deleted checkpoints named is gone with them; branches share nothing but what an ancestor made.
// Other runs may have gone on from what a first try has left: the ground that they stand on stays, with the writes that lead to it.
const deleteCheckpointsOfRunRows = `/* deleteCheckpointsOfRun */
with recursive needed as (
  select checkpoint_ns, parent_checkpoint_id as checkpoint_id from public.checkpoints
   where thread_id = $1 and metadata ->> 'run_id' is distinct from $2::uuid::text and parent_checkpoint_id is not null
  union
  select c.checkpoint_ns, c.parent_checkpoint_id
    from needed n join public.checkpoints c on c.thread_id = $1 and c.checkpoint_ns = n.checkpoint_ns and c.checkpoint_id = n.checkpoint_id
   where c.parent_checkpoint_id is not null),
ground as materialized (
  select c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint
    from needed n join public.checkpoints c on c.thread_id = $1 and c.checkpoint_ns = n.checkpoint_ns and c.checkpoint_id = n.checkpoint_id
   where c.metadata ->> 'run_id' = $2::uuid::text),
gone as (
  delete from public.checkpoints c where thread_id = $1 and metadata ->> 'run_id' = $2::uuid::text
     and not exists (select from ground g where g.checkpoint_ns = c.checkpoint_ns and g.checkpoint_id = c.checkpoint_id)
  returning checkpoint_ns, checkpoint_id, checkpoint),
lost as materialized (
  select checkpoint_ns, checkpoint_id, task_id, idx from public.checkpoint_writes w where thread_id = $1 and run_id = $2::uuid
     and not exists (select from ground g where g.checkpoint_ns = w.checkpoint_ns and w.checkpoint_id in (g.checkpoint_id, g.parent_checkpoint_id))),
back as (
  update public.checkpoint_writes w set ${PUT_BACK}
   where thread_id = $1 and was_blob is not null and (checkpoint_ns, checkpoint_id, task_id, idx) in (select * from lost)),
writes as (
  delete from public.checkpoint_writes w
   where thread_id = $1 and was_blob is null and (checkpoint_ns, checkpoint_id, task_id, idx) in (select * from lost))
delete from public.checkpoint_blobs b
 using (
   select g.checkpoint_ns, v.key as channel, v.value as version
     from gone g cross join jsonb_each_text(g.checkpoint -> 'channel_versions') v
   except
   select c.checkpoint_ns, v.key, v.value
     from public.checkpoints c cross join jsonb_each_text(c.checkpoint -> 'channel_versions') v
    where c.thread_id = $1 and c.metadata ->> 'run_id' is distinct from $2::uuid::text
   except
   select g.checkpoint_ns, v.key, v.value from ground g cross join jsonb_each_text(g.checkpoint -> 'channel_versions') v) as lone
 where b.thread_id = $1 and b.checkpoint_ns = lone.checkpoint_ns and b.channel = lone.channel and b.version = lone.version`;

const forgetStateRow = `/* forgetState */
update holdfast.threads
   set state = null, resting = case when $2 then 'idle' else resting end, error = case when not $2 then error end,
       updated_at = now(), state_updated_at = now()
 where thread_id = $1`;

const retryRunRow = `/* retryRun */
update holdfast.runs set state = 'blocked', worker_id = null, handovers = attempt, cancel = null, cancel_reason = null, error = null,
       deadline = null, ended_at = null, run_at = now(), updated_at = now(), ordinal = null,
       told_from = (select coalesce(max(e.last) + 1, 0) from holdfast.run_events e where e.run_id = $1)
 where run_id = $1 and state in ('error', 'timeout') returning run_id`;

/**
 * Ends a run with its last checkpoint and events, its thread's state and its call-back. Undefined: nothing was written, because the run
 * is not this owner's any more, is to be rolled back, or because events before the last ones are missing after a crash
 * of the database.
 */
export async function finishRun(
  on: Queryable,
  owner: Owner,
  end: RunEnd,
): Promise<{ hasWaiting: boolean } | undefined> {
  const { runId, threadId, key } = owner;
  const { webhook, rest } = end;
  const error = end.error ? JSON.stringify(end.error) : null;
  const payload = webhook && (await sealedPayload(on, webhook.id, webhook.payload));
  const [row] = await on.query<{ has_waiting: boolean }>(finishRunRow, [
    ...packed(end.points.map((write) => ({ n: 1, write, key }))),
    runId,
    threadId,
    owner.workerId,
    owner.attempt,
    end.state,
    error && sealJson(key, placeOf("runs.error", [runId]), error),
    end.threadStatus,
    webhook?.id ?? null,
    payload ?? null,
    end.segments,
    rest?.seq ?? null,
    rest?.last ?? null,
    rest ? sealText(key, placeOf("run_events.body", [runId, rest.seq]), rest.body) : null,
    end.threadState && sealJson(key, placeOf("threads.state", [threadId]), end.threadState),
    end.after ?? null,
    error && sealJson(key, placeOf("threads.error", [threadId]), error),
    packedNotes(end.notes),
    end.newest?.namespace ?? null,
    end.newest?.checkpointId ?? null,
  ]);
  return row && { hasWaiting: row.has_waiting };
}

/** What goes to the receiver of a call-back; sealed while it waits, also when its run's thread is gone already. */
async function sealedPayload(on: Queryable, webhookId: string, payload: string): Promise<string> {
  return sealJson(await on.seals.ofRest(on), placeOf("webhooks.payload", [webhookId]), payload);
}

/** The run, without what was asked of it if that cannot be read: it can be cancelled all the same. */
async function readable(transaction: Queryable, run: RunRow): Promise<RunRow> {
  try {
    const [opened = run] = await openRuns(transaction, [run]);
    return opened;
  } catch (error) {
    if (!(error instanceof AppError) || error.retryable) throw error;
    return { ...run, kwargs: {} };
  }
}

/**
 * Ends runs that wait; a rollback leaves nothing of them. Lock the thread first.
 * @returns undefined when nothing was taken from the thread that one had left; else its state has to be stored anew, and
 * `hadEnded` says whether its status may be what the first try of one has left
 * @param bodyOf the body of the call-back of a run that asked for one, as JSON text
 */
export async function cancelPending(
  transaction: Queryable,
  runIds: readonly string[],
  how: { action: "interrupt" | "rollback"; reason: string | null; bodyOf: (run: RunRow) => string },
): Promise<{ hadEnded: boolean } | undefined> {
  if (runIds.length === 0) return undefined;
  type Gone = Pick<RunRow, "run_id" | "thread_id" | "attempt" | "told_from">;
  await transaction.query(placeBlockedRows, [runIds]);
  const gone = await transaction.query<Gone>(deletePendingRows, [runIds, how.action === "rollback"]);
  // One that waits for another try has left traces.
  const tried = gone.filter(({ attempt }) => attempt > 0);
  for (const { run_id: runId, thread_id: threadId, told_from: from } of tried) {
    await deleteRunEvents(transaction, [runId]);
    await deleteCheckpointsOfRun(transaction, { threadId, runId, hadEnded: from > 0 });
  }
  if (how.action === "interrupt") {
    const ended = await transaction.query<RunRow>(cancelPendingRows, [runIds, how.reason]);
    for (const run of ended) {
      const id = uuidv7();
      const payload = await sealedPayload(transaction, id, how.bodyOf(await readable(transaction, run)));
      await transaction.query(insertWebhookRow, [id, run.run_id, run.webhook, payload]);
    }
  }
  return tried.length > 0 ? { hadEnded: tried.some(({ told_from: from }) => from > 0) } : undefined;
}

/** Asks the owners of running runs to stop them. Lock the thread first. */
export async function requestCancel(
  transaction: Queryable,
  runIds: readonly string[],
  action: "interrupt" | "rollback",
  reason: string | null,
): Promise<void> {
  if (runIds.length > 0) await transaction.query(requestCancelRows, [runIds, action, reason]);
}

/** What of a run says what may be done with it. */
export type LockedRun = Pick<RunRow, "run_id" | "thread_id" | "state" | "attempt" | "metadata" | "told_from">;

/** Rows of runs, locked, in the order in which they came. Lock their thread first. */
export async function lockRuns(transaction: Queryable, runIds: readonly string[]): Promise<LockedRun[]> {
  return transaction.query<LockedRun>(lockRunRows, [runIds]);
}

/** Removes a running run, if it is still this owner's; undefined if not. */
export async function deleteOwnRun(
  transaction: Queryable,
  owner: Owner,
): Promise<{ hadEnded: boolean } | undefined> {
  const { runId, workerId, attempt } = owner;
  const [row] = await transaction.query<Pick<RunRow, "told_from">>(deleteOwnRow, [runId, workerId, attempt]);
  return row && { hadEnded: row.told_from > 0 };
}

export async function deleteEndedRun(transaction: Queryable, runId: string): Promise<void> {
  await transaction.query(deleteRunRow, [runId]);
}

/**
 * Removes the checkpoints that a run made, so that the thread is what it was before.
 * @param hadEnded the thread's status may be what the run's first try has left
 */
export async function deleteCheckpointsOfRun(
  transaction: Queryable,
  { threadId, runId, hadEnded }: { threadId: string; runId: string; hadEnded: boolean },
): Promise<void> {
  await transaction.query(deleteCheckpointsOfRunRows, [threadId, runId]);
  await transaction.query(forgetStateRow, [threadId, hadEnded]);
}

/** Brings a failed run back to its thread's queue, its attempts forgiven. False: it did not fail. Lock the thread first. */
export async function retryRun(transaction: Queryable, runId: string): Promise<boolean> {
  return (await transaction.query(retryRunRow, [runId])).length > 0;
}
