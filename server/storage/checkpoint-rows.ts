// The SQL of checkpoints in the stock PostgresSaver's tables: one statement per read and per write.
// Every write is fenced on its thread's row in the same statement: a deleted thread never comes back.
// All values of a write travel as one binary buffer, cut by offsets; an array of bytea would travel as hex text.
// Parts are read by primary key, in laterals with `limit 1` or `offset 0`: without statistics the planner would
// rather join with all rows of the thread.
import type { Queryable } from "./database.ts";

export interface CheckpointKey {
  readonly threadId: string;
  readonly namespace: string;
  readonly checkpointId: string;
}

/** A stored value: which channel it belongs to and its serialised form. */
export interface Value {
  readonly channel: string;
  readonly type: string;
  readonly bytes: Uint8Array;
}

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

const putCheckpoint = `/* putCheckpoint */
with fence as (select 1 from holdfast.threads where thread_id = $1 for key share),
blob as (
  insert into public.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
  select $1, $2, b.channel, b.version, b.type, substring($12::bytea from b.start for b.size)
    from fence, unnest($7::text[], $8::text[], $9::text[], $10::int[], $11::int[]) as b (channel, version, type, start, size)
  on conflict (thread_id, checkpoint_ns, channel, version) do nothing),
put as (
  insert into public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
  select $1, $2, $3, $4, $5::jsonb, $6::jsonb from fence
  on conflict (thread_id, checkpoint_ns, checkpoint_id)
  do update set checkpoint = excluded.checkpoint, metadata = excluded.metadata)
select count(*) as fenced from fence`;

const putWrites = `/* putWrites */
with fence as (select 1 from holdfast.threads where thread_id = $1 for key share),
put as (
  insert into public.checkpoint_writes as w
    (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
  select $1, $2, $3, $4, $5, v.idx, v.channel, v.type, substring($12::bytea from v.start for v.size)
    from fence, unnest($7::int[], $8::text[], $9::text[], $10::int[], $11::int[]) as v (idx, channel, type, start, size)
  on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
  do update set channel = excluded.channel, type = excluded.type, blob = excluded.blob, task_path = excluded.task_path
    where $6::boolean)
select count(*) as fenced from fence`;

const findCheckpoint = `/* findCheckpoint */
with found as (
  select thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata
    from public.checkpoints
   where thread_id = $1 and checkpoint_ns = $2 and checkpoint_id = coalesce($3::text, (
     select checkpoint_id from public.checkpoints
      where thread_id = $1 and checkpoint_ns = $2 order by checkpoint_id desc limit 1)))
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

const listCheckpoints = `/* listCheckpoints */
with page as (
  select thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata
    from public.checkpoints
   where ($1::text is null or thread_id = $1) and ($2::text is null or checkpoint_ns = $2)
     and ($3::text is null or checkpoint_id = $3) and ($4::jsonb is null or metadata @> $4)
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
select checkpoint_id, type, blob from public.checkpoint_writes
 where thread_id = $1 and checkpoint_ns = $2 and checkpoint_id = any ($3::text[]) and channel = $4
 order by checkpoint_id, task_path collate "C", task_id collate "C", idx`;

const deleteThread = `/* deleteThread */ delete from holdfast.threads where thread_id = $1`;
const deleteCheckpoints = `/* deleteCheckpoints */
with c as (delete from public.checkpoints where thread_id = $1),
b as (delete from public.checkpoint_blobs where thread_id = $1)
delete from public.checkpoint_writes where thread_id = $1`;

/** Stores a checkpoint with the channel values that are new in it. False: the thread is gone, nothing was written. */
export async function insertCheckpoint(
  on: Queryable,
  key: CheckpointKey,
  stored: {
    parentId: string | undefined;
    checkpoint: object;
    metadata: string;
    values: readonly (Value & { version: string })[];
  },
): Promise<boolean> {
  const { values } = stored;
  return isFenced(on, putCheckpoint, [
    ...identify(key),
    stored.parentId ?? null,
    JSON.stringify(stored.checkpoint),
    stored.metadata,
    values.map(({ channel }) => channel),
    values.map(({ version }) => version),
    ...packed(values),
  ]);
}

/** Stores one task's writes, in order. False: the thread is gone, nothing was written. */
export async function insertWrites(
  on: Queryable,
  key: CheckpointKey,
  task: { id: string; path: string; mayReplace: boolean; writes: readonly (Value & { idx: number })[] },
): Promise<boolean> {
  const { writes } = task;
  return isFenced(on, putWrites, [
    ...identify(key),
    task.id,
    task.path,
    task.mayReplace,
    writes.map(({ idx }) => idx),
    writes.map(({ channel }) => channel),
    ...packed(writes),
  ]);
}

/** The checkpoint with its values and writes, as rows in no order; the newest if no id is given. */
export const findCheckpointRows = (
  on: Queryable,
  key: { threadId: string; namespace: string; checkpointId: string | undefined },
): Promise<CheckpointRow[]> =>
  on.query(findCheckpoint, [key.threadId, key.namespace, key.checkpointId ?? null]);

/** A page of checkpoints, newest first, with all their values and writes as rows. */
export const listCheckpointRows = (on: Queryable, page: CheckpointPage): Promise<CheckpointRow[]> =>
  on.query(listCheckpoints, [
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

/** Writes to `channel` of checkpoints made before version 4, which kept a superstep's sends there. */
export const listPendingSendRows = (
  on: Queryable,
  key: { threadId: string; namespace: string; checkpointIds: readonly string[]; channel: string },
): Promise<{ checkpoint_id: string; type: string; blob: Uint8Array }[]> =>
  on.query(listPendingSends, [key.threadId, key.namespace, key.checkpointIds, key.channel]);

/** Deletes a thread and all its checkpoints. Call in a transaction: the first statement waits for running
 * writes and refuses later ones, only then can the second see all there is to delete. */
export async function deleteThreadRows(on: Queryable, threadId: string): Promise<void> {
  await on.query(deleteThread, [threadId]);
  await on.query(deleteCheckpoints, [threadId]);
}

async function isFenced(on: Queryable, statement: string, values: unknown[]): Promise<boolean> {
  const [row] = await on.query<{ fenced: number }>(statement, values);
  return row !== undefined && row.fenced > 0;
}

const identify = (key: CheckpointKey): string[] => [key.threadId, key.namespace, key.checkpointId];

/** Types, 1-based offsets, lengths and the bytes themselves in one buffer. */
function packed(values: readonly Value[]): [string[], number[], number[], Buffer] {
  let end = 1;
  const starts = values.map(({ bytes }) => (end += bytes.length) - bytes.length);
  return [
    values.map(({ type }) => type),
    starts,
    values.map(({ bytes }) => bytes.length),
    Buffer.concat(values.map(({ bytes }) => bytes)),
  ];
}
