// The form in which checkpoints travel to the database, and the statements' part that writes them: the same when they
// are written by themselves and when they go with the end of a run.
// All values travel as one binary buffer, cut by offsets; an array of bytea would travel as hex text.
import { seal } from "../../privacy/seal.ts";
import type { DataKey } from "../../privacy/seal.ts";
import { placeOf } from "../keys/sealed.ts";
import type { SealedName } from "../keys/sealed.ts";

export interface CheckpointKey {
  readonly threadId: string;
  readonly namespace: string;
  readonly checkpointId: string;
}

/**
 * SQL that holds while a checkpoint of the thread, given by its namespace and id, is stored; also when none is given.
 * A failover to a standby that lagged behind takes what was committed. What comes later would hang in the air, and lack
 * the values that were stored with it: its attempt is over, and the next one begins where the database is.
 */
export const isStored = (thread: string, namespace: string, id: string): string => `(${id} is null or exists (
       select from public.checkpoints b where b.thread_id = ${thread} and b.checkpoint_ns = ${namespace} and b.checkpoint_id = ${id}))`;

/** A stored value: which channel it belongs to and its serialised form. */
export interface Value {
  readonly channel: string;
  readonly type: string;
  readonly bytes: Uint8Array;
}

/** A checkpoint with the channel values that are new in it. */
export interface PointWrite extends CheckpointKey {
  readonly parentId: string | undefined;
  /** JSON text, made when the write was asked for: LangGraph goes on with the object. */
  readonly checkpoint: string;
  /** JSON text. */
  readonly metadata: string;
  readonly values: readonly (Value & { version: string })[];
  /** What was given to the graph, before any of its nodes has run. */
  readonly isInput: boolean;
}

/**
 * The writes of one task, in order. A task's results never change; its errors, interrupts and resumes, whose places are
 * below zero, may, also beside results: the run counts with which a task has taken its last answer.
 */
interface TaskWrite extends CheckpointKey {
  readonly taskId: string;
  readonly taskPath: string;
  readonly writes: readonly (Value & { idx: number })[];
}

export type CheckpointWrite = PointWrite | TaskWrite;

/**
 * When a write must be on disk. One for "soon" goes with what its run writes within a few milliseconds, and one for "the
 * end" with the end of its run; both count as written: they come before anything that the graph waits for. One that is
 * "trailing" is for soon while no statement is under way, and for now otherwise: a graph runs ahead of what waits to be
 * written, and never of what a slow database is writing.
 */
export type Urgency = "now" | "trailing" | "soon" | "the end";

/**
 * Common table expressions that write what `packed` made of checkpoints, given as $1, $2 and $3. They follow one named
 * `held` with a row for each owner that may write: its number `n`, thread_id and run_id (null outside runs).
 */
export const WRITE_CHECKPOINTS = `blob as (
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
  insert into public.checkpoint_writes as c (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob, run_id)
  select thread_id, ns, id, task, path, idx, channel, type, blob, run_id from w where replaces
  on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
  do update set channel = excluded.channel, type = excluded.type, blob = excluded.blob, task_path = excluded.task_path,
    run_id = excluded.run_id,
    was_type = case when c.run_id is distinct from excluded.run_id then c.type else c.was_type end,
    was_blob = case when c.run_id is distinct from excluded.run_id then c.blob else c.was_blob end)`;

/** In an update of writes: what another run had written in their place. That run's rights to it are over. */
export const PUT_BACK = "type = was_type, blob = was_blob, run_id = null, was_type = null, was_blob = null";

type Row = Record<string, unknown>;

/** At the end of the type of a value that is sealed. */
export const SEALED_TYPE = "+sealed";

interface Item {
  readonly n: number;
  readonly write: CheckpointWrite;
  /** Under which its values are sealed; undefined when nothing is. */
  readonly key: DataKey | undefined;
}

/** Checkpoints with their values, the writes of tasks, and the bytes of both: the values of $1, $2 and $3. */
export function packed(items: readonly Item[]): [string, string, Buffer] {
  const values: Row[] = [];
  const points = new Map<string, string>();
  const writes = new Map<string, Row>();
  const bytes: Uint8Array[] = [];
  let end = 1; // offsets of substring() begin at 1
  const place = (item: Item, value: Value, name: SealedName, row: readonly (string | number)[]): Row => {
    const { key, write } = item;
    const type = key ? value.type + SEALED_TYPE : value.type;
    const stored = key
      ? seal(key, placeOf(name, [write.threadId, write.namespace, ...row, type]), value.bytes)
      : value.bytes;
    bytes.push(stored);
    const start = end;
    end += stored.length;
    return { channel: value.channel, type, start, size: stored.length };
  };
  for (const item of items) {
    const { n, write } = item;
    const at = { n, ns: write.namespace, id: write.checkpointId };
    const key = `${n} ${write.namespace} ${write.checkpointId}`;
    if ("checkpoint" in write) {
      const { parentId, checkpoint, metadata } = write;
      // One statement may not write a row twice: of two that came together, the later one counts.
      const row = JSON.stringify({ ...at, parent: parentId ?? null });
      points.set(key, `${row.slice(0, -1)},"checkpoint":${checkpoint},"metadata":${metadata}}`);
      for (const value of write.values) {
        const { channel, version } = value;
        const placed = place(item, value, "checkpoint_blobs.blob", [channel, version]);
        values.push({ n, ns: write.namespace, version, ...placed });
      }
    } else {
      for (const value of write.writes) {
        const { taskId: task, taskPath: path } = write;
        const replaces = value.idx < 0;
        const rowKey = `${key} ${task} ${value.idx}`;
        if (!replaces && writes.has(rowKey)) continue;
        const row = [write.checkpointId, task, value.idx, value.channel];
        const placed = place(item, value, "checkpoint_writes.blob", row);
        writes.set(rowKey, { ...at, task, path, replaces, idx: value.idx, ...placed });
      }
    }
  }
  const held = `{"values":${JSON.stringify(values)},"points":[${[...points.values()].join()}]}`;
  return [held, JSON.stringify([...writes.values()]), Buffer.concat(bytes)];
}
