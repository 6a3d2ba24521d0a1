// Routes of threads: create, read, delete; state and history.
import { Hono } from "hono";
import type { Context } from "hono";
import { ThreadExists } from "../errors.ts";
import { uuidv7 } from "../ids.ts";
import type { Engine } from "../runs/engine.ts";
import { deleteThread, getState, getStateText, getThread, listHistory, updateState } from "../runs/state.ts";
import { ttlOf } from "../storage/expiry.ts";
import { insertThread } from "../storage/threads.ts";
import type { ThreadRow } from "../storage/threads.ts";
import { readBody, refuseUnstorable } from "./ingress.ts";
import {
  check,
  checkId,
  history,
  stateAtCheckpoint,
  stateQuery,
  stateUpdate,
  threadCreate,
} from "./schemas.ts";

type Fields = Record<string, unknown>;

export function threadRoutes(engine: Engine): Hono {
  const app = new Hono();

  app.post("/threads", async (context) => {
    const body = check(threadCreate, await readBody(context));
    const { thread_id: given, metadata, if_exists: ifExists } = body;
    refuseUnstorable("metadata", metadata);
    const threadId = given ?? uuidv7();
    const ttl = ttlOf(body.ttl, engine.limits.threadTtlMinutes);
    const made = await insertThread(engine.database, threadId, metadata ?? {}, ttl);
    if (!made && ifExists !== "do_nothing") throw new ThreadExists();
    return context.json(toThread(made ?? (await getThread(engine, threadId))));
  });

  app.get("/threads/:thread", async (context) => {
    const threadId = idOf(context);
    const thread = await getThread(engine, threadId);
    // A thread whose graph is not served here any more is still a thread.
    const isServed = engine.graphs.has(String(thread.metadata["graph_id"]));
    if (!isServed) return context.json(toThread(thread));
    const { values, tasks } = await getState(engine, threadId, { subgraphs: false });
    const interrupted = tasks.filter(({ interrupts }) => Array.isArray(interrupts) && interrupts.length > 0);
    const interrupts = Object.fromEntries(interrupted.map((task) => [task["id"], task["interrupts"]]));
    return context.json({ ...toThread(thread), values, interrupts });
  });

  app.delete("/threads/:thread", async (context) => {
    await deleteThread(engine, idOf(context));
    return context.body(null, 204);
  });

  app.get("/threads/:thread/state", async (context) => {
    const { subgraphs } = check(stateQuery, context.req.query());
    if (subgraphs) return context.json(await getState(engine, idOf(context), { subgraphs }));
    const text = await getStateText(engine, idOf(context));
    return context.body(text, 200, { "content-type": "application/json" });
  });

  app.get("/threads/:thread/state/:checkpoint", async (context) => {
    const { subgraphs } = check(stateQuery, context.req.query());
    const checkpoint = { checkpoint_id: checkId("checkpoint", context.req.param("checkpoint")) };
    return context.json(await getState(engine, idOf(context), { checkpoint, subgraphs: subgraphs ?? false }));
  });

  app.post("/threads/:thread/state/checkpoint", async (context) => {
    const { checkpoint, subgraphs } = check(stateAtCheckpoint, await readBody(context));
    return context.json(await getState(engine, idOf(context), { checkpoint, subgraphs: subgraphs ?? false }));
  });

  app.post("/threads/:thread/state", async (context) => {
    const threadId = idOf(context);
    const update = check(stateUpdate, await readBody(context));
    const checkpoint = checkpointOf(update.checkpoint, update.checkpoint_id);
    const asNode = update.as_node ?? undefined;
    return context.json({
      checkpoint: await updateState(engine, threadId, { values: update.values, asNode, checkpoint }),
    });
  });

  app.get("/threads/:thread/history", async (context) => listed(context, context.req.query()));
  app.post("/threads/:thread/history", async (context) => listed(context, await readBody(context)));

  async function listed(context: Context, query: unknown): Promise<Response> {
    const { limit, before, metadata, checkpoint } = check(history, query);
    if (before) checkId("checkpoint", before);
    refuseUnstorable("metadata", metadata);
    const wanted = { limit, before: before ?? undefined, metadata: metadata ?? undefined };
    const states = await listHistory(engine, idOf(context), {
      ...wanted,
      checkpoint: checkpoint ?? undefined,
    });
    return context.json(states);
  }

  return app;
}

const idOf = (context: Context): string => checkId("thread", context.req.param("thread") ?? "");

function checkpointOf(
  checkpoint: Fields | null | undefined,
  id: string | null | undefined,
): Fields | undefined {
  if (!checkpoint && !id) return undefined;
  return { ...checkpoint, ...(id ? { checkpoint_id: id } : {}) };
}

function toThread(row: ThreadRow): object {
  const { is_temporary: isTemporary, ...thread } = row;
  return {
    ...thread,
    ...(isTemporary ? { is_temporary: true } : {}),
    values: {},
    interrupts: {},
    error: thread.error ?? undefined,
  };
}
