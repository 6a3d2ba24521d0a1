// Writes segments of events to the database without waiting for its disk: a crash of the database may then lose
// what was committed in the last moments. A crash also ends every session. So the log writes on a session of its own,
// keeps what it wrote lately, and writes it once more on the next session.
import { uptime } from "../../clock.ts";
import { persistently } from "../../persist.ts";
import type { Database, Session } from "../../storage/database.ts";
import { commitWithoutWaiting, insertPacked, pack, packedAsOne } from "../../storage/events.ts";
import type { Packed, Segment } from "../../storage/events.ts";

// PostgreSQL writes its log to disk at least every three times wal_writer_delay, which is at most 10 s in theory
// and 200 ms by default.
const KEPT_MS = 2000;

export class EventLog {
  readonly #database: Database;
  readonly #workerId: string;
  readonly #hasSessions: boolean;
  #session: Session | undefined;
  #opening: Promise<Session> | undefined;
  /** What each write sent, as it was sent: one string instead of thousands of segments. */
  readonly #recent: { readonly packed: Packed; readonly at: number }[] = [];

  /** @param hasSessions false behind a transaction pooler: then every commit waits for the disk instead */
  constructor(database: Database, workerId: string, hasSessions: boolean) {
    this.#database = database;
    this.#workerId = workerId;
    this.#hasSessions = hasSessions;
  }

  /**
   * Writes the segments; no two of one run may be under way at a time. Tries again while the database is away.
   * @returns the attempts that this worker still owns, as `run:attempt`; nothing was written for the others
   */
  async write(segments: readonly Segment[]): Promise<ReadonlySet<string>> {
    const packed = pack(segments);
    const held = await persistently(() => this.#write(packed));
    const at = uptime();
    while (this.#recent[0] && at - this.#recent[0].at >= KEPT_MS) this.#recent.shift();
    if (this.#hasSessions && segments.length > 0) this.#recent.push({ packed, at });
    return new Set(held.map(({ run_id: runId, attempt }) => `${runId}:${attempt}`));
  }

  /** Some of what was written lately is missing: the next write brings all of it again. */
  distrust(): void {
    if (this.#session) this.#drop(this.#session);
  }

  /** Brings what was written lately again, now. */
  async repair(): Promise<void> {
    this.distrust();
    await this.write([]);
  }

  async close(): Promise<void> {
    await this.#session?.close().catch(() => undefined); // already gone
  }

  async #write(packed: Packed): ReturnType<typeof insertPacked> {
    if (!this.#hasSessions) return insertPacked(this.#database, this.#workerId, packed);
    this.#opening ??= this.#session ? undefined : this.#open().finally(() => (this.#opening = undefined));
    const session = this.#session ?? (await this.#opening);
    if (!session) return this.#write(packed); // lost again while it was opened
    try {
      return await insertPacked(session, this.#workerId, packed);
    } catch (error) {
      this.#drop(session);
      throw error;
    }
  }

  /** What was written lately comes first: nobody may be shown an event whose predecessor is missing. */
  async #open(): Promise<Session> {
    const session = await this.#database.session({ pipelines: true });
    try {
      await commitWithoutWaiting(session);
      const again = this.#recent.map(({ packed }) => packed);
      if (again.length > 0) await insertPacked(session, this.#workerId, packedAsOne(again));
    } catch (error) {
      await session.close().catch(() => undefined); // the first error is the one to tell
      throw error;
    }
    this.#session = session;
    void session.closed.then(() => this.#drop(session));
    return session;
  }

  #drop(session: Session): void {
    if (this.#session === session) this.#session = undefined;
    void session.close().catch(() => undefined); // already gone
  }
}
