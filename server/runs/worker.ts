// Takes ready runs as long as this process has free slots. Hints only make it look sooner: what it takes is decided by
// one statement in the database.
import { LeaseLost, messageOf } from "../errors.ts";
import { claimRuns, listHeldRuns, lockWaitingThreads, promoteRuns, releaseRuns } from "../storage/queue.ts";
import { announceReady, endUnreadable } from "./end.ts";
import { hasSlot } from "./engine.ts";
import type { Engine } from "./engine.ts";
import { execute } from "./execute.ts";
import { acceptedOf } from "./request.ts";

// What is claimed at once begins at once; more only makes the others wait.
const MOST = 16;
const THREADS = 100;
// Runs of dead servers must not wait for those whose time has come.
const ROUNDS = 10;

export class Worker {
  #isWanted = false;
  #isLooking = false;
  #claiming: Promise<void> = Promise.resolve();
  #engine: Engine | undefined;

  /** The engine pokes its worker, so it is built first. */
  start(engine: Engine): void {
    this.#engine = engine;
    this.poke();
  }

  /** Looks for ready runs; once more if it is looking already, and later if no slot is free. */
  poke(): void {
    this.#isWanted = true;
    this.freed();
  }

  /** A slot is free: looks if that was wished for meanwhile. Whoever makes a run ready says so. */
  freed(): void {
    if (this.#isWanted && this.#engine && !this.#isLooking) void this.#look(this.#engine);
  }

  /** Resolves when no claim is under way: all that was claimed is among the live runs. */
  async settled(): Promise<void> {
    await this.#claiming.catch(() => undefined);
  }

  /**
   * Compares what executes here with what the database says is ours. Gives back runs that nobody here executes, such
   * as after a lost answer, and stops those that were taken away or deleted.
   */
  async compare(): Promise<void> {
    const engine = this.#engine;
    if (!engine) return;
    await this.#claiming;
    const before = engine.live.all();
    const held = await listHeldRuns(engine.database, engine.workerId);
    await this.#claiming; // what was claimed while the rows were read is executed now
    const ours = new Set(held.map(({ run_id: runId, attempt }) => `${runId}:${attempt}`));
    for (const { runId, attempt, controller } of before) {
      if (!ours.has(`${runId}:${attempt}`))
        controller.abort(new LeaseLost(`Run ${runId} is not ours any more.`));
    }
    // Asked after the rows were read: a run that is accepted here is announced before its row exists.
    const rows = held.map(({ run_id: runId, attempt, is_cancelled: isCancelled }) => ({
      runId,
      attempt,
      isCancelled,
    }));
    const lost = rows.filter(({ runId }) => !engine.live.has(runId));
    const { resting } = engine.live;
    resting.keep(rows);
    const unknown = lost.filter((run) => !resting.has(run));
    // Nobody waits here any more when this process stops.
    const isDue = (run: (typeof rows)[number]): boolean =>
      run.isCancelled || engine.stopping.aborted || resting.isDue(run);
    const rested = lost.filter((run) => resting.has(run) && isDue(run));
    await this.#release(engine, unknown, true);
    await this.#release(engine, rested, false);
  }

  async #release(
    engine: Engine,
    runs: readonly { runId: string; attempt: number }[],
    hasFailed: boolean,
  ): Promise<void> {
    if (runs.length === 0) return;
    const released = await releaseRuns(engine.database, engine.workerId, runs, hasFailed);
    for (const runId of released) engine.log.warn("run.released", { run_id: runId });
    if (released.length > 0) announceReady(engine);
  }

  async #look(engine: Engine): Promise<void> {
    this.#isLooking = true;
    while (this.#isWanted && hasSlot(engine)) {
      this.#isWanted = false;
      try {
        this.#claiming = this.#claim(engine);
        await this.#claiming;
      } catch (error) {
        engine.log.warn("worker.failed", { reason: messageOf(error) });
        this.#claiming = Promise.resolve();
        break; // the next heartbeat looks again
      }
    }
    this.#isLooking = false;
  }

  async #claim(engine: Engine): Promise<void> {
    const { limits, live, workerId } = engine;
    const limit = Math.min(MOST, limits.slots - live.size);
    const graphIds = [...engine.graphs.keys()];
    const claim = { workerId, limit, graphIds, timeoutMs: limits.runTimeoutMs };
    const rows = await claimRuns(engine.database, claim);
    for (const row of rows) live.expect(row.run_id);
    if (rows.length === limit) this.#isWanted = true;
    await Promise.all(
      rows.map(async (row) => {
        try {
          if (row.unreadable) await endUnreadable(engine, row, row.unreadable);
          else await execute(engine, acceptedOf(row));
        } finally {
          live.forget(row.run_id);
        }
      }),
    );
  }
}

/** Makes runs ready that nobody promoted: delayed ones that are due, and those whose promoter died. */
export async function promoteWaiting(engine: Engine): Promise<void> {
  for (let [round, found] = [0, THREADS]; round < ROUNDS && found === THREADS; round += 1) {
    const { threadIds, promoted } = await engine.database.transaction(async (transaction) => {
      const locked = await lockWaitingThreads(transaction, THREADS);
      return { threadIds: locked, promoted: locked.length > 0 ? await promoteRuns(transaction, locked) : [] };
    });
    if (promoted.length > 0) announceReady(engine);
    found = threadIds.length;
  }
}
