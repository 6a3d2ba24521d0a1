// The sealed part of a copy: what is sealed is bound to its thread, so it is opened and sealed anew, some rows at a time.
// The transaction holds one snapshot, so that all pages are of one moment.
import type { DataKey } from "../privacy/seal.ts";
import { SEALED_TYPE } from "./checkpoints/form.ts";
import { openBlobs, openWrites } from "./checkpoints/rows.ts";
import type { StoredBlob, StoredWrite } from "./checkpoints/rows.ts";
import type { Queryable } from "./database.ts";
import { placeOf, sealBytes } from "./keys/sealed.ts";
import type { SealedName } from "./keys/sealed.ts";
import { copyVault } from "./keys/vault.ts";

/** Values are large: so many are held in memory at a time. */
const PAGE = 100;

const listBlobs = `/* listBlobsToCopy */
select thread_id, checkpoint_ns, channel, version, type, blob from public.checkpoint_blobs
 where thread_id = $1 and ($2::text is null or (checkpoint_ns, channel, version) > ($2, $3, $4))
 order by checkpoint_ns, channel, version limit $5`;

const insertBlobs = `/* insertCopiedBlobs */
insert into public.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
select $1, checkpoint_ns, channel, version, type, decode(blob, 'base64')
  from json_to_recordset($2::json) as b (checkpoint_ns text, channel text, version text, type text, blob text)`;

const listWrites = `/* listWritesToCopy */
select thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob from public.checkpoint_writes
 where thread_id = $1 and ($2::text is null or (checkpoint_ns, checkpoint_id, task_id, idx) > ($2, $3, $4, $5))
 order by checkpoint_ns, checkpoint_id, task_id, idx limit $6`;

const insertWrites = `/* insertCopiedWrites */
insert into public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
select $1, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, decode(blob, 'base64')
  from json_to_recordset($2::json) as w (checkpoint_ns text, checkpoint_id text, task_id text, task_path text, idx int,
    channel text, type text, blob text)`;

type Names = readonly (string | number)[];

/** Rows of one table. */
interface Table<Row> {
  readonly name: SealedName;
  readonly list: string;
  readonly insert: string;
  readonly open: (on: Queryable, rows: Row[]) => Promise<Row[]>;
  /** What names a row within its thread; a page goes on after it. */
  readonly place: (row: Row) => Names;
  /** What is named besides, before the type. */
  readonly channel: (row: Row) => Names;
  readonly cursor: number;
}

const BLOBS: Table<StoredBlob> = {
  name: "checkpoint_blobs.blob",
  list: listBlobs,
  insert: insertBlobs,
  open: openBlobs,
  place: (row) => [row.checkpoint_ns, row.channel, row.version],
  channel: () => [],
  cursor: 3,
};

const WRITES: Table<StoredWrite> = {
  name: "checkpoint_writes.blob",
  list: listWrites,
  insert: insertWrites,
  open: openWrites,
  place: (row) => [row.checkpoint_ns, row.checkpoint_id ?? "", row.task_id, row.idx],
  channel: (row) => [row.channel],
  cursor: 4,
};

/** Copies values and writes of a thread, sealed under the key of the copy. */
export async function copySealed(
  transaction: Queryable,
  threadId: string,
  copy: { copyId: string; key: DataKey },
): Promise<void> {
  await copyTable(transaction, BLOBS, threadId, copy);
  await copyTable(transaction, WRITES, threadId, copy);
  await copyVault(transaction, threadId, copy);
}

async function copyTable<Row extends StoredBlob | StoredWrite>(
  transaction: Queryable,
  table: Table<Row>,
  threadId: string,
  { copyId, key }: { copyId: string; key: DataKey },
): Promise<void> {
  let after: readonly unknown[] = Array.from({ length: table.cursor }, () => null);
  for (;;) {
    const stored = await transaction.query<Row>(table.list, [threadId, ...after, PAGE]);
    const copies = (await table.open(transaction, stored)).map((row) => {
      const type = row.type + SEALED_TYPE;
      const place = placeOf(table.name, [copyId, ...table.place(row), ...table.channel(row), type]);
      const blob = Buffer.from(sealBytes(key, place, row.blob)).toString("base64");
      return Object.assign({}, row, { type, blob });
    });
    if (copies.length > 0) await transaction.query(table.insert, [copyId, JSON.stringify(copies)]);
    const last = stored.at(-1);
    if (!last || stored.length < PAGE) return;
    after = table.place(last);
  }
}
