// Writes the checkpoints of all runs of this process: one statement is under way at a time and takes everything that
// has gathered meanwhile. The writes of a superstep and the checkpoint after it usually share one commit.
import { turn } from "../clock.ts";
import { faultPoint } from "../faults.ts";
import { AppError } from "../errors.ts";
import { persistently } from "../persist.ts";
import type { Owner } from "../runs/run.ts";
import { putForOwners } from "./checkpoint-writes.ts";
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
  #items: Item[] = [];
  #isWriting = false;

  constructor(database: Queryable, workerId: string) {
    this.#database = database;
    this.#workerId = workerId;
  }

  /** Resolves when the write is on disk: true, or false when the run is not this owner's any more. */
  put(owner: Owner, write: CheckpointWrite): Promise<boolean> {
    const done = Promise.withResolvers<boolean>();
    this.#items.push({ owner, write, done });
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
    try {
      faultPoint("checkpoints.put");
      const written = await persistently(() => putForOwners(this.#database, this.#workerId, items));
      faultPoint("checkpoints.written");
      for (const [index, { done }] of items.entries()) done.resolve(written[index] ?? false);
    } catch (error) {
      const isOfOne = items.length > 1 && !(error instanceof AppError && error.retryable);
      // A value that PostgreSQL refuses fails its own run only.
      if (isOfOne) for (const item of items) await this.#put([item]);
      else for (const { done } of items) done.reject(error);
    }
  }
}
