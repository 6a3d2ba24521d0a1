// The runs that this process executes now: how to stop one, and what it has told so far.
import { sleep } from "../clock.ts";
import type { Tail } from "./log/tail.ts";
import { Resting } from "./resting.ts";

const ACCEPTING_MS = 20;

export interface LiveRun {
  readonly runId: string;
  readonly attempt: number;
  readonly controller: AbortController;
  readonly tail: Tail;
  /** Asks the graph to stop after the superstep under way. */
  readonly requestDrain: () => void;
  /** Settles when the run has ended in the database, was given back, or is lost. */
  readonly done: Promise<void>;
}

export class LiveRuns {
  readonly resting = new Resting();
  readonly #runs = new Map<string, LiveRun>();
  readonly #starting = new Set<string>();

  /** Runs that execute or are about to. */
  get size(): number {
    return this.#runs.size + this.#starting.size;
  }

  get(runId: string): LiveRun | undefined {
    return this.#runs.get(runId);
  }

  has(runId: string): boolean {
    return this.#runs.has(runId) || this.#starting.has(runId);
  }

  all(): LiveRun[] {
    return [...this.#runs.values()];
  }

  /** Announces a run before its row says that it is ours. */
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
      // A later attempt may have come back to this process meanwhile.
      if (this.#runs.get(run.runId) === run) this.#runs.delete(run.runId);
    });
  }

  /** Stops a run of this process; false when it is not here. */
  abort(runId: string, reason: Error): boolean {
    const run = this.#runs.get(runId);
    run?.controller.abort(reason);
    return run !== undefined;
  }

  abortAll(reason: Error): void {
    for (const { controller } of this.#runs.values()) controller.abort(reason);
  }

  /** Resolves when no run is left, those included that are just being accepted. */
  async settled(): Promise<void> {
    while (this.size > 0) {
      await Promise.all(this.all().map(({ done }) => done));
      if (this.#starting.size > 0) await sleep(ACCEPTING_MS);
    }
  }
}
