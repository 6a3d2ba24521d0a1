// The route that prunes threads: all of them, or all but their newest state.
import { Hono } from "hono";
import type { Context } from "hono";
import { z } from "zod";
import type { Engine } from "../../runs/engine.ts";
import { pruneThreads } from "../../runs/prune.ts";
import { listVisibleThreads } from "../../storage/auth-filter.ts";
import type { AuthFilter } from "../../storage/auth-filter.ts";
import { authorize } from "../callers/auth.ts";
import { readBody } from "../edge/ingress.ts";
import { check, uuid } from "../schemas.ts";
import type { Bindings } from "../bindings.ts";

export const pruneBody = z.object({
  thread_ids: z.array(uuid).max(1000),
  strategy: z.enum(["delete", "keep_latest"]).nullish(),
});

export function pruneRoutes(engine: Engine): Hono<Bindings> {
  const app = new Hono<Bindings>();
  app.post("/threads/prune", async (context) => {
    const { thread_ids: threadIds, strategy } = check(pruneBody, await readBody(context));
    const action = strategy === "keep_latest" ? "update" : "delete";
    const allowed = await allowedOf(context, action, [...new Set(threadIds)]);
    return context.json({ pruned_count: await pruneThreads(engine, allowed, strategy ?? "delete") });
  });

  /** Those that the caller may prune; others are passed over like those that do not exist. */
  async function allowedOf(
    context: Context,
    action: "update" | "delete",
    threadIds: readonly string[],
  ): Promise<string[]> {
    const byFilter = new Map<AuthFilter | undefined, string[]>();
    for (const threadId of threadIds) {
      const { filter } = await authorize(context, "threads", action, { thread_id: threadId });
      byFilter.set(filter, [...(byFilter.get(filter) ?? []), threadId]);
    }
    const allowed: string[] = [];
    for (const [filter, ids] of byFilter)
      allowed.push(...(filter === undefined ? ids : await listVisibleThreads(engine.database, ids, filter)));
    return allowed;
  }

  return app;
}
