// Rows of holdfast.store_items: what graphs and clients keep across threads. The last write of a key wins.
// An item past its time is never shown, whether or not the sweep has taken it away.
import type { Owner } from "../runs/run.ts";
import type { Queryable } from "./database.ts";
import type { Condition } from "./store-filter.ts";
import { placeOf, rangeUnder } from "./store-names.ts";

export interface StoreItem {
  readonly namespace: string[];
  readonly key: string;
  readonly value: Record<string, unknown>;
  readonly created_at: Date;
  readonly updated_at: Date;
}

export interface StoreKey {
  readonly namespace: readonly string[];
  readonly key: string;
}

export interface StoreWrite extends StoreKey {
  /** Null deletes the item. */
  readonly value: object | null;
  /** How long it is kept after it was last written or read; null for ever. */
  readonly ttlMinutes: number | null;
}

export interface StoreSearch {
  readonly prefix: readonly string[];
  readonly conditions: readonly Condition[];
  readonly limit: number;
  readonly offset: number;
  /** Whether reading an item begins its time anew. */
  readonly refreshesTtl: boolean;
}

// A takeover changes the run's row: it waits for the lock that is taken here, and later writes find another owner.
// Without a run ($2 is null) nothing is fenced. Rows are written in one order, so that few writers wait for each other.
export const writeItemsSql = `/* writeStoreItems */
with held as materialized (
  select 1 from holdfast.runs where run_id = $2 and worker_id = $3 and attempt = $4 and state = 'running' for share),
wanted as materialized (
  select path, key, value, ttl from json_to_recordset($1::json) as w (path text, key text, value jsonb, ttl double precision)
   where $2::uuid is null or exists (select 1 from held)),
gone as (
  delete from holdfast.store_items i using wanted w where i.path = w.path and i.key = w.key and w.value is null),
put as (
  insert into holdfast.store_items as i (path, key, value, ttl_minutes, expires_at)
  select path, key, value, ttl, now() + ttl * interval '1 min' from wanted where value is not null order by path, key
  on conflict (path, key) do update
     set value = excluded.value, ttl_minutes = excluded.ttl_minutes, expires_at = excluded.expires_at, updated_at = now(),
         created_at = case when i.expires_at <= now() then now() else i.created_at end)
select $2::uuid is null or exists (select 1 from held) as is_written`;

// Reading waits for nobody: a row that is locked is being written, read or taken away by somebody else.
export const findItemsSql = `/* findStoreItems */
with held as (
  select i.path, i.key from holdfast.store_items i
    join unnest($1::text[], $2::text[]) as w (path, key) on i.path = w.path and i.key = w.key
   where $3 and i.ttl_minutes is not null and i.expires_at > now() for update of i skip locked),
refreshed as (
  update holdfast.store_items i set expires_at = now() + i.ttl_minutes * interval '1 min'
    from held h where i.path = h.path and i.key = h.key)
select w.n::int as n, i.namespace, i.key, i.value, i.created_at, i.updated_at
  from unnest($1::text[], $2::text[]) with ordinality as w (path, key, n)
  join holdfast.store_items i on i.path = w.path and i.key = w.key
 where i.expires_at is null or i.expires_at > now()`;

// Numbers are compared as numbers, texts by their bytes; two values of different kinds have no order.
export const searchItemsSql = `/* searchStoreItems */
with found as (
  select i.path, i.key, i.namespace, i.value, i.created_at, i.updated_at
    from holdfast.store_items i
   where i.path >= $1 and i.path < $2 and (i.expires_at is null or i.expires_at > now())
     and not exists (
      select 1
        from jsonb_array_elements($3::jsonb) as c,
             lateral (select i.value -> (c ->> 'field') as is, c -> 'operand' as asked) as f,
             lateral (select jsonb_typeof(f.is) as of_is, jsonb_typeof(f.asked) as of_asked) as t,
             lateral (select case
               when t.of_is = 'number' and t.of_asked = 'number'
                 then case when f.is < f.asked then -1 when f.is > f.asked then 1 else 0 end
               when t.of_is = 'string' and t.of_asked = 'string'
                 then case when (f.is #>> '{}') collate "C" < (f.asked #>> '{}') then -1
                           when (f.is #>> '{}') collate "C" > (f.asked #>> '{}') then 1 else 0 end
             end as order_of) as o
       where not coalesce(case c ->> 'operator'
         when '$eq' then f.is = f.asked
         when '$ne' then f.is is distinct from f.asked
         when '$gt' then o.order_of > 0
         when '$gte' then o.order_of >= 0
         when '$lt' then o.order_of < 0
         when '$lte' then o.order_of <= 0
         when '$holds' then i.value || jsonb_build_object('namespace', i.namespace, 'key', i.key) @> f.asked
       end, false))
   order by i.path, i.key limit $4 offset $5),
held as (
  select i.path, i.key from holdfast.store_items i join found f on i.path = f.path and i.key = f.key
   where $6 and i.ttl_minutes is not null and i.expires_at > now() for update of i skip locked),
refreshed as (
  update holdfast.store_items i set expires_at = now() + i.ttl_minutes * interval '1 min'
    from held h where i.path = h.path and i.key = h.key)
select namespace, key, value, created_at, updated_at from found order by path, key`;

// Items whose time is over, the longest overdue first.
export const deleteExpiredSql = `/* deleteExpiredStoreItems */
with due as (
  select path, key from holdfast.store_items
   where expires_at <= now() order by expires_at limit $1 for update skip locked)
delete from holdfast.store_items i using due where i.path = due.path and i.key = due.key returning 1 as one`;

/**
 * Writes and deletes items, all or none; of two writes to one key the later counts.
 * @param owner the run that writes; none for a write outside any run
 * @returns false when the run is not this owner's any more: then nothing was written
 */
export async function writeItems(
  on: Queryable,
  writes: readonly StoreWrite[],
  owner?: Owner,
): Promise<boolean> {
  const rows = writes.map(({ namespace, key, value, ttlMinutes }) => ({
    ...placeOf(namespace, key),
    value,
    ttl: ttlMinutes,
  }));
  const last = new Map(rows.map((row) => [JSON.stringify([row.path, row.key]), row]));
  const fence = [owner?.runId ?? null, owner?.workerId ?? null, owner?.attempt ?? null];
  const items = JSON.stringify([...last.values()]);
  const [answer] = await on.query<{ is_written: boolean }>(writeItemsSql, [items, ...fence]);
  return answer?.is_written ?? false;
}

/** One item for each key, in the order of the keys; null for one that is not there. */
export async function findItems(
  on: Queryable,
  keys: readonly StoreKey[],
  refreshesTtl: boolean,
): Promise<(StoreItem | null)[]> {
  const places = keys.map(({ namespace, key }) => placeOf(namespace, key));
  const rows = await on.query<StoreItem & { n: number }>(findItemsSql, [
    places.map(({ path }) => path),
    places.map(({ key }) => key),
    refreshesTtl,
  ]);
  const found = new Map(rows.map(({ n, ...item }) => [n, item]));
  return keys.map((_, index) => found.get(index + 1) ?? null);
}

/** Items under a prefix, in the order of their namespaces and keys. */
export function searchItems(on: Queryable, search: StoreSearch): Promise<StoreItem[]> {
  const { from, to } = rangeUnder(search.prefix);
  const conditions = JSON.stringify(search.conditions);
  return on.query(searchItemsSql, [from, to, conditions, search.limit, search.offset, search.refreshesTtl]);
}

/** Takes away at most `limit` items whose time is over, and says how many it took. */
export async function deleteExpiredItems(on: Queryable, limit: number): Promise<number> {
  return (await on.query(deleteExpiredSql, [limit])).length;
}
