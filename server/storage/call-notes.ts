// Notes of calls to models that fall under no budget. Only figures depend on them, so none costs a commit of its own where
// one is made anyway: the next checkpoint or end of whichever run takes along what waits. It waits a moment at most.
import { later } from "../clock.ts";
import { messageOf } from "../errors.ts";
import { persistently } from "../persist.ts";
import { isStorable } from "../privacy/storable.ts";
import type { Log } from "../telemetry/log.ts";
import type { Queryable } from "./database.ts";
import { insertCalls } from "./model-calls.ts";
import type { Note } from "./model-calls.ts";

const MOMENT_MS = 50;

export class CallNotes {
  readonly #database: Queryable;
  readonly #log: Log;
  #waiting: Note[] = [];
  #stopTimer: (() => void) | undefined;
  readonly #underWay = new Set<Promise<void>>();

  constructor(database: Queryable, log: Log) {
    this.#database = database;
    this.#log = log;
  }

  add(note: Note): void {
    // Refused by the database, it would take the checkpoint or the end of somebody's run along.
    if (!isStorableNote(note)) {
      this.#log.warn("calls.unnoted", { calls: 1, reason: "A name or a number of it cannot be stored." });
      return;
    }
    this.#waiting.push(note);
    this.#stopTimer ??= later(MOMENT_MS, () => this.#writeAlone(this.#take()));
  }

  /** Makes a statement that stores what waits beside its own work. */
  async along<T>(statement: (notes: readonly Note[]) => Promise<T>): Promise<T> {
    const notes = this.#take();
    try {
      return await statement(notes);
    } catch (error) {
      this.#writeAlone(notes);
      throw error;
    }
  }

  /** Nothing is added any more: writes what waits. */
  async close(): Promise<void> {
    this.#writeAlone(this.#take());
    await Promise.all(this.#underWay);
  }

  #take(): readonly Note[] {
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    return this.#waiting.splice(0);
  }

  #writeAlone(notes: readonly Note[]): void {
    if (notes.length === 0) return;
    const writing = this.#write(notes).finally(() => this.#underWay.delete(writing));
    this.#underWay.add(writing);
  }

  async #write(notes: readonly Note[]): Promise<void> {
    try {
      await persistently(() => insertCalls(this.#database, notes));
    } catch (error) {
      this.#log.warn("calls.unnoted", { calls: notes.length, reason: messageOf(error) });
    }
  }
}

function isStorableNote({ call: { model, node = "", payer }, usage }: Note): boolean {
  const { input, cached, output, microUsd } = usage;
  return (
    [model, node, payer.userId ?? ""].every(isStorable) &&
    [input, cached, output, microUsd ?? 0].every((count) => Number.isSafeInteger(count))
  );
}
