// Tells the code of each node under which name it runs, so that what it causes can be told by node. A node of a subgraph
// has the subgraph's name for it. Graphs that a node calls by itself are that node.
import { atNode } from "../../models/gateway/context.ts";
import type { Graph } from "./graph.ts";

/** What LangGraph calls to run a node; a graph that stands as a node has nodes itself. */
interface Bound {
  invoke: (...given: unknown[]) => unknown;
  readonly nodes?: Nodes;
}
type Nodes = Readonly<Record<string, { readonly bound?: Bound }>>;

const named = new WeakSet<object>();

/** Once for each graph; the graph itself behaves as before. */
export function nameNodes(graph: Graph & { readonly nodes?: Nodes }): void {
  if (named.has(graph)) return;
  named.add(graph);
  nameAll(graph.nodes ?? {});
}

function nameAll(nodes: Nodes): void {
  for (const [name, { bound }] of Object.entries(nodes)) {
    if (bound === undefined || named.has(bound)) continue;
    named.add(bound);
    if (bound.nodes) {
      nameAll(bound.nodes);
      continue;
    }
    const invoke = bound.invoke.bind(bound);
    bound.invoke = (...given) => atNode(name, () => invoke(...given));
  }
}
