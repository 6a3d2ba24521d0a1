// Writes the checkpoints of all runs of this process: one statement is under way at a time and takes everything that
// has gathered meanwhile. The writes of a superstep, the checkpoint after it and the events before it share one commit.
import { turn } from "../clock.ts";
import { faultPoint } from "../faults.ts";
import { AppError, messageOf } from "../errors.ts";
import { persistently } from "../persist.ts";
import type { Recorder, Rider } from "../runs/record.ts";
import type { Owner } from "../runs/run.ts";
import { keyOf, putForOwners } from "./checkpoint-writes.ts";
import type { CheckpointWrite } from "./checkpoint-writes.ts";
import type { Queryable } from "./database.ts";

interface Item {
  readonly owner: Owner;
  readonly write: CheckpointWrite;
  readonly done: PromiseWithResolvers<boolean>;
}

// Keeps one statement short; the next one follows at once.
const MOST = 256;

export class CheckpointBatch {
  readonly #database: Queryable;
  readonly #workerId: string;
  readonly #events: Pick<Recorder, "hold" | "ride">;
  #items: Item[] = [];
  #isWriting = false;

  /** @param events where the events of a run wait that may ride along with its checkpoint */
  constructor(database: Queryable, workerId: string, events: Pick<Recorder, "hold" | "ride">) {
    this.#database = database;
    this.#workerId = workerId;
    this.#events = events;
  }

  /** Resolves when the write is on disk: true, or false when the run is not this owner's any more. */
  put(owner: Owner, write: CheckpointWrite): Promise<boolean> {
    const done = Promise.withResolvers<boolean>();
    this.#items.push({ owner, write, done });
    this.#events.hold(owner);
    if (!this.#isWriting) void this.#write();
    return done.promise;
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    await turn();
    while (this.#items.length > 0) await this.#put(this.#items.splice(0, MOST));
    this.#isWriting = false;
  }

  async #put(items: readonly Item[]): Promise<void> {
    const owners = new Set(items.map(({ owner }) => owner));
    const riders = [...owners].flatMap((owner) => this.#events.ride(owner) ?? []);
    try {
      faultPoint("checkpoints.put");
      await this.#putAll(items, riders);
      faultPoint("checkpoints.written");
    } catch (error) {
      const isOfOne = items.length === 1 && riders.length === 0;
      if (isOfOne || (error instanceof AppError && error.retryable)) {
        for (const { lost } of riders) lost(`Its events could not be written: ${messageOf(error)}`);
        for (const { done } of items) done.reject(error);
        return;
      }
      // A value that PostgreSQL refuses fails its own run only.
      for (const rider of riders) await this.#putAll([], [rider]).catch(() => rider.lost(messageOf(error)));
      for (const item of items) await this.#putAll([item], []).catch(item.done.reject);
    }
  }

  async #putAll(items: readonly Item[], riders: readonly Rider[]): Promise<void> {
    const segments = riders.map(({ segment }) => segment);
    const put = (): ReturnType<typeof putForOwners> =>
      putForOwners(this.#database, this.#workerId, items, segments);
    const held = await persistently(put);
    for (const { segment, written, lost, behind } of riders) {
      const own = held.get(keyOf(segment));
      if (!own) lost(`Run ${segment.runId} is not this server's any more.`);
      else if (own.fits) written();
      else behind();
    }
    for (const { owner, done } of items) done.resolve(held.has(keyOf(owner)));
  }
}
