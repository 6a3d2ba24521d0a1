// A compiled graph, as far as the engine needs it.
import type { RunnableConfig } from "@langchain/core/runnables";
import type { StateSnapshot } from "@langchain/langgraph";
import type { BaseCache } from "@langchain/langgraph-checkpoint";
import type { StreamTransformer } from "@langchain/langgraph/web";

/** What the engine needs of a compiled graph: structural, because a project may bring its own LangGraph. */
export interface Graph {
  stream(input: unknown, options: object): Promise<AsyncIterable<unknown>>;
  streamEvents(input: unknown, options: object): AsyncIterable<StreamedEvent>;
  getState(config: RunnableConfig, options?: { subgraphs?: boolean }): Promise<StateSnapshot>;
  getStateHistory(config: RunnableConfig, options?: object): AsyncIterable<StateSnapshot>;
  updateState(config: RunnableConfig, values: unknown, asNode?: string): Promise<RunnableConfig>;
  bulkUpdateState(config: RunnableConfig, supersteps: readonly Superstep[]): Promise<RunnableConfig>;
  /** Which nodes a channel triggers. */
  readonly triggerToNodes?: Readonly<Record<string, readonly string[]>>;
  /** Where it stops if a run does not say it. */
  readonly interruptBefore?: "*" | readonly string[] | undefined;
  readonly interruptAfter?: "*" | readonly string[] | undefined;
  /** What it was compiled from. */
  readonly builder?: unknown;
  /** What the graph was compiled with to add to its own stream. */
  readonly streamTransformers?: readonly (() => StreamTransformer)[];
  /** Keeps what its nodes with a cachePolicy write. */
  cache?: BaseCache | undefined;
  readonly channels?: Readonly<Record<string, { readonly lc_graph_name?: string }>>;
  getGraphAsync(options: object): Promise<{ toJSON(): object }>;
  /** The graphs that stand in this one as nodes, by namespace; with `recurse` those in them too. */
  getSubgraphsAsync(namespace?: string, recurse?: boolean): AsyncIterable<[string, Graph]>;
}

/** Values as nodes would have written them in one superstep. */
export interface Superstep {
  readonly updates: { readonly values: unknown; readonly asNode?: string }[];
}

/** Whether a graph has channels that are never to be stored, such as handles and secrets. */
export const hasUntracked = (graph: Graph): boolean =>
  Object.values(graph.channels ?? {}).some(({ lc_graph_name: name }) => name === "UntrackedValue");

export interface StreamedEvent {
  readonly event: string;
  readonly run_id: string;
  readonly tags?: readonly string[];
  readonly data: { readonly chunk?: unknown };
}
