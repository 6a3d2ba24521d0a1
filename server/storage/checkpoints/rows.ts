// Reading checkpoints from the stock PostgresSaver's tables: one statement per read.
// Parts are read by primary key, in laterals with `limit 1` or `offset 0`: without statistics the planner would
// rather join with all rows of the thread.
import { SealedValueInvalid } from "../../errors.ts";
import type { Queryable } from "../database.ts";
import { openRows, placeOf } from "../keys/sealed.ts";
import type { Reading } from "../keys/sealed.ts";
import { SEALED_TYPE } from "./form.ts";
import type { CheckpointKey } from "./form.ts";

/** A checkpoint or one of its parts; a page of checkpoints comes as such rows, newest checkpoint first. */
export interface CheckpointRow {
  readonly kind: "checkpoint" | "blob" | "write";
  readonly thread_id: string;
  readonly checkpoint_ns: string;
  readonly checkpoint_id: string | null;
  readonly parent_checkpoint_id: string | null;
  readonly checkpoint: Record<string, unknown> | null;
  readonly metadata: Record<string, unknown> | null;
  readonly channel: string;
  readonly version: string;
  readonly type: string;
  readonly blob: Uint8Array;
  readonly task_path: string;
  readonly task_id: string;
  readonly idx: number;
}

export interface CheckpointPage {
  readonly threadId?: string | undefined;
  readonly namespace?: string | undefined;
  readonly checkpointId?: string | undefined;
  /** Only checkpoints whose metadata holds all of this. */
  readonly metadata?: object | undefined;
  readonly before?: string | undefined;
  /** Continues after this checkpoint of the page before. */
  readonly after?: CheckpointKey | undefined;
  readonly limit: number;
}

const findCheckpoint = `/* findCheckpoint */
with found as (
  select thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata
    from public.checkpoints
   where thread_id = $1 and checkpoint_ns = $2 and checkpoint_id = coalesce($3::text, (
     select checkpoint_id from public.checkpoints
      where thread_id = $1 and checkpoint_ns = $2 order by checkpoint_id desc limit 1))
     and not metadata ? 'replay_only')
select 'checkpoint' as kind, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata,
       null as channel, null as version, null as type, null::bytea as blob,
       null as task_path, null as task_id, null::int as idx
  from found
union all
select 'blob', b.thread_id, b.checkpoint_ns, null, null, null, null, b.channel, b.version, b.type, b.blob, null, null, null
  from found f cross join jsonb_each_text(f.checkpoint -> 'channel_versions') v cross join lateral (
    select thread_id, checkpoint_ns, channel, version, type, blob from public.checkpoint_blobs
     where thread_id = f.thread_id and checkpoint_ns = f.checkpoint_ns and channel = v.key and version = v.value
     limit 1) b
 where b.type <> 'empty'
union all
select 'write', w.thread_id, w.checkpoint_ns, w.checkpoint_id, null, null, null, w.channel, null, w.type, w.blob,
       w.task_path, w.task_id, w.idx
  from found f cross join lateral (
    select thread_id, checkpoint_ns, checkpoint_id, channel, type, blob, task_path, task_id, idx
      from public.checkpoint_writes
     where thread_id = f.thread_id and checkpoint_ns = f.checkpoint_ns and checkpoint_id = f.checkpoint_id offset 0) w`;

// A plan for any values cannot use the index, and PostgreSQL chooses it while the table is small, then keeps it.
const listCheckpoints = `/* listCheckpoints: planned for its values */
with page as (
  select thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata
    from public.checkpoints
   where ($1::text is null or thread_id = $1) and ($2::text is null or checkpoint_ns = $2)
     and ($3::text is null or checkpoint_id = $3) and ($4::jsonb is null or metadata @> $4)
     and not metadata ? 'replay_only'
     and ($5::text is null or checkpoint_id < $5)
     and ($6::text is null or (checkpoint_id, thread_id, checkpoint_ns) < ($6, $7, $8))
   order by checkpoint_id desc, thread_id desc, checkpoint_ns desc limit $9),
part as (
  select distinct p.thread_id, p.checkpoint_ns, v.key as channel, v.value as version
    from page p cross join jsonb_each_text(p.checkpoint -> 'channel_versions') v)
select 'checkpoint' as kind, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata,
       null as channel, null as version, null as type, null::bytea as blob,
       null as task_path, null as task_id, null::int as idx
  from page
union all
select 'blob', b.thread_id, b.checkpoint_ns, null, null, null, null, b.channel, b.version, b.type, b.blob, null, null, null
  from part p cross join lateral (
    select thread_id, checkpoint_ns, channel, version, type, blob from public.checkpoint_blobs
     where thread_id = p.thread_id and checkpoint_ns = p.checkpoint_ns and channel = p.channel and version = p.version
     limit 1) b
 where b.type <> 'empty'
union all
select 'write', w.thread_id, w.checkpoint_ns, w.checkpoint_id, null, null, null, w.channel, null, w.type, w.blob,
       w.task_path, w.task_id, w.idx
  from page p cross join lateral (
    select thread_id, checkpoint_ns, checkpoint_id, channel, type, blob, task_path, task_id, idx
      from public.checkpoint_writes
     where thread_id = p.thread_id and checkpoint_ns = p.checkpoint_ns and checkpoint_id = p.checkpoint_id offset 0) w`;

const listPendingSends = `/* listPendingSends */
select thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob from public.checkpoint_writes
 where thread_id = $1 and checkpoint_ns = $2 and checkpoint_id = any ($3::text[]) and channel = $4
 order by checkpoint_id, task_path collate "C", task_id collate "C", idx`;

const listFirst = `/* listFirstOfRun */
select checkpoint_id from public.checkpoints
 where thread_id = $1 and checkpoint_ns = '' and metadata ->> 'run_id' = $2 and not metadata ? 'replay_only'
 order by checkpoint_id limit 2`;

const findLast = `/* findLastOfRun */
select checkpoint_id from public.checkpoints
 where thread_id = $1 and checkpoint_ns = '' and metadata ->> 'run_id' = $2 and not metadata ? 'replay_only'
 order by checkpoint_id desc limit 1`;

const findNewestOwner = `/* findNewestOwner */
select metadata ->> 'run_id' = $2 as is_own from public.checkpoints
 where thread_id = $1 and checkpoint_ns = '' order by checkpoint_id desc limit 1`;

/** A value as it is stored, with what names its row. */
export type StoredBlob = Pick<
  CheckpointRow,
  "thread_id" | "checkpoint_ns" | "channel" | "version" | "type" | "blob"
>;
export type StoredWrite = Pick<
  CheckpointRow,
  "thread_id" | "checkpoint_ns" | "checkpoint_id" | "task_id" | "idx" | "channel" | "type" | "blob"
>;

const ofBlob: Reading<StoredBlob> = {
  name: "checkpoint_blobs.blob",
  as: "bytes",
  row: (row) => [row.thread_id, row.checkpoint_ns, row.channel, row.version, row.type],
};
const ofWrite: Reading<StoredWrite> = {
  name: "checkpoint_writes.blob",
  as: "bytes",
  row: ({ thread_id: thread, checkpoint_ns: ns, checkpoint_id: id, task_id: task, idx, channel, type }) => [
    thread,
    ns,
    id ?? "",
    task,
    idx,
    channel,
    type,
  ],
};

/** Values of channels as they were read, opened. @throws SealedValueInvalid, DataKeyUnusable */
export const openBlobs = <Row extends StoredBlob>(on: Queryable, rows: Row[]): Promise<Row[]> =>
  opened(on, rows, ofBlob);

/** Values of writes as they were read, opened. @throws SealedValueInvalid, DataKeyUnusable */
export const openWrites = <Row extends StoredWrite>(on: Queryable, rows: Row[]): Promise<Row[]> =>
  opened(on, rows, ofWrite);

async function opened<Row extends StoredBlob | StoredWrite>(
  on: Queryable,
  rows: Row[],
  reading: Reading<Row>,
): Promise<Row[]> {
  if (!on.seals.isOn) {
    const sealed = rows.find(({ type }) => type?.endsWith(SEALED_TYPE));
    if (!sealed) return rows;
    throw new SealedValueInvalid(
      placeOf(reading.name, reading.row(sealed)),
      "is sealed, and this process has no keys",
    );
  }
  const open = await openRows<Row>(on, rows, { blob: reading });
  return open.map((row) => Object.assign({}, row, { type: row.type.slice(0, -SEALED_TYPE.length) }));
}

/** Rows of a read with their values opened; the checkpoints among them hold none. */
async function openValues(on: Queryable, rows: CheckpointRow[]): Promise<CheckpointRow[]> {
  const { checkpoint = [], blob = [], write = [] } = Object.groupBy(rows, ({ kind }) => kind);
  return [...checkpoint, ...(await openBlobs(on, blob)), ...(await openWrites(on, write))];
}

/** The checkpoint with its values and writes, as rows in no order; the newest if no id is given. */
export const findCheckpointRows = async (
  on: Queryable,
  key: { threadId: string; namespace: string; checkpointId: string | undefined },
): Promise<CheckpointRow[]> => {
  const values = [key.threadId, key.namespace, key.checkpointId ?? null];
  return openValues(on, await on.query<CheckpointRow>(findCheckpoint, values));
};

/** A page of checkpoints, newest first, with all their values and writes as rows. */
export const listCheckpointRows = async (on: Queryable, page: CheckpointPage): Promise<CheckpointRow[]> => {
  const rows = await on.query<CheckpointRow>(listCheckpoints, [
    page.threadId ?? null,
    page.namespace ?? null,
    page.checkpointId ?? null,
    page.metadata ? JSON.stringify(page.metadata) : null,
    page.before ?? null,
    ...(page.after
      ? [page.after.checkpointId, page.after.threadId, page.after.namespace]
      : [null, null, null]),
    page.limit,
  ]);
  return openValues(on, rows);
};

/** Writes to `channel` of checkpoints made before version 4, which kept a superstep's sends there. */
export const listPendingSendRows = async (
  on: Queryable,
  key: { threadId: string; namespace: string; checkpointIds: readonly string[]; channel: string },
): Promise<StoredWrite[]> => {
  const values = [key.threadId, key.namespace, key.checkpointIds, key.channel];
  return openWrites(on, await on.query<StoredWrite>(listPendingSends, values));
};

const isOwn = `/* isOfRun */
select from public.checkpoints
 where thread_id = $1 and checkpoint_ns = '' and checkpoint_id = $2 and metadata ->> 'run_id' = $3`;

/** Whether this run made the checkpoint of the thread's own graph. */
export async function isOfRun(
  on: Queryable,
  run: { thread_id: string; run_id: string },
  checkpointId: string,
): Promise<boolean> {
  return (await on.query(isOwn, [run.thread_id, checkpointId, run.run_id])).length > 0;
}

/** Whether the newest checkpoint of the thread's own graph was made by this run. */
export async function isNewestOfRun(on: Queryable, threadId: string, runId: string): Promise<boolean> {
  const [row] = await on.query<{ is_own: boolean | null }>(findNewestOwner, [threadId, runId]);
  return row?.is_own ?? false;
}

/** The two oldest checkpoints of the thread's own graph that this run made. */
export async function listFirstOfRun(on: Queryable, threadId: string, runId: string): Promise<string[]> {
  const rows = await on.query<{ checkpoint_id: string }>(listFirst, [threadId, runId]);
  return rows.map((row) => row.checkpoint_id);
}

/** The newest checkpoint of the thread's own graph that this run made. */
export async function findLastOfRun(
  on: Queryable,
  threadId: string,
  runId: string,
): Promise<string | undefined> {
  const [row] = await on.query<{ checkpoint_id: string }>(findLast, [threadId, runId]);
  return row?.checkpoint_id;
}

// A task that asks or fails writes that alone.
const listFinished = `/* listFinishedTasks */
select distinct task_id from public.checkpoint_writes
 where thread_id = $1 and task_id = any ($2::text[]) and channel not in ('__interrupt__', '__error__', '__resume__')`;

/** Those of these tasks, at whatever depth of the thread's graph, whose results are stored. */
export async function listFinishedTasks(
  on: Queryable,
  threadId: string,
  taskIds: readonly string[],
): Promise<string[]> {
  const rows = await on.query<{ task_id: string }>(listFinished, [threadId, taskIds]);
  return rows.map((row) => row.task_id);
}

const hasCheckpointsRow = `/* hasCheckpoints */ select from public.checkpoints where thread_id = $1 limit 1`;

export const hasCheckpoints = async (on: Queryable, threadId: string): Promise<boolean> =>
  (await on.query(hasCheckpointsRow, [threadId])).length > 0;
