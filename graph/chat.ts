// The client of the provider, as both graphs use it. It never retries by itself (the server does, and retries would
// multiply), and the ceiling on the answer is sent with every call.
import { ChatOpenAICompletions } from "@langchain/openai";
import type { GraphSettings } from "../server/index.ts";

// The completions class, because ChatOpenAI moves some model names to the Responses API by itself.
export const chatOf = ({ model, maxOutputTokens, modelTimeoutMs }: GraphSettings): ChatOpenAICompletions =>
  new ChatOpenAICompletions({
    model,
    maxTokens: maxOutputTokens,
    timeout: modelTimeoutMs,
    maxRetries: 0,
    streamUsage: true,
    // The SDK would log what it cannot parse; our error says it without the content.
    configuration: { logLevel: "off" },
  });
