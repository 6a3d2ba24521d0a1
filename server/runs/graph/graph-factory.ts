// A graph that a function of the project makes, for each configuration anew.
import type { RunnableConfig } from "@langchain/core/runnables";
import type { StateSnapshot } from "@langchain/langgraph";
import { Late, within } from "../../clock.ts";
import { GraphUnloadable } from "../../errors.ts";
import type { Graph, StreamedEvent, Superstep } from "./graph.ts";

/** What a graph is made for, and what the run's context is if it is for one. */
export interface Runtime {
  readonly accessContext: "threads.create_run" | "threads.read" | "assistants.read";
  readonly executionRuntime: { readonly context: Record<string, unknown> } | null;
}

type Make = (config: RunnableConfig, runtime?: Runtime) => Promise<Graph>;

/** Who reads a thread may hold its lock meanwhile. */
export const MAKE_MS = 30_000;

export const READING: Runtime = { accessContext: "threads.read", executionRuntime: null };

/** A graph of each configuration; used as it stands, each call makes the graph of the configuration it is given. */
export class GraphFactory implements Graph {
  readonly #make: Make;
  constructor(make: Make) {
    this.#make = make;
  }
  /** @throws what the function throws; GraphUnloadable when it takes too long */
  async make(config: RunnableConfig, runtime: Runtime): Promise<Graph> {
    try {
      return await within(this.#make(config, runtime), MAKE_MS);
    } catch (error) {
      if (!(error instanceof Late)) throw error;
      throw new GraphUnloadable(
        `The function that makes the graph took longer than ${MAKE_MS / 1000} seconds. Make what takes long once, outside of it.`,
      );
    }
  }
  async stream(input: unknown, options: object): Promise<AsyncIterable<unknown>> {
    return (await this.make(options, READING)).stream(input, options);
  }
  async *streamEvents(input: unknown, options: object): AsyncGenerator<StreamedEvent> {
    yield* (await this.make(options, READING)).streamEvents(input, options);
  }
  async getState(config: RunnableConfig, options?: { subgraphs?: boolean }): Promise<StateSnapshot> {
    return (await this.make(config, READING)).getState(config, options);
  }
  async *getStateHistory(config: RunnableConfig, options?: object): AsyncGenerator<StateSnapshot> {
    yield* (await this.make(config, READING)).getStateHistory(config, options);
  }
  async updateState(config: RunnableConfig, values: unknown, asNode?: string): Promise<RunnableConfig> {
    return (await this.make(config, READING)).updateState(config, values, asNode);
  }
  async bulkUpdateState(config: RunnableConfig, supersteps: readonly Superstep[]): Promise<RunnableConfig> {
    return (await this.make(config, READING)).bulkUpdateState(config, supersteps);
  }
  async getGraphAsync(options: object): Promise<{ toJSON(): object }> {
    return (await this.make({ configurable: {} }, READING)).getGraphAsync(options);
  }
  async *getSubgraphsAsync(namespace?: string, recurse?: boolean): AsyncGenerator<[string, Graph]> {
    yield* (await this.make({ configurable: {} }, READING)).getSubgraphsAsync(namespace, recurse);
  }
}
