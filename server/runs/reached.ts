// How a graph that went to its end leaves its thread.
import type { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import { hasUntracked } from "./graph/graph.ts";
import type { Graph } from "./graph/graph.ts";
import type { Outcome } from "./outcome.ts";
import { newestState } from "./state.ts";
import { isOpen, stateTextOf } from "./state-shape.ts";

/**
 * What became of a run that was not stopped.
 * @param isInterrupted whether its graph stopped to be gone on with
 * @param values the last ones that it told
 */
export async function reached(
  graph: Graph,
  checkpointer: Checkpoints,
  threadId: string,
  { isInterrupted, values }: { isInterrupted: boolean; values: unknown },
): Promise<Outcome> {
  const { lastPut } = checkpointer;
  // Values as the stream has them show what is never to be stored.
  if (lastPut && !isInterrupted && !hasUntracked(graph))
    return completed(false, stateTextOf(threadId, lastPut, values));
  const newest = await newestState(graph, checkpointer, threadId);
  const told = lastPut && !isInterrupted ? { values } : {};
  // From an old checkpoint where nothing was left to do, the run has written none: the thread stays at its newest.
  const isWaiting = isInterrupted || (!lastPut && isOpen(newest));
  return { ...completed(isWaiting, JSON.stringify(newest)), ...told };
}

const completed = (isWaiting: boolean, threadState: string | null): Outcome => ({
  state: "success",
  error: null,
  threadStatus: isWaiting ? "interrupted" : "idle",
  threadState,
});
