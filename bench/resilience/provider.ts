// A provider on loopback that fails as providers do: rate limits, errors, silences, cuts, slow tokens, an outage of one
// model, and no more answers at a time than it has room for. What it does to a call follows from the seed and the call.
import { once } from "node:events";
import { createServer } from "node:http";
import type { ServerResponse } from "node:http";
import { sleep } from "../../server/clock.ts";
import { seeded } from "../../server/commands/chaos/random.ts";

export const TOKENS = 20;
const GAP_MS = 6;
/** Answers at a time and model; one more is refused. */
const ROOM = 24;

type Fate = "well" | "slow" | "limit" | "error" | "silent" | "stall" | "cut" | "cut-later";
const FATES: readonly (readonly [Fate, number])[] = [
  ["limit", 0.06],
  ["error", 0.08],
  ["silent", 0.02],
  ["stall", 0.02],
  ["cut", 0.04],
  ["cut-later", 0.02],
  ["slow", 0.06],
];

export interface Load {
  readonly seed: number;
  readonly requests: number;
  /** Without it every call goes well. */
  readonly isFailing: boolean;
}

export interface BadProvider {
  readonly url: string;
  stop(): Promise<void>;
}

export async function startBadProvider(load: Load): Promise<BadProvider> {
  const stopped = new AbortController();
  const open = new Map<string, number>();
  const server = createServer((request, response) => {
    const [, model = "", index, nth] = (request.url ?? "").split("/");
    const gone = new AbortController();
    const under = (open.get(model) ?? 0) + 1;
    open.set(model, under);
    response.once("close", () => {
      open.set(model, (open.get(model) ?? 1) - 1);
      gone.abort();
    });
    request.resume();
    const fate = under > ROOM ? "limit" : fateOf(load, { model, index: Number(index), nth: Number(nth) });
    const signal = AbortSignal.any([gone.signal, stopped.signal]);
    void act(response, { fate, id: `${model}.${index}.${nth}`, signal });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`,
    stop: async () => {
      stopped.abort();
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

interface Place {
  readonly model: string;
  /** Of the request, from 0. */
  readonly index: number;
  /** Of its calls, from 1. */
  readonly nth: number;
}

function fateOf({ seed, requests, isFailing }: Load, { model, index, nth }: Place): Fate {
  if (!isFailing) return "well";
  const isOut = model === "first" && index >= requests / 2 && index < (requests * 3) / 4;
  if (isOut) return "silent";
  const random = seeded(seed + index * 1009 + nth * 9176 + model.length * 31);
  random.next();
  let left = random.next();
  for (const [fate, share] of FATES) {
    if (left < share) return fate;
    left -= share;
  }
  return "well";
}

interface Act {
  readonly fate: Fate;
  readonly id: string;
  readonly signal: AbortSignal;
}

async function act(response: ServerResponse, { fate, id, signal }: Act): Promise<void> {
  if (fate === "limit") return refuse(response, 429, { "retry-after-ms": "40" });
  if (fate === "error") return refuse(response, 500);
  await sleep(GAP_MS, signal);
  if (fate === "silent") return;
  response.writeHead(200, { "content-type": "text/event-stream" });
  tell(response, { role: "assistant", content: "" });
  if (fate === "stall") return;
  if (fate === "cut") return void response.write(": cut\n\n", () => response.destroy());
  for (let nth = 0; nth < TOKENS && !signal.aborted; nth += 1) {
    await sleep(fate === "slow" ? 3 * GAP_MS : GAP_MS, signal);
    tell(response, { content: `${id}.${nth} ` });
    if (fate === "cut-later" && nth === TOKENS / 2)
      return void response.write(": cut\n\n", () => response.destroy());
  }
  response.end("data: [DONE]\n\n");
}

function refuse(response: ServerResponse, status: number, headers: Record<string, string> = {}): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify({ error: { code: "refused", message: "refused" } }));
}

function tell(response: ServerResponse, delta: object): void {
  if (!response.destroyed)
    response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: null }] })}\n\n`);
}
