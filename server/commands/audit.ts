// holdfast audit: shows the newest entries, and walks the whole chain to find what was changed past the triggers. It
// reads only, in pages, beside servers that write.
import { sleep } from "../clock.ts";
import type { Config } from "../config.ts";
import { faultsOf } from "../privacy/chain.ts";
import type { Fault, Link } from "../privacy/chain.ts";
import { countUnlinked, findLink, listAudit, listAuditChain } from "../storage/audit.ts";
import type { AuditRow, Unlinked } from "../storage/audit.ts";
import type { Queryable } from "../storage/database.ts";
import { withDatabase } from "./database.ts";

type Say = (text: string) => void;

interface Problem {
  /** The place in the chain; null for what has none. */
  readonly seq: number | null;
  readonly problem: string;
}

interface Verdict {
  readonly ok: boolean;
  /** Links of the chain. */
  readonly entries: number;
  readonly unlinked: number;
  readonly head: string | null;
  /** How many there are; of very many the first ones are told. */
  readonly found: number;
  readonly problems: readonly Problem[];
}

const PAGE = 2000;
const MOST_PROBLEMS = 1000;
const MOST_LINES = 20;
// Longer than a linker takes for an entry whose transaction was long and has just been committed.
const SECOND_LOOK_MS = 2500;

/** @returns the exit code: 0, also when there is none */
export async function showAudit(
  config: Config,
  options: { limit: number; json?: boolean; say: Say },
): Promise<number> {
  const { limit, json = false, say } = options;
  const rows = await withDatabase(config, (database) => listAudit(database, limit), json ? undefined : say);
  if (json) say(JSON.stringify(rows));
  else if (rows.length === 0) say("The audit log is empty.");
  else for (const row of rows) say(lineOf(row));
  return 0;
}

/** @returns the exit code: 0, 2 when the head is no hash, or 3 when something was found */
export async function verifyAudit(
  config: Config,
  options: { head?: string; json?: boolean; say: Say },
): Promise<number> {
  const { json = false, say } = options;
  const head = options.head?.toLowerCase();
  if (head !== undefined && !/^[0-9a-f]{64}$/.test(head)) {
    say("A head is 64 hexadecimal digits, as the line audit.linked of a server's log names it.");
    return 2;
  }
  const verdict = await withDatabase(
    config,
    (database) => verifyChain(database, head),
    json ? undefined : say,
  );
  if (json) say(JSON.stringify(verdict));
  else sayVerdict(verdict, say);
  return verdict.ok ? 0 : 3;
}

/** Walks the chain from its beginning, and counts what is not in it. */
export async function verifyChain(on: Queryable, wanted?: string): Promise<Verdict> {
  const problems: Problem[] = [];
  let found = 0;
  let entries = 0;
  let isKnown = wanted === undefined;
  let before: Link | undefined;
  for (;;) {
    // From below 1, so that nothing hides there.
    const page = await listAuditChain(on, before?.seq ?? Number.MIN_SAFE_INTEGER, PAGE);
    for (const link of page) {
      for (const fault of faultsOf(link, before)) {
        found += 1;
        if (found <= MOST_PROBLEMS)
          problems.push({ seq: link.seq, problem: await explain(on, fault, link, before) });
      }
      isKnown ||= link.hash.toString("hex") === wanted;
      before = link;
    }
    entries += page.length;
    // A forged number beyond what JavaScript can count is a gap, and would be read again for ever.
    if (page.length < PAGE || !Number.isSafeInteger(before?.seq)) break;
  }
  const { unlinked, lost, overdue } = await lookTwice(on);
  const ofAll = [
    isKnown ? "" : "cut: the given head is not in the chain: its end was cut off, or it was written anew",
    lost > 0 ? `unlinked: ${lost} entries have no link and do not wait for one` : "",
    overdue > 0 ? `unlinked: ${overdue} entries wait for longer than a minute, while a server runs` : "",
  ].filter((problem) => problem !== "");
  problems.push(...ofAll.map((problem) => ({ seq: null, problem })));
  found += ofAll.length;
  const head = before?.hash.toString("hex") ?? null;
  return { ok: found === 0, entries, unlinked, head, found, problems };
}

async function lookTwice(on: Queryable): Promise<Unlinked> {
  const first = await countUnlinked(on);
  if (first.overdue === 0) return first;
  await sleep(SECOND_LOOK_MS);
  return countUnlinked(on);
}

async function explain(on: Queryable, fault: Fault, link: Link, before: Link | undefined): Promise<string> {
  if (fault === "gone") return "missing: its entry is gone";
  if (fault === "altered") return "edited: its entry is not the one that was linked here";
  if (fault === "gap") {
    const first = (before?.seq ?? 0) + 1;
    return link.seq > first
      ? `missing: ${first === link.seq - 1 ? `${first} is` : `${first} to ${link.seq - 1} are`} gone`
      : "inserted: its number belongs to no entry";
  }
  const follows = link.prev_hash ? await findLink(on, link.prev_hash) : 0;
  if (follows === undefined) return "broken: what it was linked after is not in the chain";
  return follows === 0
    ? "reordered: it was linked as the first one"
    : `reordered: it was linked after what is now ${follows}`;
}

function sayVerdict({ problems, found, unlinked, entries, head }: Verdict, say: Say): void {
  for (const { seq, problem } of problems.slice(0, MOST_LINES))
    say(seq === null ? problem : `${seq}: ${problem}`);
  if (found > MOST_LINES) say(`… and ${found - MOST_LINES} more`);
  if (unlinked > 0) say(`${unlinked} entries are not linked yet.`);
  say(`${entries} entries, head ${head ?? "none"}`);
}

function lineOf(row: AuditRow): string {
  const who = row.actor_hash === null ? row.actor_kind : `${row.actor_kind} ${row.actor_hash}`;
  const place = row.seq === null ? "not linked yet" : `linked as ${row.seq}`;
  const detail = Object.keys(row.detail).length > 0 ? ` ${JSON.stringify(row.detail)}` : "";
  return `${row.at} ${row.action} ${row.object} ${row.outcome} by ${who}, ${place}${detail}`;
}
