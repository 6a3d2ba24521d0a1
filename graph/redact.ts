// Last look at the answer before the turn ends. generate has redacted it before it was state, so this finds nothing; it
// stands here for answers of nodes that are added between the two.
import { AIMessage } from "@langchain/core/messages";
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { redactText, servicesOf } from "../server/index.ts";
import type { Turn, Update } from "./state.ts";

export function redact({ messages }: Turn, config: LangGraphRunnableConfig): Update {
  const last = messages.at(-1);
  if (!AIMessage.isInstance(last)) return {};
  const kept = redacted(last, config);
  // The same id: the reducer replaces the message instead of adding one.
  return kept === last ? {} : { messages: [kept] };
}

/** An answer without personal data and secrets: the same message when there are none. */
export function redacted(answer: AIMessage, config: LangGraphRunnableConfig): AIMessage {
  if (typeof answer.content !== "string") return answer;
  const { redact: keep = redactText } = servicesOf(config);
  const content = keep(answer.content);
  if (content === answer.content) return answer;
  const { id, name, usage_metadata: usage, response_metadata } = answer;
  const kept = {
    ...(id ? { id } : {}),
    ...(name ? { name } : {}),
    ...(usage ? { usage_metadata: usage } : {}),
  };
  return new AIMessage({ content, response_metadata, ...kept });
}
