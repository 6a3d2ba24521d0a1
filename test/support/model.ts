// The offline model server for tests: no delay between tokens, and a record of every call it got.
import { startOfflineModel } from "../../server/models/offline/server.ts";
import type { ModelCall, OfflineModelOptions } from "../../server/models/offline/server.ts";

export interface FakeModel {
  /** Base URL with `/v1`. */
  readonly url: string;
  readonly calls: readonly ModelCall[];
  forgetCalls(): void;
  stop(): Promise<void>;
}

/** Scripts by model name: see server/models/offline/scripts.ts; `scripts` adds the test's own. */
export async function startFakeModel(options: OfflineModelOptions = {}): Promise<FakeModel> {
  const calls: ModelCall[] = [];
  const model = await startOfflineModel({ delayMs: 0, onCall: (call) => calls.push(call), ...options });
  return { ...model, calls, forgetCalls: () => calls.splice(0) };
}

/** A question that is answered in so many tokens, one every `ms` milliseconds, and the whole answer. */
export const slowAnswer = (
  tokens: number,
  ms: number,
): { input: { messages: object[]; model: string }; whole: string } => ({
  input: { messages: [{ role: "user", content: "hold fast" }], model: `fake-slow-${tokens}tok-${ms}ms` },
  whole: Array.from({ length: tokens }, (_, index) => `tok${index}`).join(" "),
});
