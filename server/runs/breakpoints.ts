// Breakpoints, at which a graph stops before or after nodes. LangGraph keeps no note of having stopped, and takes whoever
// goes on from there for somebody who has looked: a run that is taken over is not, and stops there again.
import type { RunnableConfig } from "@langchain/core/runnables";
import { START } from "@langchain/langgraph";
import type { Interrupt, StateSnapshot } from "@langchain/langgraph";
import type { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import type { Graph } from "./graph/graph.ts";
import type { Chunk } from "./graph/graph-stream.ts";
import { answeredBy, bringsAnswer } from "./protocol/tell.ts";
import type { AcceptedRun } from "./request.ts";
import { configOf } from "./state.ts";

type Nodes = "*" | readonly string[];

/** What a graph tells that stops at a breakpoint. */
export const STOPPED: readonly Chunk[] = ["updates", "values"].map((mode) => ({
  namespace: [],
  mode,
  payload: { __interrupt__: [] },
}));

interface Stopping {
  readonly graph: Graph;
  readonly checkpointer: Checkpoints;
}

/** Whether the graph stops at the newest checkpoint, which this run has made. */
export async function stopsAtNewest(
  { kwargs, thread_id: threadId }: AcceptedRun,
  { graph, checkpointer }: Stopping,
): Promise<boolean> {
  const before = kwargs.interrupt_before ?? graph.interruptBefore;
  const after = kwargs.interrupt_after ?? graph.interruptAfter;
  const config = configOf(checkpointer, threadId, undefined);
  return stopsAt(config, { graph, checkpointer, before, after });
}

/**
 * Whether this run has come to breakpoints of graphs that stand in its own, and can do no more until somebody goes on:
 * each task that is not done has stopped so, or asks a question that the run does not answer.
 * @param newest the newest state, with those of the graphs in the graph
 */
export async function stopsInside(
  run: AcceptedRun,
  { graph, checkpointer }: Stopping,
  newest: StateSnapshot,
): Promise<boolean> {
  const answered = answeredBy(run);
  const answersAny = answered.length === 0 && bringsAnswer(run);
  const isOpen = ({ id }: Interrupt): boolean => !answersAny && !answered.includes(id ?? "");
  const look = async (outer: Graph, { tasks }: StateSnapshot): Promise<boolean> => {
    let hasStopped = false;
    for (const { name, state, interrupts, result } of tasks) {
      if (result !== undefined) continue;
      const stops = state && "values" in state ? await hasInside(outer, name, state) : false;
      if (!stops && !(interrupts.length > 0 && interrupts.every(isOpen))) return false;
      hasStopped ||= stops;
    }
    return hasStopped;
  };
  const hasInside = async (outer: Graph, name: string, state: StateSnapshot): Promise<boolean> => {
    for await (const [, inner] of outer.getSubgraphsAsync(name)) {
      const { interruptBefore: before, interruptAfter: after } = inner;
      const isOwn = Object(state.metadata)["run_id"] === run.run_id;
      const at = configOf(checkpointer, run.thread_id, state.config.configurable);
      if (isOwn && (await stopsAt(at, { graph: inner, checkpointer, before, after }))) return true;
      return look(inner, state);
    }
    return false;
  };
  return look(graph, newest);
}

async function stopsAt(
  config: RunnableConfig,
  {
    graph,
    checkpointer,
    before = [],
    after = [],
  }: Stopping & { before: Nodes | undefined; after: Nodes | undefined },
): Promise<boolean> {
  if (before.length === 0 && after.length === 0) return false;
  const newest = await checkpointer.getTuple(config);
  if (!newest) return false;
  // As LangGraph decides it: nothing has changed since somebody went on.
  const { channel_versions: versions, versions_seen: seenBy } = newest.checkpoint;
  const seen = seenBy["__interrupt__"] ?? {};
  if (!Object.entries(versions).some(([channel, version]) => version > (seen[channel] ?? 0))) return false;
  const { next, parentConfig, metadata } = await graph.getState(config);
  if (next.some((name) => isAmong(before, name))) return true;
  if (metadata?.source !== "loop" || !parentConfig) return false;
  const made = await graph.getState({
    configurable: { ...config.configurable, ...parentConfig.configurable },
  });
  return made.tasks.some(({ name }) => isAmong(after, name));
}

const isAmong = (nodes: Nodes, name: string): boolean =>
  name !== START && (nodes === "*" || nodes.includes(name));
