// The chain of the audit log: what of an entry is hashed, and what can be wrong with a link. Each hash covers the one
// before it, so whoever changes an entry has to change all that follow, and the newest hash, which others may know.
import { createHash } from "node:crypto";

/**
 * An entry as the database tells it. The time is a text with its microseconds and `detail` is the text of its jsonb:
 * JavaScript would round both, and a change too small for it would go unseen.
 */
export interface ChainedEntry {
  readonly entry_id: string;
  readonly tenant_id: string;
  readonly at: string;
  readonly actor_kind: string;
  readonly actor_hash: string | null;
  readonly action: string;
  readonly object: string;
  readonly outcome: string;
  readonly detail: string;
}

export interface Link {
  readonly seq: number;
  /** Null for the first. */
  readonly prev_hash: Buffer | null;
  readonly hash: Buffer;
  /** Null when it is gone. */
  readonly entry: ChainedEntry | null;
}

/** `gap`: numbers are missing before it. `unbound`: it was not linked after the link that stands before it. */
export type Fault = "gap" | "unbound" | "gone" | "altered";

// Sorted; what is not named here is not covered by the hash.
const FIELDS: (keyof ChainedEntry)[] = [
  "action",
  "actor_hash",
  "actor_kind",
  "at",
  "detail",
  "entry_id",
  "object",
  "outcome",
  "tenant_id",
];

/** sha256 of the hash before it, if there is one, and the entry as JSON with sorted keys. */
export function hashOf(prev: Buffer | null, entry: ChainedEntry): Buffer {
  const hash = createHash("sha256");
  if (prev) hash.update(prev);
  return hash.update(JSON.stringify(entry, FIELDS)).digest();
}

/** What is wrong with a link, given the one that stands before it. */
export function faultsOf(link: Link, before: Link | undefined): Fault[] {
  const faults: Fault[] = [];
  const hasGap = link.seq !== (before?.seq ?? 0) + 1;
  if (hasGap) faults.push("gap");
  // After a gap it cannot be bound to what stands before it.
  else if (!isSame(link.prev_hash, before?.hash ?? null)) faults.push("unbound");
  if (!link.entry) faults.push("gone");
  else if (!isSame(hashOf(link.prev_hash, link.entry), link.hash)) faults.push("altered");
  return faults;
}

const isSame = (one: Buffer | null, other: Buffer | null): boolean =>
  one && other ? one.equals(other) : one === other;
