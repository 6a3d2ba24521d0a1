// Lets pages of other origins talk to this server. The headers of an answer are set on the connection beforehand: set on
// the answer itself, they would cost a small request a fifth of its time.
import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import type { Bindings } from "./sse.ts";

const EXPOSED = [
  "Content-Location",
  "Location",
  "X-Pagination-Total",
  "X-Pagination-Next",
  "X-Holdfast-Code",
];

/** @param origins that may; "*" among them means all */
export function crossOrigin(origins: readonly string[]): MiddlewareHandler<Bindings> {
  const isAny = origins.includes("*");
  const preflight = cors({
    origin: isAny ? "*" : [...origins],
    allowMethods: ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"],
    exposeHeaders: EXPOSED,
    maxAge: 600,
  });
  const exposed = EXPOSED.join(",");
  return async (context, next) => {
    if (context.req.method === "OPTIONS") {
      const answer = await preflight(context, next);
      // A page on the web may then talk to a server on this machine, as Studio does.
      if (answer && context.req.header("access-control-request-private-network") === "true") {
        answer.headers.set("Access-Control-Allow-Private-Network", "true");
      }
      return answer;
    }
    const { incoming, outgoing } = context.env;
    const { origin = "" } = incoming.headers;
    if (isAny || origins.includes(origin)) {
      outgoing.setHeader("Access-Control-Allow-Origin", isAny ? "*" : origin);
      outgoing.setHeader("Access-Control-Expose-Headers", exposed);
    }
    if (!isAny) outgoing.setHeader("Vary", "Origin");
    return next();
  };
}
