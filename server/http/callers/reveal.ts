// At the edge, after everything else: callers are shown what tokens of theirs stand for. What is stored keeps tokens.
import type { MiddlewareHandler } from "hono";
import type { Engine } from "../../runs/engine.ts";
import { Reveal } from "../../runs/reveal.ts";
import { callerOf } from "./asker.ts";
import { SENT_HERE, revealKey } from "../bindings.ts";
import type { Bindings } from "../bindings.ts";

/** Who asks without auth is nobody's owner: he is shown tokens. */
export const revealing =
  ({ database }: Pick<Engine, "database">): MiddlewareHandler<Bindings> =>
  async (context, next) => {
    const caller = callerOf(context);
    if (!caller) return next();
    const { identity } = caller.user;
    const reveal = new Reveal(database, { identity, permissions: caller.permissions });
    context.set(revealKey as never, reveal as never);
    await next();
    const { res } = context;
    if (!res.headers.get("content-type")?.startsWith("application/json") || res.bodyUsed || !res.body)
      return undefined;
    const headers = new Headers(res.headers);
    headers.delete("content-length");
    if (headers.has(SENT_HERE)) return undefined; // a stream of JSON: it reveals by itself
    const shown = await reveal.text(await res.text());
    context.res = undefined; // its headers would be merged into the next one's
    context.res = new Response(shown, { status: res.status, headers });
    return undefined;
  };
