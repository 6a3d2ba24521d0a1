// Rows of holdfast.vault_entries: what stands behind tokens, sealed under the key of its thread.
import type { DataKey } from "../../privacy/seal.ts";
import type { VaultEntry } from "../../privacy/vault.ts";
import type { Queryable } from "../database.ts";
import { openRows, placeOf, sealBytes } from "./sealed.ts";

const PAGE = 500;

/** An entry as it is stored. */
interface VaultRow {
  readonly token: string;
  readonly thread_id: string;
  readonly kind: string;
  readonly value: Buffer;
}

// The first who gave a value is its owner.
const insertEntryRows = `/* insertVaultEntries */
insert into holdfast.vault_entries (token, thread_id, kind, value)
select e.token, t.thread_id, e.kind, decode(e.value, 'base64')
  from json_to_recordset($2::json) as e (token text, kind text, value text)
  join holdfast.threads t on t.thread_id = $1 and t.data_key_id = $3
on conflict (token, thread_id) do nothing`;

const findEntryRows = `/* findVaultEntries */
select token, thread_id, kind, value from holdfast.vault_entries
 where token = any ($1::text[]) and ($2::text is null or thread_id = $2)`;

const listEntryRows = `/* listVaultEntries */
select token, thread_id, kind, value from holdfast.vault_entries where thread_id = $1 and token > $2 order by token limit $3`;

/** Entries as a statement takes them; null for none. */
export function packedEntries(key: DataKey, threadId: string, entries: readonly VaultEntry[]): string | null {
  if (entries.length === 0) return null;
  return JSON.stringify(
    entries.map(({ token, kind, value, identity }) => {
      const place = placeOf("vault_entries.value", [threadId, token, kind]);
      const sealed = sealBytes(key, place, Buffer.from(JSON.stringify({ value, identity })));
      return { token, kind, value: Buffer.from(sealed).toString("base64") };
    }),
  );
}

/** Keeps what was found on a thread; nothing when the thread is gone, or has another key. */
export async function insertVaultEntries(
  on: Queryable,
  at: { readonly threadId: string; readonly key: DataKey },
  entries: readonly VaultEntry[],
): Promise<void> {
  const rows = packedEntries(at.key, at.threadId, entries);
  if (rows !== null) await on.query(insertEntryRows, [at.threadId, rows, at.key.id]);
}

/** Entries for tokens, of one thread or of all; a token that nobody gave has none. @throws SealedValueInvalid, DataKeyUnusable */
export async function findVaultEntries(
  on: Queryable,
  tokens: readonly string[],
  threadId: string | undefined,
): Promise<(VaultEntry & { readonly threadId: string })[]> {
  const stored = await on.query<VaultRow>(findEntryRows, [tokens, threadId ?? null]);
  return (await openVault(on, stored)).map(entryOf);
}

const entryOf = ({
  token,
  thread_id: threadId,
  kind,
  value,
}: VaultRow): VaultEntry & { threadId: string } => ({
  token,
  threadId,
  kind,
  // Sealed by packedEntries, in this shape.
  ...(JSON.parse(value.toString()) as Pick<VaultEntry, "value" | "identity">),
});

/** Keeps a thread's entries for its copy too, sealed under the key of the copy. */
export async function copyVault(
  transaction: Queryable,
  threadId: string,
  copy: { readonly copyId: string; readonly key: DataKey },
): Promise<void> {
  for (let after = ""; ;) {
    const rows = await transaction.query<VaultRow>(listEntryRows, [threadId, after, PAGE]);
    const entries = (await openVault(transaction, rows)).map(entryOf);
    await insertVaultEntries(transaction, { threadId: copy.copyId, key: copy.key }, entries);
    const last = rows.at(-1);
    if (!last || rows.length < PAGE) return;
    after = last.token;
  }
}

const openVault = (on: Queryable, rows: VaultRow[]): Promise<VaultRow[]> =>
  openRows(on, rows, {
    value: {
      name: "vault_entries.value",
      as: "bytes",
      row: (row) => [row.thread_id, row.token, row.kind],
    },
  });
