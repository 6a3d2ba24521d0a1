// Rows of holdfast.data_keys: the keys of sealed data, wrapped. Who deletes a row makes unreadable what it sealed.
import type { Queries } from "../queries.ts";

export interface DataKeyRow {
  readonly data_key_id: string;
  readonly tenant_id: string;
  /** The thread whose data it is for. */
  readonly thread_id: string | null;
  /** The namespace of the store whose items it is for. */
  readonly path: string | null;
  readonly kek_id: string;
  readonly wrapped: Buffer;
}

/** As it is found for a namespace or for the rest. */
export interface YoungKeyRow extends DataKeyRow {
  /** False: it was made in this transaction, which may still be undone. */
  readonly is_lasting: boolean;
}

export interface KekUse {
  readonly kek_id: string;
  readonly keys: number;
}

const findKeyRows = `/* findDataKeys */
select data_key_id, tenant_id, thread_id, path, kek_id, wrapped from holdfast.data_keys where data_key_id = any ($1::uuid[])`;

const findThreadKeyRow = `/* findThreadKey */
select k.data_key_id, k.tenant_id, k.thread_id, k.path, k.kek_id, k.wrapped
  from holdfast.threads t join holdfast.data_keys k using (data_key_id) where t.thread_id = $1`;

// Random ivs are safe for 2^32 values of one key: one that is written to all the time lasts a week.
const listYoungRows = `/* listYoungDataKeys */
select distinct on (path) data_key_id, tenant_id, thread_id, path, kek_id, wrapped, created_at <> now() as is_lasting
  from holdfast.data_keys
 where thread_id is null and tenant_id = $1 and (path = any ($2::text[]) or path is null and $3::boolean)
   and created_at > now() - interval '7 days'
 order by path, created_at desc`;

const insertKeyRows = `/* insertDataKeys */
insert into holdfast.data_keys (data_key_id, tenant_id, thread_id, path, kek_id, wrapped)
select k.data_key_id, k.tenant_id, k.thread_id, k.path, k.kek_id, decode(k.wrapped, 'base64')
  from json_to_recordset($1::json) as k (data_key_id uuid, tenant_id text, thread_id text, path text, kek_id text, wrapped text)`;

const countByKekRows = `/* countDataKeys */
select kek_id, count(*) as keys from holdfast.data_keys group by kek_id order by kek_id`;

const sampleByKekRows = `/* sampleDataKeys */
select distinct on (kek_id) data_key_id, tenant_id, thread_id, path, kek_id, wrapped from holdfast.data_keys order by kek_id`;

const listWrappedRows = `/* listWrappedByOthers */
select data_key_id, tenant_id, thread_id, path, kek_id, wrapped from holdfast.data_keys
 where kek_id <> $1 and data_key_id > $2 order by data_key_id limit $3`;

// A key that was wrapped anew or deleted meanwhile stays as it is. So does one that somebody is about to delete: who
// deletes threads holds several, in an order of his own, and to wait for him while holding others could be for ever.
const rewrapRows = `/* rewrapDataKeys */
with k as materialized (
  select * from json_to_recordset($1::json) as k (data_key_id uuid, kek_id text, wrapped text)),
held as materialized (
  select d.data_key_id from holdfast.data_keys d join k on d.data_key_id = k.data_key_id and d.kek_id = k.kek_id
     for no key update of d skip locked)
update holdfast.data_keys d set kek_id = $2, wrapped = decode(k.wrapped, 'base64')
  from k join held on held.data_key_id = k.data_key_id
 where d.data_key_id = k.data_key_id
returning d.data_key_id`;

export const findDataKeys = (on: Queries, ids: readonly string[]): Promise<DataKeyRow[]> =>
  on.query(findKeyRows, [ids]);

/** The key under which a thread is written to; undefined when there is no such thread, or it has none. */
export async function findThreadKey(on: Queries, threadId: string): Promise<DataKeyRow | undefined> {
  const [row] = await on.query<DataKeyRow>(findThreadKeyRow, [threadId]);
  return row;
}

/** The newest keys of namespaces, and with `withRest` of what belongs to neither namespace nor thread. */
export const listYoungKeys = (
  on: Queries,
  tenantId: string,
  paths: readonly string[],
  withRest: boolean,
): Promise<YoungKeyRow[]> => on.query(listYoungRows, [tenantId, paths, withRest]);

export async function insertDataKeys(on: Queries, rows: readonly DataKeyRow[]): Promise<void> {
  await on.query(insertKeyRows, [JSON.stringify(rows.map(asText))]);
}

/** How many keys each key of the ring wraps. */
export const countByKek = (on: Queries): Promise<KekUse[]> => on.query(countByKekRows);

/** One key of those that each key of the ring wraps. */
export const sampleByKek = (on: Queries): Promise<DataKeyRow[]> => on.query(sampleByKekRows);

/** Keys that another key than `kekId` wraps, from the one after `after` on. */
export const listWrappedByOthers = (
  on: Queries,
  kekId: string,
  after: string,
  limit: number,
): Promise<DataKeyRow[]> => on.query(listWrappedRows, [kekId, after, limit]);

/** @param rows as they were read, with the new wrapping. @returns how many were changed */
export async function rewrapDataKeys(
  on: Queries,
  rows: readonly DataKeyRow[],
  kekId: string,
): Promise<number> {
  return (await on.query(rewrapRows, [JSON.stringify(rows.map(asText)), kekId])).length;
}

const asText = (row: DataKeyRow): object => ({ ...row, wrapped: row.wrapped.toString("base64") });
