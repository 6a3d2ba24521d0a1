// A run's stream as a client reads it, over however many connections that takes. It comes back the way the official
// client (1.15) does: to the path in `Location`, with the number of the last event it saw, at any instance.
import { now, sleep } from "../../clock.ts";
import { messageOf } from "../../errors.ts";
import type { Random } from "./random.ts";

export interface Frame {
  readonly id: number | undefined;
  readonly event: string;
  readonly data: unknown;
}

export interface StreamOptions {
  /** The base address of an instance to try next. */
  readonly address: () => string;
  readonly random: Random;
  /** How likely the client cuts the line after a frame. */
  readonly cutChance: number;
  /** How long the next event may take; by default longer than any fault. */
  readonly patienceMs?: number;
  /** Told when a stream was ended in order although its run was not over. */
  readonly onShortened: (status: string) => void;
  /** Told of each connection and how it ended. */
  readonly note: (step: string) => void;
}

// Three times the heartbeat of the servers under test, and never below what the official client takes.
const IDLE_MS = 6000;
// Longer than any fault: who gives up earlier sees nothing of what comes after.
const PATIENCE_MS = 90_000;
const ANSWER_MS = 15_000;
const PAUSE_MS = 250;

/** Follows a run to its end, from its first event on. @throws StreamRefused, or an Error when nothing arrives for too long */
export async function* follow(
  path: { threadId: string; runId: string },
  first: Response | undefined,
  options: StreamOptions,
): AsyncGenerator<Frame> {
  const run = `/threads/${path.threadId}/runs/${path.runId}`;
  let location = `${run}/stream`;
  let response = first;
  let lastId: number | undefined;
  const { patienceMs = PATIENCE_MS } = options;
  let until = now() + patienceMs;
  while (now() < until) {
    try {
      response ??= await reopen(options, location, lastId);
      if (!response.ok) await refuse(response);
      location = response.headers.get("location") ?? "/nowhere";
      for await (const frame of framesOf(response, () => now() > until)) {
        until = now() + patienceMs;
        lastId = frame.id ?? lastId;
        yield frame;
        if (options.random.chance(options.cutChance)) throw new Error("The client cut the line.");
      }
      const status = await statusOf(options.address(), run);
      options.note(`ended in order, run ${status}`);
      if (status !== "pending" && status !== "running") return;
      options.onShortened(status);
    } catch (error) {
      // Every other failure is one of the line, and the line is what is broken here on purpose.
      if (error instanceof StreamRefused) throw error;
      options.note(messageOf(error));
    }
    response = undefined;
    await sleep(options.random.between(0, PAUSE_MS));
  }
  throw new Error(`Nothing came for ${patienceMs / 1000} s.`);
}

/** The server answered, and with something that trying again does not change. */
class StreamRefused extends Error {
  readonly status: number;
  constructor(status: number, text: string) {
    super(`The stream was refused with ${status}: ${text}`);
    this.status = status;
  }
}

async function refuse(response: Response): Promise<never> {
  const text = await response.text();
  const isPassing = response.status === 503 || response.status === 429;
  throw isPassing ? new Error(`${response.status}: ${text}`) : new StreamRefused(response.status, text);
}

function reopen(options: StreamOptions, path: string, lastId: number | undefined): Promise<Response> {
  const address = options.address();
  options.note(`${address} after ${lastId ?? "nothing"}`);
  const headers: Record<string, string> = lastId === undefined ? {} : { "last-event-id": String(lastId) };
  return answerOf(address + path, { headers });
}

/** The head of the answer must come in time; its body may take as long as the run. */
export async function answerOf(url: string, init: RequestInit): Promise<Response> {
  const silence = new AbortController();
  const answered = new AbortController();
  void sleep(ANSWER_MS, answered.signal).then(() => answered.signal.aborted || silence.abort());
  try {
    return await fetch(url, { ...init, signal: silence.signal });
  } finally {
    answered.abort();
  }
}

async function statusOf(address: string, run: string): Promise<string> {
  const response = await fetch(address + run, { signal: AbortSignal.timeout(IDLE_MS) });
  if (response.status === 404) return "deleted";
  if (!response.ok) throw new Error(`GET ${run} answered ${response.status}.`);
  return ((await response.json()) as { status: string }).status;
}

/**
 * Frames of one connection. Its caller ends it by leaving the loop.
 * @throws when the connection breaks, falls silent, or is late: alive, but without the next event
 */
export async function* framesOf(response: Response, isLate = (): boolean => false): AsyncGenerator<Frame> {
  if (!response.body) throw new Error("The answer has no body.");
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await readWithin(reader, IDLE_MS);
      if (done) return;
      if (isLate()) throw new Error("The next event is late.");
      text += decoder.decode(value, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const frame = parse(block);
        if (frame) yield frame;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined); // broken already
  }
}

async function readWithin(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  ms: number,
): Promise<{ done: boolean; value?: Uint8Array | undefined }> {
  const over = new AbortController();
  try {
    const read = await Promise.race([reader.read(), sleep(ms, over.signal)]);
    if (!read) throw new Error(`The line was silent for ${ms} ms.`);
    return read;
  } finally {
    over.abort();
  }
}

/** Fields of one frame; undefined for a block of comments only. */
function parse(block: string): Frame | undefined {
  const fields = new Map<string, string>();
  for (const line of block.split("\n")) {
    const [, name = "", value = ""] = /^([^:]*): ?(.*)$/.exec(line) ?? [];
    if (name) fields.set(name, value);
  }
  const event = fields.get("event");
  if (event === undefined) return undefined;
  const id = fields.get("id");
  return {
    id: id === undefined ? undefined : Number(id),
    event,
    data: JSON.parse(fields.get("data") ?? "null") as unknown,
  };
}
