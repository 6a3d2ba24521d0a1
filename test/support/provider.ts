// A provider on loopback that plays scripts in the order they were given, whatever the model; when none is left it
// answers well. Calls to it go through fetch, as those of graphs do.
import type { Script } from "../../server/models/offline/scripts.ts";
import { policyOf } from "../../server/models/resilience/policy.ts";
import type { Policy } from "../../server/models/resilience/policy.ts";
import { Resilience } from "../../server/models/resilience/resilience.ts";
import type {
  Ask,
  ResilienceEvent,
  ResilienceOptions,
  Sent,
} from "../../server/models/resilience/resilience.ts";
import { startFakeModel } from "./model.ts";
import type { FakeModel } from "./model.ts";

export interface Provider extends FakeModel {
  /** Adds to what will be played. */
  readonly play: (...scripts: Script[]) => void;
  /** Nothing to play, and no call on record. */
  readonly reset: () => void;
  readonly send: (call: Sent, options?: { stream?: boolean }) => Promise<Response>;
}

export const WELL: Script = { pieces: ["All", " is", " well."] };

export const refuse = (status: number, headers: Record<string, string> = {}, code = "some_code"): Script => ({
  refusal: { status, code, message: "in the provider's own words", headers },
});

export async function startProvider(): Promise<Provider> {
  const queue: Script[] = [];
  const model = await startFakeModel({ scripts: () => queue.shift() ?? WELL });
  return {
    ...model,
    play: (...scripts) => void queue.push(...scripts),
    reset: () => {
      queue.length = 0;
      model.forgetCalls();
    },
    send: ({ model: name, signal }, { stream = true } = {}) =>
      fetch(`${model.url}/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: name, stream, messages: [{ role: "user", content: "hold fast" }] }),
        signal,
      }),
  };
}

export interface Rig {
  readonly resilience: Resilience;
  readonly events: ResilienceEvent[];
  readonly ask: (ask?: Partial<Ask>) => ReturnType<Resilience["ask"]>;
}

/** Asks `m` of the provider with quick retries; `policy` adds to that. */
export function rig(
  provider: Provider,
  policy: Partial<Policy> = {},
  options: Partial<ResilienceOptions> = {},
): Rig {
  const events: ResilienceEvent[] = [];
  const resilience = new Resilience({
    policyOf: () => policyOf(5000, { retry_base_ms: 1, retry_max_ms: 20, ...policy }),
    onEvent: (event) => events.push(event),
    ...options,
  });
  return {
    resilience,
    events,
    ask: (ask) => resilience.ask({ chain: ["m"], tokens: 1, send: provider.send, ...ask }),
  };
}

/** What a client would show of a stream. */
export function textOf(stream: string): string {
  const frames = [...stream.matchAll(/^data: (\{.*\})$/gm)].map(([, data = ""]) => JSON.parse(data) as Frame);
  return frames.map(({ choices: [choice] }) => choice?.delta.content ?? "").join("");
}

interface Frame {
  readonly choices: readonly { readonly delta: { readonly content?: string } }[];
}
