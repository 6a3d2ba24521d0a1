// Hints between instances: which runs have new events, that a run is ready, that one was cancelled. A hint may be lost;
// everything it tells is also found by looking. One notification is under way at a time; what is raised meanwhile
// goes with the next one.
import { every } from "../clock.ts";
import { messageOf } from "../errors.ts";
import type { Queryable } from "../storage/database.ts";
import { notify } from "../storage/notifications.ts";
import type { Notification } from "../storage/notifications.ts";
import type { Log } from "../telemetry/log.ts";

const POLL_MS = 500;

/** What the heartbeat looks for besides runs. */
export type DueKind = "crons" | "webhooks";

export class Hints {
  readonly #database: Queryable;
  readonly #log: Log;
  readonly #due = new Map<DueKind, () => void>();
  readonly #dirty = new Set<string>();
  readonly #watchers = new Map<string, Set<() => void>>();
  #raised: Notification[] = [];
  #isSending = false;
  #stopTicker: (() => void) | undefined;
  /** Whether other instances are there to be told. */
  hasOthers = true;

  constructor(database: Queryable, log: Log) {
    this.#database = database;
    this.#log = log;
  }

  /** Calls `work` when something of this kind may be due. */
  whenDue(kind: DueKind, work: () => void): void {
    this.#due.set(kind, work);
  }

  /** Something of this kind may be due, here. */
  due(kind: DueKind): void {
    this.#due.get(kind)?.();
  }

  /** These runs have new events, or have ended. */
  events(runIds: Iterable<string>): void {
    const ids = [...runIds];
    this.wake(ids);
    if (!this.hasOthers) return;
    for (const runId of ids) this.#dirty.add(runId);
    if (!this.#isSending) void this.#send();
  }

  /** The same for followers of a thread: a run begins there. Others hear of it with the run's first events. */
  begins(threadId: string): void {
    this.wake([threadId]);
    if (this.hasOthers) this.#dirty.add(threadId);
  }

  /** Something other instances should look at now. */
  raise(notification: Notification): void {
    if (!this.hasOthers) return;
    this.#raised.push(notification);
    if (!this.#isSending) void this.#send();
  }

  /** Lets those go on here who wait for events of these runs. */
  wake(runIds: Iterable<string>): void {
    for (const runId of runIds) for (const done of this.#watchers.get(runId) ?? []) done();
  }

  /** Resolves at a hint of the run, soon even without one, or when `signal` aborts. Ask before reading. */
  next(runId: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const watchers = this.#watchers.get(runId) ?? new Set();
      this.#watchers.set(runId, watchers);
      const done = (): void => {
        signal.removeEventListener("abort", done);
        watchers.delete(done);
        if (watchers.size === 0 && this.#watchers.get(runId) === watchers) this.#watchers.delete(runId);
        resolve();
      };
      watchers.add(done);
      this.#poll();
      signal.addEventListener("abort", done, { once: true });
      if (signal.aborted) done();
    });
  }

  /** One timer for all who wait: notifications may be lost. */
  #poll(): void {
    this.#stopTicker ??= every(POLL_MS, () => {
      this.wake([...this.#watchers.keys()]);
      if (this.#watchers.size > 0) return;
      this.#stopTicker?.();
      this.#stopTicker = undefined;
    });
  }

  async #send(): Promise<void> {
    this.#isSending = true;
    while (this.#dirty.size > 0 || this.#raised.length > 0) {
      const runIds = [...this.#dirty];
      const raised = this.#raised;
      this.#dirty.clear();
      this.#raised = [];
      const events = runIds.length > 0 ? [{ kind: "events" as const, runIds }] : [];
      await notify(this.#database, [...events, ...raised]).catch((error: unknown) =>
        this.#log.warn("hints.lost", { reason: messageOf(error) }),
      );
    }
    this.#isSending = false;
  }
}
