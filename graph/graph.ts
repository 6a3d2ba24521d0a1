// retrieve → budget-check → generate → redact: answers from your documents, with citations.
// Compiled without a checkpointer: the server that loads it attaches its own.
import { END, START, StateGraph } from "@langchain/langgraph";
import { budgetCheck } from "./budget-check.ts";
import { generate } from "./generate.ts";
import { redact } from "./redact.ts";
import { retrieve } from "./retrieve.ts";
import { Input, Output, State } from "./state.ts";

export const graph = new StateGraph({ state: State, input: Input, output: Output })
  .addNode("retrieve", retrieve)
  .addNode("budget-check", budgetCheck)
  .addNode("generate", generate)
  .addNode("redact", redact)
  .addEdge(START, "retrieve")
  .addEdge("retrieve", "budget-check")
  .addEdge("budget-check", "generate")
  .addEdge("generate", "redact")
  .addEdge("redact", END)
  .compile({ name: "holdfast" });
