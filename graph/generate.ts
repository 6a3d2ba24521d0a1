// Asks the model and streams its answer. The answer is whole or the run fails.
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { servicesOf, streamAnswer } from "../server/index.ts";
import type { Passage } from "../server/index.ts";
import { chatOf } from "./chat.ts";
import { promptOf } from "./prompt.ts";
import { redacted } from "./redact.ts";
import type { Citation, Turn, Update } from "./state.ts";

export async function generate(state: Turn, config: LangGraphRunnableConfig): Promise<Update> {
  const { settings } = servicesOf(config);
  const { messages, passages, budget } = state;
  const prompt = promptOf(messages.slice(budget?.dropped_messages ?? 0), passages);
  const raw = await streamAnswer(
    (signal) =>
      chatOf(settings).stream(
        prompt.map(({ role, content }) => ({ role, content })),
        { ...config, signal },
      ),
    { silenceMs: settings.modelTimeoutMs, signal: config.signal },
  );
  // Before it is state: whatever leaves this node is kept.
  const answer = redacted(raw, config);
  return { messages: [answer], citations: citationsOf(answer.text, passages) };
}

/** The passages an answer refers to, in the order of their numbers. */
function citationsOf(text: string, passages: readonly Passage[]): Citation[] {
  const cited = new Set([...text.matchAll(/\[(\d{1,3})\]/g)].map(([, n]) => Number(n)));
  return passages
    .map(({ source_id, title, chunk_id }, index) => ({ n: index + 1, source_id, title, chunk_id }))
    .filter(({ n }) => cited.has(n));
}
