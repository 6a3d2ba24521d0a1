// Stopping runs, from any instance: a pending one at once, a running one by its owner, whose graph is aborted.
import { RunEnded, RunLive, RunNotFailed, RunNotFound } from "../errors.ts";
import type { Queryable } from "../storage/database.ts";
import { deleteRunEvents } from "../storage/events.ts";
import { cancelPending, deleteEndedRun, lockRuns, requestCancel, retryRun } from "../storage/finish.ts";
import type { LockedRun } from "../storage/finish.ts";
import { lockThreads, promoteRuns } from "../storage/queue.ts";
import { isPending, isTerminal } from "../storage/run-states.ts";
import { announceReady, callBackOfPending } from "./end.ts";
import type { Engine } from "./engine.ts";
import { graphForState } from "./graph-of.ts";
import { RunCancelled } from "./outcome.ts";
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
  const stopped = await onThread(engine, at, (transaction, run) => {
    if (isTerminal(run.state)) throw new RunEnded(run.run_id, run.state);
    return stop(engine, transaction, { threadId: at.threadId, runs: [run], action, reason });
  });
  announce(engine, stopped, action);
}

/** Cancels those of a thread's runs that are still there and have not ended, all in one transaction. */
export async function cancelRuns(
  engine: Engine,
  { threadId, runIds }: { threadId: string; runIds: readonly string[] },
  action: CancelAction,
): Promise<void> {
  const stopped = await engine.database.transaction(async (transaction) => {
    await lockThreads(transaction, [threadId]);
    const runs = await lockRuns(transaction, runIds);
    const own = runs.filter((run) => run.thread_id === threadId);
    return stop(engine, transaction, { threadId, runs: own, action, reason: null });
  });
  announce(engine, stopped, action);
}

interface Stopped {
  /** Runs that their owners are to stop. */
  readonly running: readonly string[];
  /** Runs that have ended. */
  readonly pending: readonly string[];
}

interface Stopping {
  readonly threadId: string;
  readonly runs: readonly LockedRun[];
  readonly action: CancelAction;
  readonly reason: string | null;
}

async function stop(
  engine: Engine,
  transaction: Queryable,
  { threadId, runs, action, reason }: Stopping,
): Promise<Stopped> {
  const how = { action, reason, bodyOf: callBackOfPending };
  const running = idsOf(runs.filter(({ state }) => state === "running"));
  await requestCancel(transaction, running, action, reason);
  const pending = runs.filter(({ state }) => isPending(state));
  await cancelPending(transaction, idsOf(pending.filter(({ attempt }) => attempt === 0)), how);
  for (const run of pending.filter(({ attempt }) => attempt > 0)) {
    const taken = await cancelPending(transaction, [run.run_id], how);
    // One that waited for another try has left checkpoints, or has just lost them.
    const graph = await graphForState(engine, run.metadata["graph_id"], threadId, transaction);
    await storeState(transaction, graph, threadId, taken ? settlingAfter(taken) : "cancelled");
  }
  if (pending.length > 0) await promoteRuns(transaction, [threadId]);
  return { running, pending: idsOf(pending) };
}

function announce(engine: Engine, { running, pending }: Stopped, action: CancelAction): void {
  if (running.length > 0) stopRuns(engine, running, action);
  if (pending.length === 0) return;
  engine.hints.events(pending);
  announceReady(engine);
}

const idsOf = (runs: readonly LockedRun[]): string[] => runs.map(({ run_id: id }) => id);

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
    const [run] = await lockRuns(transaction, [runId]);
    if (run?.thread_id !== threadId) throw new RunNotFound();
    return work(transaction, run);
  });
}
