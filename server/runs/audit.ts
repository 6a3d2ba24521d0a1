// Links what the audit log got: appends new entries to its chain each second, and tells the newest hash to the log of
// the server from time to time, where who can write to the database cannot take it back.
import { sleep, uptime } from "../clock.ts";
import { messageOf } from "../errors.ts";
import { findAuditHead, hasUnlinked, linkAudit } from "../storage/audit.ts";
import type { Database } from "../storage/database.ts";
import type { Log } from "../telemetry/log.ts";

export interface AuditChainOptions {
  readonly database: Database;
  readonly log: Log;
  readonly everyMs?: number;
  /** How often the newest hash is told. */
  readonly tellEveryMs?: number;
}

const EVERY_MS = 1000;
const TELL_EVERY_MS = 3_600_000;

/** Each instance looks; a lock lets one of them link. */
export function startAuditChain(options: AuditChainOptions): { stop(): Promise<void> } {
  const { database, log, everyMs = EVERY_MS, tellEveryMs = TELL_EVERY_MS } = options;
  const stopping = new AbortController();
  let isFailing = false;
  let told: { readonly head: string | undefined; readonly at: number } | undefined;

  const link = async (): Promise<void> => {
    if (!(await hasUnlinked(database))) return;
    while (!stopping.signal.aborted && (await database.transaction(linkAudit)) > 0);
  };
  const tell = async (): Promise<void> => {
    if (told && uptime() < told.at + tellEveryMs) return;
    const newest = await findAuditHead(database);
    const head = newest?.hash.toString("hex");
    if (newest && head !== told?.head) log.info("audit.linked", { head, seq: newest.seq });
    told = { head, at: uptime() };
  };
  const loop = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      try {
        await link();
        await tell();
        isFailing = false;
      } catch (error) {
        // What waits stays where it is: one line for a trouble is enough.
        if (!isFailing) log.warn("audit.unlinked", { reason: messageOf(error) });
        isFailing = true;
      }
      await sleep(everyMs, stopping.signal);
    }
  };
  const looping = loop();
  return {
    stop: async () => {
      stopping.abort();
      await looping;
    },
  };
}
