// What a graph yields, read from LangGraph's own generator. Its `stream()` puts two streams, a context and a race against
// the signal around each chunk of it, which cost more than all that the graph does to pass on a token.
import { ensureConfig } from "@langchain/core/runnables";
import { Pregel } from "@langchain/langgraph/pregel";
import type { Graph } from "./graph.ts";

// The method that `stream()` asks, in LangGraph 1.7.3.
const CHUNKS = "_streamIterator";

/** One piece of a graph's stream: where in the graph, which mode, what. */
export interface Chunk {
  readonly namespace: readonly string[];
  readonly mode: string;
  readonly payload: unknown;
}

interface Plain extends Graph {
  readonly config?: { readonly recursionLimit?: number };
  [CHUNKS](input: unknown, config: object): AsyncGenerator;
}

/**
 * The same as `graph.stream(input, options)`: the same chunks, and the same end when the signal aborts, whatever a node
 * does. A graph of another kind, or of another copy of LangGraph, is asked for its stream.
 * @param leave aborts the signal; called when nobody reads on, because the graph would run on
 */
export async function streamOf(
  graph: Graph,
  input: unknown,
  options: { readonly signal: AbortSignal },
  leave: () => void,
): Promise<AsyncIterable<unknown>> {
  if (!isPlain(graph)) return graph.stream(input, options);
  const limit = graph.config?.recursionLimit; // `ensureConfig` would put its own in the place of none
  const config = ensureConfig({ ...(limit === undefined ? {} : { recursionLimit: limit }), ...options });
  return untilAborted(graph[CHUNKS](input, config), options.signal, leave);
}

// One with a `stream()` of its own means something by it.
function isPlain(graph: Graph): graph is Plain {
  const one: unknown = graph;
  return one instanceof Pregel && one.stream === Pregel.prototype.stream && CHUNKS in one;
}

/** One listener for all chunks: `stream()` has one for each. */
function untilAborted(
  chunks: AsyncGenerator,
  signal: AbortSignal,
  leave: () => void,
): AsyncIterableIterator<unknown> {
  let fail: ((reason: unknown) => void) | undefined;
  signal.addEventListener("abort", () => fail?.(signal.reason), { once: true });
  return {
    next: () =>
      new Promise((resolve, reject) => {
        signal.throwIfAborted();
        fail = reject;
        chunks.next().then(resolve, reject);
      }),
    async return() {
      leave();
      await chunks.return(undefined);
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
