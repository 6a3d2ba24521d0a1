// Stopping runs, from any instance: a pending one at once, a running one by its owner, whose graph is aborted.
import { RunEnded, RunLive, RunNotFailed, RunNotFound } from "../errors.ts";
import { cancelPending, deleteEndedRun, lockRun, requestCancel, retryRun } from "../storage/finish.ts";
import type { LockedRun } from "../storage/finish.ts";
import { deleteRunEvents } from "../storage/events.ts";
import { lockThreads, promoteRuns } from "../storage/queue.ts";
import type { Queryable } from "../storage/database.ts";
import { announceReady, callBackOfPending, RunCancelled } from "./end.ts";
import type { Engine } from "./engine.ts";
import { graphForState } from "./graph-of.ts";
import { isPending, isTerminal } from "./run.ts";
import { settlingAfter, storeState } from "./state.ts";

export type CancelAction = "interrupt" | "rollback";

/**
 * Cancels a run. A pending one has ended when this resolves; a running one ends soon.
 * @throws RunNotFound, RunEnded
 */
export async function cancelRun(
  engine: Engine,
  at: { threadId: string; runId: string },
  action: CancelAction,
  reason: string | null,
): Promise<void> {
  const { threadId, runId } = at;
  const isRunning = await onThread(engine, at, async (transaction, run) => {
    if (isTerminal(run.state)) throw new RunEnded(runId, run.state);
    if (run.state === "running") {
      await requestCancel(transaction, [runId], action, reason);
      return true;
    }
    const how = { action, reason, bodyOf: callBackOfPending };
    const taken = await cancelPending(transaction, [runId], how);
    // One that waited for another try has left checkpoints, or has just lost them.
    if (run.attempt > 0) {
      const graph = await graphForState(engine, run.metadata["graph_id"], threadId, transaction);
      await storeState(transaction, graph, threadId, taken ? settlingAfter(taken) : "cancelled");
    }
    await promoteRuns(transaction, [threadId]);
    return false;
  });
  if (isRunning) stopRuns(engine, [runId], action);
  else {
    engine.hints.events([runId]);
    announceReady(engine);
  }
}

/** Aborts the graphs of these runs here, and tells other instances to. */
export function stopRuns(engine: Engine, runIds: readonly string[], action: CancelAction): void {
  const elsewhere = runIds.filter((runId) => !engine.live.abort(runId, new RunCancelled(action)));
  if (elsewhere.length > 0) engine.hints.raise({ kind: "cancel", runIds: elsewhere });
}

/** Removes a run that has ended, with its events. Its checkpoints stay. @throws RunNotFound, RunLive */
export async function deleteRun(engine: Engine, at: { threadId: string; runId: string }): Promise<void> {
  await onThread(engine, at, async (transaction, run) => {
    if (run.state === "running" || isPending(run.state)) throw new RunLive(run.run_id);
    await deleteRunEvents(transaction, [run.run_id]);
    await deleteEndedRun(transaction, run.run_id);
  });
}

/**
 * Tries a failed run again: it goes on from its last checkpoint, and its stream continues.
 * @throws RunNotFound, RunNotFailed
 */
export async function retry(engine: Engine, at: { threadId: string; runId: string }): Promise<void> {
  await onThread(engine, at, async (transaction, run) => {
    if (!(await retryRun(transaction, run.run_id))) throw new RunNotFailed(run.run_id, run.state);
    await promoteRuns(transaction, [run.thread_id]);
  });
  announceReady(engine);
}

/** Works on a run under the lock of its thread. */
function onThread<T>(
  engine: Engine,
  { threadId, runId }: { threadId: string; runId: string },
  work: (transaction: Queryable, run: LockedRun) => Promise<T>,
): Promise<T> {
  return engine.database.transaction(async (transaction) => {
    await lockThreads(transaction, [threadId]);
    const run = await lockRun(transaction, runId);
    if (run?.thread_id !== threadId) throw new RunNotFound();
    return work(transaction, run);
  });
}
