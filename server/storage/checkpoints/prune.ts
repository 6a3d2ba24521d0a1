// Takes from a thread what its newest state does not need. What is read from the newest checkpoint, and what a run that
// goes on from it finds, is the same before and after.
import type { AuthFilter } from "../auth-filter.ts";
import type { Queryable } from "../database.ts";
import { deleteRunEvents } from "../events.ts";

// A run that is under way, or waits, keeps its thread: nothing here takes the ground from under it. Whoever writes
// checkpoints holds a key share of the row, so this waits for writes that were refused nowhere yet.
const lockPrunableRows = `/* lockPrunable */
select thread_id from holdfast.threads where thread_id = any ($1::text[]) order by thread_id for update`;

const listLiveRows = `/* listLiveThreads */
select distinct thread_id from holdfast.runs
 where thread_id = any ($1::text[]) and state in ('delayed', 'blocked', 'ready', 'running')`;

// What stays, per namespace: the newest checkpoint (head), and what its delta channels are read from. A delta channel
// that the head stores no value of is replayed from the writes of its ancestors, back to the one that stores a value.
// Of the ancestors only such writes and values stay. They are states no longer: replay_only keeps them out of history,
// and each has the next one that counts for its parent, so that a channel that is seldom written keeps little.
// A namespace of one task (it has a colon) is over when a newer checkpoint of the thread itself exists: no later task
// will have its name; the one that it names as its own may have been written after it. Times are compared by the database's clock, since ids carry the clocks of the servers that made them.
// A channel is known as delta by the counters that LangGraph keeps in any checkpoint of its namespace: a graph that was
// changed to store whole values may still have to read old deltas.
const pruneRows = `/* pruneCheckpoints */
with recursive newest as (
  select distinct on (checkpoint_ns) checkpoint_ns, checkpoint_id, parent_checkpoint_id, metadata, created_at,
         checkpoint -> 'channel_versions' as versions
    from public.checkpoints where thread_id = $1 order by checkpoint_ns, checkpoint_id desc),
head as (
  select * from newest n
   where strpos(checkpoint_ns, ':') = 0
      or not exists (select from newest r where r.checkpoint_ns = '' and r.created_at > n.created_at
           and r.checkpoint_id is distinct from n.metadata -> 'parents' ->> '')),
delta as (
  select distinct c.checkpoint_ns, k.channel
    from public.checkpoints c cross join jsonb_object_keys(
      case jsonb_typeof(c.metadata -> 'counters_since_delta_snapshot')
        when 'object' then c.metadata -> 'counters_since_delta_snapshot' else '{}' end) as k (channel)
   where c.thread_id = $1),
chain as (
  select h.checkpoint_ns, h.checkpoint_id, h.parent_checkpoint_id, h.versions, 0 as depth, '{}'::text[] as wanted, array(
           select d.channel from delta d
            where d.checkpoint_ns = h.checkpoint_ns
              and (h.versions ? d.channel or h.metadata -> 'delta_writes_versioned' is distinct from 'true'::jsonb)
              and coalesce((
                select b.type from public.checkpoint_blobs b
                 where b.thread_id = $1 and b.checkpoint_ns = h.checkpoint_ns and b.channel = d.channel
                   and b.version = h.versions ->> d.channel limit 1), 'empty') = 'empty') as missing
    from head h
  union all
  select a.checkpoint_ns, p.checkpoint_id, p.parent_checkpoint_id, p.versions, a.depth + 1, a.missing, array(
           select m from unnest(a.missing) m
            where coalesce((
              select b.type from public.checkpoint_blobs b
               where b.thread_id = $1 and b.checkpoint_ns = a.checkpoint_ns and b.channel = m
                 and b.version = p.versions ->> m limit 1), 'empty') = 'empty')
    from chain a cross join lateral (
      select c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint -> 'channel_versions' as versions
        from public.checkpoints c
       where c.thread_id = $1 and c.checkpoint_ns = a.checkpoint_ns and c.checkpoint_id = a.parent_checkpoint_id limit 1) p
   where cardinality(a.missing) > 0),
kept as materialized (
  select checkpoint_ns, checkpoint_id, parent_checkpoint_id, versions, depth, wanted, missing,
         lead(checkpoint_id) over (partition by checkpoint_ns order by depth) as next_id
    from chain a
   where depth < 2 or cardinality(wanted) > cardinality(missing) or exists (
     select from public.checkpoint_writes w
      where w.thread_id = $1 and w.checkpoint_ns = a.checkpoint_ns and w.checkpoint_id = a.checkpoint_id
        and w.channel = any (a.wanted))),
used as materialized (
  select distinct k.checkpoint_ns, v.key as channel, v.value as version
    from kept k cross join jsonb_each_text(k.versions) v
   where k.depth = 0 or v.key = any (k.wanted) and v.key <> all (k.missing)),
blobs as (
  delete from public.checkpoint_blobs b
   where b.thread_id = $1 and not exists (
     select from used u
      where u.checkpoint_ns = b.checkpoint_ns and u.channel = b.channel and u.version = b.version)),
-- Checkpoints before version 4 find their sends among the writes of their parent.
writes as (
  delete from public.checkpoint_writes w
   where w.thread_id = $1
     and not exists (
       select from kept k
        where k.checkpoint_ns = w.checkpoint_ns and k.checkpoint_id = w.checkpoint_id
          and (k.depth = 0 or w.channel = any (k.wanted)))
     and not (w.channel = '__pregel_tasks' and exists (
       select from kept k join public.checkpoints c on c.thread_id = $1 and c.checkpoint_ns = k.checkpoint_ns
          and c.checkpoint_id = k.checkpoint_id and coalesce((c.checkpoint ->> 'v')::int, 1) < 4
        where k.depth = 0 and k.checkpoint_ns = w.checkpoint_ns and k.parent_checkpoint_id = w.checkpoint_id))),
hidden as (
  update public.checkpoints c
     set parent_checkpoint_id = k.next_id, metadata = c.metadata || '{"replay_only": true}'
    from kept k
   where c.thread_id = $1 and c.checkpoint_ns = k.checkpoint_ns and c.checkpoint_id = k.checkpoint_id and k.depth > 0
     and (not c.metadata ? 'replay_only' or c.parent_checkpoint_id is distinct from k.next_id)),
gone as (
  delete from public.checkpoints c
   where c.thread_id = $1 and not exists (
     select from kept k where k.checkpoint_ns = c.checkpoint_ns and k.checkpoint_id = c.checkpoint_id)
  returning 1)
select count(*) as gone from gone`;

// Asked again of each row once it is locked: a thread that another assistant has run meanwhile is left alone.
export const lockThreadsOfRows = `/* lockThreadsOf */
select thread_id from holdfast.threads
 where not is_temporary and metadata @> jsonb_build_object('assistant_id', $1::text)
   and ($3::jsonb is null or metadata @> $3) order by thread_id limit $2 for update`;

const hasBusyThreadRow = `/* hasBusyThread */
select exists (
  select from holdfast.threads
   where not is_temporary and metadata @> jsonb_build_object('assistant_id', $1::text) and status = 'busy'
     and ($2::jsonb is null or metadata @> $2)) as is_busy`;

const deleteThreadRows = `/* deleteThreads */
with run as (select run_id from holdfast.runs where thread_id = any ($1::text[])),
gone as (delete from holdfast.threads where thread_id = any ($1::text[]))
select run_id from run`;

const deleteWebhooksOfRows = `/* deleteWebhooksOf */
delete from holdfast.webhooks where run_id = any ($1::uuid[]) and (state <> 'pending' or not $2::boolean)`;

const deleteStateRows = `/* deleteStateOf */
with c as (delete from public.checkpoints where thread_id = any ($1::text[])),
b as (delete from public.checkpoint_blobs where thread_id = any ($1::text[]))
delete from public.checkpoint_writes where thread_id = any ($1::text[])`;

/**
 * Those of the threads that exist, locked until the transaction ends, so that no run starts and nothing is written.
 * `live` are those among them on which a run has not ended.
 */
export async function lockPrunable(
  transaction: Queryable,
  threadIds: readonly string[],
): Promise<{ found: string[]; live: string[] }> {
  const found = await transaction.query<{ thread_id: string }>(lockPrunableRows, [threadIds]);
  const live = await transaction.query<{ thread_id: string }>(listLiveRows, [threadIds]);
  return { found: found.map((row) => row.thread_id), live: live.map((row) => row.thread_id) };
}

/** Threads that an assistant ran last, as their metadata say, and that the caller may delete, locked. */
export async function lockThreadsOf(
  transaction: Queryable,
  assistantId: string,
  limit: number,
  auth: AuthFilter | undefined,
): Promise<string[]> {
  const values = [assistantId, limit, auth ?? null];
  const rows = await transaction.query<{ thread_id: string }>(lockThreadsOfRows, values);
  return rows.map((row) => row.thread_id);
}

/** Whether a run is live, or waits, on a thread that the assistant ran last. */
export async function hasBusyThread(
  on: Queryable,
  assistantId: string,
  auth: AuthFilter | undefined,
): Promise<boolean> {
  const [row] = await on.query<{ is_busy: boolean }>(hasBusyThreadRow, [assistantId, auth ?? null]);
  return row?.is_busy ?? false;
}

/** Keeps what the newest state of a thread needs and removes all other checkpoints. Lock the thread first. */
export async function keepLatest(transaction: Queryable, threadId: string): Promise<number> {
  const [row] = await transaction.query<{ gone: number }>(pruneRows, [threadId]);
  return row?.gone ?? 0;
}

/**
 * Deletes threads with everything that belongs to them. Call in a transaction, with the threads locked: their rows go
 * first, which waits for writes under way and refuses later ones; only then can the rest be seen.
 * @param options.keepsPendingWebhooks call-backs that were not delivered yet are still sent
 */
export async function deleteThreads(
  transaction: Queryable,
  threadIds: readonly string[],
  options: { keepsPendingWebhooks?: boolean } = {},
): Promise<void> {
  const runs = await transaction.query<{ run_id: string }>(deleteThreadRows, [threadIds]);
  const runIds = runs.map((row) => row.run_id);
  await deleteRunEvents(transaction, runIds);
  await transaction.query(deleteWebhooksOfRows, [runIds, options.keepsPendingWebhooks ?? false]);
  await transaction.query(deleteStateRows, [threadIds]);
}
