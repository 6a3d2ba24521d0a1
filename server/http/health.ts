// Routes that say what this server is and how it is. `flags` names only what is built.
import { Hono } from "hono";
import { within } from "../clock.ts";
import type { Engine } from "../runs/engine.ts";
import { tryWrite } from "../storage/instances.ts";
import { isReadOnly } from "../storage/postgres.ts";
import type { Bindings } from "./bindings.ts";

const READY_WITHIN_MS = 1000;

/** For whoever watches the server. */
export function probeRoutes(engine: Engine): Hono<Bindings> {
  const app = new Hono<Bindings>();
  // The process alone: a restart of the database must not make an orchestrator kill every server.
  app.get("/live", (context) => context.json({ ok: true }));
  app.get("/ready", async (context) => {
    const reason = await refusalOf(engine);
    if (reason) return context.json({ ok: false, reason }, 503);
    return context.json({ ok: true, ...(engine.clock.isBehind ? { warning: engine.clock.text } : {}) });
  });
  return app;
}

/** Why no requests are to come here. */
async function refusalOf({ stopping, database, limits, clock }: Engine): Promise<string | undefined> {
  if (stopping.aborted) return "stopping";
  try {
    await within(tryWrite(database), READY_WITHIN_MS);
  } catch (error) {
    return isReadOnly(error) ? "PostgreSQL takes no writes" : "PostgreSQL does not answer";
  }
  // Who takes no runs anyhow is as good as before.
  return clock.yields && limits.slots > 0 ? `${clock.text} Runs are left to the others.` : undefined;
}

/** For clients, under the official paths. */
export function metaRoutes(
  { privacy, database, caches }: Pick<Engine, "privacy" | "database" | "caches">,
  about: { version: string; langgraphVersion: string },
): Hono<Bindings> {
  const app = new Hono<Bindings>();
  app.get("/ok", (context) => context.json({ ok: true }));
  app.get("/info", (context) =>
    context.json({
      version: about.version,
      langgraph_js_version: about.langgraphVersion,
      context: "js",
      privacy: { ...privacy.policy, sealed: database.seals.isOn },
      cache: { store: caches.storeName, ...caches.stats },
      flags: {
        assistants: true,
        crons: true,
        stream_namespaces: true,
        langsmith: false,
        langsmith_tracing_replicas: false,
      },
    }),
  );
  return app;
}
