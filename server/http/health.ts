// Routes that say what this server is. `flags` names only what is built.
import { Hono } from "hono";

export function healthRoutes(about: { version: string; langgraphVersion: string }): Hono {
  const app = new Hono();
  app.get("/ok", (context) => context.json({ ok: true }));
  app.get("/info", (context) =>
    context.json({
      version: about.version,
      langgraph_js_version: about.langgraphVersion,
      context: "js",
      flags: { assistants: true, crons: false, langsmith: false, langsmith_tracing_replicas: false },
    }),
  );
  return app;
}
