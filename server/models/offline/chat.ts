// POST /v1/chat/completions in OpenAI's shapes, plain and streamed: role frame, content frames, finish
// reason, usage if asked for, [DONE]. Arguments of tools come in pieces too. Usage is exact but for calls of tools, whose
// tokens no provider tells how to count; the answer obeys the caller's token ceiling.
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { z } from "zod";
import { now, sleep } from "../../clock.ts";
import { uuidv7 } from "../../ids.ts";
import { countChatTokens, countTokens } from "../tokens.ts";
import type { Turn } from "./extract.ts";
import type { Script, ScriptedCall } from "./scripts.ts";

const content = z.union([z.string(), z.array(z.looseObject({ text: z.string().optional() }))]).nullish();

export const chatRequest = z.looseObject({
  model: z.string().min(1),
  messages: z.array(z.looseObject({ role: z.string(), content, name: z.string().optional() })).min(1),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().optional() }).nullish(),
  max_tokens: z.number().int().positive().nullish(),
  max_completion_tokens: z.number().int().positive().nullish(),
  tools: z
    .array(
      z.looseObject({ function: z.looseObject({ name: z.string(), parameters: z.unknown().optional() }) }),
    )
    .nullish(),
  tool_choice: z.unknown().optional(),
});
export type ChatRequest = z.infer<typeof chatRequest>;

export interface Reply {
  readonly request: ChatRequest;
  readonly script: Script;
  /** Between two pieces, if the script does not say. */
  readonly delayMs: number;
  /** Aborts when the client is gone or the server stops. */
  readonly signal: AbortSignal;
  /** Told of each piece that is sent. */
  readonly onSaid: (text: string) => void;
}

export const turnsOf = ({ messages }: ChatRequest): Turn[] =>
  messages.map(({ role, content: parts }) => ({
    role: role === "developer" ? "system" : role,
    content: typeof parts === "string" ? parts : (parts ?? []).map(({ text }) => text ?? "").join(""),
  }));

/** Sends the scripted answer; returns when it is sent, was cut on purpose, or the client is gone. */
export async function sendChat(response: ServerResponse, reply: Reply): Promise<void> {
  const { request, script } = reply;
  const ceiling = request.max_completion_tokens ?? request.max_tokens ?? undefined;
  const pieces = await within(script.pieces ?? [], ceiling, request.model);
  const id = `chatcmpl-${uuidv7()}`;
  const created = Math.floor(now() / 1000);
  const isWhole = pieces.length === (script.pieces ?? []).length;
  const calls = isWhole ? (script.calls ?? []).map(toolCall) : [];
  const args = calls.map(({ function: { arguments: text } }) => text);
  const answer: Answer = {
    frame: { id, created, model: request.model },
    pieces,
    calls,
    finish: !isWhole ? "length" : calls.length > 0 ? "tool_calls" : "stop",
    usage: await usageOf(request, [...pieces, ...args].join("")),
  };
  await (request.stream ? sendStream : sendPlain)(response, reply, answer);
}

interface Answer {
  readonly frame: object;
  readonly pieces: readonly string[];
  readonly calls: readonly ToolCall[];
  readonly finish: "stop" | "length" | "tool_calls";
  readonly usage: object;
}

type ToolCall = ReturnType<typeof toolCall>;

const toolCall = ({ name, args }: ScriptedCall) => ({
  id: `call_${uuidv7().replaceAll("-", "")}`,
  type: "function",
  function: { name, arguments: JSON.stringify(args) },
});

/** The deltas that a call is told in: its name, then its arguments in pieces. */
function deltasOf({ id, type, function: { name, arguments: args } }: ToolCall, index: number): object[] {
  const pieces = args.match(/.{1,8}/gsu) ?? [];
  const parts = [
    { index, id, type, function: { name, arguments: "" } },
    ...pieces.map((piece) => ({ index, function: { arguments: piece } })),
  ];
  return parts.map((part) => ({ tool_calls: [part] }));
}

async function sendStream(response: ServerResponse, reply: Reply, answer: Answer): Promise<void> {
  const { script, signal, request } = reply;
  const { frame, usage } = answer;
  const send = async (data: object | string): Promise<void> => {
    const text = typeof data === "string" ? data : JSON.stringify(data);
    if (!signal.aborted && !response.write(`data: ${text}\n\n`)) await once(response, "drain", { signal });
  };
  const choice = async (delta: object, reason: string | null = null): Promise<void> =>
    send({
      ...frame,
      object: "chat.completion.chunk",
      choices: [{ index: 0, delta, finish_reason: reason }],
    });
  response.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
  });
  await choice({ role: "assistant", content: "" });
  for (const piece of answer.pieces) {
    await pause(script.delayMs ?? reply.delayMs, signal);
    if (signal.aborted) return;
    reply.onSaid(piece);
    await choice({ content: piece });
  }
  for (const delta of answer.calls.flatMap(deltasOf)) {
    await pause(script.delayMs ?? reply.delayMs, signal);
    if (signal.aborted) return;
    await choice(delta);
  }
  const ending = script.ending ?? "done";
  // Destroyed only once the words have left: a real cut comes after what was already received.
  if (ending === "cut") return void response.write(": cut\n\n", () => response.destroy());
  if (ending === "stall") return untilAborted(signal);
  if (ending === "bad-json") await send('{"choices": [{');
  if (ending === "done" || ending === "no-done") {
    await choice({}, answer.finish);
    if (request.stream_options?.include_usage) {
      await send({ ...frame, object: "chat.completion.chunk", choices: [], usage });
    }
  }
  if (ending === "done") await send("[DONE]");
  response.end();
}

async function sendPlain(response: ServerResponse, reply: Reply, answer: Answer): Promise<void> {
  const { script, signal } = reply;
  reply.onSaid(answer.pieces.join(""));
  if (script.ending === "cut") return void response.destroy();
  if (script.ending === "stall") return untilAborted(signal);
  const { calls } = answer;
  const text = answer.pieces.join("");
  const message = {
    role: "assistant",
    content: text === "" && calls.length > 0 ? null : text,
    refusal: null,
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
  };
  const body = {
    ...answer.frame,
    object: "chat.completion",
    choices: [{ index: 0, message, finish_reason: answer.finish, logprobs: null }],
    usage: answer.usage,
  };
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
}

async function usageOf(request: ChatRequest, answer: string): Promise<object> {
  const named = turnsOf(request).map(({ role, content: text }, index) => {
    return { role, content: text, name: request.messages[index]?.name };
  });
  const prompt = await countChatTokens(named, request.model);
  const completion = await countTokens(answer, request.model);
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion };
}

/** As many of the pieces as fit the ceiling. */
async function within(
  pieces: readonly string[],
  ceiling: number | undefined,
  model: string,
): Promise<readonly string[]> {
  const fits = async (count: number): Promise<boolean> =>
    ceiling === undefined || (await countTokens(pieces.slice(0, count).join(""), model)) <= ceiling;
  if (await fits(pieces.length)) return pieces;
  let [low, high] = [0, pieces.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (await fits(middle)) low = middle;
    else high = middle;
  }
  return pieces.slice(0, low);
}

const pause = async (ms: number, signal: AbortSignal): Promise<void> =>
  ms > 0 ? sleep(ms, signal) : undefined;

export async function untilAborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}
