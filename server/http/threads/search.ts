// Routes that find threads: a page of them, and how many there are.
import { Hono } from "hono";
import type { z } from "zod";
import type { Engine } from "../../runs/engine.ts";
import { countFound, searchThreads } from "../../runs/thread-view.ts";
import type { ThreadFilter } from "../../storage/thread-search.ts";
import { authorize } from "../callers/auth.ts";
import { readGuarded } from "../edge/door.ts";
import { refuseUnstorable } from "../edge/ingress.ts";
import { announcePage, selectKeys } from "../pages.ts";
import { check } from "../schemas.ts";
import { extract, toThread } from "./parts.ts";
import { threadFilter, threadSearch } from "./schemas.ts";
import type { Bindings } from "../bindings.ts";

export function threadSearchRoutes(engine: Engine): Hono<Bindings> {
  const app = new Hono<Bindings>();

  app.post("/threads/search", async (context) => {
    const query = check(threadSearch, await readGuarded(engine, context));
    const { limit, offset, select, extract: paths } = query;
    const isWanted = (part: string): boolean => select?.includes(part) ?? true;
    const { filter: auth } = await authorize(context, "threads", "search", askedIn(query, limit, offset));
    const { threads, hasMore, total } = await searchThreads(engine, {
      ...filterOf(query),
      auth,
      sortBy: query.sort_by ?? "created_at",
      sortOrder: query.sort_order ?? "desc",
      limit,
      offset,
      withState: isWanted("values") || isWanted("interrupts") || !!paths,
    });
    announcePage(context, { total, next: hasMore ? offset + threads.length : undefined });
    const shown = threads.map((row) => {
      const thread = toThread(row);
      const selected = selectKeys(thread, select);
      return paths ? Object.assign(selected, { extracted: extract(thread, paths) }) : selected;
    });
    return context.json(shown);
  });

  app.post("/threads/count", async (context) => {
    const query = check(threadFilter, await readGuarded(engine, context));
    const { filter: auth } = await authorize(context, "threads", "search", askedIn(query, 0, 0));
    return context.json(await countFound(engine, { ...filterOf(query), auth }));
  });

  return app;
}

/** What a handler of authorisation is told: a copy, because nothing that it changes counts in a search. */
const askedIn = (
  { metadata, values, ids, status }: z.output<typeof threadFilter>,
  limit: number,
  offset: number,
): object => structuredClone({ metadata, values, ids, status, limit, offset });

function filterOf({ metadata, values, ids, status }: z.output<typeof threadFilter>): ThreadFilter {
  refuseUnstorable("metadata", metadata);
  refuseUnstorable("values", values);
  return {
    metadata: metadata ?? undefined,
    values: values ?? undefined,
    ids: ids ?? undefined,
    status: status ?? undefined,
  };
}
