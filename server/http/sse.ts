// A run's events as server-sent events. A stream ends cleanly only when its run is over; whatever else
// happens, the connection is broken off, and the client comes back with Last-Event-ID.
// Frames are read when the client takes them: for a slow one, the log is the buffer.
import { every, now, sleep } from "../clock.ts";
import { dataOf, nameOf } from "../runs/lines.ts";
import type { Numbered } from "../runs/lines.ts";

const encoder = new TextEncoder();
// One line without a blank one after it: anything more shows as an event in older official clients.
const BEAT = Symbol("beat");
const HEARTBEAT = ": heartbeat\n";
// A client that takes nothing for so long is cut off; it may come back with Last-Event-ID.
const STALLED_MS = 60_000;
const STALL_CHECK_MS = 10_000;

export interface StreamOptions {
  readonly heartbeatMs: number;
  /** Aborted when the client is gone; ends the reading of events. */
  readonly gone: AbortController;
  /** Called once if the client leaves before the run is over; not when this server cuts the connection. */
  readonly onLeave: () => void;
  /** Cuts the connection, so that the client notices that the stream is not complete. */
  readonly breakOff: (reason: unknown) => void;
}

/** The response to a request for a run's stream. `location` is where the client may resume. */
export function sseResponse(
  events: AsyncGenerator<Numbered[]>,
  headers: Record<string, string>,
  options: StreamOptions,
): Response {
  return new Response(bytesOf(events, { ...options, render: frames, keepAlive: HEARTBEAT }), {
    headers: {
      "content-type": "text/event-stream",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
      ...headers,
    },
  });
}

/** Bytes of what a source yields, with a sign of life in every interval. */
export function bytesOf<Item>(
  source: AsyncGenerator<Item>,
  options: StreamOptions & { render: (item: Item) => string; keepAlive: string },
): ReadableStream<Uint8Array> {
  const { heartbeatMs, gone, render, keepAlive } = options;
  let isCut = false;
  const cut = (reason: unknown): void => {
    isCut = true;
    options.breakOff(reason);
    gone.abort();
  };
  let pending: Promise<IteratorResult<Item>> | undefined;
  // One timer per interval, however many events pass meanwhile.
  let beat: Promise<typeof BEAT> | undefined;
  let isOver = false;
  /** What to send next, after at most one interval; undefined once the source is at its end. */
  const read = async (): Promise<string | undefined> => {
    pending ??= source.next();
    beat ??= sleep(heartbeatMs, gone.signal).then(() => BEAT);
    const first = await Promise.race([beat, pending]);
    if (first === BEAT) {
      beat = undefined;
      return keepAlive;
    }
    pending = undefined;
    return first.done ? undefined : render(first.value);
  };
  let takenAt = 0;
  const stopWatching = every(STALL_CHECK_MS, () => {
    if (takenAt > 0 && now() - takenAt > STALLED_MS) cut(new Error("The client reads nothing."));
  });
  gone.signal.addEventListener("abort", stopWatching, { once: true });
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      takenAt = 0;
      try {
        const text = await read();
        takenAt = now();
        if (gone.signal.aborted) return;
        if (text !== undefined) controller.enqueue(encoder.encode(text));
        else {
          isOver = true;
          controller.close();
          gone.abort(); // the timer of the interval
        }
      } catch (error) {
        cut(error);
        controller.close();
      }
    },
    async cancel() {
      gone.abort();
      if (!isOver && !isCut) options.onLeave();
      await source.return(undefined);
    },
  });
}

/** All events at hand in one piece: many small writes to a socket cost more than anything else here. */
function frames(events: readonly Numbered[]): string {
  let text = "";
  for (const { seq, entry } of events)
    text += `event: ${nameOf(entry)}\ndata: ${dataOf(entry)}\nid: ${seq}\n\n`;
  return text;
}
