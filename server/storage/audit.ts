// Rows of the audit log. An entry is written in the transaction of what it tells, and so is there if and only if that
// happened. Later it is linked: appended to the chain of hashes, by one linker at a time.
// A transaction may commit after entries with higher ids were linked; so the order of the chain is that of linking.
import { uuidv7 } from "../ids.ts";
import { hashOf } from "../privacy/chain.ts";
import type { ChainedEntry, Link } from "../privacy/chain.ts";
import type { Queryable } from "./database.ts";
import { tryJob } from "./expiry.ts";
import { defaultScope } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** What somebody did. All of it is ids, hashes, codes and figures, never what a user wrote. */
export interface AuditEntry {
  readonly actorKind: "command" | "caller" | "server";
  /** A keyed hash of who it was; none for the server itself. */
  readonly actorHash?: string | undefined;
  /** noun.past-verb, such as keys.rotated. */
  readonly action: string;
  /** The id of what it was done to. */
  readonly object: string;
  readonly outcome: "done" | "refused" | "failed" | "error" | "timeout";
  readonly detail?: Readonly<Record<string, string | number | boolean | null | readonly string[]>>;
}

export interface AuditRow extends Omit<ChainedEntry, "detail"> {
  readonly detail: Record<string, unknown>;
  /** Its place in the chain; null while it is not linked. */
  readonly seq: number | null;
}

export interface AuditHead {
  readonly seq: number;
  readonly hash: Buffer;
}

/** Entries that are in no link of the chain. */
export interface Unlinked {
  readonly unlinked: number;
  /** Those that wait for no linker either. */
  readonly lost: number;
  /** Those that a server should have linked by now. */
  readonly overdue: number;
}

interface LinkRow extends ChainedEntry {
  readonly seq: number;
  readonly prev_hash: Buffer | null;
  readonly hash: Buffer;
  readonly is_gone: boolean;
}

// Small enough that a transaction is short.
const BATCH = 500;

const insertAuditRow = `/* insertAudit */
with entry as (
  insert into holdfast.audit_entries (entry_id, tenant_id, actor_kind, actor_hash, action, object, outcome, detail)
  values ($1, $2, $3, $4, $5, $6, $7, $8) returning entry_id)
insert into holdfast.audit_unlinked (entry_id) select entry_id from entry`;

const hasUnlinkedRow = `/* hasUnlinked */ select exists (select from holdfast.audit_unlinked) as is_there`;

// As JSON a time is the same text in every session, whatever its settings.
const AT = `(to_jsonb(e.at at time zone 'UTC') #>> '{}') || 'Z' as at`;

// What waits is taken first: few rows, for which the large tables are looked into by their keys.
const listUnlinkedRows = `/* listUnlinked */
with waiting as materialized (select entry_id from holdfast.audit_unlinked order by entry_id limit $1)
select e.entry_id, e.tenant_id, ${AT}, e.actor_kind, e.actor_hash, e.action, e.object, e.outcome, e.detail::text as detail
  from waiting w join holdfast.audit_entries e using (entry_id)
 where not exists (select from holdfast.audit_links s where s.entry_id = w.entry_id)
 order by w.entry_id`;

const findAuditHeadRow = `/* findAuditHead */ select seq, hash from holdfast.audit_links order by seq desc limit 1`;

const insertLinkRows = `/* insertLinks */
with linked as (
  insert into holdfast.audit_links (seq, entry_id, prev_hash, hash)
  select $1::bigint + place, entry_id, prev_hash, hash
    from unnest($2::uuid[], $3::bytea[], $4::bytea[]) with ordinality as given (entry_id, prev_hash, hash, place)
  returning entry_id)
delete from holdfast.audit_unlinked where entry_id in (select entry_id from linked)`;

const listAuditChainRows = `/* listAuditChain */
select s.seq, s.prev_hash, s.hash, e.entry_id is null as is_gone,
       e.entry_id, e.tenant_id, ${AT}, e.actor_kind, e.actor_hash, e.action, e.object, e.outcome, e.detail::text as detail
  from holdfast.audit_links s left join holdfast.audit_entries e using (entry_id)
 where s.seq > $1 order by s.seq limit $2`;

const findLinkRow = `/* findLink */ select seq from holdfast.audit_links where hash = $1 limit 1`;

// A command may write an entry while no server runs: it then waits for the next one. One that has just begun may still
// be at it.
const countUnlinkedRow = `/* countUnlinked */
select count(*)::int as unlinked,
       (count(*) filter (where u.entry_id is null))::int as lost,
       (count(*) filter (where u.entry_id is not null and e.at < now() - interval '1 min'
         and exists (select from holdfast.instances
           where beat_at > now() - interval '15 s' and started_at < now() - interval '1 min')))::int as overdue
  from holdfast.audit_entries e left join holdfast.audit_unlinked u using (entry_id)
 where not exists (select from holdfast.audit_links s where s.entry_id = e.entry_id)`;

const listAuditRows = `/* listAudit */
select e.entry_id, e.tenant_id, ${AT}, e.actor_kind, e.actor_hash, e.action, e.object, e.outcome, e.detail, s.seq
  from holdfast.audit_entries e left join holdfast.audit_links s using (entry_id)
 order by e.entry_id desc limit $1`;

/** Call it in the transaction of the action: what is rolled back leaves no entry. Returns the entry's id. */
export async function insertAudit(
  on: Queryable,
  entry: AuditEntry,
  scope: Scope = defaultScope,
): Promise<string> {
  const id = uuidv7();
  const { actorKind, actorHash = null, action, object, outcome, detail = {} } = entry;
  const values = [id, scope.tenantId, actorKind, actorHash, action, object, outcome, JSON.stringify(detail)];
  await on.query(insertAuditRow, values);
  return id;
}

/** Whether entries wait: cheap, and asked often. */
export async function hasUnlinked(on: Queryable): Promise<boolean> {
  const [row] = await on.query<{ is_there: boolean }>(hasUnlinkedRow);
  return row?.is_there ?? false;
}

/** Appends waiting entries to the chain. Returns how many: 0 when none wait, or another linker is at it. */
export async function linkAudit(transaction: Queryable): Promise<number> {
  if (!(await tryJob(transaction, "audit.linked"))) return 0;
  const entries = await transaction.query<ChainedEntry>(listUnlinkedRows, [BATCH]);
  if (entries.length === 0) return 0;
  const head = await findAuditHead(transaction);
  const [prevs, hashes]: [(Buffer | null)[], Buffer[]] = [[], []];
  for (const entry of entries) {
    const prev = hashes.at(-1) ?? head?.hash ?? null;
    prevs.push(prev);
    hashes.push(hashOf(prev, entry));
  }
  const ids = entries.map(({ entry_id: id }) => id);
  await transaction.query(insertLinkRows, [head?.seq ?? 0, ids, prevs, hashes]);
  return entries.length;
}

/** The newest link; undefined while nothing is linked. */
export async function findAuditHead(on: Queryable): Promise<AuditHead | undefined> {
  const [row] = await on.query<AuditHead>(findAuditHeadRow);
  return row;
}

/** A page of the chain, in order. */
export async function listAuditChain(on: Queryable, afterSeq: number, limit: number): Promise<Link[]> {
  const rows = await on.query<LinkRow>(listAuditChainRows, [afterSeq, limit]);
  return rows.map((row) => {
    const { seq, prev_hash: prev, hash, is_gone: isGone, ...entry } = row;
    return { seq, prev_hash: prev, hash, entry: isGone ? null : entry };
  });
}

/** The number of the link that has this hash. */
export async function findLink(on: Queryable, hash: Buffer): Promise<number | undefined> {
  const [row] = await on.query<{ seq: number }>(findLinkRow, [hash]);
  return row?.seq;
}

export async function countUnlinked(on: Queryable): Promise<Unlinked> {
  const [row] = await on.query<Unlinked>(countUnlinkedRow);
  return row ?? { unlinked: 0, lost: 0, overdue: 0 };
}

/** Newest first. */
export const listAudit = (on: Queryable, limit: number): Promise<AuditRow[]> =>
  on.query<AuditRow>(listAuditRows, [limit]);
