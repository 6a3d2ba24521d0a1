// The write side of the event log. An event is shown to nobody before it is committed.
// A flush takes the events of all runs that have gathered meanwhile, so that an idle server writes each token at once and
// a busy one writes large batches. A few are under way at a time: a busy event loop takes longer to hear of the end of
// one than the database takes to write it.
// When a run's checkpoint is about to be written, its events ride along in the same statement.
import { turn } from "../../clock.ts";
import { LeaseLost, messageOf } from "../../errors.ts";
import type { AppError } from "../../errors.ts";
import { faultPoint } from "../../faults.ts";
import type { Rider } from "../../storage/checkpoints/batch.ts";
import { unwritten } from "../../storage/events.ts";
import type { Segment } from "../../storage/events.ts";
import type { Owner } from "../../storage/fence.ts";
import type { Log } from "../../telemetry/log.ts";
import type { EventLog } from "./event-log.ts";
import { LineWriter } from "./lines.ts";
import type { Entry } from "./lines.ts";
import { Tail } from "./tail.ts";

// Above this the graphs wait: the database is slower than the models.
const MAX_PENDING_BYTES = 32 * 1024 * 1024;
const MOST_FLUSHES = 4;
const MAX_BATCH_BYTES = 4 * 1024 * 1024;
// Who reads the log reads whole rows, and may keep one for long.
const MAX_ROW_BYTES = 512 * 1024;

/** Events of one attempt of a run. */
export interface Recording {
  /** Number of its first event. */
  readonly first: number;
  readonly tail: Tail;
  /** Takes one more event. A promise means: wait for it before the next one. */
  append(entry: Entry): Promise<void> | undefined;
  /** Resolves when every event so far is committed. @throws LeaseLost, or DatabaseUnavailable when it stays away */
  flushed(): Promise<void>;
  /** What is not written yet, for the statement that ends the run; waits for what is on its way. @throws as flushed() does */
  rest(): Promise<Rest>;
  /** Writes the last moments once more: a crash of the database has taken them. @throws LeaseLost */
  repair(): Promise<void>;
  /** The run has ended in the database, or it is not ours any more. */
  close(fate: "over" | "lost"): void;
}

/** The end of a run's log. */
export interface Rest {
  /** Undefined when every event is written. */
  readonly rest: { readonly seq: number; readonly last: number; readonly body: string } | undefined;
  readonly segments: number;
  /** The number of the event that must be in the log already; undefined when none of this attempt is. */
  readonly after: number | undefined;
}

interface Open {
  readonly owner: Owner;
  readonly tail: Tail;
  readonly onLost: (error: AppError) => void;
  /** Number of the attempt's first event that this recording writes. */
  readonly first: number;
  /** Whether the attempt's first events were written when it was accepted. */
  readonly hasBegun: boolean;
  lines: string[];
  bytes: number;
  next: number;
  segments: number;
  isFlushing: boolean;
  /** A checkpoint of the run is about to be written and will take the events along. */
  isHeld: boolean;
  failure: AppError | undefined;
}

export class Recorder {
  readonly #eventLog: EventLog;
  readonly #log: Log;
  readonly #onCommitted: (runIds: readonly string[]) => void;
  readonly #open = new Map<string, Open>();
  readonly #pending = new Set<Open>();
  #pendingBytes = 0;
  #isGathering = false;
  #flushes = 0;
  #batchDone = Promise.withResolvers<void>();

  /** @param onCommitted told which runs have new events */
  constructor(eventLog: EventLog, log: Log, onCommitted: (runIds: readonly string[]) => void) {
    this.#eventLog = eventLog;
    this.#log = log;
    this.#onCommitted = onCommitted;
  }

  /**
   * Begins an attempt's events with number `first`.
   * @param written events from there on that are in the log already
   * @param onLost told when events can no longer be written: the run must stop
   */
  open(
    owner: Owner,
    first: number,
    onLost: (error: AppError) => void,
    written: readonly Entry[] = [],
  ): Recording {
    const tail = new Tail(first);
    const next = first + written.length;
    for (const entry of written) tail.push(entry);
    if (written.length > 0) tail.commit(next - 1);
    const state = { lines: [], bytes: 0, isFlushing: false, isHeld: false, failure: undefined };
    const hasBegun = written.length > 0;
    const open: Open = {
      owner,
      tail,
      onLost,
      first: next,
      hasBegun,
      next,
      segments: hasBegun ? 1 : 0,
      ...state,
    };
    const writer = new LineWriter();
    this.#open.set(owner.runId, open);
    return {
      first,
      tail,
      append: (entry) => {
        if (open.failure) throw open.failure;
        tail.push(entry);
        this.#add(open, writer.line({ seq: open.next, entry }));
        return this.#pendingBytes > MAX_PENDING_BYTES ? this.#room() : undefined;
      },
      flushed: async () => {
        while ((open.lines.length > 0 || open.isFlushing) && !open.failure) await this.#batchDone.promise;
        if (open.failure) throw open.failure;
      },
      rest: async () => {
        open.isHeld = false;
        this.#start();
        while (open.bytes > MAX_ROW_BYTES && !open.failure) await this.#batchDone.promise;
        open.isHeld = true; // nobody else takes them now
        while (open.isFlushing && !open.failure) await this.#batchDone.promise;
        if (open.failure) throw open.failure;
        const lines = this.#take(open);
        const seq = open.next - lines.length;
        const rest = lines.length > 0 ? { seq, last: open.next - 1, body: lines.join("\n") } : undefined;
        const after = seq > open.first || hasBegun ? seq - 1 : undefined;
        return { rest, segments: open.segments + (rest ? 1 : 0), after };
      },
      repair: () => this.#eventLog.repair(),
      close: (fate) => {
        this.#take(open);
        if (this.#open.get(owner.runId) === open) this.#open.delete(owner.runId);
        tail.close(fate);
      },
    };
  }

  /** Keeps the events of a run back for the statement that is about to write its checkpoint. */
  hold(owner: Owner): void {
    const open = this.#open.get(owner.runId);
    if (open?.owner.attempt === owner.attempt) open.isHeld = true;
  }

  /** Lets the events go by themselves: no checkpoint comes that could take them along. */
  release(owner: Owner): void {
    const open = this.#open.get(owner.runId);
    if (open?.owner.attempt !== owner.attempt) return;
    open.isHeld = false;
    this.#start();
  }

  /** The events of a run that may ride along now; undefined when there are none, or some are under way. */
  ride(owner: Owner): Rider | undefined {
    const open = this.#open.get(owner.runId);
    if (open?.owner.attempt !== owner.attempt) return undefined;
    open.isHeld = false;
    if (open.isFlushing || open.lines.length === 0) return undefined;
    // All of them, in rows of a bounded size: what would be written later is lost if this process dies between, because
    // whoever takes the run over goes on from the checkpoint and does not tell it again.
    const segments: Segment[] = [];
    while (open.lines.length > 0) segments.push(this.#segmentOf(open));
    open.isFlushing = true;
    const settle = (change: () => void): void => {
      change();
      open.isFlushing = false;
      this.#settled();
      this.#onCommitted([owner.runId]);
      this.#start(); // what came meanwhile waited for this
    };
    return {
      owner,
      segments,
      written: () => settle(() => segments.forEach((segment) => commit(open, segment))),
      lost: (error) => settle(() => lose(open, error)),
      behind: () =>
        settle(() => {
          this.#eventLog.distrust();
          for (const segment of segments.toReversed()) this.#putBack(open, segment);
        }),
    };
  }

  #add(open: Open, line: string): void {
    open.lines.push(line);
    open.next += 1;
    open.bytes += line.length;
    this.#pendingBytes += line.length;
    this.#pending.add(open);
    this.#start();
  }

  #start(): void {
    if (this.#pending.size > 0 && !this.#isGathering && this.#flushes < MOST_FLUSHES) void this.#flush();
  }

  #settled(): void {
    this.#batchDone.resolve();
    this.#batchDone = Promise.withResolvers<void>();
  }

  #putBack(open: Open, { body }: Segment): void {
    open.lines = [...body.split("\n"), ...open.lines];
    open.bytes += body.length;
    this.#pendingBytes += body.length;
    this.#pending.add(open);
  }

  #segmentOf(open: Open): Segment {
    const seq = open.next - open.lines.length;
    const { runId, attempt, key } = open.owner;
    const lines = this.#take(open, MAX_ROW_BYTES);
    const isFirst = seq === open.first && !open.hasBegun;
    return { runId, attempt, seq, last: seq + lines.length - 1, body: lines.join("\n"), isFirst, key };
  }

  /** Takes lines out, all or as many as it takes to have `mostBytes`. */
  #take(open: Open, mostBytes = Infinity): string[] {
    const { lines } = open;
    if (open.bytes > mostBytes) {
      let [count, bytes] = [0, 0];
      for (; bytes < mostBytes; count += 1) bytes += lines[count]?.length ?? Infinity;
      if (count < lines.length) {
        open.bytes -= bytes;
        this.#pendingBytes -= bytes;
        return lines.splice(0, count);
      }
    }
    this.#pending.delete(open);
    this.#pendingBytes -= open.bytes;
    open.lines = [];
    open.bytes = 0;
    return lines;
  }

  async #room(): Promise<void> {
    while (this.#pendingBytes > MAX_PENDING_BYTES) await this.#batchDone.promise;
  }

  async #flush(): Promise<void> {
    this.#isGathering = true;
    // Let the events of this turn of the event loop gather first.
    await turn();
    this.#isGathering = false;
    const batch = this.#nextBatch();
    if (batch.length === 0) return;
    this.#flushes += 1;
    for (const { open } of batch) open.isFlushing = true;
    await this.#write(batch);
    for (const { open } of batch) open.isFlushing = false;
    this.#flushes -= 1;
    this.#settled();
    this.#start();
  }

  #nextBatch(): { open: Open; segment: Segment }[] {
    const batch: { open: Open; segment: Segment }[] = [];
    let bytes = 0;
    for (const open of this.#pending) {
      // Each run's events are written in order: what rides along elsewhere goes first.
      if (open.isHeld || open.isFlushing) continue;
      const segment = this.#segmentOf(open);
      bytes += segment.body.length;
      batch.push({ open, segment });
      if (bytes > MAX_BATCH_BYTES) break;
    }
    return batch;
  }

  async #write(batch: readonly { open: Open; segment: Segment }[]): Promise<void> {
    try {
      faultPoint("events.flush");
      const held = await this.#eventLog.write(batch.map(({ segment }) => segment));
      faultPoint("events.flushed");

      for (const { open, segment } of batch) {
        if (held.has(`${segment.runId}:${segment.attempt}`)) commit(open, segment);
        else lose(open, new LeaseLost(`Run ${segment.runId} is not this server's any more.`));
      }
      this.#onCommitted(batch.map(({ segment }) => segment.runId));
    } catch (error) {
      this.#log.error("events.lost", { runs: batch.length, reason: messageOf(error) });
      for (const { open } of batch) lose(open, unwritten(error));
    }
  }
}

function commit(open: Open, segment: Segment): void {
  open.segments += 1;
  open.tail.commit(segment.last);
}

function lose(open: Open, error: AppError): void {
  open.failure = error;
  open.onLost(error);
}
