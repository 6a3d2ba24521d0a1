// Entries of the audit log, and how somebody who may do anything with the database changes them.
import { insertAudit, linkAudit } from "../../server/storage/audit.ts";
import type { AuditEntry } from "../../server/storage/audit.ts";
import type { Database } from "../../server/storage/database.ts";

export const entryOf = (over: Partial<AuditEntry> = {}): AuditEntry => ({
  actorKind: "command",
  action: "keys.rotated",
  object: "k1",
  outcome: "done",
  ...over,
});

/** Adds entries and links them; returns their ids in the order of the chain. */
export async function addLinked(database: Database, count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let n = 1; n <= count; n += 1) {
    ids.push(await insertAudit(database, entryOf({ object: `o${n}`, detail: { n } })));
    await database.transaction(linkAudit);
  }
  return ids;
}

/** Executes statements with every trigger off, those of foreign keys too. */
export async function tamper(database: Database, ...statements: string[]): Promise<void> {
  await database.transaction(async (transaction) => {
    for (const table of ["audit_entries", "audit_links", "audit_unlinked"])
      await transaction.query(`alter table holdfast.${table} disable trigger all`);
    for (const statement of statements) await transaction.query(statement);
    for (const table of ["audit_entries", "audit_links", "audit_unlinked"])
      await transaction.query(`alter table holdfast.${table} enable trigger all`);
  });
}

export const emptyAudit = (database: Database): Promise<void> =>
  tamper(database, "truncate holdfast.audit_entries, holdfast.audit_links, holdfast.audit_unlinked");
