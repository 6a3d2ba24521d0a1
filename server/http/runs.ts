// Routes of runs: on a thread, or without one, which makes a temporary thread.
import { Hono } from "hono";
import type { Context } from "hono";
import { uuidv7 } from "../ids.ts";
import { cancelRun, deleteRun, retry } from "../runs/cancel.ts";
import { cancelMany } from "../runs/cancel-many.ts";
import { createRun, getRun, listRunsOf } from "../runs/create.ts";
import { createRuns } from "../runs/create-many.ts";
import type { Engine } from "../runs/engine.ts";
import { legacyBefore } from "../runs/follow.ts";
import type { CreateOptions } from "../runs/request.ts";
import { checkWebhook } from "../runs/webhook.ts";
import { isPending, isTerminal } from "../storage/run-states.ts";
import type { RunFacts, RunRow } from "../storage/runs.ts";
import { authorize, guardRun, guardThread } from "./callers/auth.ts";
import { readForAssistant, readGuarded } from "./edge/door.ts";
import { refuseUnstorable } from "./edge/ingress.ts";
import { countRuns } from "./callers/limits.ts";
import { queryOf, selectKeys } from "./pages.ts";
import { keyOf, permitRun } from "./callers/run-access.ts";
import type { PermittedRun } from "./callers/run-access.ts";
import { RunStreams, cursorOf } from "./streams/run-streams.ts";
import {
  bodiesOf,
  cancelManyBody,
  cancelQuery,
  check,
  checkId,
  joinQuery,
  runCreate,
  runList,
  streamQuery,
} from "./schemas.ts";
import type { Bindings } from "./bindings.ts";

const THREAD = "/threads/:thread/runs";
const RUN = `${THREAD}/:run`;

export function runRoutes(engine: Engine, { heartbeatMs }: { heartbeatMs: number }): Hono<Bindings> {
  const app = new Hono<Bindings>();
  const streams = new RunStreams(engine, heartbeatMs);

  for (const base of [THREAD, "/runs"]) {
    app.post(`${base}/stream`, async (context) => {
      const { namespace: namespaces } = check(streamQuery, { namespace: context.req.queries("namespace") });
      const { run, isStateless, cancelsOnLeave } = await create(context);
      return streams.stream(context, run, { after: -1, cancelsOnLeave, isStateless, namespaces });
    });
    app.post(`${base}/wait`, async (context) => {
      const { run, isStateless, cancelsOnLeave } = await create(context);
      return streams.wait(context, run, { after: -1, cancelsOnLeave, isStateless });
    });
    app.post(base, async (context) => {
      const { run, isStateless } = await create(context);
      const path = isStateless ? `/runs/${run.run_id}` : `/threads/${run.thread_id}/runs/${run.run_id}`;
      return context.json(toRun(run), 200, { "content-location": path });
    });
  }

  app.post("/runs/batch", async (context) => {
    const requests = bodiesOf(await readForAssistant(engine, context));
    await countRuns(context, requests.length);
    const permitted: PermittedRun<(typeof requests)[number]>[] = [];
    for (const request of requests) permitted.push(await permitRun({ engine, context }, undefined, request));
    for (const { request } of permitted) if (request.webhook) checkWebhook(engine.egress, request.webhook);
    const runs = await createRuns(engine, permitted);
    return context.json(runs.map(toRun));
  });

  app.post("/runs/cancel", async (context) => {
    const { action } = check(cancelQuery, context.req.query());
    const selection = check(cancelManyBody, await readGuarded(engine, context));
    const { thread_id: threadId, run_ids: runIds, status } = selection;
    const asked = { thread_id: threadId, action, metadata: { run_ids: runIds, status } };
    const { filter } = await authorize(context, "threads", "update", asked);
    await cancelMany(engine, selection, action, filter);
    return context.body(null, 204);
  });

  app.get(THREAD, async (context) => {
    const threadId = checkId("thread", context.req.param("thread"));
    const { select, ...query } = check(runList, queryOf(context));
    refuseUnstorable("metadata", query.metadata);
    await guardThread({ engine, context }, "read", threadId);
    return context.json(
      (await listRunsOf(engine, threadId, query)).map((run) => selectKeys(toRun(run), select)),
    );
  });

  app.get(RUN, async (context) => context.json(await whole(await find(context))));
  app.get("/runs/:run", async (context) => context.json(await whole(await find(context))));

  app.delete(RUN, async (context) => {
    const { thread_id: threadId, run_id: runId } = await find(context, "delete");
    await deleteRun(engine, { threadId, runId });
    return context.body(null, 204);
  });

  app.post(`${RUN}/retry`, async (context) => {
    const run = await find(context, "update");
    await retry(engine, { threadId: run.thread_id, runId: run.run_id });
    return context.json(await whole(run));
  });

  app.post(`${RUN}/cancel`, async (context) => {
    const { action, wait, reason } = check(cancelQuery, context.req.query());
    const run = await find(context, "update", { action });
    await cancelRun(engine, { threadId: run.thread_id, runId: run.run_id }, action, reasonOf(reason, action));
    if (!wait) return context.body(null, 202);
    await streams.ended(context, run);
    return context.body(null, 204);
  });

  for (const path of [RUN, "/runs/:run"]) {
    app.get(`${path}/stream`, async (context) => {
      const {
        cancel_on_disconnect: cancelsOnLeave = false,
        checkpoint_id: checkpointId,
        ...shown
      } = check(joinQuery, {
        ...context.req.query(),
        stream_mode: context.req.queries("stream_mode"),
        namespace: context.req.queries("namespace"),
      });
      const run = await followed(context, cancelsOnLeave);
      const seen = cursorOf(context.req.header("last-event-id"));
      const after = seen < 0 && checkpointId ? await legacyBefore(engine, run, checkpointId) : seen;
      return streams.stream(context, run, {
        after,
        cancelsOnLeave,
        isStateless: false,
        modes: shown.stream_mode,
        namespaces: shown.namespace,
      });
    });
    app.get(`${path}/join`, async (context) => {
      const { cancel_on_disconnect: cancelsOnLeave = false } = check(joinQuery, context.req.query());
      return streams.join(context, await followed(context, cancelsOnLeave), cancelsOnLeave);
    });
  }

  async function create(
    context: Context<Bindings>,
  ): Promise<{ run: RunRow; isStateless: boolean; cancelsOnLeave: boolean }> {
    const given = context.req.param("thread");
    const threadId = given === undefined ? uuidv7() : checkId("thread", given);
    const asked = check(runCreate, await readForAssistant(engine, context));
    const { runId, request, by } = await permitRun({ engine, context }, given && threadId, asked);
    if (request.webhook) checkWebhook(engine.egress, request.webhook);
    const isStateless = given === undefined;
    const options: CreateOptions = {
      isStateless,
      idemKey: keyOf(
        engine,
        given ?? "stateless",
        context.req.header("idempotency-key"),
        by?.auth.user.identity,
      ),
      runId,
      by,
    };
    const run = await createRun(engine, threadId, request, options);
    return { run, isStateless, cancelsOnLeave: request.on_disconnect === "cancel" };
  }

  async function whole(run: Pick<RunFacts, "thread_id" | "run_id">): Promise<object> {
    return toRun(await getRun(engine, run.thread_id, run.run_id));
  }

  /** Whoever may end a run by leaving must be allowed to end it. */
  async function followed(context: Context<Bindings>, cancelsOnLeave: boolean): Promise<RunFacts> {
    if (cancelsOnLeave) await find(context, "update", { action: "interrupt" });
    return find(context);
  }

  function find(
    context: Context<Bindings>,
    action: "read" | "update" | "delete" = "read",
    more: object = {},
  ): Promise<RunFacts> {
    const thread = context.req.param("thread");
    const threadId = thread === undefined ? undefined : checkId("thread", thread);
    const runId = checkId("run", context.req.param("run") ?? "");
    return guardRun({ engine, context }, action, { threadId, runId }, { run_id: runId, ...more });
  }

  return app;
}

/** "taken": somebody answers in the run's place; only an interrupt may say so. */
const reasonOf = (reason: string | undefined, action: "interrupt" | "rollback"): string | null =>
  reason === "taken" && action === "interrupt" ? "taken: by another client" : null;

function toRun(run: RunRow): object {
  const { run_id, thread_id, assistant_id, metadata, kwargs, created_at, updated_at, multitask, state } = run;
  return {
    run_id,
    thread_id,
    assistant_id,
    created_at,
    updated_at,
    status: isPending(state) ? "pending" : state,
    metadata,
    kwargs,
    multitask_strategy: multitask,
    cancel_reason: run.cancel_reason,
    ...(isTerminal(state) && run.error ? { error: run.error } : {}),
  };
}
