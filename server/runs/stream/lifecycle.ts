// Stream mode "lifecycle" of legacy clients: when each graph that stands in the graph starts and ends.
import { convertToProtocolEvent } from "@langchain/langgraph/web";
import type { StreamMode } from "@langchain/langgraph/web";
import type { Fields } from "../../fields.ts";
import type { Chunk } from "../graph/graph-stream.ts";
import type { Entry } from "../log/lines.ts";
import { Mux } from "./mux.ts";
import type { Event } from "./mux.ts";

/** How the run ended. */
export interface End {
  readonly status: "completed" | "interrupted" | "failed";
  readonly error?: { readonly error: string; readonly message: string } | null;
}

export class Lifecycle {
  readonly #mux = new Mux([], () => undefined);

  entriesOf({ mode, namespace, payload }: Chunk): Entry[] {
    if (mode === "messages" || mode === "checkpoints") return []; // told with nodes, not with graphs
    const told = { namespace: [...namespace], mode: mode as StreamMode, payload, seq: 0 };
    return convertToProtocolEvent(told).flatMap((event) => entriesFrom(this.#mux.push(event)));
  }

  /** Graphs that are still at work end with the run. */
  async end({ status, error }: End): Promise<Entry[]> {
    if (status !== "failed") return entriesFrom(await this.#mux.finish(status));
    return entriesFrom(this.#mux.fail(error?.message), error);
  }
}

function entriesFrom(events: readonly Event[], error?: End["error"]): Entry[] {
  return events
    .filter(({ method, params }) => method === "lifecycle" && params.namespace.length > 0)
    .map(({ params: { namespace, data } }) => {
      const { event, cause } = data as { event: string; cause?: { type: string; tool_call_id?: string } };
      const told: Fields = { event, namespace };
      if (cause?.tool_call_id !== undefined) told["tool_call_id"] = cause.tool_call_id;
      if (event === "failed" && error) told["error"] = error;
      return { event: ["lifecycle", ...namespace].join("|"), data: JSON.stringify(told) };
    });
}
