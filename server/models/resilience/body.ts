// Bodies of answers: the beginning of a refusal, the head of an answer up to its first piece of text, and the rest of it,
// read only when it is read from. What was read is handed on byte for byte.
import { Beginning } from "./begun.ts";
import type { Watch } from "./watch.ts";

export type Bytes = Uint8Array<ArrayBuffer>;
export type Reader = ReadableStreamDefaultReader<Bytes>;

/** How a body ended. `left`: its reader or its caller did not want the rest. */
export type End = "whole" | "broken" | "left";

/** What came is no answer. The message is for operators, and holds nothing of the provider. */
export class Broken extends Error {}

const MAX_REFUSAL_BYTES = 64 * 1024;
const MAX_HEAD_BYTES = 64 * 1024;
const MAX_WHOLE_BYTES = 64 * 1024 * 1024;

/** As much of a refusal as a client could need to understand it; what cannot be read is left out. */
export async function readSome(reader: Reader): Promise<Bytes> {
  const parts: Bytes[] = [];
  try {
    for (let size = 0; size < MAX_REFUSAL_BYTES;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value.subarray(0, MAX_REFUSAL_BYTES - size));
      size += value.length;
    }
  } catch {
    // The status says enough.
  }
  void reader.cancel().catch(() => undefined);
  return Buffer.concat(parts);
}

/** What came up to the first piece of text. @throws Broken if there is none */
export async function readHead(reader: Reader, signal: AbortSignal): Promise<Bytes[]> {
  const parts: Bytes[] = [];
  const beginning = new Beginning();
  for (let size = 0; size < MAX_HEAD_BYTES;) {
    const { done, value } = await reader.read();
    signal.throwIfAborted();
    const verdict = done ? beginning.end() : beginning.read(value);
    if (verdict === "broken") throw new Broken("the stream broke before its first token");
    if (value) parts.push(value);
    if (verdict === "begun") return parts;
    size += value?.length ?? 0;
  }
  return parts;
}

/** An answer in one piece. @throws Broken if it is larger than 64 MiB */
export async function readWhole(reader: Reader, signal: AbortSignal): Promise<Bytes> {
  const parts: Bytes[] = [];
  for (let size = 0; size <= MAX_WHOLE_BYTES;) {
    const { done, value } = await reader.read();
    signal.throwIfAborted();
    if (done) return Buffer.concat(parts);
    parts.push(value);
    size += value.length;
  }
  throw new Broken(`the answer is larger than ${MAX_WHOLE_BYTES} bytes`);
}

export interface Rest {
  readonly head: Bytes[];
  readonly reader: Reader;
  readonly watch: Watch;
  /** Stops the call; it is aborted from outside, too. */
  readonly stop: AbortController;
  /** Told once. */
  readonly onEnd: (end: End) => void;
  /** Whether it was the model that was too slow when the call was stopped. */
  readonly isLate: () => boolean;
}

/** Holds at most one chunk: a slow reader slows the provider. */
export function replay({ head, reader, watch, stop, onEnd, isLate }: Rest): ReadableStream<Bytes> {
  let isOver = false;
  const end = (how: End): void => {
    isOver = true;
    onEnd(how);
  };
  const pull = async (body: ReadableStreamDefaultController<Bytes>): Promise<void> => {
    const next = head.shift();
    if (next) return body.enqueue(next);
    watch.wait();
    try {
      const { done, value } = await reader.read();
      watch.heard();
      if (isOver) return;
      if (!done) return body.enqueue(value);
      end("whole");
      body.close();
    } catch (error) {
      if (isOver) return;
      end("broken");
      body.error(error);
    }
  };
  const start = (body: ReadableStreamDefaultController<Bytes>): void => {
    stop.signal.addEventListener("abort", () => {
      if (isOver) return;
      end(isLate() ? "broken" : "left");
      body.error(stop.signal.reason);
    });
  };
  const cancel = (reason: unknown): void => {
    if (!isOver) end("left");
    stop.abort(reason);
  };
  return new ReadableStream<Bytes>({ start, pull, cancel }, { highWaterMark: 0 });
}
