// Bodies of answers: the beginning of a refusal, the head of an answer up to its first piece of text, and the rest of it,
// read only when it is read from. What was read is handed on byte for byte.
import type { Bytes, Source } from "../answer-body.ts";
import { Beginning } from "./begun.ts";
import type { Watch } from "./watch.ts";

/** How a body ended. `left`: its reader or its caller did not want the rest. */
export type End = "whole" | "broken" | "left";

/** What came is no answer. The message is for operators, and holds nothing of the provider. */
export class Broken extends Error {}

const MAX_REFUSAL_BYTES = 64 * 1024;
const MAX_HEAD_BYTES = 64 * 1024;
const MAX_WHOLE_BYTES = 64 * 1024 * 1024;

/** As much of a refusal as a client could need to understand it; what cannot be read is left out. */
export async function readSome(source: Source): Promise<Bytes> {
  const parts: Bytes[] = [];
  try {
    for (let size = 0; size < MAX_REFUSAL_BYTES;) {
      const { value } = await source.read();
      if (!value) break;
      parts.push(value.subarray(0, MAX_REFUSAL_BYTES - size));
      size += value.length;
    }
  } catch {
    // The status says enough.
  }
  void source.cancel().catch(() => undefined);
  return Buffer.concat(parts);
}

/** What came up to the first piece of text. @throws Broken if there is none */
export async function readHead(source: Source, signal: AbortSignal): Promise<Bytes[]> {
  const parts: Bytes[] = [];
  const beginning = new Beginning();
  for (let size = 0; size < MAX_HEAD_BYTES;) {
    const { value } = await source.read();
    signal.throwIfAborted();
    const verdict = value ? beginning.read(value) : beginning.end();
    if (verdict === "broken") throw new Broken("the stream broke before its first token");
    if (value) parts.push(value);
    if (verdict === "begun") return parts;
    size += value?.length ?? 0;
  }
  return parts;
}

/** An answer in one piece. @throws Broken if it is larger than 64 MiB */
export async function readWhole(source: Source, signal: AbortSignal): Promise<Bytes> {
  const parts: Bytes[] = [];
  for (let size = 0; size <= MAX_WHOLE_BYTES;) {
    const { value } = await source.read();
    signal.throwIfAborted();
    if (!value) return Buffer.concat(parts);
    parts.push(value);
    size += value.length;
  }
  throw new Broken(`the answer is larger than ${MAX_WHOLE_BYTES} bytes`);
}

export interface Rest {
  readonly head: Bytes[];
  readonly source: Source;
  readonly watch: Watch;
  /** Stops the call; it is aborted from outside, too. */
  readonly stop: AbortController;
  /** Told once. */
  readonly onEnd: (end: End) => void;
  /** Whether it was the model that was too slow when the call was stopped. */
  readonly isLate: () => boolean;
}

/** Holds nothing back: a slow reader slows the provider. Its caller ends it at once, whatever the provider does. */
export function replay({ head, source, watch, stop, onEnd, isLate }: Rest): Source {
  const { signal } = stop;
  let isOver = false;
  let isGivenUp = false;
  let giveUp: ((reason: unknown) => void) | undefined;
  const end = (how: End): void => {
    isOver = true;
    onEnd(how);
  };
  const onAbort = (): void => {
    if (isOver) return;
    end(isLate() ? "broken" : "left");
    isGivenUp = true;
    giveUp?.(signal.reason);
  };
  signal.addEventListener("abort", onAbort);
  // It may have aborted between the last read of the head and now.
  if (signal.aborted) onAbort();
  const next = (): ReturnType<Source["read"]> =>
    new Promise((resolve, reject) => {
      giveUp = reject;
      source.read().then(resolve, reject);
    });
  return {
    read: async () => {
      if (isGivenUp) throw signal.reason;
      if (isOver) return { done: true };
      const value = head.shift();
      if (value) return { done: false, value };
      watch.wait();
      try {
        const piece = await next();
        watch.heard();
        if (!piece.value && !isOver) end("whole");
        return piece;
      } catch (error) {
        if (!isOver) end("broken");
        throw error;
      }
    },
    cancel: async (reason) => {
      if (!isOver) end("left");
      // Not waited for: who listens in may read on to the bill, and the connection serves the next call then.
      void source.cancel(reason).catch(() => undefined);
    },
  };
}
