// Makes sealed data unreadable for good, by deleting its keys, and takes away what they sealed. What lies in older copies
// of the database can then be opened only with a copy of its keys, which live in one small table.
import { insertAudit } from "../audit.ts";
import type { AuditEntry } from "../audit.ts";
import { shredCaches } from "../caches/entries.ts";
import { deleteThreads, lockPrunable } from "../checkpoints/prune.ts";
import type { Database, Queryable } from "../database.ts";
import { defaultScope } from "../scope.ts";
import { rangeUnder } from "../store/names.ts";
import { untilUnseen } from "./rewrite.ts";

/** What was shredded: how many data keys are gone. */
export interface Shredded {
  readonly keys: number;
}

const countThreadKeys = `/* countThreadKeys */ select count(*)::int as count from holdfast.data_keys where thread_id = any ($1::text[])`;

// Keys first: who writes an item holds its key, and waits here or finds it gone.
const deletePathKeys = `/* deletePathKeys */
with held as materialized (
  select data_key_id from holdfast.data_keys
   where thread_id is null and path >= $1 and path < $2 and tenant_id = $3 order by data_key_id for update),
gone as (delete from holdfast.data_keys d using held where d.data_key_id = held.data_key_id returning 1)
select count(*)::int as count from gone`;

const deletePathItems = `/* deletePathItems */
with gone as (delete from holdfast.store_items where path >= $1 and path < $2 returning 1)
select count(*)::int as count from gone`;

const listAllThreads = `/* listSomeThreads */ select thread_id from holdfast.threads order by thread_id limit 500`;

const deleteRest = [
  "/* deleteAllItems */ delete from holdfast.store_items",
  "/* deleteAllCrons */ delete from holdfast.crons",
  "/* deleteAllWebhooks */ delete from holdfast.webhooks",
];

const deleteAllKeys = `/* deleteAllKeys */
with gone as (delete from holdfast.data_keys where tenant_id = $1 returning 1) select count(*)::int as count from gone`;

// What was deleted lies in the table's file until then.
const vacuumKeys = `/* vacuumDataKeys */ vacuum holdfast.data_keys`;

async function takeAway(database: Database): Promise<void> {
  await untilUnseen(database);
  await database.query(vacuumKeys);
}

const countOf = async (on: Queryable, statement: string, values: readonly unknown[]): Promise<number> => {
  const [row] = await on.query<{ count: number }>(statement, values);
  return row?.count ?? 0;
};

const noted = (object: string, keys: number): AuditEntry => ({
  actorKind: "command",
  action: "keys.shredded",
  object,
  outcome: "done",
  detail: { keys },
});

/** Deletes a thread with its runs, call-backs and keys. "live": a run on it has not ended; nothing was done. */
export async function shredThread(
  database: Database,
  threadId: string,
): Promise<Shredded | "live" | "missing"> {
  const done = await database.transaction(async (transaction) => {
    const { found, live } = await lockPrunable(transaction, [threadId]);
    if (found.length === 0) return "missing";
    if (live.length > 0) return "live";
    const keys = await countOf(transaction, countThreadKeys, [[threadId]]);
    await deleteThreads(transaction, [threadId]);
    await shredCaches(transaction, defaultScope.tenantId);
    await insertAudit(transaction, noted(`thread:${threadId}`, keys));
    return { keys };
  });
  // Also when it is gone already: an earlier try may have died before this.
  if (done !== "live") await takeAway(database);
  return done;
}

/** Deletes all items under a prefix of the store, and their keys. @throws StoreNamespaceInvalid */
export async function shredNamespace(
  database: Database,
  labels: readonly string[],
  tenantId: string,
): Promise<Shredded | "missing"> {
  const { from, to } = rangeUnder(labels);
  const done = await database.transaction(async (transaction) => {
    const keys = await countOf(transaction, deletePathKeys, [from, to, tenantId]);
    const items = await countOf(transaction, deletePathItems, [from, to]);
    if (keys + items === 0) return "missing";
    await shredCaches(transaction, tenantId);
    await insertAudit(transaction, noted(`namespace:${labels.join(".")}`, keys));
    return { keys };
  });
  await takeAway(database);
  return done;
}

/** Deletes everything that is sealed for a tenant, and all its keys. No server may run meanwhile. */
export async function shredTenant(database: Database, tenantId: string): Promise<Shredded> {
  let ofThreads = 0;
  for (;;) {
    const rows = await database.query<{ thread_id: string }>(listAllThreads);
    if (rows.length === 0) break;
    const ids = rows.map(({ thread_id: id }) => id);
    ofThreads += await database.transaction(async (transaction) => {
      const keys = await countOf(transaction, countThreadKeys, [ids]);
      await deleteThreads(transaction, ids);
      return keys;
    });
  }
  const done = await database.transaction(async (transaction) => {
    for (const statement of deleteRest) await transaction.query(statement);
    await shredCaches(transaction, tenantId);
    const keys = ofThreads + (await countOf(transaction, deleteAllKeys, [tenantId]));
    await insertAudit(transaction, noted(`tenant:${tenantId}`, keys));
    return { keys };
  });
  await takeAway(database);
  return done;
}
