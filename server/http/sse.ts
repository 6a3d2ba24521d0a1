// A run's events as server-sent events, written to the connection without a web stream between: under load that one
// costs more than the events. A stream ends cleanly only when its run is over; whatever else happens, the connection
// is broken off, and the client comes back with Last-Event-ID. For a slow client, the log is the buffer.
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { Context } from "hono";
import type { IncomingMessage, ServerResponse } from "node:http";
import { every, now, turn } from "../clock.ts";
import { dataOf, nameOf } from "../runs/lines.ts";
import type { Numbered } from "../runs/lines.ts";

// One line without a blank one after it: anything more shows as an event in older official clients.
export const HEARTBEAT = ": heartbeat\n";
// A client that takes nothing for so long is cut off; it may come back with Last-Event-ID.
const STALLED_MS = 60_000;
const SENT_HERE = "x-hono-already-sent";

/** What the Node server gives with a request, and what a route leaves to be sent when its headers are known. */
export interface Bindings {
  readonly Bindings: {
    readonly incoming: IncomingMessage;
    readonly outgoing: ServerResponse;
    send?: (headers: Headers | undefined) => void;
  };
}

export interface Streamed<Item> {
  readonly items: AsyncGenerator<Item>;
  readonly render: (item: Item) => string;
  /** Sent in every interval, so that nothing on the way takes the connection for dead. */
  readonly keepAlive: string;
  readonly heartbeatMs: number;
  /** Aborted when the client is gone; ends the items. */
  readonly gone: AbortController;
  /** Called once if the client leaves before the items end; not when this server cuts the connection. */
  readonly onLeave: () => void;
  /** Told why the connection is broken off. */
  readonly onCut: (reason: unknown) => void;
}

/** The response to a request for a stream: its body follows once all middleware has seen it. */
export function streamed<Item>(
  context: Context<Bindings>,
  headers: Record<string, string>,
  stream: Streamed<Item>,
): Response {
  const { outgoing } = context.env;
  context.env.send = (all) => {
    if (all) void pump(outgoing, all, stream);
    else stream.gone.abort(); // something else is answered
  };
  return new Response(null, { headers: { ...headers, [SENT_HERE]: "true" } });
}

/** The headers of server-sent events, such that no proxy keeps them back. */
export const EVENT_STREAM = {
  "content-type": "text/event-stream",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
};

/** Lets a stream begin that a route has answered with. */
export function deliver(response: Response, { incoming, send }: Bindings["Bindings"]): Response {
  if (!send) return response;
  const headers = new Headers(response.headers);
  const isOurs = headers.has(SENT_HERE);
  headers.delete(SENT_HERE);
  const hasBody = isOurs && incoming.method !== "HEAD";
  send(hasBody ? headers : undefined);
  if (hasBody) return RESPONSE_ALREADY_SENT;
  return isOurs ? new Response(null, { headers }) : response;
}

async function pump<Item>(outgoing: ServerResponse, headers: Headers, stream: Streamed<Item>): Promise<void> {
  const { items, render, keepAlive, gone } = stream;
  let isOver = false;
  let isCut = false;
  let fullSince = 0;
  const cut = (reason: unknown): void => {
    isCut = true;
    stream.onCut(reason);
    outgoing.destroy();
  };
  const stopBeating = every(stream.heartbeatMs, () => {
    if (fullSince === 0) outgoing.write(keepAlive);
    else if (now() - fullSince > STALLED_MS) cut(new Error("The client reads nothing."));
  });
  const onClose = (): void => {
    outgoing.removeListener("close", onClose);
    stopBeating();
    gone.abort();
    if (!isOver && !isCut) stream.onLeave();
  };
  outgoing.once("close", onClose);
  // A write may come between the end of a connection and the news of it.
  outgoing.on("error", () => undefined);
  if (outgoing.destroyed) onClose();
  try {
    outgoing.setHeaders(headers).writeHead(200);
    // The first events are there already, as a rule, and go with the headers.
    void turn().then(() => outgoing.flushHeaders());
    for await (const item of items) {
      const text = render(item);
      if (gone.signal.aborted) return;
      if (text === "" || outgoing.write(text)) continue;
      fullSince = now();
      await drained(outgoing, gone.signal);
      fullSince = 0;
    }
    isOver = true;
    outgoing.end();
  } catch (error) {
    if (!gone.signal.aborted) cut(error);
  } finally {
    stopBeating();
  }
}

/** Resolves when the client has taken what was written, or is gone. */
function drained(outgoing: ServerResponse, gone: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      outgoing.removeListener("drain", done);
      gone.removeEventListener("abort", done);
      resolve();
    };
    outgoing.once("drain", done);
    gone.addEventListener("abort", done, { once: true });
    if (gone.aborted) done();
  });
}

/** All events at hand in one piece: many small writes to a socket cost more than anything else here. */
export function frames(events: readonly Numbered[]): string {
  let text = "";
  for (const { seq, entry } of events)
    text += `event: ${nameOf(entry)}\ndata: ${dataOf(entry)}\nid: ${seq}\n\n`;
  return text;
}
