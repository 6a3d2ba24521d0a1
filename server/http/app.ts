// Builds the app: order of middleware, routes, and the one place where an error becomes an answer.
// Errors are plain text with the message alone, because official clients match it; the stable code is a header.
import { Hono } from "hono";
import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import { AppError, AuthRefused, BodyTooLarge, InputInvalid, RateLimited, messageOf } from "../errors.ts";
import type { Authority } from "../runs/auth.ts";
import type { Engine } from "../runs/engine.ts";
import type { GraphsFile } from "../runs/graph/graphs.ts";
import { OPEN, PROBES, checkAccess } from "./callers/access.ts";
import { assistantRoutes } from "./assistants.ts";
import { authentication } from "./callers/auth.ts";
import { budgetRoutes } from "./budgets.ts";
import { crossOrigin } from "./edge/cors.ts";
import type { Policy } from "./edge/cors.ts";
import { cronRoutes } from "./crons.ts";
import { mayAnswer, mountCustomApp } from "./edge/custom-app.ts";
import type { CustomApp } from "./edge/custom-app.ts";
import { docsRoutes } from "./web/docs-page.ts";
import { metaRoutes, probeRoutes } from "./health.ts";
import type { Limits } from "./callers/limits.ts";
import { protocolRoutes } from "./protocol/routes.ts";
import { pruneRoutes } from "./threads/prune.ts";
import { revealing } from "./callers/reveal.ts";
import { runRoutes } from "./runs.ts";
import { deliver } from "./streams/sse.ts";
import type { Bindings, Fetch } from "./bindings.ts";
import { storeRoutes } from "./store.ts";
import { threadSearchRoutes } from "./threads/search.ts";
import { threadStreamRoutes } from "./threads/stream.ts";
import { threadRoutes } from "./threads/threads.ts";
import { isUiFile, uiRoutes } from "./web/ui.ts";
import type { UiBundles } from "./web/ui-build.ts";

export interface AppOptions {
  readonly maxBodyBytes: number;
  readonly cors: Policy;
  readonly heartbeatMs: number;
  readonly version: string;
  readonly langgraphVersion: string;
  readonly http: GraphsFile["http"];
  /** The user's own app, in front of the API. */
  readonly custom?: CustomApp | undefined;
  /** Components of graphs for web pages. */
  readonly ui?: UiBundles | undefined;
  /** Who may do what; undefined: everybody everything. */
  readonly authority?: Authority | undefined;
  /** How much one caller may ask for; undefined: anything. */
  readonly limits?: Limits | undefined;
}

export function buildApp(engine: Engine, options: AppOptions): Fetch {
  const app = new Hono<Bindings>();
  app.use(crossOrigin(options.cors));
  const onError = (): never => {
    throw new BodyTooLarge(options.maxBodyBytes);
  };
  const { authority, limits } = options;
  if (authority) app.use(authentication(authority, opener(options), limits?.guardLogin));
  if (limits) app.use(limits.middleware);
  // Behind both: a body whose length nobody said is read to its end here.
  app.use(bodyLimit({ maxSize: options.maxBodyBytes, onError }));
  if (options.custom) mountCustomApp(app, options.custom);
  if (authority && engine.privacy.tokenises) app.use(revealing(engine));
  const parts = served(engine, options);
  // The user's own app stays out of the description.
  if (!options.http.disable_meta)
    parts.push(docsRoutes(() => parts.flatMap(({ routes }) => routes), options));
  for (const part of parts) {
    checkAccess(part.routes);
    app.route("/", part);
  }
  app.notFound((context) => context.text(`No route ${context.req.method} ${context.req.path}`, 404));
  app.onError((error, context) => answer(engine, error, context));
  return async (request, bindings) => deliver(await app.fetch(request, bindings), bindings);
}

/** Tells which paths everybody may read. Our description is not in the place of a page that the user's app has there. */
function opener({ http, custom, ui }: AppOptions): (path: string) => boolean {
  const isOurs = (path: string): boolean => !http.disable_meta && !(custom && mayAnswer(custom, path));
  const open = new Set(OPEN.filter((path) => PROBES.has(path) || isOurs(path)));
  return (path) => open.has(path) || (ui !== undefined && isUiFile(ui, path));
}

/** The routes of the API, without those that langgraph.json disables. */
function served(engine: Engine, options: AppOptions): Hono<Bindings>[] {
  const { http } = options;
  return [
    probeRoutes(engine),
    ...(http.disable_meta ? [] : [metaRoutes(engine, options)]),
    ...(http.disable_assistants ? [] : [assistantRoutes(engine)]),
    ...(http.disable_threads ? [] : [threadRoutes(engine), threadSearchRoutes(engine), pruneRoutes(engine)]),
    ...(http.disable_runs
      ? []
      : [
          cronRoutes(engine, engine.egress),
          protocolRoutes(engine, options),
          threadStreamRoutes(engine, options),
          runRoutes(engine, options),
        ]),
    budgetRoutes(engine),
    ...(http.disable_store ? [] : [storeRoutes(engine)]),
    ...(options.ui ? [uiRoutes(engine, options.ui)] : []),
  ];
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
        reason: messageOf(error),
        ...(error.cause instanceof Error ? { cause: messageOf(error.cause), stack: error.cause.stack } : {}),
      });
    const headers = {
      "content-type": "text/plain; charset=UTF-8",
      "X-Holdfast-Code": error.code,
      // The rest of the body is not read: the client must not send its next request after it.
      ...(error instanceof BodyTooLarge ? { connection: "close" } : {}),
      ...(error instanceof AuthRefused ? Object.fromEntries(error.headers) : {}),
      ...(error instanceof RateLimited ? { "Retry-After": String(error.retryAfterSeconds) } : {}),
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
