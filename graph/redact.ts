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

/** An answer without personal data and secrets, calls of tools included: the same message when there are none. */
export function redacted(answer: AIMessage, config: LangGraphRunnableConfig): AIMessage {
  if (typeof answer.content !== "string") return answer;
  const { redact: keep = redactText } = servicesOf(config);
  const content = keep(answer.content);
  const { id, name, usage_metadata: usage, response_metadata } = answer;
  const { tool_calls: calls = [], invalid_tool_calls: broken = [] } = answer;
  if (content === answer.content && calls.length + broken.length === 0) return answer;
  const kept = {
    ...(id ? { id } : {}),
    ...(name ? { name } : {}),
    ...(usage ? { usage_metadata: usage } : {}),
    tool_calls: calls.map((call) => Object.assign({}, call, { args: withTexts(call.args, keep) })),
    // Arguments that are no JSON are of no use to anybody.
    invalid_tool_calls: broken.map((call) => Object.assign({}, call, { args: "" })),
  };
  return new AIMessage({ content, response_metadata, ...kept });
}

/** The same value with every text in it changed. */
function withTexts<Value>(value: Value, change: (text: string) => string): Value {
  const changed = (one: unknown): unknown => {
    if (typeof one === "string") return change(one);
    if (Array.isArray(one)) return one.map(changed);
    if (typeof one !== "object" || one === null) return one;
    return Object.fromEntries(Object.entries(one).map(([key, field]) => [key, changed(field)]));
  };
  return changed(value) as Value; // the same shape
}
