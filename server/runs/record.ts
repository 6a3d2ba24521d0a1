// The write side of the event log. An event is shown to nobody before it is committed.
// One flush is under way at a time and takes all events of all runs that have gathered meanwhile,
// so that an idle server writes each token at once and a busy one writes large batches.
import { messageOf } from "../errors.ts";
import { persistently } from "../persist.ts";
import type { Database } from "../storage/database.ts";
import { insertEvents } from "../storage/events.ts";
import type { RunEvent } from "../storage/events.ts";
import type { Log } from "../telemetry/log.ts";

// Above this the graphs wait: the database is slower than the models.
const MAX_PENDING_BYTES = 32 * 1024 * 1024;
const MAX_BATCH = 2000;

/** Events of one run, numbered from 0. */
export interface Recording {
  /** Resolves when there is room for more. Throws once the log could not be written: the run must stop. */
  append(event: string, json: string): Promise<void>;
  /** Resolves when every event so far is committed; throws if that failed. */
  flushed(): Promise<void>;
}

export class Recorder {
  readonly #database: Database;
  readonly #log: Log;
  readonly #onCommitted: (runIds: Set<string>) => void;
  readonly #failures = new Map<string, unknown>();
  /** How many events of each run are not committed yet. */
  readonly #open = new Map<string, number>();
  #pending: RunEvent[] = [];
  #pendingBytes = 0;
  #isFlushing = false;
  #batchDone = Promise.withResolvers<void>();

  /** @param onCommitted told which runs have new events */
  constructor(database: Database, log: Log, onCommitted: (runIds: Set<string>) => void) {
    this.#database = database;
    this.#log = log;
    this.#onCommitted = onCommitted;
  }

  open(runId: string): Recording & { close(): void } {
    let seq = 0;
    return {
      append: async (event, data) => {
        this.#throwIfFailed(runId);
        this.#pending.push({ runId, seq, event, data });
        seq += 1;
        this.#count(runId, 1);
        this.#pendingBytes += data.length;
        if (!this.#isFlushing) void this.#flush();
        while (this.#pendingBytes > MAX_PENDING_BYTES) await this.#batchDone.promise;
      },
      flushed: async () => {
        // Only this run's events: those of other runs may never pause.
        while (this.#open.has(runId)) await this.#batchDone.promise;
        this.#throwIfFailed(runId);
      },
      close: () => this.#failures.delete(runId),
    };
  }

  async #flush(): Promise<void> {
    this.#isFlushing = true;
    // Let the events of this tick gather first.
    await Promise.resolve();
    while (this.#pending.length > 0) {
      const batch = this.#pending.splice(0, MAX_BATCH);
      const runIds = new Set(batch.map(({ runId }) => runId));
      try {
        await persistently(() => insertEvents(this.#database, batch));
        this.#settle(batch);
      } catch (error) {
        this.#log.error("events.lost", { runs: runIds.size, events: batch.length, reason: messageOf(error) });
        for (const runId of runIds) this.#failures.set(runId, error);
        const hopeless = this.#pending.filter(({ runId }) => runIds.has(runId));
        this.#pending = this.#pending.filter(({ runId }) => !runIds.has(runId));
        this.#settle([...batch, ...hopeless]);
      }
      this.#onCommitted(runIds);
    }
    this.#isFlushing = false;
  }

  /** These events are committed or given up: whoever waits for them, or for room, goes on. */
  #settle(events: readonly RunEvent[]): void {
    for (const { runId, data } of events) {
      this.#count(runId, -1);
      this.#pendingBytes -= data.length;
    }
    this.#batchDone.resolve();
    this.#batchDone = Promise.withResolvers<void>();
  }

  #count(runId: string, change: number): void {
    const left = (this.#open.get(runId) ?? 0) + change;
    if (left > 0) this.#open.set(runId, left);
    else this.#open.delete(runId);
  }

  #throwIfFailed(runId: string): void {
    const failure = this.#failures.get(runId);
    if (failure !== undefined) throw failure;
  }
}
