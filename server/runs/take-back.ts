// A command that updates the state is written down before the graph takes it. If a reducer then refuses it, the update
// would hang on the thread's checkpoint for ever, and neither a client nor the next run could read the thread. The same
// with an answer of somebody who may not give it: a later run must not find it.
import { messageOf } from "../errors.ts";
import { persistently } from "../persist.ts";
import type { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import { refuseAnswer, withdrawUpdate } from "../storage/checkpoints/writes.ts";
import type { Owner } from "../storage/fence.ts";
import type { Engine } from "./engine.ts";
import type { Graph } from "./graph/graph.ts";
import type { AcceptedRun } from "./request.ts";
import { configOf, isOfGraph } from "./state.ts";

/**
 * For a run that failed before it made a checkpoint: takes its update back if the state cannot be read with it.
 * One that can be read stays, so that the run, or the next one, can go on with it.
 */
export async function takeBackUpdate(
  { engine, run, owner }: { engine: Engine; run: AcceptedRun; owner: Owner },
  { graph, checkpointer }: { graph: Graph; checkpointer: Checkpoints },
): Promise<void> {
  if (checkpointer.lastPut || (run.kwargs.command?.["update"] ?? null) === null) return;
  try {
    await graph.getState(configOf(checkpointer, run.thread_id, undefined)).catch(async (error: unknown) => {
      if (isOfGraph(error)) await withdrawUpdate(engine.database, owner);
    });
  } catch (error) {
    engine.log.warn("update.left", { run_id: run.run_id, reason: messageOf(error) });
  }
}

/**
 * For a run that failed because its caller may not answer: takes his answer back.
 * @param error what the graph threw
 */
export async function takeBackAnswer(
  { engine, owner }: { engine: Engine; owner: Owner },
  error: unknown,
): Promise<void> {
  // A graph may bring its own copy of the class, and nodes that failed together are told as one.
  const failed: unknown[] = error instanceof AggregateError ? error.errors : [error];
  if (failed.some((one) => Object(one)["code"] === "tool_approval_refused")) {
    await engine.checkpoints.settled(owner);
    await persistently(() => refuseAnswer(engine.database, owner));
  }
}
