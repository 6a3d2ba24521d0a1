// The client of the provider, as both graphs use it. It never retries by itself (the server does, and retries would
// multiply), and the ceiling on the answer is sent with every call.
import { ChatOpenAICompletions } from "@langchain/openai";
import type { GraphSettings } from "../server/index.ts";

// Its own timeout would end what the server is trying again: streamAnswer hears silence, the server has its limits.
const NEVER_MS = 2 ** 31 - 1;

// The completions class, because ChatOpenAI moves some model names to the Responses API by itself.
export const chatOf = ({ model, maxOutputTokens }: GraphSettings): ChatOpenAICompletions =>
  new ChatOpenAICompletions({
    model,
    maxTokens: maxOutputTokens,
    timeout: NEVER_MS,
    maxRetries: 0,
    streamUsage: true,
    // The SDK would log what it cannot parse; our error says it without the content.
    configuration: { logLevel: "off" },
  });
