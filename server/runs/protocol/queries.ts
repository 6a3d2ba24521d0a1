// The commands of protocol v2 that only look: a thread's state, its checkpoints, and the graphs at work in it.
import { CommandRefused } from "../../errors.ts";
import type { Fields } from "../../fields.ts";
import { findNewestWatched } from "../../storage/watched.ts";
import { getRun } from "../create.ts";
import type { Engine } from "../engine.ts";
import { readLog } from "../follow.ts";
import { getState, listHistory } from "../state.ts";
import { addressOf } from "./entries.ts";

/** The newest values, all or those named, of the graph or of one that stands in it. @throws ThreadNotFound, CommandRefused */
export async function valuesOf(
  engine: Engine,
  threadId: string,
  {
    namespace = [],
    keys,
  }: { namespace?: readonly string[] | undefined; keys?: readonly string[] | undefined },
): Promise<Fields> {
  const ns = namespace.join("|");
  const at = ns === "" ? undefined : { checkpoint_ns: ns };
  const { values, checkpoint, created_at } = await getState(engine, threadId, {
    checkpoint: at,
    subgraphs: false,
  });
  if (ns !== "" && created_at === null)
    throw new CommandRefused("no_such_namespace", `Nothing on this thread has the namespace ${ns}.`);
  const all = Object(values) as Fields;
  const shown = keys
    ? Object.fromEntries(keys.filter((key) => key in all).map((key) => [key, all[key]]))
    : all;
  return { values: shown, ...(checkpoint ? { checkpoint: { id: checkpoint["checkpoint_id"], ns } } : {}) };
}

/** Checkpoints of the thread, newest first. @throws ThreadNotFound */
export async function checkpointsOf(
  engine: Engine,
  threadId: string,
  {
    namespace = [],
    limit,
    before,
  }: { namespace?: readonly string[] | undefined; limit: number; before?: string | undefined },
): Promise<Fields> {
  const ns = namespace.join("|");
  const states = await listHistory(engine, threadId, {
    limit,
    before,
    ...(ns === "" ? {} : { checkpoint: { checkpoint_ns: ns } }),
  });
  const checkpoints = states.map(({ checkpoint, created_at, metadata }) => ({
    id: checkpoint?.["checkpoint_id"],
    timestamp: created_at,
    step: Object(metadata).step ?? -1,
    metadata,
  }));
  return { checkpoints };
}

interface TreeNode {
  readonly namespace: readonly string[];
  status: string;
  graph_name: string;
  readonly children: TreeNode[];
}

/** The graphs at work, as the newest run of the thread, or the one named, has told of them. @throws RunNotFound */
export async function treeOf(engine: Engine, threadId: string, runId?: string): Promise<Fields> {
  const named = runId === undefined ? undefined : await getRun(engine, threadId, runId);
  const wanted = named?.run_id ?? (await findNewestWatched(engine.database, threadId))?.run_id;
  const root: TreeNode = { namespace: [], status: "completed", graph_name: "", children: [] };
  if (wanted === undefined) return { tree: root };
  for await (const events of readLog(engine.reader, wanted)) {
    for (const { entry } of events) {
      const { name, namespace } = addressOf(entry);
      if (entry.at === undefined || name !== "lifecycle" || !("data" in entry)) continue;
      const { data } = JSON.parse(entry.data) as { data: { event: string; graph_name?: string } }; // our own line
      const node = nodeAt(root, namespace);
      node.status = data.event;
      node.graph_name = data.graph_name ?? node.graph_name;
    }
  }
  return { tree: root };
}

function nodeAt(root: TreeNode, namespace: readonly string[]): TreeNode {
  let node = root;
  for (const [index, segment] of namespace.entries()) {
    const known = node.children.find((child) => child.namespace[index] === segment);
    const path = namespace.slice(0, index + 1);
    const next = known ?? {
      namespace: path,
      status: "started",
      graph_name: segment.split(":", 1)[0] ?? "",
      children: [],
    };
    if (!known) node.children.push(next);
    node = next;
  }
  return node;
}
