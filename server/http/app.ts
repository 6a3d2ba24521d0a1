// Builds the app: order of middleware, routes, and the one place where an error becomes an answer.
// Errors are plain text with the message alone, because official clients match it; the stable code is a header.
import { Hono } from "hono";
import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import { AppError, BodyTooLarge, InputInvalid, messageOf } from "../errors.ts";
import type { Engine } from "../runs/engine.ts";
import { assistantRoutes } from "./assistants.ts";
import { crossOrigin } from "./cors.ts";
import { cronRoutes } from "./crons.ts";
import { healthRoutes } from "./health.ts";
import { protocolRoutes } from "./protocol.ts";
import { pruneRoutes } from "./prune.ts";
import { runRoutes } from "./runs.ts";
import { deliver } from "./sse.ts";
import type { Bindings } from "./sse.ts";
import { storeRoutes } from "./store.ts";
import { threadSearchRoutes } from "./thread-search.ts";
import { threadRoutes } from "./threads.ts";

export interface AppOptions {
  readonly maxBodyBytes: number;
  readonly corsOrigins: readonly string[];
  readonly heartbeatMs: number;
  readonly version: string;
  readonly langgraphVersion: string;
}

/** Answers a request that came with these bindings of the Node server. */
export type Fetch = (request: Request, bindings: Bindings["Bindings"]) => Promise<Response>;

export function buildApp(engine: Engine, options: AppOptions): Fetch {
  const app = new Hono<Bindings>();
  app.use(crossOrigin(options.corsOrigins));
  const onError = (): never => {
    throw new BodyTooLarge(options.maxBodyBytes);
  };
  app.use(bodyLimit({ maxSize: options.maxBodyBytes, onError }));
  app.route("/", healthRoutes(engine, options));
  app.route("/", assistantRoutes(engine));
  app.route("/", threadRoutes(engine));
  app.route("/", threadSearchRoutes(engine));
  app.route("/", cronRoutes(engine, engine.egress));
  app.route("/", pruneRoutes(engine));
  app.route("/", storeRoutes(engine));
  app.route("/", protocolRoutes(engine, options));
  app.route("/", runRoutes(engine, options));
  app.notFound((context) => context.text(`No route ${context.req.method} ${context.req.path}`, 404));
  app.onError((error, context) => answer(engine, error, context));
  return async (request, bindings) => deliver(await app.fetch(request, bindings), bindings);
}

function answer(engine: Engine, error: Error, context: Context): Response {
  if (error instanceof InputInvalid && error.issues.length > 0) {
    context.header("X-Holdfast-Code", error.code);
    return context.json({ success: false, error: { issues: error.issues, name: "ZodError" } }, 400);
  }
  const route = `${context.req.method} ${context.req.path}`;
  if (error instanceof AppError) {
    if (error.status >= 500)
      engine.log[error.retryable ? "warn" : "error"]("request.failed", {
        route,
        code: error.code,
        reason: error.message,
      });
    const headers = {
      "content-type": "text/plain; charset=UTF-8",
      "X-Holdfast-Code": error.code,
      // The rest of the body is not read: the client must not send its next request after it.
      ...(error instanceof BodyTooLarge ? { connection: "close" } : {}),
    };
    return new Response(error.message, { status: error.status, headers });
  }
  if (context.req.raw.signal.aborted) {
    engine.log.debug("request.abandoned", { route });
    return context.body(null, 400); // nobody is there to read it
  }
  engine.log.error("request.failed", { route, reason: messageOf(error), stack: error.stack });
  return context.text("Internal server error", 500, { "X-Holdfast-Code": "internal" });
}
