// A run's events as server-sent events. A stream ends cleanly only when its run is over; whatever else
// happens, the connection is broken off, and the client comes back with Last-Event-ID.
// Frames are read when the client takes them: for a slow one, the log is the buffer.
import { sleep } from "../clock.ts";
import type { Followed } from "../runs/follow.ts";

const encoder = new TextEncoder();
// One line without a blank one after it: anything more shows as an event in older official clients.
const BEAT = Symbol("beat");
const HEARTBEAT = ": heartbeat\n";

export interface StreamOptions {
  readonly heartbeatMs: number;
  /** Aborted when the client is gone; ends the reading of events. */
  readonly gone: AbortController;
  /** Called once if the client leaves before the run is over. */
  readonly onLeave: () => void;
  /** Cuts the connection, so that the client notices that the stream is not complete. */
  readonly breakOff: (reason: unknown) => void;
}

/** The response to a request for a run's stream. `location` is where the client may resume. */
export function sseResponse(
  events: AsyncGenerator<Followed>,
  headers: Record<string, string>,
  options: StreamOptions,
): Response {
  return new Response(bytesOf(events, { ...options, render: frame, keepAlive: HEARTBEAT }), {
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
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const text = await read();
        if (gone.signal.aborted) return;
        if (text !== undefined) controller.enqueue(encoder.encode(text));
        else {
          isOver = true;
          controller.close();
          gone.abort(); // the timer of the interval
        }
      } catch (error) {
        options.breakOff(error);
        controller.close();
      }
    },
    async cancel() {
      gone.abort();
      if (!isOver) options.onLeave();
      await source.return(undefined);
    },
  });
}

const frame = ({ seq, event, data }: Followed): string => `event: ${event}\ndata: ${data}\nid: ${seq}\n\n`;
