// Copies a thread with all it is made of, from one snapshot, whatever a run writes meanwhile. What is sealed is bound to
// its thread: for the copy it is opened and sealed anew, some rows at a time.
import type { Queryable } from "./database.ts";
import { placeOf, sealJson } from "./keys/sealed.ts";
import { copySealed } from "./thread-copy-sealed.ts";
import { openThreads } from "./threads.ts";
import type { ThreadRow } from "./threads.ts";

/** What was copied: what the thread it was copied from says of its state. */
export interface CopiedThread {
  readonly status: ThreadRow["status"];
  readonly metadata: Record<string, unknown>;
  readonly has_checkpoints: boolean;
  /** JSON text, with the ids of the thread it was copied from; null when it has to be computed. */
  readonly state: string | null;
}

// Checkpoints keep their ids, times and the names of their runs, so that histories and what prune sees are equal. Writes
// belong to no run of the copy: a rollback of a run of the other thread is none of its business. What is copied is what
// is committed; the state of a busy thread is that of before its run, so it does not count.
export const COPY_THREAD = `/* copyThread */
with source as (
  select * from holdfast.threads where thread_id = $1 and (not is_temporary or status = 'busy')),
made as (
  insert into holdfast.threads (thread_id, metadata, config, ttl_minutes, ttl_strategy, expires_at, data_key_id)
  select $2, coalesce($3::jsonb,
           case when metadata ? 'thread_id' then metadata || jsonb_build_object('thread_id', $2::text) else metadata end),
         config, ttl_minutes, ttl_strategy, now() + ttl_minutes * interval '1 min', $4::uuid
    from source
  returning thread_id, metadata, data_key_id),
key as (
  insert into holdfast.data_keys (data_key_id, tenant_id, thread_id, kek_id, wrapped)
  select data_key_id, $5, thread_id, $6, $7 from made where data_key_id is not null),
point as (
  insert into public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, created_at)
  select made.thread_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint,
         case when c.metadata ? 'thread_id' then c.metadata || jsonb_build_object('thread_id', $2::text) else c.metadata end,
         c.created_at
    from made cross join public.checkpoints c where c.thread_id = $1
  returning 1),
blob as (
  insert into public.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
  select made.thread_id, b.checkpoint_ns, b.channel, b.version, b.type, b.blob
    from made cross join public.checkpoint_blobs b where b.thread_id = $1 and made.data_key_id is null),
result as (
  insert into public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
  select made.thread_id, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.task_path, w.idx, w.channel, w.type, w.blob
    from made cross join public.checkpoint_writes w where w.thread_id = $1 and made.data_key_id is null)
select source.status, made.metadata, exists (select from point) as has_checkpoints,
       case when source.status <> 'busy' then source.state::text end as state, source.config
  from made cross join source`;

const sealConfigRow = `/* sealCopiedConfig */ update holdfast.threads set config = $2 where thread_id = $1`;

const holdSnapshot = `/* holdSnapshot */ set transaction isolation level repeatable read`;

/**
 * Makes thread `copyId` of `threadId`, idle and without a state. Undefined: there is no such thread.
 * @param metadata of the copy, instead of those of the other thread
 */
export async function copyThreadRows(
  transaction: Queryable,
  threadId: string,
  copyId: string,
  metadata?: object,
): Promise<CopiedThread | undefined> {
  if (transaction.seals.isOn) await transaction.query(holdSnapshot);
  const { key, row: newKey } = transaction.seals.newOfThread(copyId) ?? {};
  const values = [threadId, copyId, metadata ?? null];
  const [row] = await transaction.query<CopiedThread & Pick<ThreadRow, "config">>(COPY_THREAD, [
    ...values,
    key?.id ?? null,
    newKey?.tenant_id ?? null,
    newKey?.kek_id ?? null,
    newKey?.wrapped ?? null,
  ]);
  if (!row || !key) return row;
  await copySealed(transaction, threadId, { copyId, key });
  const { state, config } = row;
  const [opened] = await openThreads(transaction, [{ thread_id: threadId, state, config }]);
  if (opened && Object.keys(opened.config).length > 0) {
    const sealed = sealJson(key, placeOf("threads.config", [copyId]), JSON.stringify(opened.config));
    await transaction.query(sealConfigRow, [copyId, sealed]);
  }
  return { ...row, state: opened?.state ?? null };
}
