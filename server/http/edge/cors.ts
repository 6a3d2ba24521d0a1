// Lets pages of other origins talk to this server. The headers of an answer are set on the connection beforehand: set on
// the answer itself, they would cost a small request a fifth of its time.
import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { ConfigInvalid, messageOf } from "../../errors.ts";
import type { GraphsFile } from "../../runs/graph/graphs.ts";
import type { Bindings } from "../bindings.ts";

const METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"];
const EXPOSED = [
  "Content-Location",
  "Location",
  "X-Pagination-Total",
  "X-Pagination-Next",
  "X-Holdfast-Code",
  "Retry-After",
  "X-RateLimit-Limit",
  "X-RateLimit-Remaining",
  "X-RateLimit-Reset",
];

/** Which pages may, and what they may see. */
export interface Policy {
  /** Undefined: any origin. */
  readonly isAllowed: ((origin: string) => boolean) | undefined;
  readonly hasCredentials: boolean;
  readonly methods: readonly string[];
  /** None: those that a page asks for. */
  readonly headers: readonly string[];
  readonly exposed: readonly string[];
  readonly maxAgeSeconds: number;
}

/**
 * What http.cors of langgraph.json says; what it leaves out is as without it.
 * @param origins that may otherwise; "*" among them means all
 * @throws ConfigInvalid for a pattern or an origin that is none, and for credentials that any page could use
 */
export function corsPolicyOf(origins: readonly string[], given: GraphsFile["http"]["cors"]): Policy {
  const allowed = given?.allow_origins ?? (given?.allow_origin_regex === undefined ? origins : []);
  const from = given?.allow_origins ? "http.cors.allow_origins" : "HOLDFAST_CORS_ORIGINS";
  for (const origin of allowed) requireOrigin(origin, from);
  const pattern = given?.allow_origin_regex === undefined ? undefined : patternOf(given.allow_origin_regex);
  const isAny = allowed.includes("*");
  const hasCredentials = given?.allow_credentials ?? false;
  if (isAny && hasCredentials)
    throw new ConfigInvalid(
      "http.cors allows credentials to any origin, so any page could act as whoever visits it; name the origins.",
    );
  return {
    isAllowed: isAny ? undefined : (origin) => allowed.includes(origin) || (pattern?.test(origin) ?? false),
    hasCredentials,
    methods: given?.allow_methods ?? METHODS,
    headers: given?.allow_headers?.includes("*") ? [] : (given?.allow_headers ?? []),
    exposed: [...new Set([...EXPOSED, ...(given?.expose_headers ?? [])])],
    maxAgeSeconds: given?.max_age ?? 600,
  };
}

/** Compared as a browser sends it: what it never sends would let nobody in, and nobody would know why. */
function requireOrigin(origin: string, from: string): void {
  if (["*", "null", ""].includes(origin)) return;
  const url = URL.canParse(origin) ? new URL(origin) : undefined;
  // Of other schemes, such as those of apps and extensions, nothing more is known.
  const sent =
    url && /^https?:$/.test(url.protocol) ? url.origin : /^[a-z][a-z\d+.-]*:\/\/[^/]+/.exec(origin)?.[0];
  if (sent === origin && !origin.includes("*")) return;
  const wanted = origin.includes("*") ? "name each, or use http.cors.allow_origin_regex" : `write ${sent}`;
  throw new ConfigInvalid(
    `${from} holds ${origin}, which no browser sends as an origin: ${sent ? wanted : "write one such as https://chat.example"}.`,
  );
}

function patternOf(text: string): RegExp {
  try {
    return new RegExp(`^(?:${text})$`);
  } catch (error) {
    throw new ConfigInvalid(`http.cors.allow_origin_regex is no regular expression: ${messageOf(error)}.`);
  }
}

export function crossOrigin(policy: Policy): MiddlewareHandler<Bindings> {
  const { isAllowed, hasCredentials, exposed, maxAgeSeconds: maxAge } = policy;
  const preflight = cors({
    origin: isAllowed ? (origin) => (isAllowed(origin) ? origin : null) : "*",
    allowMethods: [...policy.methods],
    allowHeaders: [...policy.headers],
    exposeHeaders: [...exposed],
    credentials: hasCredentials,
    maxAge,
  });
  const shown = exposed.join(",");
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
    if (!isAllowed || isAllowed(origin)) {
      outgoing.setHeader("Access-Control-Allow-Origin", isAllowed ? origin : "*");
      outgoing.setHeader("Access-Control-Expose-Headers", shown);
      if (hasCredentials) outgoing.setHeader("Access-Control-Allow-Credentials", "true");
    }
    if (isAllowed) outgoing.setHeader("Vary", "Origin");
    return next();
  };
}
