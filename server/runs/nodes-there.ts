// A run that goes on from a checkpoint needs the nodes that are to run there. A graph that was changed meanwhile, by a new
// version of the project, may not have them: LangGraph finds nothing to do then, and the run would succeed with nothing done.
import type { RunnableConfig } from "@langchain/core/runnables";
import { asFields } from "../fields.ts";
import { NodeMissing } from "../graph-errors.ts";
import type { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import { configOfRun } from "./graph-of.ts";
import type { Graph } from "./graph/graph.ts";
import { bringsAnswer } from "./protocol/tell.ts";
import type { AcceptedRun } from "./request.ts";
import type { TakenUp } from "./rewind.ts";
import { configOf } from "./state.ts";

type Nodes = Graph & { readonly nodes?: object };

const TO = "branch:to:";
const SENDS = "__pregel_tasks";

/** @throws NodeMissing when the run goes on at a node that its graph, or one that stands in it, does not have */
export async function requireNodes(
  run: AcceptedRun,
  { graph, checkpointer }: { graph: Graph; checkpointer: Checkpoints },
  { resumes }: TakenUp,
): Promise<void> {
  const { input, command } = run.kwargs;
  // What waits is dropped for a new input, and for a command that says itself where to go or what is so, and answers nothing.
  const setsOut = !bringsAnswer(run) && (input ?? command?.["goto"] ?? command?.["update"] ?? null) !== null;
  if (!resumes && (setsOut || !run.has_checkpoints)) return;
  const {
    checkpoint_id: id,
    checkpoint_ns: ns,
    checkpoint_map: map,
  } = asFields(configOfRun(run)["configurable"]);
  // As LangGraph does: from a place in a graph in the graph, it is the map that names the run's own checkpoint.
  const from = (ns ?? "") === "" && id ? id : asFields(map)[""];
  const at = resumes || from === undefined ? {} : { checkpoint_id: from };
  const missing = await missingAt(configOf(checkpointer, run.thread_id, at), graph, checkpointer);
  if (missing !== undefined) throw new NodeMissing(run.graph_id, missing);
}

async function missingAt(
  config: RunnableConfig,
  graph: Nodes,
  checkpointer: Checkpoints,
): Promise<string | undefined> {
  const tuple = await checkpointer.getTuple(config);
  const { nodes } = graph;
  if (!tuple || !nodes) return undefined;
  const waiting = waitingIn(tuple.checkpoint.channel_values);
  const lost = waiting.filter((node) => !Object.hasOwn(nodes, node));
  // A command that says where to go leaves there what waited before it.
  const isLeft = tuple.metadata?.source === "input" && lost.length < waiting.length;
  if (!isLeft && lost[0] !== undefined) return lost[0];
  const { thread_id: threadId } = config.configurable ?? {};
  for (const { name, state, result } of await tasksAt(config, graph)) {
    if (result !== undefined || !state || "values" in state) continue;
    for await (const [, inner] of graph.getSubgraphsAsync(name)) {
      const within = configOf(checkpointer, String(threadId), state.configurable);
      const missing = await missingAt(within, inner, checkpointer);
      if (missing !== undefined) return missing;
    }
  }
  return undefined;
}

/** What is to run next; only graphs with others in them are asked. */
async function tasksAt(
  config: RunnableConfig,
  graph: Graph,
): Promise<Awaited<ReturnType<Graph["getState"]>>["tasks"]> {
  for await (const _ of graph.getSubgraphsAsync()) return (await graph.getState(config)).tasks;
  return [];
}

/** Nodes that channels of a checkpoint are to start: those of edges, and those that something was sent to. */
function waitingIn(values: Readonly<Record<string, unknown>>): string[] {
  const edges = Object.keys(values).flatMap((channel) =>
    channel.startsWith(TO) ? [channel.slice(TO.length)] : [],
  );
  const sends = values[SENDS];
  const sent = Array.isArray(sends) ? sends.map((one) => String(asFields(one)["node"])) : [];
  return [...edges, ...sent];
}
