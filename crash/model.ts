// The model that the crash suite asks: a real server on loopback whose answer follows from the model's name, and who
// remembers how often it was asked what.
import { startOfflineModel } from "../server/models/offline/server.ts";
import type { ModelCall } from "../server/models/offline/server.ts";

export interface CountingModel {
  /** Base URL with `/v1`. */
  readonly url: string;
  /** How often a prompt that holds `text` was sent. */
  callsWith(text: string): number;
  /** What calls would be billed, by the client's own names for them. */
  readonly billed: ReadonlyMap<string, ModelCall>;
  stop(): Promise<void>;
}

/** What the model is asked on a thread: so its calls can be told apart. */
export const promptOf = (threadId: string): string => `What do you say on ${threadId}?`;

export async function startCountingModel(): Promise<CountingModel> {
  const counts = new Map<string, number>();
  const billed = new Map<string, ModelCall>();
  const model = await startOfflineModel({
    onCall: (call) => {
      const { body, requestId } = call;
      if (requestId !== undefined) billed.set(requestId, call);
      const last = body.messages.findLast(({ role }) => role === "user")?.content;
      const text = typeof last === "string" ? last : JSON.stringify(last);
      counts.set(text, (counts.get(text) ?? 0) + 1);
    },
  });
  const callsWith = (text: string): number => counts.get(text) ?? 0;
  return { url: model.url, callsWith, billed, stop: () => model.stop() };
}
