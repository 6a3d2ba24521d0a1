// Rows of holdfast.cache_entries: a cache that needs nothing but PostgreSQL. Values come and go as they are to be stored.
import type { Queryable } from "../database.ts";
import type { Scope } from "../scope.ts";
import type { CacheKind, CacheStore, StoredEntry } from "./store.ts";

const findEntries = `/* findCacheEntries */
select key, value from holdfast.cache_entries
 where tenant_id = $1 and kind = $2 and key = any ($3::text[]) and expires_at > now()`;

// In the order of their keys, so that two who write the same ones wait for each other and not both.
const upsertEntries = `/* upsertCacheEntries */
insert into holdfast.cache_entries (tenant_id, kind, key, value, expires_at)
select $1, $2, e.key, decode(e.value, 'base64'), now() + e.ttl_ms * interval '1 ms'
  from json_to_recordset($3::json) as e (key text, value text, ttl_ms double precision) order by e.key
on conflict (tenant_id, kind, key) do update
   set value = excluded.value, created_at = now(), used_at = now(), expires_at = excluded.expires_at`;

const renewEntries = `/* renewCacheEntries */
update holdfast.cache_entries set used_at = now(), expires_at = now() + $4 * interval '1 ms'
 where tenant_id = $1 and kind = $2 and key in (
  select key from holdfast.cache_entries
   where tenant_id = $1 and kind = $2 and key = any ($3::text[]) and used_at < now() - interval '1 day'
   for update skip locked)`;

const clearEntries = `/* clearCacheEntries */
delete from holdfast.cache_entries where tenant_id = $1 and kind = $2 and starts_with(key, $3)`;

const deleteExpired = `/* deleteExpiredCacheEntries */
delete from holdfast.cache_entries where (tenant_id, kind, key) in (
  select tenant_id, kind, key from holdfast.cache_entries where expires_at < now()
   order by expires_at limit $1 for update skip locked)
returning 1`;

const forgetKeys = `/* deleteCacheKeys */ delete from holdfast.data_keys where tenant_id = $1 and path = $2`;
const deleteAll = `/* deleteCacheEntries */ delete from holdfast.cache_entries where tenant_id = $1`;

/** The place of the keys under which entries are sealed. No namespace of the store has it: theirs begin with a dot. */
export const CACHE_PATH = "caches";

export function openCacheTable(on: Queryable, { tenantId }: Scope): CacheStore {
  return {
    name: "postgres",
    get: async (kind, keys) => {
      const rows = await on.query<{ key: string; value: Buffer }>(findEntries, [tenantId, kind, keys]);
      return new Map(rows.map(({ key, value }) => [key, value]));
    },
    put: async (kind, entries) => {
      await on.query(upsertEntries, [tenantId, kind, JSON.stringify(entries.map(asText))]);
    },
    renew: async (kind, keys, ttlMs) => {
      await on.query(renewEntries, [tenantId, kind, keys, ttlMs]);
    },
    clear: async (kind: CacheKind, prefix: string) => {
      await on.query(clearEntries, [tenantId, kind, prefix]);
    },
    reopen: () => {},
    close: async () => {},
  };
}

const asText = ({ key, value, ttlMs }: StoredEntry): object => ({
  key,
  value: Buffer.from(value).toString("base64"),
  ttl_ms: ttlMs,
});

/** Takes up to `limit` away whose time is over. */
export const deleteExpiredCaches = async (transaction: Queryable, limit: number): Promise<number> =>
  (await transaction.query(deleteExpired, [limit])).length;

/** Makes every entry unreadable, also one that is kept elsewhere: nobody knows which of them say what was shredded. */
export async function shredCaches(transaction: Queryable, tenantId: string): Promise<void> {
  await transaction.query(forgetKeys, [tenantId, CACHE_PATH]);
  await transaction.query(deleteAll, [tenantId]);
}
