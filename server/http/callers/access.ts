// What each route of the API asks for before it does anything. A server with a route that is missing here does not start,
// and an answer of a route that did not ask for all of it is not sent.
import type { AuthEvent } from "../../runs/auth.ts";

const ASSISTANT = "/assistants/:assistant";
const THREAD = "/threads/:thread";
const RUN = `${THREAD}/runs/:run`;
const create: readonly AuthEvent[] = ["threads:create_run"];
const read: readonly AuthEvent[] = ["threads:read"];
const change: readonly AuthEvent[] = ["threads:update"];
const describe: readonly AuthEvent[] = ["assistants:read"];

// Each thread, or run, of a list is asked for by itself, and each command for what it does.
const perItem: readonly AuthEvent[] = [];

/** By method and path. */
export const ACCESS: Readonly<Record<string, "open" | readonly AuthEvent[]>> = {
  "GET /ok": "open",
  "GET /live": "open",
  "GET /ready": "open",
  "GET /info": "open",
  "GET /openapi.json": "open",
  "GET /docs": "open",
  "GET /docs/scalar.js": "open",

  // Who names an assistant by its id asks to read it. Files that are there are open to everybody: see ui.ts.
  "POST /ui/:key": perItem,
  "GET /ui/:key/:file": perItem,

  "POST /assistants": ["assistants:create"],
  "POST /assistants/search": ["assistants:search"],
  "POST /assistants/count": ["assistants:search"],
  [`GET ${ASSISTANT}`]: describe,
  [`GET ${ASSISTANT}/graph`]: describe,
  [`GET ${ASSISTANT}/schemas`]: describe,
  [`GET ${ASSISTANT}/subgraphs`]: describe,
  [`GET ${ASSISTANT}/subgraphs/:namespace`]: describe,
  [`POST ${ASSISTANT}/versions`]: describe,
  [`POST ${ASSISTANT}/latest`]: ["assistants:update"],
  [`PATCH ${ASSISTANT}`]: ["assistants:update"],
  [`DELETE ${ASSISTANT}`]: ["assistants:delete"],

  "POST /threads": ["threads:create"],
  "POST /threads/search": ["threads:search"],
  "POST /threads/count": ["threads:search"],
  "POST /threads/prune": perItem,
  [`GET ${THREAD}`]: read,
  [`PATCH ${THREAD}`]: change,
  [`DELETE ${THREAD}`]: ["threads:delete"],
  [`POST ${THREAD}/copy`]: ["threads:read", "threads:create"],
  [`GET ${THREAD}/state`]: read,
  [`GET ${THREAD}/state/:checkpoint`]: read,
  [`POST ${THREAD}/state/checkpoint`]: read,
  [`POST ${THREAD}/state`]: change,
  [`GET ${THREAD}/history`]: read,
  [`POST ${THREAD}/history`]: read,
  [`GET ${THREAD}/stream/events`]: read,
  [`GET ${THREAD}/stream`]: read,
  [`POST ${THREAD}/stream`]: read,
  [`POST ${THREAD}/stream/events`]: read,
  [`POST ${THREAD}/commands`]: perItem,

  "POST /runs": create,
  "POST /runs/stream": create,
  "POST /runs/wait": create,
  "POST /runs/batch": perItem,
  "POST /runs/cancel": change,
  "GET /runs/:run": read,
  "GET /runs/:run/stream": read,
  "GET /runs/:run/join": read,
  [`POST ${THREAD}/runs`]: create,
  [`POST ${THREAD}/runs/stream`]: create,
  [`POST ${THREAD}/runs/wait`]: create,
  [`GET ${THREAD}/runs`]: read,
  [`GET ${RUN}`]: read,
  [`GET ${RUN}/stream`]: read,
  [`GET ${RUN}/join`]: read,
  [`POST ${RUN}/cancel`]: change,
  [`POST ${RUN}/retry`]: change,
  [`DELETE ${RUN}`]: ["threads:delete"],

  "POST /runs/crons": ["crons:create", "threads:create_run"],
  [`POST ${THREAD}/runs/crons`]: ["crons:create", "threads:create_run"],
  "POST /runs/crons/search": ["crons:search"],
  "POST /runs/crons/count": ["crons:search"],
  "PATCH /runs/crons/:cron": ["crons:update"],
  "DELETE /runs/crons/:cron": ["crons:delete"],

  // For who has the permission budgets:read or budgets:write: see budgets.ts.
  "GET /budgets": perItem,
  "POST /budgets": perItem,
  "GET /budgets/usage": perItem,
  "GET /budgets/:budget": perItem,
  "PATCH /budgets/:budget": perItem,
  "DELETE /budgets/:budget": perItem,

  "PUT /store/items": ["store:put"],
  "GET /store/items": ["store:get"],
  "DELETE /store/items": ["store:delete"],
  "POST /store/items/search": ["store:search"],
  "POST /store/namespaces": ["store:list_namespaces"],
};

/** Paths that everybody may read. */
export const OPEN: readonly string[] = Object.entries(ACCESS)
  .filter(([, needed]) => needed === "open")
  .map(([route]) => route.replace("GET ", ""));

/** Those that are open, and never counted, whoever answers them. */
export const PROBES: ReadonlySet<string> = new Set(["/ok", "/live", "/ready", "/info"]);

/** @throws Error naming the routes whose access nobody decided */
export function checkAccess(routes: readonly { method: string; path: string }[]): void {
  const names = routes.map(({ method, path }) => `${method} ${path}`);
  const missing = [...new Set(names)].filter((name) => !Object.hasOwn(ACCESS, name));
  if (missing.length > 0)
    throw new Error(`server/http/callers/access.ts does not say what is asked for ${missing.join(", ")}.`);
}
