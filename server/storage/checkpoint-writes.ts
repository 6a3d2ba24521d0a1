// Writing checkpoints to the stock PostgresSaver's tables: whatever has gathered, of many runs, in one statement.
// Each write is fenced in that statement, on its run's row while a run makes it, else on its thread's row.
// All values travel as one binary buffer, cut by offsets; an array of bytea would travel as hex text.
import type { Owner } from "../runs/run.ts";
import type { CheckpointKey, Value } from "./checkpoint-rows.ts";
import type { Queryable } from "./database.ts";
import type { Segment } from "./events.ts";

/** A checkpoint with the channel values that are new in it. */
export interface PointWrite extends CheckpointKey {
  readonly parentId: string | undefined;
  /** JSON text, made when the write was asked for: LangGraph goes on with the object. */
  readonly checkpoint: string;
  /** JSON text. */
  readonly metadata: string;
  readonly values: readonly (Value & { version: string })[];
}

/** The writes of one task, in order. A task's results never change; its errors, interrupts and resumes may. */
export interface TaskWrite extends CheckpointKey {
  readonly taskId: string;
  readonly taskPath: string;
  readonly mayReplace: boolean;
  readonly writes: readonly (Value & { idx: number })[];
}

export type CheckpointWrite = PointWrite | TaskWrite;

// A takeover changes the run's row: it waits for the lock that is taken here, and later writes find another owner.
const OF_RUNS = `
  select f.n::int as n, r.thread_id, r.run_id, r.attempt from unnest($4::uuid[], $5::int[]) with ordinality as f (run_id, attempt, n)
    join holdfast.runs r on r.run_id = f.run_id and r.attempt = f.attempt and r.worker_id = $6 and r.state = 'running'
     for share of r`;
const OF_THREAD = `
  select 1 as n, thread_id, null::uuid as run_id from holdfast.threads where thread_id = $4 for key share`;

// The form and the fence of events are those of insertSegments. Events may not go before others of their run that a
// crash of the database has taken: those are written again first.
const EVENTS = `
e as (
  select held.n, held.run_id, held.attempt, e.seq, e.last, e.body, e.is_first or coalesce((
      select p.last from holdfast.run_events p where p.run_id = held.run_id and p.seq < e.seq order by p.seq desc limit 1
    ) = e.seq - 1, false) as fits
    from json_to_recordset($7::json) as e (n int, seq int, last int, body text, is_first boolean) join held using (n)),
event as (
  insert into holdfast.run_events (run_id, seq, last, attempt, body)
  select run_id, seq, last, attempt, body from e where fits on conflict (run_id, seq) do nothing),`;

const put = (name: string, fence: string, events: string, answer: string): string => `/* ${name} */
with held as (${fence}),${events}
blob as (
  insert into public.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
  select held.thread_id, b.ns, b.channel, b.version, b.type, substring($3::bytea from b.start for b.size)
    from json_to_recordset($1::json -> 'values') as b (n int, ns text, channel text, version text, type text, start int, size int)
    join held using (n)
  on conflict (thread_id, checkpoint_ns, channel, version) do nothing),
point as (
  insert into public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
  select held.thread_id, p.ns, p.id, p.parent, p.checkpoint, p.metadata
    from json_to_recordset($1::json -> 'points') as p (n int, ns text, id text, parent text, checkpoint jsonb, metadata jsonb)
    join held using (n)
  on conflict (thread_id, checkpoint_ns, checkpoint_id)
  do update set checkpoint = excluded.checkpoint, metadata = excluded.metadata),
w as (
  select held.thread_id, held.run_id, w.*, substring($3::bytea from w.start for w.size) as blob
    from json_to_recordset($2::json) as w (n int, ns text, id text, task text, path text, idx int, channel text, type text,
        replaces boolean, start int, size int)
    join held using (n)),
result as (
  insert into public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob, run_id)
  select thread_id, ns, id, task, path, idx, channel, type, blob, run_id from w where not replaces
  on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) do nothing),
special as (
  insert into public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob, run_id)
  select thread_id, ns, id, task, path, idx, channel, type, blob, run_id from w where replaces
  on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
  do update set channel = excluded.channel, type = excluded.type, blob = excluded.blob, task_path = excluded.task_path,
    run_id = excluded.run_id)
${answer}`;

const putForRuns = put(
  "putCheckpoints",
  OF_RUNS,
  EVENTS,
  `select run_id, attempt, coalesce((select bool_and(e.fits) from e where e.n = held.n), true) as fits from held`,
);
const putForThreadRow = put("putThreadCheckpoint", OF_THREAD, "", "select n from held");

// An answer that the lost attempt gave hangs on the checkpoint for whoever asks first. If the node has taken it and asked
// its next question, that question must not get the same answer: the node's own record of answers is kept.
const withdrawAnswerRows = `/* withdrawAnswer */
with held as (
  select run_id, thread_id from holdfast.runs
   where run_id = $1 and worker_id = $2 and attempt = $3 and state = 'running' for share),
asked as (
  select 1 from held join public.checkpoint_writes w using (thread_id, run_id) where w.channel = '__interrupt__' limit 1),
gone as (
  delete from public.checkpoint_writes w using held, asked
   where w.thread_id = held.thread_id and w.run_id = held.run_id and w.channel = '__resume__'
     and w.task_id = '00000000-0000-0000-0000-000000000000')
select 1 from asked`;

/**
 * For a takeover: makes sure that an answer which was taken is not given to the next question too.
 * @returns whether the lost attempt came to another question
 */
export async function withdrawAnswer(
  on: Queryable,
  run: { run_id: string; workerId: string; attempt: number },
): Promise<boolean> {
  return (await on.query(withdrawAnswerRows, [run.run_id, run.workerId, run.attempt])).length > 0;
}

/** Names an attempt of a run in the answer of putForOwners(). */
export const keyOf = (owner: { runId: string; attempt: number }): string => `${owner.runId}:${owner.attempt}`;

/**
 * Writes checkpoints and events of runs that `workerId` owns.
 * @returns the attempts it does own, by keyOf(), and whether their events fitted to those before: if not, they were
 * not written. Nothing at all was written for attempts it does not own.
 */
export async function putForOwners(
  on: Queryable,
  workerId: string,
  items: readonly { owner: Owner; write: CheckpointWrite }[],
  segments: readonly Segment[],
): Promise<ReadonlyMap<string, { fits: boolean }>> {
  const attempts = [...items.map(({ owner }) => owner), ...segments];
  const owners = [...new Map(attempts.map((one) => [keyOf(one), one])).values()];
  const places = new Map(owners.map((owner, index) => [keyOf(owner), index + 1]));
  const placeOf = (owner: { runId: string; attempt: number }): number => places.get(keyOf(owner)) ?? 0;
  const rows = await on.query<{ run_id: string; attempt: number; fits: boolean }>(putForRuns, [
    ...packed(items.map(({ owner, write }) => ({ n: placeOf(owner), write }))),
    owners.map(({ runId }) => runId),
    owners.map(({ attempt }) => attempt),
    workerId,
    JSON.stringify(
      segments.map((one) => {
        const { seq, last, body, isFirst } = one;
        return { n: placeOf(one), seq, last, body, is_first: isFirst };
      }),
    ),
  ]);
  return new Map(rows.map(({ run_id: runId, attempt, fits }) => [keyOf({ runId, attempt }), { fits }]));
}

/** One write outside any run. False: the thread is gone, nothing was written. */
export async function putForThread(on: Queryable, write: CheckpointWrite): Promise<boolean> {
  return (await on.query(putForThreadRow, [...packed([{ n: 1, write }]), write.threadId])).length > 0;
}

type Row = Record<string, unknown>;

/** Checkpoints with their values, the writes of tasks, and the bytes of both. */
function packed(items: readonly { n: number; write: CheckpointWrite }[]): [string, string, Buffer] {
  const values: Row[] = [];
  const points = new Map<string, string>();
  const writes = new Map<string, Row>();
  const bytes: Uint8Array[] = [];
  let end = 1; // offsets of substring() begin at 1
  const place = (value: Value): Row => {
    bytes.push(value.bytes);
    const start = end;
    end += value.bytes.length;
    return { channel: value.channel, type: value.type, start, size: value.bytes.length };
  };
  for (const { n, write } of items) {
    const at = { n, ns: write.namespace, id: write.checkpointId };
    const key = `${n} ${write.namespace} ${write.checkpointId}`;
    if ("checkpoint" in write) {
      const { parentId, checkpoint, metadata } = write;
      // One statement may not write a row twice: of two that came together, the later one counts.
      const row = JSON.stringify({ ...at, parent: parentId ?? null });
      points.set(key, `${row.slice(0, -1)},"checkpoint":${checkpoint},"metadata":${metadata}}`);
      for (const value of write.values)
        values.push({ n, ns: write.namespace, version: value.version, ...place(value) });
    } else {
      for (const value of write.writes) {
        const { taskId: task, taskPath: path, mayReplace: replaces } = write;
        const rowKey = `${key} ${task} ${value.idx}`;
        if (!replaces && writes.has(rowKey)) continue;
        writes.set(rowKey, { ...at, task, path, replaces, idx: value.idx, ...place(value) });
      }
    }
  }
  const held = `{"values":${JSON.stringify(values)},"points":[${[...points.values()].join()}]}`;
  return [held, JSON.stringify([...writes.values()]), Buffer.concat(bytes)];
}
