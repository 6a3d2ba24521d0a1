// A run's events as server-sent events, written to the connection without a web stream between: under load that one
// costs more than the events. A stream ends cleanly only when its run is over; whatever else happens, the connection
// is broken off, and the client comes back with Last-Event-ID. For a slow client, the log is the buffer.
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import type { Context } from "hono";
import type { ServerResponse } from "node:http";
import { every, turn, uptime } from "../../clock.ts";
import { messageOf } from "../../errors.ts";
import { dataOf, nameOf } from "../../runs/log/lines.ts";
import type { Numbered } from "../../runs/log/lines.ts";
import { Reveal } from "../../runs/reveal.ts";
import type { Log } from "../../telemetry/log.ts";
import { SENT_HERE, revealKey } from "../bindings.ts";
import type { Answer, Bindings } from "../bindings.ts";
import { asBody, asStream } from "./body.ts";
import type { Streamed } from "./body.ts";

// One line without a blank one after it: anything more shows as an event in older official clients.
export const HEARTBEAT = ": heartbeat\n";
// A client that takes nothing for so long is cut off; it may come back with Last-Event-ID.
const STALLED_MS = 60_000;

/** What all streams of a whole thread have in common: who leaves ends nothing, others may watch. */
export const watched = (
  log: Log,
  threadId: string,
  { heartbeatMs, gone }: Pick<Streamed<unknown>, "heartbeatMs" | "gone">,
): Omit<Streamed<unknown>, "items" | "render"> => ({
  keepAlive: HEARTBEAT,
  heartbeatMs,
  gone,
  onLeave: () => undefined,
  onCut: (reason) => log.warn("stream.broken", { thread_id: threadId, reason: messageOf(reason) }),
});

/** The response to a request for a stream: its body follows once all middleware has seen it. */
export function streamed<Item>(
  context: Context<Bindings>,
  headers: Record<string, string>,
  stream: Streamed<Item>,
): Response {
  const reveal: unknown = context.get(revealKey as never);
  return reveal instanceof Reveal
    ? begun(context, headers, revealed(stream, reveal))
    : begun(context, headers, stream);
}

function begun<Item>(
  { env }: Context<Bindings>,
  headers: Record<string, string>,
  stream: Streamed<Item>,
): Response {
  env.send = (answer) => {
    if (!answer) stream.gone.abort(); // something else is answered
    else if (answer.rewritten) void pump(env.outgoing, answer, { ...stream, ...asStream(answer.rewritten) });
    else void pump(env.outgoing, answer, stream);
  };
  env.body = env.mayBeRewritten ? asBody(stream) : null;
  return new Response(env.body, { headers: { ...headers, [SENT_HERE]: "true" } });
}

/** The same stream as its reader may see it. A token stands whole in one event. */
function revealed<Item>(stream: Streamed<Item>, reveal: Reveal): Streamed<string | Uint8Array> {
  const { items, render } = stream;
  async function* shown(): AsyncGenerator<string | Uint8Array> {
    for await (const item of items) {
      const piece = render(item);
      yield typeof piece === "string" ? await reveal.text(piece) : piece;
    }
  }
  return { ...stream, items: shown(), render: (piece) => piece };
}

/** The headers of server-sent events, such that no proxy keeps them back. */
export const EVENT_STREAM = {
  "content-type": "text/event-stream",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
};

/** Lets a stream begin that a route has answered with. */
export function deliver(response: Response, { incoming, send, body }: Bindings["Bindings"]): Response {
  if (!send) return response;
  const headers = new Headers(response.headers);
  const isOurs = headers.has(SENT_HERE);
  headers.delete(SENT_HERE);
  const { status } = response;
  const isRewritten = isOurs && body && response.body !== body;
  const rewritten = isRewritten ? response.body : undefined;
  if (!isOurs || incoming.method === "HEAD" || rewritten === null) {
    send(undefined);
    return isOurs ? new Response(null, { status, headers }) : response;
  }
  send({ status, headers, rewritten });
  return RESPONSE_ALREADY_SENT;
}

async function pump<Item>(outgoing: ServerResponse, answer: Answer, stream: Streamed<Item>): Promise<void> {
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
    if (fullSince === 0 && keepAlive !== "") outgoing.write(keepAlive);
    else if (fullSince > 0 && uptime() - fullSince > STALLED_MS) cut(new Error("The client reads nothing."));
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
    outgoing.setHeaders(answer.headers).writeHead(answer.status);
    // The first events are there already, as a rule, and go with the headers.
    void turn().then(() => outgoing.flushHeaders());
    for await (const item of items) {
      const text = render(item);
      if (gone.signal.aborted) return;
      if (text.length === 0 || outgoing.write(text)) continue;
      fullSince = uptime();
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
