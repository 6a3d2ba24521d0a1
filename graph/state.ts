// The channels of the reference graph. Input is messages only, so Studio shows a chat box; output adds
// the sources behind each [n]. Passages, citations and budget belong to one turn and are replaced.
import { MessagesDeltaValue, MessagesValue, StateSchema } from "@langchain/langgraph";
import { z } from "zod";
import { graphSettings } from "../server/index.ts";

const passage = z.object({
  chunk_id: z.number(),
  source_id: z.string(),
  title: z.string(),
  ordinal: z.number(),
  score: z.number(),
  body: z.string(),
});

const citation = z.object({
  n: z.number().describe("The [n] in the answer."),
  source_id: z.string(),
  title: z.string(),
  chunk_id: z.number(),
});

const budget = z.object({
  model: z.string(),
  prompt_tokens: z.number().describe("Exact tokens of the prompt that is sent."),
  max_prompt_tokens: z.number(),
  max_output_tokens: z.number(),
  dropped_messages: z.number().describe("Oldest messages left out so that the prompt fits."),
  dropped_passages: z.number().describe("Least relevant passages left out so that the prompt fits."),
  approximate: z.boolean().describe("The model's tokenizer is unknown; o200k_base was used."),
});

// Both hold BaseMessage[] and take the same writes; they differ only in how a saver stores them.
export const messages = (
  graphSettings().messages === "plain" ? MessagesValue : MessagesDeltaValue
) as typeof MessagesDeltaValue;

export const State = new StateSchema({
  messages,
  passages: z.array(passage).default([]),
  citations: z.array(citation).default([]),
  budget: budget.optional(),
});
export const Input = new StateSchema({ messages });
export const Output = new StateSchema({ messages, citations: z.array(citation).default([]) });

export type Turn = typeof State.State;
export type Update = typeof State.Update;
export type Citation = z.infer<typeof citation>;
