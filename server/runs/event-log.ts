// Writes segments of events to the database without waiting for its disk: a crash of the database may then lose
// what was committed in the last moments. A crash also ends every session. So the log writes on a session of its own,
// keeps what it wrote lately, and writes it once more on the next session.
import { now } from "../clock.ts";
import { persistently } from "../persist.ts";
import type { Database, Session } from "../storage/database.ts";
import { commitWithoutWaiting, insertSegments } from "../storage/events.ts";
import type { Segment } from "../storage/events.ts";

// PostgreSQL writes its log to disk at least every three times wal_writer_delay, which is at most 10 s in theory
// and 200 ms by default.
const KEPT_MS = 2000;

export class EventLog {
  readonly #database: Database;
  readonly #workerId: string;
  readonly #hasSessions: boolean;
  #session: Session | undefined;
  #opening: Promise<Session> | undefined;
  readonly #recent: { readonly segments: readonly Segment[]; readonly at: number }[] = [];

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
    const held = await persistently(() => this.#write(segments));
    const at = now();
    while (this.#recent[0] && at - this.#recent[0].at >= KEPT_MS) this.#recent.shift();
    if (this.#hasSessions && segments.length > 0) this.#recent.push({ segments, at });
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

  async #write(segments: readonly Segment[]): ReturnType<typeof insertSegments> {
    if (!this.#hasSessions) return insertSegments(this.#database, this.#workerId, segments);
    this.#opening ??= this.#session ? undefined : this.#open().finally(() => (this.#opening = undefined));
    const session = this.#session ?? (await this.#opening);
    if (!session) return this.#write(segments); // lost again while it was opened
    try {
      return await insertSegments(session, this.#workerId, segments);
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
      const again = this.#recent.flatMap(({ segments: written }) => written);
      if (again.length > 0) await insertSegments(session, this.#workerId, again);
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
