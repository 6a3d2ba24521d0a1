// Routes of assistants: those that the server makes for its graphs, and those that clients make. Wherever an assistant
// is named, the id of a graph names the graph's own.
import { Hono } from "hono";
import type { Context } from "hono";
import type { z } from "zod";
import {
  changeAssistant,
  createAssistant,
  getAssistant,
  graphOf,
  removeAssistant,
  setLatest,
  versionsOf,
} from "../runs/assistants.ts";
import type { AssistantChange } from "../runs/assistants.ts";
import type { Engine } from "../runs/engine.ts";
import { schemasOf, subgraphSchemasOf } from "../runs/schemas.ts";
import { countAssistants, listAssistants } from "../storage/assistants.ts";
import type { AssistantFilter, AssistantRow } from "../storage/assistants.ts";
import {
  assistantChange,
  assistantCreate,
  assistantFilter,
  assistantSearch,
  deleteQuery,
  graphQuery,
  latestBody,
  subgraphQuery,
  versionList,
} from "./assistant-schemas.ts";
import { readBody, refuseUnstorable } from "./ingress.ts";
import { announcePage, nextOf, selectKeys } from "./pages.ts";
import { check } from "./schemas.ts";

const ONE = "/assistants/:assistant";

export function assistantRoutes(engine: Engine): Hono {
  const app = new Hono();

  app.post("/assistants", async (context) => {
    const given = check(assistantCreate, await readBody(context));
    const assistant = await createAssistant(engine, {
      ...changeOf(given),
      graphId: given.graph_id,
      assistantId: given.assistant_id ?? undefined,
      takesExisting: given.if_exists === "do_nothing",
    });
    return context.json(toAssistant(assistant));
  });

  app.post("/assistants/search", async (context) => {
    const query = check(assistantSearch, await readBody(context));
    const { limit, offset, sort_by: by, sort_order: order, select } = query;
    const filter = filterOf(query);
    const total = await countAssistants(engine.database, filter);
    const rows = await listAssistants(engine.database, {
      ...filter,
      sortBy: by ?? "created_at",
      sortOrder: order ?? "desc",
      limit,
      offset,
    });
    announcePage(context, { total, next: nextOf(offset, rows, total) });
    return context.json(rows.map((row) => selectKeys(toAssistant(row), select)));
  });

  app.post("/assistants/count", async (context) => {
    const filter = filterOf(check(assistantFilter, await readBody(context)));
    return context.json(await countAssistants(engine.database, filter));
  });

  app.get(ONE, async (context) => context.json(toAssistant(await getAssistant(engine, idOf(context)))));

  app.patch(ONE, async (context) => {
    const change = changeOf(check(assistantChange, await readBody(context)));
    return context.json(toAssistant(await changeAssistant(engine, idOf(context), change)));
  });

  app.delete(ONE, async (context) => {
    const { delete_threads: takesThreads = false } = check(deleteQuery, context.req.query());
    return context.json([await removeAssistant(engine, idOf(context), takesThreads)]);
  });

  app.post(`${ONE}/versions`, async (context) => {
    const { metadata, ...page } = check(versionList, await readBody(context));
    refuseUnstorable("metadata", metadata);
    const versions = await versionsOf(engine, idOf(context), { ...page, metadata: metadata ?? undefined });
    return context.json(versions);
  });

  app.post(`${ONE}/latest`, async (context) => {
    const { version } = check(latestBody, await readBody(context));
    return context.json(toAssistant(await setLatest(engine, idOf(context), version)));
  });

  app.get(`${ONE}/graph`, async (context) => {
    const { xray } = check(graphQuery, context.req.query());
    const { graph } = await graphOf(engine, idOf(context));
    return context.json((await graph.getGraphAsync({ xray })).toJSON());
  });

  app.get(`${ONE}/schemas`, async (context) => {
    const { graphId, graph } = await graphOf(engine, idOf(context));
    return context.json({ graph_id: graphId, ...schemasOf(graph) });
  });

  for (const path of [`${ONE}/subgraphs`, `${ONE}/subgraphs/:namespace`]) {
    app.get(path, async (context) => {
      const { recurse = false } = check(subgraphQuery, context.req.query());
      const { graph } = await graphOf(engine, idOf(context));
      return context.json(await subgraphSchemasOf(graph, context.req.param("namespace"), recurse));
    });
  }

  return app;
}

const idOf = (context: Context): string => context.req.param("assistant") ?? "";

function changeOf(given: z.output<typeof assistantChange>): AssistantChange {
  const { graph_id: graphId, name, description, config, context, metadata } = given;
  const texts = { graph_id: graphId, name, description, config, context, metadata };
  for (const [field, value] of Object.entries(texts)) refuseUnstorable(field, value);
  return {
    graphId: graphId ?? undefined,
    name: name ?? undefined,
    description: description ?? undefined,
    config: config ?? undefined,
    context: context ?? undefined,
    metadata: metadata ?? undefined,
  };
}

function filterOf({ graph_id: graphId, name, metadata }: z.output<typeof assistantFilter>): AssistantFilter {
  const texts = { graph_id: graphId, name, metadata };
  for (const [field, value] of Object.entries(texts)) refuseUnstorable(field, value);
  return {
    graphId: graphId || undefined,
    name: name || undefined,
    metadata: metadata ?? undefined,
  };
}

const toAssistant = ({ revision: _hidden, ...shown }: AssistantRow): Record<string, unknown> => shown;
