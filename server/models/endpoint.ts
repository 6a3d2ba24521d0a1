// Which provider the OpenAI clients of this process talk to: the one that is configured, or the offline model.
import { useModelEndpoint } from "../config.ts";
import type { Config } from "../config.ts";

export interface EndpointOptions {
  readonly config: Pick<Config, "openaiApiKey" | "openaiBaseUrl" | "model">;
  /** Answer with the offline model when no provider is configured. */
  readonly mayModelBeOffline: boolean;
  readonly say: (text: string) => void;
}

export async function connectModel(
  { config, mayModelBeOffline, say }: EndpointOptions,
  parts: AsyncDisposableStack,
): Promise<"given" | "offline" | "none"> {
  const { openaiApiKey, openaiBaseUrl: baseUrl } = config;
  if (openaiApiKey || baseUrl) {
    useModelEndpoint({ baseUrl, apiKey: openaiApiKey ?? "none" });
    say(`Model: ${config.model} at ${baseUrl ?? "the provider's own endpoint"}`);
    return "given";
  }
  if (mayModelBeOffline) {
    const { startOfflineModel } = await import("./offline/server.ts"); // never loaded in production
    const offline = await startOfflineModel({});
    parts.defer(() => offline.stop());
    useModelEndpoint({ baseUrl: offline.url, apiKey: "offline" });
    say("Model: offline, extractive (set OPENAI_API_KEY or OPENAI_BASE_URL for a real one)");
    return "offline";
  }
  say("Model: none configured; graphs that call OpenAI need OPENAI_API_KEY or OPENAI_BASE_URL");
  return "none";
}
