// Routes of threads: create, read, change, copy, delete; state and history.
import { Hono } from "hono";
import type { Context } from "hono";
import { uuidv7 } from "../ids.ts";
import type { Engine } from "../runs/engine.ts";
import type { Superstep } from "../runs/graphs.ts";
import { commandOf } from "../runs/input.ts";
import { deleteThread, getState, getStateText, listHistory, updateState } from "../runs/state.ts";
import type { ThreadState } from "../runs/state.ts";
import { getWholeThread } from "../runs/thread-view.ts";
import { changeThread, copyThread, createThread } from "../runs/threads.ts";
import { ttlOf } from "../storage/expiry.ts";
import { readBody, refuseUnstorable } from "./ingress.ts";
import { check, checkId, stateUpdate } from "./schemas.ts";
import { selectState, toThread, ttlInfoOf } from "./thread-parts.ts";
import {
  selectedHistory,
  selectedState,
  selectedStateAt,
  threadCreate,
  threadPatch,
  threadQuery,
} from "./thread-schemas.ts";

type Fields = Record<string, unknown>;

export function threadRoutes(engine: Engine): Hono {
  const app = new Hono();

  app.post("/threads", async (context) => {
    const body = check(threadCreate, await readBody(context));
    refuseUnstorable("metadata", body.metadata);
    const thread = {
      threadId: body.thread_id ?? uuidv7(),
      metadata: body.metadata ?? {},
      ttl: ttlOf(body.ttl, engine.limits.threadTtlMinutes),
      supersteps: (body.supersteps ?? []).map(({ updates }) => ({ updates: updates.map(toUpdate) })),
    };
    return context.json(toThread(await createThread(engine, thread, body.if_exists === "do_nothing")));
  });

  app.get("/threads/:thread", async (context) => {
    const { include } = check(threadQuery, { include: context.req.queries("include") });
    const thread = await getWholeThread(engine, idOf(context));
    return context.json({
      ...toThread(thread),
      ...(include?.includes("ttl") ? { ttl: ttlInfoOf(thread) } : {}),
    });
  });

  app.patch("/threads/:thread", async (context) => {
    const threadId = idOf(context);
    const { metadata, ttl } = check(threadPatch, await readBody(context));
    refuseUnstorable("metadata", metadata);
    await changeThread(engine, threadId, {
      metadata: metadata ?? undefined,
      ttl: ttlOf(ttl, 0) ?? undefined,
    });
    if (context.req.header("prefer")?.includes("return=minimal")) return context.body(null, 204);
    return context.json(toThread(await getWholeThread(engine, threadId)));
  });

  app.post("/threads/:thread/copy", async (context) =>
    context.json(toThread(await copyThread(engine, idOf(context)))),
  );

  app.delete("/threads/:thread", async (context) => {
    await deleteThread(engine, idOf(context));
    return context.body(null, 204);
  });

  app.get("/threads/:thread/state", async (context) => {
    const { subgraphs, select } = check(selectedState, queryOf(context));
    if (subgraphs) {
      return context.json(selectState(await getState(engine, idOf(context), { subgraphs }), select));
    }
    const text = await getStateText(engine, idOf(context));
    if (!select) return context.body(text, 200, { "content-type": "application/json" });
    // Stored in this shape, or made just now.
    return context.json(selectState(JSON.parse(text) as ThreadState, select));
  });

  app.get("/threads/:thread/state/:checkpoint", async (context) => {
    const { subgraphs, select } = check(selectedState, queryOf(context));
    const checkpoint = { checkpoint_id: checkId("checkpoint", context.req.param("checkpoint")) };
    return stateAt(context, { checkpoint, subgraphs, select });
  });

  app.post("/threads/:thread/state/checkpoint", async (context) => {
    return stateAt(context, check(selectedStateAt, await readBody(context)));
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

  app.get("/threads/:thread/history", async (context) => listed(context, queryOf(context)));
  app.post("/threads/:thread/history", async (context) => listed(context, await readBody(context)));

  async function listed(context: Context, query: unknown): Promise<Response> {
    const { limit, before, metadata, checkpoint, select } = check(selectedHistory, query);
    if (before) checkId("checkpoint", before);
    refuseUnstorable("metadata", metadata);
    const wanted = { limit, before: before ?? undefined, metadata: metadata ?? undefined };
    const states = await listHistory(engine, idOf(context), {
      ...wanted,
      checkpoint: checkpoint ?? undefined,
    });
    return context.json(states.map((state) => selectState(state, select)));
  }

  async function stateAt(
    context: Context,
    at: {
      checkpoint: Fields;
      subgraphs?: boolean | null | undefined;
      select?: readonly string[] | undefined;
    },
  ): Promise<Response> {
    const { checkpoint, subgraphs, select } = at;
    const state = await getState(engine, idOf(context), { checkpoint, subgraphs: subgraphs ?? false });
    return context.json(selectState(state, select));
  }

  return app;
}

const idOf = (context: Context): string => checkId("thread", context.req.param("thread") ?? "");

/** A query in which `select` may come several times. */
const queryOf = (context: Context): Fields => ({
  ...context.req.query(),
  select: context.req.queries("select"),
});

function toUpdate(update: {
  values?: unknown;
  command?: Fields | null | undefined;
  as_node?: string | null | undefined;
}): Superstep["updates"][number] {
  const { values, command, as_node: asNode } = update;
  return { values: command ? commandOf(command) : values, ...(asNode ? { asNode } : {}) };
}

function checkpointOf(
  checkpoint: Fields | null | undefined,
  id: string | null | undefined,
): Fields | undefined {
  if (!checkpoint && !id) return undefined;
  return { ...checkpoint, ...(id ? { checkpoint_id: id } : {}) };
}
