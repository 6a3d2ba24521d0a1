// Routes of the long-term store: items under a namespace and a key, which outlive threads.
import { Hono } from "hono";
import { StoreSearchUnavailable } from "../errors.ts";
import type { Engine } from "../runs/engine.ts";
import { conditionsOf } from "../storage/store-filter.ts";
import { listNamespaces } from "../storage/store-namespaces.ts";
import type { NamespaceMatch } from "../storage/store-namespaces.ts";
import { findItems, searchItems, writeItems } from "../storage/store.ts";
import { readBody, refuseUnstorable } from "./ingress.ts";
import { check } from "./schemas.ts";
import { itemDelete, itemPut, itemQuery, itemSearch, namespaceList } from "./store-schemas.ts";

export function storeRoutes({ database }: Pick<Engine, "database">): Hono {
  const app = new Hono();

  app.put("/store/items", async (context) => {
    const { namespace, key, value, ttl } = check(itemPut, await readBody(context));
    refuseUnstorable("value", value);
    await writeItems(database, [{ namespace, key, value, ttlMinutes: ttl ?? null }]);
    return context.body(null, 204);
  });

  app.get("/store/items", async (context) => {
    const { namespace, key, refresh_ttl: refreshesTtl } = check(itemQuery, context.req.query());
    const [item = null] = await findItems(database, [{ namespace, key }], refreshesTtl);
    return context.json(item);
  });

  app.delete("/store/items", async (context) => {
    const { namespace, key } = check(itemDelete, await readBody(context));
    await writeItems(database, [{ namespace, key, value: null, ttlMinutes: null }]);
    return context.body(null, 204);
  });

  app.post("/store/items/search", async (context) => {
    const body = check(itemSearch, await readBody(context));
    if (body.query) throw new StoreSearchUnavailable();
    refuseUnstorable("filter", body.filter);
    const items = await searchItems(database, {
      prefix: body.namespace_prefix,
      conditions: conditionsOf(body.filter),
      limit: body.limit,
      offset: body.offset,
      refreshesTtl: body.refresh_ttl,
    });
    return context.json({ items });
  });

  app.post("/store/namespaces", async (context) => {
    const {
      prefix,
      suffix,
      max_depth: maxDepth,
      limit,
      offset,
    } = check(namespaceList, await readBody(context));
    const matches: NamespaceMatch[] = [];
    if (prefix) matches.push({ at: "prefix", labels: prefix });
    if (suffix) matches.push({ at: "suffix", labels: suffix });
    const page = { matches, maxDepth: maxDepth ?? null, limit, offset };
    return context.json({ namespaces: await listNamespaces(database, page) });
  });

  return app;
}
