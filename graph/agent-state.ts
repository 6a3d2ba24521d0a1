// The channels of the agent: the conversation with its calls of tools, and the sources behind each [n] of the last answer.
import { StateSchema } from "@langchain/langgraph";
import { z } from "zod";
import { messages } from "./state.ts";

const citation = z.object({
  n: z.number().describe("The [n] in the answer."),
  source_id: z.string().describe("The document, or the address of the page."),
  title: z.string(),
});

export const AgentState = new StateSchema({ messages, citations: z.array(citation).default([]) });

export type AgentTurn = typeof AgentState.State;
export type AgentUpdate = typeof AgentState.Update;
export type AgentCitation = z.infer<typeof citation>;
