// The runs that this process executes now: how to stop one, and who waits for its next event.

import { sleep } from "../clock.ts";

const ACCEPTING_MS = 20;

export interface LiveRun {
  readonly runId: string;
  readonly controller: AbortController;
  /** Settles when the run has ended in the database, or given up trying. */
  readonly done: Promise<void>;
}

export class LiveRuns {
  readonly #runs = new Map<string, LiveRun>();
  readonly #starting = new Set<string>();
  readonly #waiters = new Map<string, Set<() => void>>();

  /** Ids of all that is executing or about to: a reaper must leave these alone. */
  ids(): string[] {
    return [...this.#runs.keys(), ...this.#starting];
  }

  /** Announces a run before its row exists. */
  expect(runId: string): void {
    this.#starting.add(runId);
  }

  forget(runId: string): void {
    this.#starting.delete(runId);
  }

  add(run: LiveRun): void {
    this.#runs.set(run.runId, run);
    this.#starting.delete(run.runId);
    void run.done.finally(() => {
      this.#runs.delete(run.runId);
      this.wake([run.runId]);
    });
  }

  /** Stops a run of this process; false when it is not here. */
  cancel(runId: string, reason: Error): boolean {
    const run = this.#runs.get(runId);
    run?.controller.abort(reason);
    return run !== undefined;
  }

  cancelAll(reason: Error): void {
    for (const { controller } of this.#runs.values()) controller.abort(reason);
  }

  /** Resolves when no run is left, those included that are just being accepted. */
  async settled(): Promise<void> {
    while (this.#runs.size + this.#starting.size > 0) {
      await Promise.all([...this.#runs.values()].map(({ done }) => done));
      if (this.#starting.size > 0) await sleep(ACCEPTING_MS);
    }
  }

  wake(runIds: Iterable<string>): void {
    for (const runId of runIds) {
      const waiters = this.#waiters.get(runId);
      this.#waiters.delete(runId);
      for (const resolve of waiters ?? []) resolve();
    }
  }

  /** Resolves at the run's next event, or when `signal` aborts. Ask before reading, so that no event slips between. */
  next(runId: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const waiters = this.#waiters.get(runId) ?? new Set();
      this.#waiters.set(runId, waiters);
      const done = (): void => {
        signal.removeEventListener("abort", done);
        waiters.delete(done);
        if (waiters.size === 0 && this.#waiters.get(runId) === waiters) this.#waiters.delete(runId);
        resolve();
      };
      waiters.add(done);
      signal.addEventListener("abort", done, { once: true });
      if (signal.aborted) done();
    });
  }
}
