// ask ⇄ tools: a model that looks things up by itself, in a bounded number of rounds, and answers with citations.
// Compiled without a checkpointer: the server that loads it attaches its own.
import { AIMessage } from "@langchain/core/messages";
import type { BaseMessage } from "@langchain/core/messages";
import { END, START, StateGraph } from "@langchain/langgraph";
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { BudgetExceeded, runTools, servicesOf, streamAnswer, toolSpecs } from "../server/index.ts";
import { agentPrompt, fitting } from "./agent-prompt.ts";
import type { AgentPrompt } from "./agent-prompt.ts";
import { AgentState } from "./agent-state.ts";
import type { AgentCitation, AgentTurn, AgentUpdate } from "./agent-state.ts";
import { chatOf } from "./chat.ts";
import { Input } from "./state.ts";
import { redacted } from "./redact.ts";
import { tools } from "./tools.ts";

/** How often a model may use tools before it has to answer. */
const MAX_ROUNDS = 5;

const specs = toolSpecs(tools);

async function ask({ messages }: AgentTurn, config: LangGraphRunnableConfig): Promise<AgentUpdate> {
  const { settings } = servicesOf(config);
  const prompt = agentPrompt(messages);
  const sent = await within(prompt, config);
  const choice = roundsOf(messages) < MAX_ROUNDS ? "auto" : "none";
  const raw = await streamAnswer(
    (signal) => chatOf(settings).stream([...sent], { ...config, signal, tools: specs, tool_choice: choice }),
    { silenceMs: settings.modelTimeoutMs, signal: config.signal },
  );
  // Before it is state: whatever leaves this node is kept.
  const answer = redacted(raw, config);
  return { messages: [answer], citations: citationsOf(answer.text, prompt.sources) };
}

/** @throws BudgetExceeded when the last turn alone is above the ceiling */
async function within(prompt: AgentPrompt, config: LangGraphRunnableConfig): Promise<readonly BaseMessage[]> {
  const { model, maxPromptTokens: most } = servicesOf(config).settings;
  const fit = await fitting(prompt, { model, most, specs: JSON.stringify(specs) });
  if (fit) return fit;
  throw new BudgetExceeded(
    `The last question with what tools found needs more tokens than HOLDFAST_MAX_PROMPT_TOKENS allows (${most}). ` +
      "Nothing was sent. Ask for less or raise the setting.",
  );
}

/** How often the model has used tools for the last question. */
const roundsOf = (messages: readonly BaseMessage[]): number =>
  messages.slice(messages.findLastIndex(({ type }) => type === "human") + 1).filter(hasCalls).length;

const hasCalls = (message: BaseMessage | undefined): boolean =>
  AIMessage.isInstance(message) &&
  (message.tool_calls?.length ?? 0) + (message.invalid_tool_calls?.length ?? 0) > 0;

/** The passages an answer refers to, in the order of their numbers. */
function citationsOf(text: string, sources: readonly AgentCitation[]): AgentCitation[] {
  const cited = new Set([...text.matchAll(/\[(\d{1,4})\]/g)].map(([, n]) => Number(n)));
  return sources.filter(({ n }) => cited.has(n));
}

// A provider that calls tools although it was told not to is not asked again for ever.
const next = ({ messages }: AgentTurn): "tools" | typeof END =>
  hasCalls(messages.at(-1)) && roundsOf(messages) <= MAX_ROUNDS ? "tools" : END;

export const graph = new StateGraph({ state: AgentState, input: Input, output: AgentState })
  .addNode("ask", ask)
  .addNode("tools", runTools(tools))
  .addEdge(START, "ask")
  .addConditionalEdges("ask", next, ["tools", END])
  .addEdge("tools", "ask")
  .compile({ name: "agent" });
