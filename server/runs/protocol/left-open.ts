// What a run began for clients of protocol v2 and has not ended: graphs in the graph, and calls of tools. It ends with the
// run at the latest; official clients would show it as at work for ever.
import { AppError, messageOf } from "../../errors.ts";
import type { Engine } from "../engine.ts";
import { readLog } from "../follow.ts";
import { dataOf, nameOf } from "../log/lines.ts";
import type { Entry } from "../log/lines.ts";
import { addressOf, eventOf } from "./entries.ts";
import type { ProtocolEvent } from "./entries.ts";

/** A graph in the graph. */
export interface Over {
  readonly namespace: readonly string[];
  readonly name: string;
}

/** @param event how the graph ended */
export const overOf = ({ namespace, name }: Over, event: string): ProtocolEvent => ({
  name: "lifecycle",
  namespace,
  data: JSON.stringify({ event, graph_name: name }),
});

/** The last events that are missing, by what they end. */
export class LeftOpen {
  readonly #graphs = new Map<string, Over>();
  /** Where each call of a tool was told, by its id. */
  readonly #calls = new Map<string, readonly string[]>();

  see(entry: Entry): void {
    const event = nameOf(entry);
    const isGraph = event.startsWith("lifecycle|");
    const isCall = event === "tools" || event.startsWith("tools|");
    if (entry.at === undefined || !(isGraph || isCall)) return;
    const { data } = JSON.parse(dataOf(entry)) as { data: Begun }; // written by entryOf
    const { namespace } = addressOf(entry);
    if (isCall) this.#noteCall(data, namespace);
    else if (data.event === "started") this.#graphs.set(event, { namespace, name: data.graph_name });
    else this.#graphs.delete(event);
  }

  /** These were begun by an attempt before, and go on. */
  expect(graphs: readonly Over[]): void {
    for (const graph of graphs) this.#graphs.set(eventOf("lifecycle", graph.namespace), graph);
  }

  /** The ends of all. @param event how the run ended */
  ends(event: string): ProtocolEvent[] {
    return [...this.calls(event), ...this.graphs(event)];
  }

  /** The ends of graphs, those within first. */
  graphs(event: string): ProtocolEvent[] {
    return [...this.#graphs.values()].toReversed().map((graph) => overOf(graph, event));
  }

  /** The ends of calls. */
  calls(event: string): ProtocolEvent[] {
    const message = event === "failed" ? "The run failed." : "The run was stopped.";
    return [...this.#calls].map(([id, namespace]) => ({
      name: "tools",
      namespace,
      data: JSON.stringify({ event: "tool-error", tool_call_id: id, message }),
    }));
  }

  #noteCall({ event, tool_call_id: id }: Begun, namespace: readonly string[]): void {
    if (event === "tool-started") this.#calls.set(id, namespace);
    if (event === "tool-finished" || event === "tool-error") this.#calls.delete(id);
  }
}

interface Begun {
  readonly event: string;
  readonly graph_name: string;
  readonly tool_call_id: string;
}

/** What a run's log leaves open; nothing if it cannot be read, since the run ends all the same. */
export async function leftOpen(engine: Pick<Engine, "log" | "reader">, runId: string): Promise<LeftOpen> {
  const open = new LeftOpen();
  try {
    for await (const events of readLog(engine.reader, runId)) for (const { entry } of events) open.see(entry);
    return open;
  } catch (error) {
    if (error instanceof AppError && error.retryable) throw error;
    engine.log.warn("log.unreadable", { run_id: runId, reason: messageOf(error) });
    return new LeftOpen();
  }
}
