// Seals what a database holds already, thread by thread and namespace by namespace, each in a transaction of its own: a
// process that dies leaves some sealed and the rest as it was, and the next one goes on. No server runs meanwhile.
// Statements are made from the list of sealed columns, so that none of them can be forgotten.
import type { DataKey, Place } from "../../privacy/seal.ts";
import { SEALED_TYPE } from "../checkpoints/form.ts";
import type { Database, Queryable } from "../database.ts";
import { insertDataKeys } from "./data-keys.ts";
import { rewriteTables } from "./rewrite.ts";
import type { RewriteOptions } from "./rewrite.ts";
import { SEALED, placeOf, sealBytes, sealJson, sealText } from "./sealed.ts";
import type { SealedName } from "./sealed.ts";
import { addChecks } from "./sealing.ts";

const PAGE = 200;

const adoptThreads = `/* adoptThreads */
insert into holdfast.threads (thread_id) select distinct thread_id from public.checkpoints on conflict do nothing`;

// What belonged to threads and runs that are gone: nobody can ask for it.
const deleteOrphans = [
  `delete from holdfast.run_events e where not exists (select from holdfast.runs r where r.run_id = e.run_id)`,
  `delete from public.checkpoint_blobs b where not exists (select from holdfast.threads t where t.thread_id = b.thread_id)`,
  // What is cached can be had again.
  `delete from holdfast.cache_entries where get_byte(value, 0) <> 1`,
  `delete from public.checkpoint_writes w where not exists (select from holdfast.threads t where t.thread_id = w.thread_id)`,
];

const listPlainThreads = `/* listPlainThreads */
select thread_id from holdfast.threads where data_key_id is null order by thread_id limit ${PAGE}`;

const lockPlainThread = `/* lockPlainThread */
select thread_id from holdfast.threads where thread_id = $1 and data_key_id is null for update`;

// What a rollback of a run that has ended by now would have put back.
const forgetReplaced = `/* forgetReplaced */
update public.checkpoint_writes set was_type = null, was_blob = null where thread_id = $1 and was_blob is not null`;

const noteKey = `/* noteThreadKey */ update holdfast.threads set data_key_id = $2 where thread_id = $1`;

const listPlainPaths = `/* listPlainNamespaces */
select distinct path from holdfast.store_items where jsonb_typeof(value) = 'object' limit ${PAGE}`;

const countPlain = `/* countPlain */
select (select count(*) from holdfast.threads where data_key_id is null) as threads,
       (select count(distinct path) from holdfast.store_items where jsonb_typeof(value) = 'object') as namespaces`;

const OF_THREAD: Partial<Record<SealedName, string>> = {
  "runs.kwargs": "thread_id = $1",
  "runs.error": "thread_id = $1",
  "runs.auth": "thread_id = $1",
  "run_events.body": "run_id in (select run_id from holdfast.runs where thread_id = $1)",
  "threads.config": "thread_id = $1 and config <> '{}'",
  "threads.state": "thread_id = $1",
  "threads.error": "thread_id = $1",
  "checkpoint_blobs.blob": "thread_id = $1",
  "checkpoint_writes.blob": "thread_id = $1",
};
const OF_PATH: Partial<Record<SealedName, string>> = {
  "store_items.value": "path = $1 and jsonb_typeof(value) = 'object'",
  "store_vectors.coarse": "path = $1",
  "store_vectors.exact": "path = $1",
};
const OF_REST: Partial<Record<SealedName, string>> = {
  "crons.payload": "payload::text not like '\"~A%' and $1::text is null",
  "crons.auth": "auth::text not like '\"~A%' and $1::text is null",
  "webhooks.payload": "payload::text not like '\"~A%' and payload::text <> '{}' and $1::text is null",
};

const SEALED_TABLES = new Set(
  Object.entries(SEALED).map(([name, { schema }]) => `${schema}.${name.split(".")[0]}`),
);

/**
 * @param onProgress told how many threads and namespaces are left
 * @throws ResourceTaken when others keep what was there before from going; all is sealed then, and the next try goes on
 */
export async function sealExisting(
  database: Database,
  onProgress: (left: { threads: number; namespaces: number }) => void,
  rewriting: RewriteOptions = {},
): Promise<void> {
  await database.query(adoptThreads);
  for (const statement of deleteOrphans) await database.query(statement);
  for (;;) {
    const [left] = await database.query<{ threads: number; namespaces: number }>(countPlain);
    if (left) onProgress(left);
    const threads = await database.query<{ thread_id: string }>(listPlainThreads);
    if (threads.length === 0) break;
    for (const { thread_id: id } of threads) await database.transaction((one) => sealThread(one, id));
  }
  for (;;) {
    const paths = await database.query<{ path: string }>(listPlainPaths);
    if (paths.length === 0) break;
    for (const { path } of paths) await database.transaction((one) => sealNamespace(one, path));
  }
  await database.transaction(async (transaction) =>
    sealColumns(transaction, OF_REST, null, await transaction.seals.ofRest(transaction)),
  );
  // What was there before lies in the tables' files until these are written anew, and backups take them as they are.
  await rewriteTables(database, SEALED_TABLES, rewriting);
  // At last: until then the database says that it is not sealed, and whoever comes after this process goes on.
  await database.transaction(addChecks);
}

async function sealThread(transaction: Queryable, threadId: string): Promise<void> {
  const made = transaction.seals.newOfThread(threadId);
  const isPlain = (await transaction.query(lockPlainThread, [threadId])).length > 0;
  if (!made?.row || !isPlain) return;
  await insertDataKeys(transaction, [made.row]);
  await transaction.query(forgetReplaced, [threadId]);
  await sealColumns(transaction, OF_THREAD, threadId, made.key);
  await transaction.query(noteKey, [threadId, made.key.id]);
}

async function sealNamespace(transaction: Queryable, path: string): Promise<void> {
  const key = (await transaction.seals.ofNamespaces(transaction, [path])).get(path);
  await sealColumns(transaction, OF_PATH, path, key);
}

async function sealColumns(
  transaction: Queryable,
  columns: Partial<Record<SealedName, string>>,
  subject: string | null,
  key: DataKey | undefined,
): Promise<void> {
  for (const [name, condition] of Object.entries(columns))
    await sealColumn(transaction, { name: name as SealedName, condition, subject, key });
}

interface Column {
  readonly name: SealedName;
  readonly condition: string;
  readonly subject: string | null;
  readonly key: DataKey | undefined;
}

async function sealColumn(transaction: Queryable, { name, condition, subject, key }: Column): Promise<void> {
  const { schema, form, row } = SEALED[name];
  const [table = "", column = ""] = name.split(".");
  const place = `${schema}.${table}`;
  // The type of a value says that it is sealed, and is part of what it is bound to.
  const isTyped = row.some((one) => one === "type");
  const named = row.filter((one) => one !== "type");
  const shown = [...row, column].map((one) => (one === column && form === "bytes" ? one : `${one}::text`));
  const plain = isTyped ? `${condition} and type not like '%${SEALED_TYPE}'` : condition;
  // A log or a state may be large: a cursor hands out some rows at a time, as they were when it was opened.
  await transaction.query(
    `declare plain no scroll cursor for select ${shown.join()} from ${place} where ${plain} and ${column} is not null`,
    [subject],
  );
  const type = isTyped ? `, type = type || '${SEALED_TYPE}'` : "";
  const where = named.map((one, index) => `${one} = $${index + 2}`).join(" and ");
  const change = `update ${place} set ${column} = $1${type} where ${where}`;
  for (;;) {
    const rows = await transaction.query<Record<string, string | Buffer>>(`fetch ${PAGE} from plain`);
    for (const found of rows) {
      const names = row.map((one) => String(found[one]) + (one === "type" ? SEALED_TYPE : ""));
      const sealed = sealedForm(key, placeOf(name, names), found[column] ?? "", form);
      await transaction.query(change, [sealed, ...named.map((one) => String(found[one]))]);
    }
    if (rows.length < PAGE) break;
  }
  await transaction.query("close plain");
}

function sealedForm(
  key: DataKey | undefined,
  place: Place,
  plain: string | Buffer,
  form: "bytes" | "text" | "json",
): string | Uint8Array {
  if (typeof plain !== "string") return sealBytes(key, place, plain);
  return form === "text" ? sealText(key, place, plain) : sealJson(key, place, plain);
}
