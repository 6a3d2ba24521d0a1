// Under which condition the owner of a run may write for it, asked by each statement that writes. A takeover changes the
// row: a statement that also locks it `for share` is waited for, and later ones find another owner.
import type { DataKey } from "../privacy/seal.ts";

/** Who may write for a run: this worker, in this attempt, while the run is running. */
export interface Owner {
  readonly runId: string;
  readonly threadId: string;
  readonly workerId: string;
  readonly attempt: number;
  /** Under which what is written for the run is sealed; undefined when nothing is. */
  readonly key?: DataKey | undefined;
}

/**
 * SQL that holds for the row `run` of holdfast.runs while this attempt of this worker executes it.
 *
 * The row is to be found by its id. Compared like this, worker and state fit none of the indexes of live runs: PostgreSQL
 * takes those to be few, whatever they are at the moment, and would read all runs of the worker for each write.
 */
export const isOwn = (run: string, { attempt, worker }: { attempt: string; worker: string }): string =>
  `(${run}.attempt, ${run}.worker_id, ${run}.state) is not distinct from (${attempt}, ${worker}, 'running')`;
