// Routes of the long-term store: items under a namespace and a key, which outlive threads.
import { Hono } from "hono";
import { AccessDenied, ItemNotFound, StoreSearchUnavailable } from "../errors.ts";
import type { Engine } from "../runs/engine.ts";
import type { AuthFilter } from "../storage/auth-filter.ts";
import { mayRead, writeIfAllowed } from "../storage/store/access.ts";
import { conditionsOf, filterAsKept, holding } from "../storage/store/filter.ts";
import { queryVectors, searchByMeaning, withVectors } from "../storage/store/meaning.ts";
import type { IndexedWrite } from "../storage/store/meaning.ts";
import { listNamespaces } from "../storage/store/namespaces.ts";
import type { NamespaceMatch } from "../storage/store/namespaces.ts";
import { findItems, searchItems, writeItems } from "../storage/store/store.ts";
import { authorize } from "./callers/auth.ts";
import { refuseIdentifier } from "./edge/door.ts";
import { readBody, refuseUnstorable } from "./edge/ingress.ts";
import { check } from "./schemas.ts";
import type { Bindings } from "./bindings.ts";
import { itemDelete, itemPut, itemQuery, itemSearch, namespaceList } from "./store-schemas.ts";

export function storeRoutes({
  database,
  embedder,
  storeTtl,
  privacy,
}: Pick<Engine, "database" | "embedder" | "storeTtl" | "privacy">): Hono<Bindings> {
  const app = new Hono<Bindings>();
  const guard = privacy.of();

  app.put("/store/items", async (context) => {
    const { namespace, key, ttl, index, ...given } = check(itemPut, await readBody(context));
    for (const label of namespace) refuseIdentifier(guard, "namespace", label);
    refuseIdentifier(guard, "key", key);
    const value = guard.value(given.value);
    const asked = await authorize(context, "store", "put", { namespace, key, value });
    refuseUnstorable("value", asked.value.value);
    await write({ ...asked.value, ttlMinutes: ttl ?? storeTtl.minutes, index }, asked.filter);
    return context.body(null, 204);
  });

  app.get("/store/items", async (context) => {
    const {
      namespace,
      key,
      refresh_ttl: refreshesTtl = storeTtl.refreshesOnRead,
    } = check(itemQuery, context.req.query());
    const { filter, value: item } = await authorize(context, "store", "get", { namespace, key });
    if (filter && !(await mayRead(database, item, filter))) throw new ItemNotFound();
    const [found = null] = await findItems(database, [item], refreshesTtl);
    return context.json(found);
  });

  app.delete("/store/items", async (context) => {
    const { namespace, key } = check(itemDelete, await readBody(context));
    const { filter, value: item } = await authorize(context, "store", "delete", { namespace, key });
    await write({ ...item, value: null, ttlMinutes: null }, filter);
    return context.body(null, 204);
  });

  app.post("/store/items/search", async (context) => {
    const {
      namespace_prefix: namespace,
      limit,
      offset,
      ...body
    } = check(itemSearch, await readBody(context));
    // As it became of what is compared with it.
    const query = guard.value(body.query);
    const filter = filterAsKept(body.filter, (value) => guard.value(value));
    const page = { limit, offset };
    const asked = await authorize(context, "store", "search", { namespace, filter, query, ...page });
    refuseUnstorable("filter", asked.value.filter);
    const search = {
      ...page,
      prefix: asked.value.namespace,
      conditions: [
        ...conditionsOf(asked.value.filter),
        ...(asked.filter === undefined ? [] : [holding(asked.filter)]),
      ],
      refreshesTtl: body.refresh_ttl ?? storeTtl.refreshesOnRead,
    };
    const text = asked.value.query;
    if (!text) return context.json({ items: await searchItems(database, search) });
    if (!embedder) throw new StoreSearchUnavailable();
    const vector = (await queryVectors(embedder, [text])).get(text);
    const items = vector ? await searchByMeaning(database, { ...search, embedder, vector }) : [];
    return context.json({ items });
  });

  app.post("/store/namespaces", async (context) => {
    const body = check(namespaceList, await readBody(context));
    const { prefix, suffix, max_depth: maxDepth, limit, offset } = body;
    const shape = { suffix, max_depth: maxDepth, limit, offset };
    const given = { namespace: prefix, ...shape };
    const { filter: auth, value } = await authorize(context, "store", "list_namespaces", given);
    const matches: NamespaceMatch[] = [];
    if (value.namespace) matches.push({ at: "prefix", labels: value.namespace });
    if (value.suffix) matches.push({ at: "suffix", labels: value.suffix });
    const page = { matches, maxDepth: maxDepth ?? null, limit, offset, auth };
    return context.json({ namespaces: await listNamespaces(database, page) });
  });

  async function write(given: IndexedWrite, filter: AuthFilter | undefined): Promise<void> {
    const [item = given] = await withVectors([given], embedder);
    if (filter === undefined) {
      await writeItems(database, [item]);
      return;
    }
    const outcome = await writeIfAllowed(database, item, filter);
    if (outcome === "foreign") throw new ItemNotFound();
    if (outcome === "outside") throw new AccessDenied();
  }

  return app;
}
