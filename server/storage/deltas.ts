// History of delta channels: what to replay, found by one recursive statement over parent_checkpoint_id.
// For each channel the walk ends at the nearest ancestor that stored a value; writes of that ancestor still count.
import { compareWritesSortKeys, writesSortKey } from "@langchain/langgraph-checkpoint";
import type { DeltaChannelHistory } from "@langchain/langgraph-checkpoint";
import { load } from "../privacy/serde.ts";
import type { CheckpointKey } from "./checkpoint-rows.ts";
import type { Queryable } from "./database.ts";

interface DeltaRow {
  readonly kind: "seed" | "write";
  readonly depth: number;
  readonly channel: string;
  readonly type: string;
  readonly blob: Uint8Array;
  readonly task_path: string;
  readonly task_id: string;
  readonly idx: number;
}

const listDeltas = `/* listDeltas */
with recursive ancestor as (
  select 0 as depth, parent_checkpoint_id, checkpoint_id, '{}'::jsonb as versions, '{}'::text[] as wanted, $4::text[] as missing
    from public.checkpoints
   where thread_id = $1 and checkpoint_ns = $2 and checkpoint_id = coalesce($3::text, (
     select checkpoint_id from public.checkpoints
      where thread_id = $1 and checkpoint_ns = $2 order by checkpoint_id desc limit 1))
  union all
  select a.depth + 1, c.parent_checkpoint_id, c.checkpoint_id, c.checkpoint -> 'channel_versions', a.missing,
         array(select m from unnest(a.missing) m
                where not exists (
                  select from public.checkpoint_blobs b
                   where b.thread_id = $1 and b.checkpoint_ns = $2 and b.channel = m
                     and b.version = c.checkpoint -> 'channel_versions' ->> m and b.type <> 'empty'))
    from ancestor a join public.checkpoints c
      on c.thread_id = $1 and c.checkpoint_ns = $2 and c.checkpoint_id = a.parent_checkpoint_id
   where cardinality(a.missing) > 0)
select 'write' as kind, a.depth, w.channel, w.type, w.blob, w.task_path, w.task_id, w.idx
  from ancestor a join public.checkpoint_writes w
    on w.thread_id = $1 and w.checkpoint_ns = $2 and w.checkpoint_id = a.checkpoint_id and w.channel = any (a.wanted)
union all
select 'seed', a.depth, b.channel, b.type, b.blob, null, null, null
  from ancestor a cross join unnest(a.wanted) u join public.checkpoint_blobs b
    on b.thread_id = $1 and b.checkpoint_ns = $2 and b.channel = u and b.version = a.versions ->> u and b.type <> 'empty'`;

/** What each of `channels` has to replay to have the value it had at a checkpoint (the newest if no id is given). */
export async function listDeltaHistory(
  on: Queryable,
  key: Omit<CheckpointKey, "checkpointId"> & { checkpointId: string | undefined },
  channels: readonly string[],
): Promise<Record<string, DeltaChannelHistory>> {
  const histories = new Map<string, DeltaChannelHistory>(
    channels.map((channel) => [channel, { writes: [] }]),
  );
  const values = [key.threadId, key.namespace, key.checkpointId ?? null, channels];
  const rows = await on.query<DeltaRow>(listDeltas, values);
  for (const row of rows.toSorted(oldestFirst)) {
    const value = load(row.type, row.blob);
    const history = histories.get(row.channel);
    if (row.kind === "seed") histories.set(row.channel, { writes: history?.writes ?? [], seed: value });
    else history?.writes.push([row.task_id, row.channel, value]);
  }
  return Object.fromEntries(histories);
}

function oldestFirst(a: DeltaRow, b: DeltaRow): number {
  if (a.depth !== b.depth) return b.depth - a.depth;
  return compareWritesSortKeys(
    writesSortKey(a.task_path ?? "", a.task_id ?? "", a.idx),
    writesSortKey(b.task_path ?? "", b.task_id ?? "", b.idx),
  );
}
