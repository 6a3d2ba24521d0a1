// Rows of holdfast.store_items: what graphs and clients keep across threads. The last write of a key wins.
// An item past its time is never shown, whether or not the sweep has taken it away.
import { DataKeyUnusable } from "../../errors.ts";
import type { DataKey } from "../../privacy/seal.ts";
import type { Queryable } from "../database.ts";
import { isOwn } from "../fence.ts";
import type { Owner } from "../fence.ts";
import { meetsAll } from "../json-match.ts";
import { openRows, placeOf as sealedPlace, sealBytes, sealJson } from "../keys/sealed.ts";
import { asJson, meets } from "./filter.ts";
import type { Condition } from "./filter.ts";
import { placeOf, rangeUnder } from "./names.ts";
import type { ItemVectors } from "./vectors.ts";

// A key that is gone is made anew, and may be shredded once more.
const TRIES = 3;
const SCANNED = 500;

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

/** What holds for items that say nothing of it. */
export interface StoreTtl {
  /** How long an item is kept; null: for ever. */
  readonly minutes: number | null;
  /** Whether reading an item begins its time anew. */
  readonly refreshesOnRead: boolean;
}

export interface StoreWrite extends StoreKey {
  /** Null deletes the item. */
  readonly value: object | null;
  /** How long it is kept after it was last written or read; null for ever. */
  readonly ttlMinutes: number | null;
  /** What a search by meaning finds it by; without them it is found by none. */
  readonly vectors?: ItemVectors | undefined;
}

export interface StoreSearch {
  readonly prefix: readonly string[];
  readonly conditions: readonly Condition[];
  readonly limit: number;
  readonly offset: number;
  /** Whether reading an item begins its time anew. */
  readonly refreshesTtl: boolean;
  /** Only items without a vector of this embedder. */
  readonly unknownTo?: string;
}

// Without a run ($2 is null) nothing is fenced. Rows are written in one order, so that few writers wait for each other.
// Nothing is sealed under a key that is gone: who shreds a namespace waits for what is being written, or is waited for.
// Vectors are touched once the item is locked. Those of a writer that this statement cannot see yet stay, and are known
// by the time of their item.
export const writeItemsSql = `/* writeStoreItems */
with held as materialized (
  select 1 from holdfast.runs r where run_id = $2 and ${isOwn("r", { worker: "$3", attempt: "$4" })} for share),
keys as materialized (
  select 1 from holdfast.data_keys where data_key_id = any ($5::uuid[]) order by data_key_id for key share),
wanted as materialized (
  select * from json_to_recordset($1::json) as w (path text, key text, value jsonb, ttl double precision,
                                                  embedder text, coarse text, exact text)
   where ($2::uuid is null or exists (select 1 from held)) and (select count(*) from keys) = cardinality($5::uuid[])),
gone as (
  delete from holdfast.store_items i using wanted w where i.path = w.path and i.key = w.key and w.value is null),
put as (
  insert into holdfast.store_items as i (path, key, value, ttl_minutes, expires_at)
  select path, key, value, ttl, now() + ttl * interval '1 min' from wanted where value is not null order by path, key
  on conflict (path, key) do update
     set value = excluded.value, ttl_minutes = excluded.ttl_minutes, expires_at = excluded.expires_at, updated_at = now(),
         created_at = case when i.expires_at <= now() then now() else i.created_at end
  returning path, key, updated_at),
forgotten as (
  delete from holdfast.store_vectors v using put p join wanted w on w.path = p.path and w.key = p.key
   where v.path = p.path and v.key = p.key and w.embedder is null),
embedded as (
  insert into holdfast.store_vectors as v (path, key, embedder, item_updated_at, coarse, exact)
  select p.path, p.key, w.embedder, p.updated_at, decode(w.coarse, 'base64'), decode(w.exact, 'base64')
    from put p join wanted w on w.path = p.path and w.key = p.key
   where w.embedder is not null order by p.path, p.key
  on conflict (path, key) do update
     set embedder = excluded.embedder, item_updated_at = excluded.item_updated_at,
         coarse = excluded.coarse, exact = excluded.exact)
select $2::uuid is null or exists (select 1 from held) as is_written,
       (select count(*) from keys) = cardinality($5::uuid[]) as has_keys`;

/**
 * Makes the time of items that have one begin anew. Reading waits for nobody: a row that is locked is being written, read
 * or taken away by somebody else.
 * @param found the items that are read, under the name f, with path and key
 * @param condition whether to do it at all
 */
export const refreshing = (found: string, condition: string): string => `held as (
  select i.path, i.key from holdfast.store_items i join ${found} on i.path = f.path and i.key = f.key
   where ${condition} and i.ttl_minutes is not null and i.expires_at > now() for update of i skip locked),
refreshed as (
  update holdfast.store_items i set expires_at = now() + i.ttl_minutes * interval '1 min'
    from held h where i.path = h.path and i.key = h.key)`;

export const findItemsSql = `/* findStoreItems */
with ${refreshing("unnest($1::text[], $2::text[]) as f (path, key)", "$3")}
select w.n::int as n, i.namespace, i.key, i.value, i.created_at, i.updated_at
  from unnest($1::text[], $2::text[]) with ordinality as w (path, key, n)
  join holdfast.store_items i on i.path = w.path and i.key = w.key
 where i.expires_at is null or i.expires_at > now()`;

// With an embedder ($7): items only that have no vector of it.
export const searchItemsSql = `/* searchStoreItems */
with found as (
  select i.path, i.key, i.namespace, i.value, i.created_at, i.updated_at
    from holdfast.store_items i
   where (i.path, i.key) >= ($1, $8) and i.path < $2 and (i.expires_at is null or i.expires_at > now())
     and ($7::text is null or not exists (
      select 1 from holdfast.store_vectors v
       where v.path = i.path and v.key = i.key and v.embedder = $7 and v.item_updated_at = i.updated_at))
     and ${meets("$3")}
   order by i.path, i.key limit $4 offset $5),
${refreshing("found f", "$6")}
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
  const last = lastOfEach(writes);
  const paths = last.flatMap(({ namespace, key, value }) => (value ? placeOf(namespace, key).path : []));
  const fence = [owner?.runId ?? null, owner?.workerId ?? null, owner?.attempt ?? null];
  for (let tries = 1; ; tries += 1) {
    const keys = await on.seals.ofNamespaces(on, paths);
    const items = last.map((write) => rowOf(write, keys));
    const ids = [...new Set([...keys.values()].map(({ id }) => id))];
    const [answer] = await on.query<{ is_written: boolean; has_keys: boolean }>(writeItemsSql, [
      `[${items.join()}]`,
      ...fence,
      ids,
    ]);
    if (answer?.has_keys) return answer.is_written;
    // Nothing was written: it would have been sealed under a key that is gone.
    if (tries === TRIES)
      throw new DataKeyUnusable(
        "What was written was shredded at the same time. Nothing is there; write it again.",
      );
    on.seals.forgetNamespaces(paths);
  }
}

/** As JSON text: what is sealed is one string. */
function rowOf(
  { namespace, key, value, ttlMinutes: ttl, vectors }: StoreWrite,
  keys: ReadonlyMap<string, DataKey>,
): string {
  const place = placeOf(namespace, key);
  const dataKey = keys.get(place.path);
  const row = [place.path, key];
  const json = value && sealJson(dataKey, sealedPlace("store_items.value", row), JSON.stringify(value));
  const bytesOf = (name: "coarse" | "exact", bytes: Buffer, embedder: string): string =>
    Buffer.from(sealBytes(dataKey, sealedPlace(`store_vectors.${name}`, [...row, embedder]), bytes)).toString(
      "base64",
    );
  const rest = JSON.stringify({
    ...place,
    ttl,
    embedder: vectors?.embedder,
    coarse: vectors && bytesOf("coarse", vectors.coarse, vectors.embedder),
    exact: vectors && bytesOf("exact", vectors.exact, vectors.embedder),
  });
  return `${rest.slice(0, -1)},"value":${json ?? "null"}}`;
}

/** Items as they were read, opened. @throws SealedValueInvalid, DataKeyUnusable */
export const openItems = <Item extends StoreItem>(on: Queryable, rows: Item[]): Promise<Item[]> =>
  openRows<StoreItem>(on, rows, {
    value: {
      name: "store_items.value",
      as: "json",
      row: ({ namespace, key }) => [placeOf(namespace, key).path, key],
    },
  }) as Promise<Item[]>; // the same rows, with another value

/** Of several writes of one key the last. @throws as placeOf does */
export function lastOfEach<Write extends StoreKey>(writes: readonly Write[]): Write[] {
  const last = new Map<string, Write>();
  for (const write of writes) {
    const { path, key } = placeOf(write.namespace, write.key);
    last.set(JSON.stringify([path, key]), write);
  }
  return [...last.values()];
}

/** One item for each key, in the order of the keys; null for one that is not there. */
export async function findItems(
  on: Queryable,
  keys: readonly StoreKey[],
  refreshesTtl: boolean,
): Promise<(StoreItem | null)[]> {
  const places = keys.map(({ namespace, key }) => placeOf(namespace, key));
  const stored = await on.query<StoreItem & { n: number }>(findItemsSql, [
    places.map(({ path }) => path),
    places.map(({ key }) => key),
    refreshesTtl,
  ]);
  const rows = await openItems(on, stored);
  const found = new Map(rows.map(({ n, ...item }) => [n, item]));
  return keys.map((_, index) => found.get(index + 1) ?? null);
}

/** Items under a prefix, in the order of their namespaces and keys. */
export async function searchItems(on: Queryable, search: StoreSearch): Promise<StoreItem[]> {
  if (on.seals.isOn && search.conditions.length > 0) return searchSealed(on, search);
  const { from, to } = rangeUnder(search.prefix);
  const conditions = JSON.stringify(search.conditions);
  const { limit, offset, refreshesTtl, unknownTo = null } = search;
  const values = [from, to, conditions, limit, offset, refreshesTtl, unknownTo, ""];
  return openItems(on, await on.query<StoreItem>(searchItemsSql, values));
}

/** PostgreSQL cannot see what is asked of sealed values: all under the prefix are opened, a page at a time. */
async function searchSealed(on: Queryable, search: StoreSearch): Promise<StoreItem[]> {
  const { limit, offset, refreshesTtl, unknownTo = null } = search;
  const conditions = asJson(search.conditions);
  const { from, to } = rangeUnder(search.prefix);
  const found: StoreItem[] = [];
  let [path, key] = [from, ""];
  while (found.length < offset + limit) {
    const values = [path, to, "[]", SCANNED, 0, false, unknownTo, key];
    const rows = await openItems(on, await on.query<StoreItem>(searchItemsSql, values));
    found.push(...rows.filter((item) => meetsAll(item, conditions)));
    const last = rows.at(-1);
    if (!last || rows.length < SCANNED) break;
    ({ path, key } = after(last));
  }
  const page = found.slice(offset, offset + limit);
  if (!refreshesTtl || page.length === 0) return page;
  return (await findItems(on, page, true)).filter((item) => item !== null);
}

/** The first place that can follow an item's: no text is between a key and itself with the smallest character after it. */
export function after(item: StoreKey): { path: string; key: string } {
  const { path, key } = placeOf(item.namespace, item.key);
  return { path, key: `${key}\u0001` };
}

/** Takes away at most `limit` items whose time is over, and says how many it took. */
export async function deleteExpiredItems(on: Queryable, limit: number): Promise<number> {
  return (await on.query(deleteExpiredSql, [limit])).length;
}
