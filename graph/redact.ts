// Last pass over the answer: personal data and secrets become placeholders in the state that is kept.
// The tokens streamed before this node, and the checkpoint that generate wrote, have held the raw answer:
// this node cleans what later turns and readers see, it does not make the stream clean.
import { AIMessage } from "@langchain/core/messages";
import { redactText } from "../server/index.ts";
import type { Turn, Update } from "./state.ts";

export function redact({ messages }: Turn): Update {
  const last = messages.at(-1);
  if (!AIMessage.isInstance(last) || typeof last.content !== "string") return {};
  const content = redactText(last.content);
  if (content === last.content) return {};
  const { id, name, usage_metadata: usage, response_metadata } = last;
  const kept = {
    ...(id ? { id } : {}),
    ...(name ? { name } : {}),
    ...(usage ? { usage_metadata: usage } : {}),
  };
  // The same id: the reducer replaces the message instead of adding one.
  return { messages: [new AIMessage({ content, response_metadata, ...kept })] };
}
