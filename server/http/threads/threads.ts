// Routes of threads: create, read, change, copy, delete; state and history.
import { Hono } from "hono";
import type { Context } from "hono";
import type { Fields } from "../../fields.ts";
import { uuidv7 } from "../../ids.ts";
import type { Engine } from "../../runs/engine.ts";
import type { Superstep } from "../../runs/graph/graph.ts";
import { commandOf } from "../../runs/input.ts";
import { deleteThread, getState, getStateText, listHistory, updateState } from "../../runs/state.ts";
import type { ThreadState } from "../../runs/state-shape.ts";
import { getWholeThread } from "../../runs/thread-view.ts";
import { changeThread, copyThread, createThread } from "../../runs/threads.ts";
import { metadataOf } from "../../storage/auth-filter.ts";
import { ttlOf } from "../../storage/expiry.ts";
import { callerOf } from "../callers/asker.ts";
import { authorize, guardThread, requireThread } from "../callers/auth.ts";
import { readForThread, readGuarded } from "../edge/door.ts";
import { readBody, refuseUnstorable } from "../edge/ingress.ts";
import { queryOf } from "../pages.ts";
import { check, checkId, stateUpdate } from "../schemas.ts";
import type { Bindings } from "../bindings.ts";
import { selectState, toThread, ttlInfoOf } from "./parts.ts";
import {
  selectedHistory,
  selectedState,
  selectedStateAt,
  threadCreate,
  threadPatch,
  threadQuery,
} from "./schemas.ts";

export function threadRoutes(engine: Engine): Hono<Bindings> {
  const app = new Hono<Bindings>();

  app.post("/threads", async (context) => {
    const body = check(threadCreate, await readBody(context));
    const threadId = body.thread_id ?? uuidv7();
    const { if_exists: ifExists } = body;
    // What supersteps write is looked at where it is stored, as what nodes write.
    const graphId: unknown = body.metadata?.["graph_id"];
    const metadata = engine.privacy.of(graphId).value(body.metadata);
    const asked = { thread_id: threadId, metadata, if_exists: ifExists ?? "raise" };
    const { filter, value } = await authorize(context, "threads", "create", asked);
    refuseUnstorable("metadata", value.metadata);
    const thread = {
      threadId,
      metadata: metadataOf(value.metadata),
      ttl: ttlOf(body.ttl, engine.limits.threadTtl),
      supersteps: (body.supersteps ?? []).map(({ updates }) => ({ updates: updates.map(toUpdate) })),
      by: callerOf(context)?.user.identity,
    };
    const isTaken = ifExists === "do_nothing";
    return context.json(toThread(await createThread(engine, thread, isTaken, filter)));
  });

  app.get("/threads/:thread", async (context) => {
    const { include } = check(threadQuery, { include: context.req.queries("include") });
    const threadId = idOf(context);
    await guardThread({ engine, context }, "read", threadId);
    const thread = await getWholeThread(engine, threadId);
    return context.json({
      ...toThread(thread),
      ...(include?.includes("ttl") ? { ttl: ttlInfoOf(thread) } : {}),
    });
  });

  app.patch("/threads/:thread", async (context) => {
    const threadId = idOf(context);
    const { metadata, ttl } = check(threadPatch, await readForThread(engine, context, threadId));
    const asked = { thread_id: threadId, metadata };
    const { filter, value } = await authorize(context, "threads", "update", asked);
    refuseUnstorable("metadata", value.metadata);
    await requireThread(engine, threadId, filter);
    await changeThread(engine, threadId, {
      metadata: metadataOf(value.metadata),
      ttl: ttlOf(ttl, null) ?? undefined,
    });
    if (context.req.header("prefer")?.includes("return=minimal")) return context.body(null, 204);
    return context.json(toThread(await getWholeThread(engine, threadId)));
  });

  app.post("/threads/:thread/copy", async (context) => {
    const threadId = idOf(context);
    const copyId = uuidv7();
    const { filter } = await authorize(context, "threads", "read", { thread_id: threadId });
    // Whose the copy is, the handler says with its metadata.
    const stamp = async (metadata: Fields): Promise<Fields> => {
      const asked = { thread_id: copyId, metadata: { ...metadata, thread_id: copyId } };
      const { value } = await authorize(context, "threads", "create", asked);
      refuseUnstorable("metadata", value.metadata);
      return metadataOf(value.metadata);
    };
    const by = callerOf(context) ? { filter, stamp } : undefined;
    return context.json(toThread(await copyThread(engine, threadId, { copyId, by })));
  });

  app.delete("/threads/:thread", async (context) => {
    const threadId = idOf(context);
    await guardThread({ engine, context }, "delete", threadId);
    await deleteThread(engine, threadId);
    return context.body(null, 204);
  });

  app.get("/threads/:thread/state", async (context) => {
    const { subgraphs, select } = check(selectedState, queryOf(context));
    const threadId = idOf(context);
    await guardThread({ engine, context }, "read", threadId);
    if (subgraphs) return context.json(selectState(await getState(engine, threadId, { subgraphs }), select));
    const text = await getStateText(engine, threadId);
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
    return stateAt(context, check(selectedStateAt, await readGuarded(engine, context)));
  });

  app.post("/threads/:thread/state", async (context) => {
    const threadId = idOf(context);
    const update = check(stateUpdate, await readBody(context));
    const checkpoint = checkpointOf(update.checkpoint, update.checkpoint_id);
    const asNode = update.as_node ?? undefined;
    await guardThread({ engine, context }, "update", threadId);
    const by = callerOf(context)?.user.identity;
    return context.json({
      checkpoint: await updateState(engine, threadId, { values: update.values, asNode, checkpoint, by }),
    });
  });

  app.get("/threads/:thread/history", async (context) => listed(context, queryOf(context)));
  app.post("/threads/:thread/history", async (context) =>
    listed(context, await readGuarded(engine, context)),
  );

  async function listed(context: Context, query: unknown): Promise<Response> {
    const { limit, before, metadata, checkpoint, select } = check(selectedHistory, query);
    if (before) checkId("checkpoint", before);
    refuseUnstorable("metadata", metadata);
    const wanted = { limit, before: before ?? undefined, metadata: metadata ?? undefined };
    const threadId = idOf(context);
    await guardThread({ engine, context }, "read", threadId);
    const states = await listHistory(engine, threadId, {
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
    const threadId = idOf(context);
    await guardThread({ engine, context }, "read", threadId);
    const state = await getState(engine, threadId, { checkpoint, subgraphs: subgraphs ?? false });
    return context.json(selectState(state, select));
  }

  return app;
}

const idOf = (context: Context): string => checkId("thread", context.req.param("thread") ?? "");

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
