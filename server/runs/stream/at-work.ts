// Which tasks are at work, as LangGraph's mode tasks tells. What a node has written names the node alone, and a node that
// an edge leads to may have been sent to as well: only who knows of both can say whose end that was.
import { asFields } from "../../fields.ts";
import type { Chunk } from "../graph/graph-stream.ts";

export class AtWork {
  /** Ids of tasks by node and by the namespace that it stands in. */
  readonly #tasks = new Map<string, Map<string, Set<string>>>();

  /** Looks at each chunk in its turn. */
  see({ namespace, mode, payload }: Chunk): void {
    const place = namespace.join("|");
    const fields = asFields(payload);
    // All tasks are over when the values come; a question is told while others are at work.
    if (mode === "values" && !("__interrupt__" in fields)) this.#tasks.delete(place);
    if (mode !== "tasks") return;
    const nodes = this.#tasks.get(place) ?? new Map<string, Set<string>>();
    const ids = nodes.get(String(fields["name"])) ?? new Set<string>();
    if ("result" in fields) ids.delete(String(fields["id"]));
    else ids.add(String(fields["id"]));
    this.#tasks.set(place, nodes.set(String(fields["name"]), ids));
  }

  /** Whether a node has several tasks at work. */
  isShared(namespace: readonly string[], node: string): boolean {
    return (this.#tasks.get(namespace.join("|"))?.get(node)?.size ?? 0) > 1;
  }
}
