// Routes of crons: runs that a schedule starts, on a thread or each on a new one.
import { isDeepStrictEqual } from "node:util";
import { Hono } from "hono";
import type { Context } from "hono";
import { z } from "zod";
import { CronNotFound, InputInvalid } from "../errors.ts";
import { isUuid, uuidv7 } from "../ids.ts";
import { assistantIdFor } from "../runs/assistants.ts";
import { changeCron, createCron, removeCron } from "../runs/crons.ts";
import type { CronFields } from "../runs/crons.ts";
import type { Engine } from "../runs/engine.ts";
import { checkWebhook } from "../runs/webhook.ts";
import type { Egress } from "../services.ts";
import { metadataOf } from "../storage/auth-filter.ts";
import { countCrons, findCron, listCrons } from "../storage/crons.ts";
import type { CronFilter, CronRow } from "../storage/crons.ts";
import { callerOf } from "./callers/asker.ts";
import { authorize, requireCron, requireThread } from "./callers/auth.ts";
import { readForCron, readGuarded } from "./edge/door.ts";
import { refuseUnstorable } from "./edge/ingress.ts";
import { announcePage, nextOf, selectKeys } from "./pages.ts";
import { permitRun } from "./callers/run-access.ts";
import { check, checkId, names, runCreate, uuid, whole } from "./schemas.ts";
import type { Bindings } from "./bindings.ts";

// What of a run's request a cron keeps; its thread, its time and its end are the cron's own.
const RUN_FIELDS = [
  "input",
  "command",
  "config",
  "context",
  "stream_mode",
  "stream_subgraphs",
  "interrupt_before",
  "interrupt_after",
  "checkpoint",
  "checkpoint_id",
  "multitask_strategy",
  "webhook",
  "durability",
] as const;

// Without an offset it is UTC, whatever the zone of the server is.
const time = z.iso
  .datetime({ offset: true, local: true })
  .transform((text) => new Date(/(?:Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : `${text}Z`));
const cronFields = {
  timezone: z.string().max(100).nullish(),
  end_time: time.nullish(),
  enabled: z.boolean().nullish(),
  on_run_completed: z.enum(["delete", "keep"]).nullish(),
};
export const cronCreate = runCreate.extend({ ...cronFields, schedule: z.string().min(1).max(200) });
export const cronChange = runCreate
  .omit({ assistant_id: true })
  .extend({ ...cronFields, schedule: z.string().min(1).max(200).nullish() });

export const cronFilter = z.object({
  assistant_id: z.string().nullish(),
  thread_id: uuid.nullish(),
  enabled: z.boolean().nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
});
const sortable = [
  "cron_id",
  "assistant_id",
  "thread_id",
  "created_at",
  "updated_at",
  "next_run_date",
] as const;
export const cronSearch = cronFilter.extend({
  limit: whole(1, 1000, 10),
  offset: whole(0, 1_000_000_000, 0),
  sort_by: z.enum(sortable).nullish(),
  sort_order: z.enum(["asc", "desc"]).nullish(),
  select: names,
});

/** @param egress decides which addresses a webhook may have */
export function cronRoutes(engine: Engine, egress: Egress): Hono<Bindings> {
  const app = new Hono<Bindings>();

  app.post("/runs/crons", async (context) => create(context, null));
  app.post("/threads/:thread/runs/crons", async (context) =>
    create(context, checkId("thread", context.req.param("thread"))),
  );

  app.post("/runs/crons/search", async (context) => {
    const query = check(cronSearch, await readGuarded(engine, context));
    const { limit, offset, sort_by: by, sort_order: order, select } = query;
    const filter = await seenBy(context, query, { limit, offset });
    const total = await countCrons(engine.database, filter);
    const page = {
      ...filter,
      sortBy: by ?? "created_at",
      sortOrder: order ?? "desc",
      limit,
      offset,
    } as const;
    const rows = await listCrons(engine.database, page);
    announcePage(context, { total, next: nextOf(offset, rows, total) });
    return context.json(rows.map((row) => selectKeys(toCron(row), select)));
  });

  app.post("/runs/crons/count", async (context) => {
    const filter = await seenBy(context, check(cronFilter, await readGuarded(engine, context)), {
      limit: 0,
      offset: 0,
    });
    return context.json(await countCrons(engine.database, filter));
  });

  app.patch("/runs/crons/:cron", async (context) => {
    const cronId = idOf(context);
    const body = await readForCron(engine, context, cronId);
    const change = check(cronChange, body);
    const fields = fieldsOf(egress, body, change);
    const { schedule, payload, metadata } = fields;
    const asked = { cron_id: cronId, schedule, payload, metadata };
    const { filter, value } = await authorize(context, "crons", "update", asked);
    refuseUnstorable("metadata", value.metadata);
    await requireCron(engine, cronId, filter);
    const left = { ...fields, metadata: value.metadata && metadataOf(value.metadata) };
    const isOfRun = Object.keys(payload).length > 0;
    const changed = isOfRun && callerOf(context) ? await permitChange(context, cronId, left) : left;
    return context.json(toCron(await changeCron(engine, cronId, changed)));
  });

  app.delete("/runs/crons/:cron", async (context) => {
    const cronId = idOf(context);
    const { filter } = await authorize(context, "crons", "delete", { cron_id: cronId });
    await requireCron(engine, cronId, filter);
    await removeCron(engine, cronId);
    return context.body(null, 204);
  });

  async function create(context: Context, threadId: string | null): Promise<Response> {
    const body = await readForCron(engine, context);
    const given = check(cronCreate, body);
    const { assistant_id: assistantId, schedule, end_time: endTime } = given;
    const fields = fieldsOf(egress, body, given);
    const cronId = uuidv7();
    const { value } = await authorize(context, "crons", "create", {
      cron_id: cronId,
      thread_id: threadId,
      schedule,
      end_time: endTime?.toISOString(),
      payload: fields.payload,
      metadata: given.metadata ?? {},
    });
    // It starts runs: whoever may not do that makes no cron either.
    const asked = { ...given, metadata: metadataOf(value.metadata) };
    const { request, by } = await permitRun({ engine, context }, threadId ?? undefined, asked);
    if (threadId !== null) await requireThread(engine, threadId, by?.filter);
    const metadata = request.metadata ?? undefined;
    const payload = { ...fields.payload, ...changesOf(asked, request) };
    const auth = by?.auth;
    const cron = { ...fields, payload, metadata, cronId, assistantId, threadId, schedule, auth };
    return context.json(toCron(await createCron(engine, cron)));
  }

  /** What its runs will ask for is asked as a whole, and kept as a whole: two changes at once make no third request. */
  async function permitChange(context: Context, cronId: string, change: CronFields): Promise<CronFields> {
    const cron = await findCron(engine.database, cronId);
    if (!cron) throw new CronNotFound();
    const wanted = { ...cron.payload, ...change.payload };
    const given = Object.entries(wanted).filter(([, value]) => value !== null);
    const asked = check(runCreate, {
      ...Object.fromEntries(given),
      assistant_id: cron.assistant_id,
      metadata: { ...cron.metadata, ...change.metadata },
    });
    const { request, by } = await permitRun({ engine, context }, cron.thread_id ?? undefined, asked);
    if (cron.thread_id !== null) await requireThread(engine, cron.thread_id, by?.filter);
    const nothing = Object.fromEntries(RUN_FIELDS.map((field) => [field, null]));
    const payload = { ...nothing, ...wanted, ...changesOf(asked, request) };
    return { ...change, payload };
  }

  async function seenBy(
    context: Context,
    query: z.output<typeof cronFilter>,
    page: { limit: number; offset: number },
  ): Promise<CronFilter> {
    const { assistant_id, thread_id } = query;
    const { filter: auth } = await authorize(context, "crons", "search", {
      assistant_id,
      thread_id,
      ...page,
    });
    return { ...filterOf(engine, query), auth };
  }

  return app;
}

/** What a handler of auth made of what the client asked for. */
function changesOf(
  asked: z.output<typeof runCreate>,
  left: z.output<typeof runCreate>,
): CronFields["payload"] {
  const changed = RUN_FIELDS.filter((field) => !isDeepStrictEqual(left[field], asked[field]));
  return Object.fromEntries(changed.map((field) => [field, left[field] ?? null]));
}

/** Only what the client sent: what it left out has no default yet when the cron is changed, or run. */
function fieldsOf(egress: Egress, body: unknown, given: z.output<typeof cronChange>): CronFields {
  refuseUnstorable("metadata", given.metadata);
  if (given.webhook) checkWebhook(egress, given.webhook);
  const sent = Object.keys(body ?? {});
  const payload = RUN_FIELDS.filter((field) => sent.includes(field)).map((field) => {
    const isUnset = Reflect.get(Object(body), field) === null;
    return [field, isUnset ? null : given[field]] as const;
  });
  return {
    schedule: given.schedule ?? undefined,
    timezone: given.timezone,
    endTime: given.end_time,
    isEnabled: given.enabled ?? undefined,
    onRunCompleted: given.on_run_completed ?? undefined,
    metadata: given.metadata ?? undefined,
    payload: Object.fromEntries(payload),
  };
}

function filterOf(engine: Engine, query: z.output<typeof cronFilter>): CronFilter {
  refuseUnstorable("metadata", query.metadata);
  const { assistant_id: asked } = query;
  return {
    assistantId: asked ? assistantIdFor(engine, asked) : undefined,
    threadId: query.thread_id ?? undefined,
    isEnabled: query.enabled ?? undefined,
    metadata: query.metadata ?? undefined,
  };
}

function idOf(context: Context): string {
  const id = context.req.param("cron") ?? "";
  if (isUuid(id)) return id;
  throw new InputInvalid("Invalid cron ID: a cron is named by a UUID.");
}

function toCron({ is_enabled: enabled, next_run_at: next, error, ...row }: CronRow): Record<string, unknown> {
  return { ...row, enabled, next_run_date: next, user_id: null, ...(error === null ? {} : { error }) };
}
