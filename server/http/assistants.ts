// Routes of assistants. Each graph has one, made by the server; its id or the graph's id names it.
import { Hono } from "hono";
import { AssistantNotFound } from "../errors.ts";
import { findAssistant } from "../runs/create.ts";
import type { Engine } from "../runs/engine.ts";
import { schemasOf } from "../runs/schemas.ts";
import type { AssistantRow } from "../storage/assistants.ts";
import { readBody } from "./ingress.ts";
import { assistantSearch, check } from "./schemas.ts";

export function assistantRoutes(engine: Engine): Hono {
  const app = new Hono();
  const find = (id: string): AssistantRow => {
    const found = findAssistant(engine, id);
    if (!found) throw new AssistantNotFound("Assistant not found");
    return found;
  };

  app.post("/assistants/search", async (context) => {
    const {
      graph_id: graphId,
      name,
      metadata,
      limit,
      offset,
    } = check(assistantSearch, await readBody(context));
    const matching = engine.assistants.filter(
      (one) =>
        (!graphId || one.graph_id === graphId) &&
        (!name || one.name.toLowerCase().includes(name.toLowerCase())) &&
        Object.entries(metadata ?? {}).every(([key, value]) => one.metadata[key] === value),
    );
    const page = matching.slice(offset, offset + limit);
    const next = offset + page.length;
    context.header("X-Pagination-Total", String(matching.length));
    if (next < matching.length) context.header("X-Pagination-Next", String(next));
    return context.json(page);
  });

  app.get("/assistants/:assistant", (context) => context.json(find(context.req.param("assistant"))));

  app.get("/assistants/:assistant/graph", async (context) => {
    const xray = context.req.query("xray");
    const depth = xray === undefined ? false : /^\d+$/.test(xray) ? Number(xray) : /^(true|yes)$/i.test(xray);
    const graph = engine.graphs.get(find(context.req.param("assistant")).graph_id);
    const drawn = await graph?.getGraphAsync({ xray: depth });
    return context.json(drawn?.toJSON() ?? {});
  });

  app.get("/assistants/:assistant/schemas", (context) => {
    const { graph_id: graphId } = find(context.req.param("assistant"));
    const graph = engine.graphs.get(graphId);
    return context.json({ graph_id: graphId, ...(graph ? schemasOf(graph) : {}) });
  });

  return app;
}
