// Writes the checkpoints of all runs of this process: one statement is under way at a time and takes everything that
// has gathered meanwhile. The writes of a superstep, the checkpoint after it and the events before it share one commit;
// the last checkpoint of a run shares the commit that ends the run.
import { later, turn } from "../../clock.ts";
import { AppError, LeaseLost } from "../../errors.ts";
import { faultPoint } from "../../faults.ts";
import { persistently } from "../../persist.ts";
import type { CallNotes } from "../call-notes.ts";
import type { Queryable } from "../database.ts";
import { unwritten } from "../events.ts";
import type { Segment } from "../events.ts";
import type { Owner } from "../fence.ts";
import type { CheckpointKey, CheckpointWrite, Urgency } from "./form.ts";
import { keyOf, putForOwners } from "./writes.ts";

interface Item {
  readonly owner: Owner;
  readonly write: CheckpointWrite;
  readonly written: PromiseWithResolvers<boolean>;
}

/** Events of one run on their way in somebody else's statement. */
export interface Rider {
  readonly owner: Owner;
  /** At least one; each goes on where the one before ends. */
  readonly segments: readonly Segment[];
  readonly written: () => void;
  readonly lost: (error: AppError) => void;
  /** They could not be written, because events before them are gone: those come first. */
  readonly behind: () => void;
}

/** Where the events of runs wait. */
export interface Riders {
  /** Those of this run wait for its next checkpoint, until they are released. */
  hold(owner: Owner): void;
  release(owner: Owner): void;
  /** Those that may ride along now; undefined when there are none, or some are under way. */
  ride(owner: Owner): Rider | undefined;
}

interface Open {
  waiting: Item[];
  /** Set while something waits that is to be written in a moment. */
  stopTimer: (() => void) | undefined;
  /** What is being written, or was refused. */
  readonly underWay: Set<Item>;
  /** Something was refused, or the run has another owner: nothing that comes later is written. */
  isBroken: boolean;
  /** The last one that is on disk, if the database has not lost it since. */
  newest: CheckpointKey | undefined;
}

// Keeps one statement short; the next one follows at once. What is large goes alone: large states of many runs together
// would take longer than a statement may, and PostgreSQL takes no message above a gigabyte.
const MOST = 256;
const MOST_BYTES = 4 * 1024 * 1024;
const SOON_MS = 5;
// A graph that has nothing left to do ends its run within this time, or its last checkpoint is written without it.
const END_MS = 25;

export class CheckpointBatch {
  readonly #database: Queryable;
  readonly #workerId: string;
  readonly #events: Riders;
  readonly #notes: Pick<CallNotes, "along">;
  readonly #open = new WeakMap<Owner, Open>();
  #items: Item[] = [];
  #isWriting = false;

  /**
   * @param events where the events of a run wait that may ride along with its checkpoint
   * @param notes what rides along with any
   */
  constructor(
    database: Queryable,
    workerId: string,
    { events, notes }: { events: Riders; notes: Pick<CallNotes, "along"> },
  ) {
    this.#database = database;
    this.#workerId = workerId;
    this.#events = events;
    this.#notes = notes;
  }

  /**
   * Resolves when the write, if it is for "now", and what came before it are on disk: true, or false when the run is
   * not this owner's any more.
   */
  async put(owner: Owner, write: CheckpointWrite, urgency: Urgency): Promise<boolean> {
    const open = this.#openFor(owner);
    open.waiting.push({ owner, write, written: Promise.withResolvers() });
    if (!open.isBroken) this.#events.hold(owner);
    // While the database is busy with others, what comes gathers for the statement after.
    const isAwaited = urgency === "now" || (urgency === "trailing" && this.#isWriting);
    if (isAwaited || open.isBroken) return this.#written(open);
    if (urgency === "the end") stopTimer(open);
    open.stopTimer ??= later(urgency === "the end" ? END_MS : SOON_MS, () => this.#release(open));
    return true;
  }

  /** Resolves when everything that was put for the run is on disk. */
  async settled(owner: Owner): Promise<void> {
    const open = this.#open.get(owner);
    if (open) await this.#written(open);
  }

  /** The writes that go with the run's end; waits for those on their way. @throws LeaseLost */
  async rest(owner: Owner): Promise<CheckpointWrite[]> {
    const open = this.#open.get(owner);
    if (!open) return [];
    const { waiting } = open;
    open.waiting = [];
    if (await this.#written(open)) return waiting.map(({ write }) => write);
    throw new LeaseLost(`Run ${owner.runId} is not this server's any more.`);
  }

  /** The newest checkpoint that the run has stored here. */
  newestOf(owner: Owner): CheckpointKey | undefined {
    return this.#open.get(owner)?.newest;
  }

  /** Nothing more comes for the run; what waits is not written. */
  close(owner: Owner): void {
    this.#open.get(owner)?.stopTimer?.();
    this.#open.delete(owner);
  }

  #openFor(owner: Owner): Open {
    const open = this.#open.get(owner) ?? {
      waiting: [],
      stopTimer: undefined,
      underWay: new Set(),
      isBroken: false,
      newest: undefined,
    };
    this.#open.set(owner, open);
    return open;
  }

  async #written(open: Open): Promise<boolean> {
    this.#release(open);
    const written = await Promise.all([...open.underWay].map((item) => item.written.promise));
    return !written.includes(false);
  }

  #release(open: Open): void {
    stopTimer(open);
    if (open.isBroken) return;
    for (const item of open.waiting) {
      open.underWay.add(item);
      item.written.promise.catch(() => undefined); // whoever waits for it, now or at the end, is told
      this.#items.push(item);
    }
    open.waiting = [];
    if (!this.#isWriting && this.#items.length > 0) void this.#write();
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    await turn();
    while (this.#items.length > 0) await this.#put(this.#items.splice(0, this.#fitting()));
    this.#isWriting = false;
  }

  /** How many of the writes that wait go into the next statement: one at least, and all in their order. */
  #fitting(): number {
    let bytes = 0;
    const tooMuch = this.#items.findIndex(({ write }) => (bytes += sizeOf(write)) > MOST_BYTES);
    return tooMuch < 0 ? MOST : Math.min(MOST, Math.max(1, tooMuch));
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
        for (const { lost } of riders) lost(unwritten(error));
        for (const item of items) this.#refuse(item, error);
        return;
      }
      // A value that PostgreSQL refuses fails its own run only.
      for (const rider of riders)
        await this.#putAll([], [rider]).catch((refused: unknown) => rider.lost(unwritten(refused)));
      for (const item of items)
        await this.#putAll([item], []).catch((refused: unknown) => this.#refuse(item, refused));
    }
  }

  #refuse({ owner, written }: Item, error: unknown): void {
    this.#break(owner);
    written.reject(error);
  }

  /** Nothing more of the run is written, so its events wait for nothing any more. */
  #break(owner: Owner): void {
    const open = this.#open.get(owner);
    if (!open) return;
    open.isBroken = true;
    this.#events.release(owner);
  }

  async #putAll(items: readonly Item[], riders: readonly Rider[]): Promise<void> {
    const segments = riders.flatMap((rider) => rider.segments);
    const held = await this.#notes.along((notes) =>
      persistently(() =>
        putForOwners(this.#database, this.#workerId, items, segments, notes, (owner) => this.newestOf(owner)),
      ),
    );
    for (const { owner, written, lost, behind } of riders) {
      const own = held.get(keyOf(owner));
      if (!own) lost(new LeaseLost(`Run ${owner.runId} is not this server's any more.`));
      else if (own.fits) written();
      else behind();
    }
    for (const item of items) {
      const isOwn = held.has(keyOf(item.owner));
      const open = this.#open.get(item.owner);
      if (isOwn && open && "checkpoint" in item.write) open.newest = placeOf(item.write);
      if (isOwn) open?.underWay.delete(item);
      else this.#break(item.owner);
      item.written.resolve(isOwn);
    }
  }
}

/** Without its values: it is kept for as long as its run is at work. */
const placeOf = ({ threadId, namespace, checkpointId }: CheckpointKey): CheckpointKey => ({
  threadId,
  namespace,
  checkpointId,
});

function stopTimer(open: Open): void {
  open.stopTimer?.();
  open.stopTimer = undefined;
}

const sizeOf = (write: CheckpointWrite): number =>
  ("checkpoint" in write ? write.values : write.writes).reduce((sum, { bytes }) => sum + bytes.length, 0);
