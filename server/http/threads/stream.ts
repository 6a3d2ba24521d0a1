// The stream of a thread for legacy clients: what the streams of its runs show, run after run. It stays open between
// them, until the client leaves or the thread is deleted.
import { Hono } from "hono";
import type { z } from "zod";
import { ServerStopping } from "../../errors.ts";
import type { Engine } from "../../runs/engine.ts";
import { findBegin, followRuns, idOf, readPlace } from "../../runs/follow-runs.ts";
import type { EventsOfRun } from "../../runs/follow-runs.ts";
import { dataOf, nameOf } from "../../runs/log/lines.ts";
import { guardThread } from "../callers/auth.ts";
import { threadIdOf } from "../protocol/routes.ts";
import { check, threadStreamQuery } from "../schemas.ts";
import { EVENT_STREAM, streamed, watched } from "../streams/sse.ts";
import type { Bindings } from "../bindings.ts";

type Mode = NonNullable<z.infer<typeof threadStreamQuery>["stream_mode"]>[number];

const askedModes = threadStreamQuery.transform(
  ({ stream_mode: one, stream_modes: other }): readonly Mode[] => {
    const asked = [...(one ?? []), ...(other ?? [])];
    return asked.length > 0 ? asked : ["run_modes"];
  },
);

export function threadStreamRoutes(engine: Engine, { heartbeatMs }: { heartbeatMs: number }): Hono<Bindings> {
  const app = new Hono<Bindings>();

  app.get("/threads/:thread/stream", async (context) => {
    const threadId = threadIdOf(context.req.param("thread"));
    const modes = check(askedModes, context.req.queries());
    const cursor = context.req.header("last-event-id") || context.req.query("last_event_id");
    await guardThread({ engine, context }, "read", threadId);
    if (engine.stopping.aborted) throw new ServerStopping();
    // Who has the headers sees every run that is accepted from then on.
    const begin = await findBegin(engine, threadId, cursor ? readPlace(cursor) : undefined);
    const gone = new AbortController();
    const tellsState = modes.includes("state_update");
    const headers = { ...EVENT_STREAM, location: locationOf(threadId, modes, idOf(begin)) };
    return streamed(context, headers, {
      items: followRuns(engine, threadId, { begin, tellsState, signal: gone.signal }),
      render: (events: EventsOfRun) => framesOf(events, modes),
      ...watched(engine.log, threadId, { heartbeatMs, gone }),
    });
  });

  return app;
}

function framesOf({ ordinal, events }: EventsOfRun, modes: readonly Mode[]): string {
  let text = "";
  for (const { seq, entry } of events) {
    const name = nameOf(entry);
    if (isWanted(name, modes))
      text += `event: ${name}\ndata: ${dataOf(entry)}\nid: ${idOf({ ordinal, position: seq })}\n\n`;
  }
  return text;
}

/** A run begins and ends with metadata: the first name it and its attempt, the last say that it is done. */
function isWanted(name: string, modes: readonly Mode[]): boolean {
  if (name === "state_update") return modes.includes("state_update");
  return modes.includes("run_modes") || (name === "metadata" && modes.includes("lifecycle"));
}

/** Where the stream goes on after a cut, also before its first event. */
function locationOf(threadId: string, modes: readonly Mode[], from: string): string {
  const asked = modes.map((mode) => `stream_mode=${mode}`).join("&");
  return `/threads/${encodeURIComponent(threadId)}/stream?${asked}&last_event_id=${from}`;
}
