// Writing checkpoints to the stock PostgresSaver's tables: whatever has gathered, of many runs, in one statement.
// Each write is fenced in that statement, on its run's row while a run makes it, else on its thread's row.
import type { DataKey } from "../../privacy/seal.ts";
import type { Queryable } from "../database.ts";
import { sealedBody } from "../events.ts";
import type { Segment } from "../events.ts";
import { isOwn } from "../fence.ts";
import type { Owner } from "../fence.ts";
import { insertNotes, packedNotes } from "../model-calls.ts";
import type { Note } from "../model-calls.ts";
import { PUT_BACK, WRITE_CHECKPOINTS, isStored, packed } from "./form.ts";
import type { CheckpointKey, CheckpointWrite } from "./form.ts";

/** Under which LangGraph writes what a command says. */
const NO_TASK = "'00000000-0000-0000-0000-000000000000'";
const OF_RUNS = `
  select f.n, r.thread_id, r.run_id, r.attempt from json_to_recordset($4::json) as f (n int, run_id uuid, attempt int, ns text, id text)
   cross join lateral (
    select thread_id, run_id, attempt from holdfast.runs o
     where o.run_id = f.run_id and ${isOwn("o", { attempt: "f.attempt", worker: "$5" })} for share) r
   where ${isStored("r.thread_id", "f.ns", "f.id")}`;
const OF_RUN = `
  select run_id, thread_id from holdfast.runs r
   where run_id = $1 and ${isOwn("r", { worker: "$2", attempt: "$3" })} for share`;
const OF_THREAD = `
  select 1 as n, thread_id, null::uuid as run_id from holdfast.threads
   where thread_id = $4 and data_key_id is not distinct from $5 for key share`;

// The form and the fence of events are those of insertSegments. Events may not go before others of their run that a
// crash of the database has taken: those are written again first. All of one run go in, or none.
const EVENTS = `
e as (
  select held.n, held.run_id, held.attempt, e.seq, e.last, e.body, bool_and(e.goes_first or coalesce((
      select p.last from holdfast.run_events p where p.run_id = held.run_id and p.seq < e.seq order by p.seq desc limit 1
    ) = e.seq - 1, false)) over (partition by held.n) as fits
    from json_to_recordset($6::json) as e (n int, seq int, last int, body text, goes_first boolean) join held using (n)),
event as (
  insert into holdfast.run_events (run_id, seq, last, attempt, body)
  select run_id, seq, last, attempt, body from e where fits on conflict (run_id, seq) do nothing),`;

const put = (name: string, fence: string, beside: string, answer: string): string => `/* ${name} */
with held as (${fence}),${beside}
${WRITE_CHECKPOINTS}
${answer}`;

const putForRuns = put(
  "putCheckpoints",
  OF_RUNS,
  `${EVENTS} noted as (${insertNotes("$7")}),`,
  `select run_id, attempt, coalesce((select bool_and(e.fits) from e where e.n = held.n), true) as fits from held`,
);
const putForThreadRow = put("putThreadCheckpoint", OF_THREAD, "", "select n from held");

// An answer that names no question hangs on the checkpoint for whoever asks first, and LangGraph leaves it there: the next
// question, of another attempt or another run, would be given it too. Tasks keep the answers that they have taken.
const LEFT = `
   where w.thread_id = held.thread_id and w.channel = '__resume__' and w.task_id = ${NO_TASK} and`;
const settleAnswersRows = `/* settleAnswers */
with held as (${OF_RUN}),
taker as materialized (
  select distinct w.run_id from held join public.checkpoint_writes w using (thread_id)
   where w.channel in ('__resume__', '__interrupt__') and w.task_id <> ${NO_TASK} and w.run_id is not null),
gone as (
  delete from public.checkpoint_writes w using held
  ${LEFT} (w.run_id is null or w.run_id in (select run_id from taker) or (not $4 and w.run_id <> held.run_id))),
kept as (
  update public.checkpoint_writes w set run_id = held.run_id from held
  ${LEFT} $4 and w.run_id <> held.run_id and w.run_id not in (select run_id from taker))
select array(
    select w.task_id from public.checkpoint_writes w
     where w.thread_id = held.thread_id and w.run_id = held.run_id and w.channel = '__interrupt__') as asked
  from held join taker using (run_id)`;

/**
 * For a run that goes on without an answer of its own, and for a takeover: takes away answers that a task has taken. Those
 * of other runs that nobody has taken become the run's if it says nothing itself; else they are taken away too, or a
 * question that comes later would be given them.
 * @returns if a task of this run has taken its answer or come to another question: the tasks that ask another
 */
export async function settleAnswers(
  on: Queryable,
  run: { run_id: string; workerId: string; attempt: number; kwargs: { command?: unknown } },
): Promise<ReadonlySet<string> | undefined> {
  const values = [run.run_id, run.workerId, run.attempt, (run.kwargs.command ?? null) === null];
  const [taken] = await on.query<{ asked: string[] }>(settleAnswersRows, values);
  return taken && new Set(taken.asked);
}

// What a command writes belongs to no task.
const withdrawUpdateRows = `/* withdrawUpdate */
with held as (${OF_RUN})
delete from public.checkpoint_writes w using held
 where w.thread_id = held.thread_id and w.run_id = held.run_id and w.channel <> '__resume__'
   and w.task_id = ${NO_TASK}`;

/** Takes away what the run's command has written to the state; nothing if the run is not this owner's any more. */
export async function withdrawUpdate(on: Queryable, owner: Owner): Promise<void> {
  await on.query(withdrawUpdateRows, [owner.runId, owner.workerId, owner.attempt]);
}

// What a task was answered before stays answered; an answer that belonged to no task was taken by one.
const refuseAnswerRows = `/* refuseAnswer */
with held as (${OF_RUN}),
back as (
  update public.checkpoint_writes w set ${PUT_BACK} from held
   where w.thread_id = held.thread_id and w.run_id = held.run_id and w.channel = '__resume__'
     and w.task_id <> ${NO_TASK} and w.was_blob is not null)
delete from public.checkpoint_writes w using held
 where w.thread_id = held.thread_id and w.run_id = held.run_id and w.channel = '__resume__'
   and (w.task_id = ${NO_TASK} or w.was_blob is null)`;

/** Takes away the answers to questions that the run has brought; nothing if the run is not this owner's any more. */
export async function refuseAnswer(on: Queryable, owner: Owner): Promise<void> {
  await on.query(refuseAnswerRows, [owner.runId, owner.workerId, owner.attempt]);
}

/** Names an attempt of a run in the answer of putForOwners(). */
export const keyOf = (owner: { runId: string; attempt: number }): string => `${owner.runId}:${owner.attempt}`;

/**
 * Writes checkpoints and events of runs that `workerId` owns, and notes of calls, whoever owns their runs.
 * @param newestOf the newest checkpoint that an attempt has stored, which must still be there
 * @returns the attempts it does own, by keyOf(), and whether their events fitted to those before: if not, they were
 * not written. Nothing but notes was written for attempts it does not own.
 */
export async function putForOwners(
  on: Queryable,
  workerId: string,
  items: readonly { owner: Owner; write: CheckpointWrite }[],
  segments: readonly Segment[],
  notes: readonly Note[] = [],
  newestOf: (owner: Owner) => CheckpointKey | undefined = () => undefined,
): Promise<ReadonlyMap<string, { fits: boolean }>> {
  const newest = new Map(items.map(({ owner }) => [keyOf(owner), newestOf(owner)]));
  const attempts = [...items.map(({ owner }) => owner), ...segments];
  const owners = [...new Map(attempts.map((one) => [keyOf(one), one])).values()];
  const places = new Map(owners.map((owner, index) => [keyOf(owner), index + 1]));
  const placeOf = (owner: { runId: string; attempt: number }): number => places.get(keyOf(owner)) ?? 0;
  const rows = await on.query<{ run_id: string; attempt: number; fits: boolean }>(putForRuns, [
    ...packed(items.map(({ owner, write }) => ({ n: placeOf(owner), write, key: owner.key }))),
    JSON.stringify(
      owners.map((one) => {
        const { namespace: ns, checkpointId: id } = newest.get(keyOf(one)) ?? {};
        return { n: placeOf(one), run_id: one.runId, attempt: one.attempt, ns, id };
      }),
    ),
    workerId,
    JSON.stringify(
      segments.map((one, index) => {
        const { runId, seq, last, isFirst } = one;
        // The one before comes with it, and is looked for itself.
        const isLed = segments[index - 1]?.runId === runId;
        return { n: placeOf(one), seq, last, body: sealedBody(one), goes_first: isFirst || isLed };
      }),
    ),
    packedNotes(notes),
  ]);
  return new Map(rows.map(({ run_id: runId, attempt, fits }) => [keyOf({ runId, attempt }), { fits }]));
}

/** One write outside any run. False: the thread is gone, or has another key, and nothing was written. */
export async function putForThread(
  on: Queryable,
  write: CheckpointWrite,
  key: DataKey | undefined,
): Promise<boolean> {
  const values = [...packed([{ n: 1, write, key }]), write.threadId, key?.id ?? null];
  return (await on.query(putForThreadRow, values)).length > 0;
}
