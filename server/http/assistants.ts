// Routes of assistants: those that the server makes for its graphs, and those that clients make. Wherever an assistant
// is named, the id of a graph names the graph's own.
import { Hono } from "hono";
import type { Context } from "hono";
import type { z } from "zod";
import { uuidv7 } from "../ids.ts";
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
import { metadataOf } from "../storage/auth-filter.ts";
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
import { authorize, guardAssistant, ownIdsOf } from "./callers/auth.ts";
import { readForGraph, readGuarded } from "./edge/door.ts";
import { refuseUnstorable } from "./edge/ingress.ts";
import { announcePage, nextOf, selectKeys } from "./pages.ts";
import { check } from "./schemas.ts";
import type { Bindings } from "./bindings.ts";

const ONE = "/assistants/:assistant";

export function assistantRoutes(engine: Engine): Hono<Bindings> {
  const app = new Hono<Bindings>();

  app.post("/assistants", async (context) => {
    const given = check(assistantCreate, await readForGraph(engine, context));
    const assistantId = given.assistant_id ?? uuidv7();
    const asked = { if_exists: "raise", metadata: undefined, ...given, assistant_id: assistantId };
    const { filter, value } = await authorize(context, "assistants", "create", asked);
    const { metadata } = value;
    const assistant = await createAssistant(engine, {
      ...changeOf({ ...given, metadata: metadata && metadataOf(metadata) }),
      graphId: given.graph_id,
      assistantId,
      takesExisting: given.if_exists === "do_nothing",
      filter,
    });
    return context.json(toAssistant(assistant));
  });

  app.post("/assistants/search", async (context) => {
    const query = check(assistantSearch, await readGuarded(engine, context));
    const { limit, offset, sort_by: by, sort_order: order, select } = query;
    const filter = await seenBy(context, query, { limit, offset });
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
    const query = check(assistantFilter, await readGuarded(engine, context));
    const filter = await seenBy(context, query, { limit: 0, offset: 0 });
    return context.json(await countAssistants(engine.database, filter));
  });

  app.get(ONE, async (context) => {
    const asked = await readable(context);
    return context.json(toAssistant(await getAssistant(engine, asked)));
  });

  app.patch(ONE, async (context) => {
    const named = idOf(context);
    const given = check(assistantChange, await readForGraph(engine, context, named));
    const asked = { metadata: undefined, ...given };
    const { metadata } = await guardAssistant({ engine, context }, "update", named, asked);
    const change = changeOf({ ...given, metadata: metadata && metadataOf(metadata) });
    return context.json(toAssistant(await changeAssistant(engine, named, change)));
  });

  app.delete(ONE, async (context) => {
    const { delete_threads: takesThreads = false } = check(deleteQuery, context.req.query());
    const named = idOf(context);
    await guardAssistant({ engine, context }, "delete", named, {});
    // Threads of others that ran it are not its owner's.
    const threads = takesThreads ? await authorize(context, "threads", "delete", {}) : undefined;
    return context.json([await removeAssistant(engine, named, threads)]);
  });

  app.post(`${ONE}/versions`, async (context) => {
    const { metadata, ...page } = check(versionList, await readGuarded(engine, context));
    refuseUnstorable("metadata", metadata);
    const versions = await versionsOf(engine, await readable(context), {
      ...page,
      metadata: metadata ?? undefined,
    });
    return context.json(versions);
  });

  app.post(`${ONE}/latest`, async (context) => {
    const { version } = check(latestBody, await readGuarded(engine, context));
    await guardAssistant({ engine, context }, "update", idOf(context), { version });
    return context.json(toAssistant(await setLatest(engine, idOf(context), version)));
  });

  app.get(`${ONE}/graph`, async (context) => {
    const { xray } = check(graphQuery, context.req.query());
    const { graph } = await graphOf(engine, await readable(context));
    return context.json((await graph.getGraphAsync({ xray })).toJSON());
  });

  app.get(`${ONE}/schemas`, async (context) => {
    const { graphId, graph } = await graphOf(engine, await readable(context));
    return context.json({ graph_id: graphId, ...(await schemasOf(engine, graphId, graph)) });
  });

  for (const path of [`${ONE}/subgraphs`, `${ONE}/subgraphs/:namespace`]) {
    app.get(path, async (context) => {
      const { recurse = false } = check(subgraphQuery, context.req.query());
      const { graphId, graph } = await graphOf(engine, await readable(context));
      const namespace = context.req.param("namespace");
      return context.json(await subgraphSchemasOf(engine, graphId, graph, namespace, recurse));
    });
  }

  /** The name of the assistant that a request reads. */
  async function readable(context: Context): Promise<string> {
    const named = idOf(context);
    await guardAssistant({ engine, context }, "read", named, {});
    return named;
  }

  async function seenBy(
    context: Context,
    query: z.output<typeof assistantFilter>,
    page: { limit: number; offset: number },
  ): Promise<AssistantFilter> {
    const { graph_id, name, metadata } = query;
    const asked = structuredClone({ graph_id, name, metadata, ...page });
    const { filter } = await authorize(context, "assistants", "search", asked);
    return { ...filterOf(query), auth: filter && { filter, ownIds: ownIdsOf(engine) } };
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
