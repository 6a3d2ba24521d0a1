// Breakpoints, at which a graph stops before or after nodes. LangGraph keeps no note of having stopped, and takes whoever
// goes on from there for somebody who has looked: a run that is taken over is not, and stops there again.
import type { RunnableConfig } from "@langchain/core/runnables";
import { GraphInterrupt, START } from "@langchain/langgraph";
import type { Interrupt, StateSnapshot } from "@langchain/langgraph";
import { asFields } from "../fields.ts";
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

/** What has come to breakpoints of graphs that stand in a run's own. */
export interface Stops {
  /** Where those graphs stand. */
  readonly places: ReadonlySet<string>;
  /** The run can do no more until somebody goes on: all else is done, or asks a question that the run does not answer. */
  readonly isAll: boolean;
}

/**
 * At which breakpoints of graphs that stand in its own this run has stopped.
 * @param newest the newest state, with those of the graphs in the graph
 */
export async function stopsInside(
  run: AcceptedRun,
  { graph, checkpointer }: Stopping,
  newest: StateSnapshot,
): Promise<Stops> {
  const answered = answeredBy(run);
  const answersAny = answered.length === 0 && bringsAnswer(run);
  const isOpen = ({ id }: Interrupt): boolean => !answersAny && !answered.includes(id ?? "");
  const places = new Set<string>();
  const look = async (outer: Graph, { tasks }: StateSnapshot): Promise<boolean> => {
    let [hasStopped, goesOn] = [false, false];
    for (const { name, state, interrupts, result } of tasks) {
      if (result !== undefined) continue;
      const stops = state && "values" in state ? await hasInside(outer, name, state) : false;
      hasStopped ||= stops;
      goesOn ||= !stops && !(interrupts.length > 0 && interrupts.every(isOpen));
    }
    return hasStopped && !goesOn;
  };
  const hasInside = async (outer: Graph, name: string, state: StateSnapshot): Promise<boolean> => {
    for await (const [, inner] of outer.getSubgraphsAsync(name)) {
      const { interruptBefore: before, interruptAfter: after } = inner;
      const isOwn = asFields(state.metadata)["run_id"] === run.run_id;
      const place = state.config.configurable;
      const at = configOf(checkpointer, run.thread_id, place);
      if (!isOwn || !(await stopsAt(at, { graph: inner, checkpointer, before, after })))
        return look(inner, state);
      places.add(String(place?.["checkpoint_ns"]));
      return true;
    }
    return false;
  };
  const isAll = await look(graph, newest);
  return { places, isAll };
}

/** Stands among the versions of a checkpoint for something that nobody has looked at; it is never stored. */
const UNSEEN = "__unseen__";

/**
 * Keeps graphs in the graph at their breakpoints while the rest of the run goes on. Each asks for its state when it is to
 * run: where it is known to have stopped, it is told what it would say by itself. LangGraph does not know the graphs that
 * a function calls: these are given a change that nobody has seen, and stop by themselves if they were to before a node.
 */
export function holdInside(checkpointer: Checkpoints, { places }: Stops, runId: string): void {
  const left = new Set(places);
  const read = checkpointer.getTuple.bind(checkpointer);
  const put = checkpointer.put.bind(checkpointer);
  checkpointer.getTuple = async (config) => {
    const place = String(config.configurable?.["checkpoint_ns"] ?? "");
    if (left.delete(place)) throw new GraphInterrupt();
    const tuple = await read(config);
    if (place !== "" && tuple && asFields(tuple.metadata)["run_id"] === runId)
      tuple.checkpoint.channel_versions[UNSEEN] = 1;
    return tuple;
  };
  checkpointer.put = (config, checkpoint, metadata, newVersions) => {
    const { [UNSEEN]: _, ...versions } = checkpoint.channel_versions;
    return put(config, { ...checkpoint, channel_versions: versions }, metadata, newVersions);
  };
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
