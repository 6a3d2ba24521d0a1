// Routes of runs on a thread: stream, wait, read, and resume a stream.
import { Hono } from "hono";
import type { Context } from "hono";
import type { ServerResponse } from "node:http";
import { InputInvalid, messageOf } from "../errors.ts";
import { createRun, getRun } from "../runs/create.ts";
import type { AcceptedRun } from "../runs/create.ts";
import type { Engine } from "../runs/engine.ts";
import { execute, RunCancelled } from "../runs/execute.ts";
import { follow } from "../runs/follow.ts";
import type { Followed } from "../runs/follow.ts";
import type { RunState } from "../runs/run.ts";
import type { RunRow } from "../storage/runs.ts";
import { readBody, refuseUnstorable } from "./ingress.ts";
import { check, checkId, joinQuery, runCreate } from "./schemas.ts";
import { bytesOf, sseResponse } from "./sse.ts";

/** What the Node server gives with a request. */
interface Bindings {
  readonly Bindings: { readonly outgoing: ServerResponse };
}

export function runRoutes(engine: Engine, options: { heartbeatMs: number }): Hono<Bindings> {
  const app = new Hono<Bindings>();

  app.post("/threads/:thread/runs/stream", async (context) => {
    const { run, cancelsOnLeave } = await start(engine, context);
    return stream(run, { after: -1, cancelsOnLeave, context });
  });

  app.get("/threads/:thread/runs/:run/stream", async (context) => {
    const run = await find(engine, context);
    const { cancel_on_disconnect: cancelsOnLeave = false } = check(joinQuery, context.req.query());
    return stream(run, { after: cursorOf(context.req.header("last-event-id")), cancelsOnLeave, context });
  });

  app.post("/threads/:thread/runs/wait", async (context) => {
    const { run, cancelsOnLeave } = await start(engine, context);
    const { events, ...held } = reading(run, { after: -1, cancelsOnLeave, context });
    const body = bytesOf(lastValues(events), { ...held, render: String, keepAlive: "\n" });
    return new Response(body, { headers: { "content-type": "application/json", ...locations(run) } });
  });

  app.get("/threads/:thread/runs/:run", async (context) => context.json(toRun(await find(engine, context))));

  /** What a response needs to read a run: its events, and what to do when the client or the stream goes. */
  function reading(run: Place, { after, cancelsOnLeave, context }: From) {
    const gone = new AbortController();
    return {
      heartbeatMs: options.heartbeatMs,
      gone,
      events: follow(engine, run.run_id, { after, signal: gone.signal }),
      onLeave: (): void => {
        if (cancelsOnLeave) engine.live.cancel(run.run_id, new RunCancelled("The client left."));
      },
      breakOff: (reason: unknown): void => {
        engine.log.warn("stream.broken", { run_id: run.run_id, reason: messageOf(reason) });
        context.env.outgoing.destroy();
      },
    };
  }

  function stream(run: Place, from: From): Response {
    const { events, ...held } = reading(run, from);
    return sseResponse(events, locations(run, from.cancelsOnLeave), held);
  }

  return app;
}

type Place = Pick<RunRow, "run_id" | "thread_id">;

interface From {
  /** The last event the client has; -1 for none. */
  readonly after: number;
  readonly cancelsOnLeave: boolean;
  readonly context: Context<Bindings>;
}

async function start(
  engine: Engine,
  context: Context<Bindings>,
): Promise<{ run: AcceptedRun; cancelsOnLeave: boolean }> {
  const threadId = checkId("thread", context.req.param("thread") ?? "");
  const request = check(runCreate, await readBody(context));
  refuseUnstorable("metadata", request.metadata);
  const run = await createRun(engine, threadId, request);
  execute(engine, run);
  return { run, cancelsOnLeave: request.on_disconnect === "cancel" };
}

function find(engine: Engine, context: Context<Bindings>): Promise<RunRow> {
  const threadId = checkId("thread", context.req.param("thread") ?? "");
  return getRun(engine, threadId, checkId("run", context.req.param("run") ?? ""));
}

/** The last `values` of a run as one JSON object: with interrupts if it stopped at one, or its error. */
async function* lastValues(events: AsyncGenerator<Followed>): AsyncGenerator<string> {
  let values: Record<string, unknown> = {};
  for await (const { event, data } of events) {
    if (event === "error") values = { __error__: JSON.parse(data) };
    if (event !== "values") continue;
    const latest: unknown = JSON.parse(data);
    if (typeof latest !== "object" || latest === null) continue;
    values = "__interrupt__" in latest ? { ...values, ...latest } : { ...latest };
  }
  yield JSON.stringify(values);
}

/** Where a run is, and where its stream goes on after a cut: there, leaving still cancels if it did before. */
function locations(
  { thread_id: thread, run_id: run }: Place,
  cancelsOnLeave = false,
): Record<string, string> {
  const path = `/threads/${thread}/runs/${run}`;
  return {
    "content-location": path,
    location: `${path}/stream${cancelsOnLeave ? "?cancel_on_disconnect=1" : ""}`,
  };
}

function cursorOf(header: string | undefined): number {
  if (header === undefined || header === "") return -1;
  if (/^(-1|\d{1,9})$/.test(header)) return Number(header);
  throw new InputInvalid("Last-Event-ID must be the number of an event, or -1 for all of them.");
}

const PENDING: ReadonlySet<RunState> = new Set(["delayed", "blocked", "ready"]);

function toRun(run: RunRow): object {
  const { run_id, thread_id, assistant_id, metadata, kwargs, created_at, updated_at, multitask, state } = run;
  return {
    run_id,
    thread_id,
    assistant_id,
    created_at,
    updated_at,
    status: PENDING.has(state) ? "pending" : state,
    metadata,
    kwargs,
    multitask_strategy: multitask,
  };
}
