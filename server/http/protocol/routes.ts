// Routes of protocol v2 over HTTP: commands, and a thread's events as a stream that stays open over all its runs.
import { Hono } from "hono";
import type { Context } from "hono";
import { InputInvalid, ServerStopping, UpgradeRequired } from "../../errors.ts";
import { isUuid } from "../../ids.ts";
import type { Engine } from "../../runs/engine.ts";
import { cursorOf } from "../../runs/protocol/entries.ts";
import type { Shown } from "../../runs/protocol/entries.ts";
import { isChannel, isWanted } from "../../runs/protocol/filter.ts";
import type { Filter } from "../../runs/protocol/filter.ts";
import { followThread, watch } from "../../runs/protocol/follow-thread.ts";
import type { Following } from "../../runs/protocol/follow-thread.ts";
import { guardFollowing } from "../callers/auth.ts";
import { readCommand, run } from "./commands.ts";
import { readBody } from "../edge/ingress.ts";
import { eventStream } from "./schemas.ts";
import { check } from "../schemas.ts";
import { EVENT_STREAM, streamed, watched } from "../streams/sse.ts";
import type { Bindings } from "../bindings.ts";

const MAX_THREAD_ID = 255;

export function protocolRoutes(engine: Engine, { heartbeatMs }: { heartbeatMs: number }): Hono<Bindings> {
  const app = new Hono<Bindings>();

  app.post("/threads/:thread/commands", async (context) => {
    const threadId = threadIdOf(context.req.param("thread"));
    const text = await context.req.text();
    const asked = readCommand(await readBody(context));
    const idemKey = context.req.header("idempotency-key");
    return context.json(await run(engine, asked, { threadId, text, context, idemKey }));
  });

  // Whoever gets past all middleware, the user's own too, may open a WebSocket.
  app.get("/threads/:thread/stream/events", async (context) => {
    const threadId = threadIdOf(context.req.param("thread"));
    const mayFollow = await guardFollowing({ engine, context }, threadId);
    const { welcome } = context.env;
    if (!welcome) throw new UpgradeRequired();
    welcome({ threadId, context, mayFollow });
    return context.body(null, 204);
  });

  // The specification names the shorter path, the official client calls the longer one.
  for (const path of ["/threads/:thread/stream/events", "/threads/:thread/stream"])
    app.post(path, async (context) => {
      const threadId = threadIdOf(context.req.param("thread") ?? "");
      const { since, since_event_id: sinceEvent, ...filter } = check(eventStream, await readBody(context));
      refuseUnknown(filter);
      const mayFollow = await guardFollowing({ engine, context }, threadId);
      if (engine.stopping.aborted) throw new ServerStopping();
      // Who has the headers sees every run that is accepted from then on.
      await watch(engine, threadId);
      const from = since ?? cursor(sinceEvent ?? context.req.header("last-event-id"));
      return stream(context, threadId, filter, { since: from, mayFollow });
    });

  function stream(
    context: Context<Bindings>,
    threadId: string,
    filter: Filter,
    from: Omit<Following, "signal">,
  ): Response {
    const gone = new AbortController();
    const items = followThread(engine, threadId, { ...from, signal: gone.signal });
    return streamed(context, EVENT_STREAM, {
      items,
      render: (events: Shown[]) => framesOf(events, filter),
      ...watched(engine.log, threadId, { heartbeatMs, gone }),
    });
  }

  return app;
}

/** Any text names a thread here; one that looks like a UUID is the one that the other routes know. */
export function threadIdOf(text: string): string {
  if (isUuid(text)) return text.toLowerCase();
  // It is written to the database, and told to other instances between commas and blanks.
  if (text.length <= MAX_THREAD_ID && /^[\w.:~@-]+$/.test(text)) return text;
  throw new InputInvalid(
    `Invalid thread ID: use a UUID, or up to ${MAX_THREAD_ID} letters, digits and the characters _ - . : ~ @.`,
  );
}

/** A client may know channels that this server does not; it must not ask for those alone. */
export function refuseUnknown({ channels }: Filter): void {
  if (channels.some(isChannel)) return;
  throw new InputInvalid(
    "channels names none that exists. Use values, updates, messages, tools, lifecycle, input, checkpoints, tasks, custom or custom:<name>.",
  );
}

function framesOf(events: readonly Shown[], filter: Filter): string {
  let text = "";
  for (const event of events) {
    if (isWanted(event, filter))
      text += `event: ${event.method}\ndata: ${event.json()}\nid: ${event.sseId}\n\n`;
  }
  return text;
}

function cursor(text: string | undefined): number | undefined {
  if (text === undefined || text === "") return undefined;
  const seq = cursorOf(text);
  if (seq === undefined)
    throw new InputInvalid("The cursor must be the id or the number of an event of this thread.");
  return seq;
}
