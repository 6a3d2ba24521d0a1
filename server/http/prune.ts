// The route that prunes threads: all of them, or all but their newest state.
import { Hono } from "hono";
import { z } from "zod";
import { isUuid } from "../ids.ts";
import type { Engine } from "../runs/engine.ts";
import { pruneThreads } from "../runs/prune.ts";
import { readBody } from "./ingress.ts";
import { check } from "./schemas.ts";

const pruneBody = z.object({
  thread_ids: z.array(z.string().refine(isUuid, "must be a UUID")).max(1000),
  strategy: z.enum(["delete", "keep_latest"]).nullish(),
});

export function pruneRoutes(engine: Engine): Hono {
  const app = new Hono();
  app.post("/threads/prune", async (context) => {
    const { thread_ids: threadIds, strategy } = check(pruneBody, await readBody(context));
    return context.json({ pruned_count: await pruneThreads(engine, threadIds, strategy ?? "delete") });
  });
  return app;
}
