// Gives graphs a cache for their nodes with a cachePolicy. Never one with channels that are not to be stored, in itself or
// in a graph that stands in it: what a node writes there would be.
import { callContext } from "../../models/gateway/context.ts";
import type { CallContext } from "../../models/gateway/context.ts";
import { NodeCache } from "../../storage/caches/node-cache.ts";
import { hasUntracked } from "./graph.ts";
import type { Graph } from "./graph.ts";

const given = new WeakMap<Graph, Promise<void>>();

/** Call it before the graph runs. A graph that was compiled with a cache keeps it. */
export async function giveNodeCache(graph: Graph): Promise<void> {
  // A graph that cannot be looked into is left as it is.
  const giving = given.get(graph) ?? give(graph).catch(() => undefined);
  given.set(graph, giving);
  await giving;
}

/**
 * The signal of a run for its graph, what aborts it for the graph alone, and what is to be called when the graph has
 * ended. LangGraph (1.7.3) leaves a promise behind for each step whose nodes were all cached. It rejects when the signal
 * aborts, as it does at the end of each run, and nobody hears it: such a graph is not told of the end.
 */
export function signalFor(
  run: AbortSignal,
  calls: Pick<CallContext, "nodeHits">,
): { signal: AbortSignal; leave: () => void; end: () => void } {
  const graph = new AbortController();
  const forward = (): void => graph.abort(run.reason);
  run.addEventListener("abort", forward, { once: true });
  if (run.aborted) forward();
  const end = (): void => {
    if (calls.nodeHits > 0) run.removeEventListener("abort", forward);
  };
  return { signal: graph.signal, leave: () => graph.abort(), end };
}

async function give(graph: Graph): Promise<void> {
  const all: [string, Graph][] = [["", graph]];
  for await (const inner of graph.getSubgraphsAsync(undefined, true)) all.push(inner);
  if (all.some(([, one]) => hasUntracked(one))) return;
  // Graphs are loaded once, and may run under several ids and servers: whose run asks is known when it asks.
  for (const [place, one] of all) one.cache ??= new NodeCache(callContext, place);
}
