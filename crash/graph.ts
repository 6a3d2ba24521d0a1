// The graph that the crash suite runs: supersteps before, beside and after a model's streamed answer. Each node leaves
// its name in `log`, so that a superstep whose result was taken twice, or lost, can be seen in the state.
import { END, MessagesDeltaValue, ReducedValue, START, StateGraph, StateSchema } from "@langchain/langgraph";
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { ChatOpenAICompletions } from "@langchain/openai";
import { z } from "zod";

const log = new ReducedValue(z.array(z.string()).default([]), {
  inputSchema: z.array(z.string()),
  reducer: (before: string[], added: string[]) => [...before, ...added],
});
/** What a search would find: as much of the state as it is in a real one. */
export const PASSAGES = Array.from(
  { length: 20 },
  (_, at) => `[${at}] ${`passage ${at * 7919} `.repeat(20)}`,
);
const State = new StateSchema({
  messages: MessagesDeltaValue,
  passages: z.array(z.string()).default([]),
  log,
});

/** What one run leaves in `log`; nodes of one superstep in the order of their names. */
export const WHOLE_LOG = ["prepare", "generate", "note", "finish"];

const prepare = () => ({ passages: PASSAGES, log: ["prepare"] });

/** Where the run keeps something for its last node, whichever server that comes to run on. */
const placeOf = (config: LangGraphRunnableConfig): string[] => [
  "crash",
  String(config.configurable?.["run_id"]),
];
const note = async (_: unknown, config: LangGraphRunnableConfig) => {
  await config.store?.put(placeOf(config), "note", { is: "kept" });
  return { log: ["note"] };
};
const finish = async (_: unknown, config: LangGraphRunnableConfig) => {
  const item = await config.store?.get(placeOf(config), "note");
  return { log: [item?.value["is"] === "kept" ? "finish" : "finish without what note kept"] };
};

export const graph = new StateGraph(State)
  .addNode("prepare", prepare)
  .addNode("note", note)
  .addNode("generate", async (state, config: LangGraphRunnableConfig) => {
    // Which answer, and how slowly, stands in the model's name; the server hands it on from the request.
    const model = String(config.configurable?.["model"] ?? "fake-echo");
    const chat = new ChatOpenAICompletions({ model, maxRetries: 0, configuration: { logLevel: "off" } });
    const answer = await chat.invoke(state.messages, { ...config });
    return { messages: [answer], log: ["generate"] };
  })
  .addNode("finish", finish)
  .addEdge(START, "prepare")
  .addEdge("prepare", "note")
  .addEdge("prepare", "generate")
  .addEdge(["note", "generate"], "finish")
  .addEdge("finish", END)
  .compile();
