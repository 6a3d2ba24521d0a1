// Which graph a run, a thread or an assistant has. It matters for graphs that a function makes: that is called for each
// run with the run's configuration, and for each look at a thread with the one of the run that wrote its newest state.
import { GraphUnloadable, saidOf } from "../errors.ts";
import { asFields } from "../fields.ts";
import type { Fields } from "../fields.ts";
import { hasCheckpoints } from "../storage/checkpoints/rows.ts";
import type { Queryable } from "../storage/database.ts";
import { findWriter } from "../storage/runs.ts";
import type { Engine } from "./engine.ts";
import type { Graph } from "./graph/graph.ts";
import { GraphFactory, READING } from "./graph/graph-factory.ts";
import { askedBy, mergeConfigs } from "./input.ts";
import type { AcceptedRun, RunKwargs } from "./request.ts";

/** What a run is configured with: by its assistant, its thread and its request, the later over the earlier. */
export const configOfRun = ({ kwargs, thread_config: ofThread, auth }: AcceptedRun): Fields =>
  askedBy(auth, mergeConfigs([kwargs.defaults ?? {}, ofThread, kwargs.config]));

/** The graph that a run is driven with. */
export async function graphOfRun(graph: Graph, run: AcceptedRun): Promise<Graph> {
  if (!(graph instanceof GraphFactory)) return graph;
  const { kwargs, metadata } = run;
  const config = configOfRun(run);
  return graph.make(
    { ...config, metadata: { ...asFields(config["metadata"]), ...metadata } },
    { accessContext: "threads.create_run", executionRuntime: { context: kwargs.context } },
  );
}

/**
 * The graph that a thread is read and changed with; undefined when it is not served here, or can only be made with the
 * configuration of a run and none has written anything yet.
 * @throws GraphUnloadable when it cannot be made with the configuration that it was made with before
 */
export async function graphOfThread(
  engine: Pick<Engine, "graphs" | "database">,
  graphId: unknown,
  threadId: string,
  on: Queryable = engine.database,
): Promise<Graph | undefined> {
  // Clients may have written anything there, also what cannot be made a text.
  if (typeof graphId !== "string") return undefined;
  const graph = engine.graphs.get(graphId);
  if (!(graph instanceof GraphFactory)) return graph;
  const writer = await findWriter(on, threadId);
  // What this server stored: see kwargsOf in new-run.ts.
  const kwargs = writer?.kwargs as RunKwargs | undefined;
  const configs = writer && kwargs ? [kwargs.defaults ?? {}, writer.thread_config, kwargs.config] : [];
  const config = askedBy(writer?.auth, mergeConfigs(configs));
  const configurable = { ...asFields(config["configurable"]), thread_id: threadId };
  return graph.make({ ...config, configurable }, READING).catch(async (error: unknown) => {
    // The run that says how it is to be made may be gone.
    if (!writer && !(await hasCheckpoints(on, threadId))) return undefined;
    throw new GraphUnloadable(`Graph ${graphId} of this thread cannot be made: ${saidOf(error)}`);
  });
}

/**
 * The same for what goes on without it: undefined also when the graph cannot be made. No code of a project keeps a run
 * from ending, a thread from being copied, or other threads from being listed.
 */
export async function graphForState(
  engine: Pick<Engine, "graphs" | "database" | "log">,
  graphId: unknown,
  threadId: string,
  on?: Queryable,
): Promise<Graph | undefined> {
  try {
    return await graphOfThread(engine, graphId, threadId, on);
  } catch (error) {
    if (!(error instanceof GraphUnloadable)) throw error;
    engine.log.warn("state.unmade", { thread_id: threadId, reason: error.message });
    return undefined;
  }
}

/**
 * The graph that a checkpoint is of: this one, or one that stands in it. LangGraph looks for that itself only when it
 * brings the checkpointer, not when it is lent one.
 * @returns undefined when none is known there, such as a graph that a node calls by itself
 */
export async function graphAt(graph: Graph, checkpoint: Fields | undefined): Promise<Graph | undefined> {
  const namespace = checkpoint?.["checkpoint_ns"];
  if (typeof namespace !== "string" || namespace === "") return graph;
  // As checkpoints have it: `node:task|inner:task`, with numbers for calls of one task.
  const steps = namespace.split("|").filter((step) => !/^\d+$/.test(step));
  const path = steps.map((step) => step.split(":", 1)[0]).join("|");
  for await (const [name, inner] of graph.getSubgraphsAsync(path, true)) if (name === path) return inner;
  return undefined;
}

/** The graph that an assistant is described with. */
export async function graphOfAssistant(
  graph: Graph,
  { config, context }: { config: Fields; context: Fields },
): Promise<Graph> {
  if (!(graph instanceof GraphFactory)) return graph;
  const merged = askedBy(undefined, mergeConfigs([config]));
  return graph.make(merged, { accessContext: "assistants.read", executionRuntime: { context } });
}
