// Messages of graphs in the graph, for clients that did not ask for what those tell. LangGraph tells such a message once
// and whole, when the node that the inner graph stands in has ended, and in pieces if it is asked for subgraphs. It often
// is, on behalf of others: for the checkpoint of values, for mode lifecycle, for followers of the thread.
import { asFields } from "../../fields.ts";
import { isMessage } from "../../privacy/envelopes.ts";
import type { Chunk } from "../graph/graph-stream.ts";

// What is said of the inner node alone, or of the model that it asked.
const OF_INNER_NODE = new Set(["tags", "versions", "langgraph_step", "langgraph_path", "langgraph_triggers"]);

export class InnerMessages {
  /** What is known of a message that was passed over, by its id. */
  readonly #passed = new Map<string, object>();

  /** A message of an inner graph that is not told. */
  pass({ payload }: Chunk): void {
    const [message, about]: unknown[] = Array.isArray(payload) ? payload : [];
    const id: unknown = Reflect.get(Object(message), "id");
    if (typeof id === "string" && !this.#passed.has(id)) this.#passed.set(id, asFields(about));
  }

  /** What a node of the graph itself gave, of which messages were passed over. */
  take({ payload }: Chunk): Chunk[] {
    if (this.#passed.size === 0) return [];
    return Object.entries(asFields(payload)).flatMap(([node, update]) =>
      Object.values(asFields(update))
        .flat()
        .flatMap((value) => this.#told(node, value)),
    );
  }

  #told(node: string, message: unknown): Chunk[] {
    if (typeof message !== "object" || message === null || !isMessage(message)) return [];
    const id = String(Reflect.get(message, "id"));
    const about = this.#passed.get(id);
    if (!about) return [];
    this.#passed.delete(id);
    return [{ namespace: [], mode: "messages", payload: [message, ofNode(node, about)] }];
  }
}

function ofNode(node: string, about: object): object {
  const kept = Object.entries(about).filter(([key]) => !OF_INNER_NODE.has(key) && !key.startsWith("ls_"));
  const fields: Record<string, unknown> = Object.fromEntries(kept);
  const [namespace] = String(fields["langgraph_checkpoint_ns"]).split("|", 1);
  const place = { langgraph_node: node, langgraph_checkpoint_ns: namespace, checkpoint_ns: namespace };
  return { ...fields, ...place, name: node, tags: [] };
}
