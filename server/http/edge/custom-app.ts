// The user's own app in front of the API: its routes answer, its middleware wraps ours. It brings its own Hono, of
// whatever version, so nothing here asks what class it is of: its handlers are put into our app, in their order.
import { Hono } from "hono";
import type { Context, MiddlewareHandler, Next } from "hono";
import { CustomAppFailed } from "../../errors.ts";
import { importSetting } from "../../runs/graph/modules.ts";
import type { Bindings } from "../bindings.ts";

type OnError = (error: Error, context: Context) => Response | Promise<Response>;
type Fetching = (request: Request, env: unknown) => Response | Promise<Response>;

interface Route {
  readonly method: string;
  readonly path: string;
  readonly handler: (context: Context, next: Next) => unknown;
}

/** An app of Hono, or anything else that answers requests. */
export interface CustomApp {
  readonly fetch: Fetching;
  readonly routes?: readonly Route[];
  readonly errorHandler?: OnError;
}

/** @throws ConfigInvalid in one sentence */
export const loadCustomApp = (base: string, spec: string): Promise<CustomApp> =>
  importSetting(base, { name: "http.app", spec }, (value) => {
    if (typeof Object(value).fetch === "function") return value as CustomApp;
    throw new Error("it has no fetch function, as an app of Hono has");
  });

/** Puts the app in front of what is mounted later. */
export function mountCustomApp(app: Hono<Bindings>, custom: CustomApp): void {
  const { routes, errorHandler } = custom;
  if (!routes) {
    app.use(asking(custom));
    return;
  }
  const onError = isOwn(custom) ? errorHandler : undefined;
  for (const { method, path, handler } of routes) {
    app.on(method, path, async (context, next) => {
      context.env.mayBeRewritten = true;
      try {
        // What a handler returns that is no response, Hono ignores.
        return (await handler(context, next)) as Response | undefined;
      } catch (error) {
        return failed(error, context, onError);
      }
    });
  }
}

/** Whether a route of the app may answer a GET of this path; middleware around everything does not. */
export function mayAnswer({ routes }: CustomApp, path: string): boolean {
  if (!routes) return true;
  const own = new Hono();
  for (const { method, path: pattern } of routes)
    if (method !== "ALL" || pattern !== "/*") own.on(method, pattern, (context) => context.body(null));
  return own.router.match("GET", path)[0].length > 0;
}

/** An app that is no Hono cannot wrap ours: it is asked first, and what it does not find goes on. */
function asking(custom: CustomApp): MiddlewareHandler<Bindings> {
  return async (context, next) => {
    // The body can be read once, and ours may still need it.
    const response = await answerOf(custom, context);
    if (response.status !== 404) return response;
    await response.body?.cancel();
    return next();
  };
}

async function answerOf(custom: CustomApp, context: Context<Bindings>): Promise<Response> {
  try {
    return await custom.fetch(context.req.raw.clone(), context.env);
  } catch (error) {
    return failed(error, context, undefined);
  }
}

/** What its own onError says, or a response that was thrown; else the failure is logged and answered as one. */
async function failed(error: unknown, context: Context, onError: OnError | undefined): Promise<Response> {
  if (error instanceof Error && onError) return onError(error, context);
  if (error instanceof Error && "getResponse" in error && typeof error.getResponse === "function") {
    // Hono's HTTPException, of its copy or of ours.
    const response = error.getResponse() as Response;
    return new Response(response.body, response);
  }
  throw new CustomAppFailed(error);
}

/** Whether the app has a handler of errors of its own: each app has one from the beginning. */
function isOwn(custom: CustomApp): boolean {
  try {
    const fresh: unknown = Reflect.construct(custom.constructor, []);
    return Object(fresh).errorHandler !== custom.errorHandler;
  } catch {
    return true;
  }
}
