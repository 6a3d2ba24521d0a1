// Breakpoints, at which a graph stops before or after nodes. LangGraph keeps no note of having stopped, and takes whoever
// goes on from there for somebody who has looked: a run that is taken over is not, and stops there again.
import { START } from "@langchain/langgraph";
import type { Checkpoints } from "../storage/checkpoints.ts";
import type { AcceptedRun } from "./create.ts";
import type { Graph } from "./graphs.ts";
import type { Chunk } from "./modes.ts";
import { configOf } from "./state.ts";

type Nodes = "*" | readonly string[];

/** What a graph tells that stops at a breakpoint. */
export const STOPPED: readonly Chunk[] = ["updates", "values"].map((mode) => ({
  namespace: [],
  mode,
  payload: { __interrupt__: [] },
}));

/** Whether the graph stops at the newest checkpoint, which this run has made. */
export async function stopsAtNewest(
  { kwargs, thread_id: threadId }: AcceptedRun,
  { graph, checkpointer }: { graph: Graph; checkpointer: Checkpoints },
): Promise<boolean> {
  const before = kwargs.interrupt_before ?? graph.interruptBefore ?? [];
  const after = kwargs.interrupt_after ?? graph.interruptAfter ?? [];
  if (before.length === 0 && after.length === 0) return false;
  const config = configOf(checkpointer, threadId, undefined);
  const newest = await checkpointer.getTuple(config);
  if (!newest) return false;
  // As LangGraph decides it: nothing has changed since somebody went on.
  const { channel_versions: versions, versions_seen: seenBy } = newest.checkpoint;
  const seen = seenBy["__interrupt__"] ?? {};
  if (!Object.entries(versions).some(([channel, version]) => version > (seen[channel] ?? 0))) return false;
  const { next, parentConfig, metadata } = await graph.getState(config);
  if (next.some((name) => isAmong(before, name))) return true;
  if (metadata?.source !== "loop" || !parentConfig) return false;
  const made = await graph.getState(configOf(checkpointer, threadId, parentConfig.configurable));
  return made.tasks.some(({ name }) => isAmong(after, name));
}

const isAmong = (nodes: Nodes, name: string): boolean =>
  name !== START && (nodes === "*" || nodes.includes(name));
