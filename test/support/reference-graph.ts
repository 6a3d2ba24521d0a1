// The reference graph as the server runs it: a saver, a thread, services with documents in memory.
import { MemorySaver } from "@langchain/langgraph";
import type { BaseMessage } from "@langchain/core/messages";
import { graph } from "../../graph/graph.ts";
import { SERVICES, graphSettings } from "../../server/services.ts";
import type { GraphSettings, Passage, Services } from "../../server/services.ts";

export const documents: readonly Passage[] = [
  ["refunds.md", "Refunds", "We refund every order that comes back within 30 days of delivery."],
  ["shipping.md", "Shipping", "Parcels to Norway take eight days. Parcels inside the country take two days."],
].map(([source_id = "", title = "", body = ""], index) => ({
  chunk_id: index + 1,
  source_id,
  title,
  ordinal: 0,
  score: 2 - index,
  body,
}));

/** Services that find every document, whatever is asked; `queries` records what was asked. */
export function servicesWith(
  settings: Partial<GraphSettings> = {},
  passages: readonly Passage[] = documents,
): Services & { queries: string[] } {
  const queries: string[] = [];
  const search = async (query: string): Promise<Passage[]> => {
    queries.push(query);
    return passages.map((passage) => ({ ...passage }));
  };
  return { search, queries, settings: { ...graphSettings(), modelTimeoutMs: 5000, ...settings } };
}

export interface Conversation {
  /** Runs one turn and returns the state after it. */
  say(text: string, signal?: AbortSignal): ReturnType<typeof graph.invoke>;
  /** Runs one turn and returns its message chunks in order. */
  stream(text: string): Promise<BaseMessage[]>;
  state(): Promise<Record<string, unknown>>;
}

graph.checkpointer = new MemorySaver();

const input = (text: string): { messages: { type: string; content: string; id: string }[] } => ({
  messages: [{ type: "human", content: text, id: crypto.randomUUID() }],
});

/** A new thread; `services` null is LangGraph without our server. */
export function converse(services: Services | null = servicesWith()): Conversation {
  const configurable = { thread_id: crypto.randomUUID(), ...(services ? { [SERVICES]: services } : {}) };
  return {
    say: async (text, signal) => graph.invoke(input(text), { configurable, ...(signal ? { signal } : {}) }),
    stream: async (text) => {
      const chunks: BaseMessage[] = [];
      const stream = await graph.stream(input(text), { configurable, streamMode: "messages" });
      for await (const [message] of stream) chunks.push(message);
      return chunks;
    },
    state: async () => (await graph.getState({ configurable })).values,
  };
}
