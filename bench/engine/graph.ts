// Graphs for figures: one that calls a model and nothing else, one whose answers may come from the cache, one that ticks
// by its own clock.
import { setTimeout as delay } from "node:timers/promises";
import { END, MessagesValue, START, StateGraph, StateSchema } from "@langchain/langgraph";
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const plain = { maxRetries: 0, apiKey: "none" } as const;
const model = new ChatOpenAI({ ...plain, model: "fake-slow-40tok-5ms" });
const remembering = new ChatOpenAI({
  ...plain,
  model: "fake-slow-20tok-100ms",
  configuration: { defaultHeaders: { "x-holdfast-cache": "on" } },
});
const Chat = new StateSchema({ messages: MessagesValue });
export const chat = new StateGraph(Chat)
  .addNode("generate", async (state, config) => ({ messages: [await model.invoke(state.messages, config)] }))
  .addEdge(START, "generate")
  .addEdge("generate", END)
  .compile();

/** Asks for answers that were given before. */
export const cached = new StateGraph(Chat)
  .addNode("generate", async (state, config) => ({
    messages: [await remembering.invoke(state.messages, config)],
  }))
  .addEdge(START, "generate")
  .addEdge("generate", END)
  .compile();

const Ticks = new StateSchema({ count: z.number(), everyMs: z.number() });
/** Writes the time, `count` times, one every `everyMs`. */
export const ticking = new StateGraph(Ticks)
  .addNode("tick", async ({ count, everyMs }, config: LangGraphRunnableConfig) => {
    const start = Date.now();
    for (let tick = 1; tick <= count; tick += 1) {
      await delay(Math.max(0, start + tick * everyMs - Date.now()));
      config.writer?.({ at: Date.now() });
    }
    return {};
  })
  .addEdge(START, "tick")
  .addEdge("tick", END)
  .compile();
