// The forms of answers, each written once. openapi.ts shows them to clients, and a test holds every answer to them.
// Closed wherever the wire fixes the keys: a key that comes or goes unnoticed breaks that test.
import { z } from "zod";

const fields = z.record(z.string(), z.unknown());
const id = z.string().meta({ format: "uuid" });
const time = z.string().meta({ format: "date-time" });
/** Anyone may name a thread over protocol v2, so its id is a text here. */
const threadId = z.string();
const schema = z.union([fields, z.null()]).meta({ description: "A JSON schema; null if there is none." });

const failure = z.strictObject({
  error: z.string(),
  message: z.string(),
  code: z.string().optional(),
  budget: fields.optional(),
});

const assistant = {
  assistant_id: id,
  graph_id: z.string(),
  name: z.string(),
  description: z.string().nullable(),
  version: z.int(),
  config: fields,
  context: fields,
  metadata: fields,
  created_at: time,
};
export const Assistant = z.strictObject({ ...assistant, updated_at: time });
export const AssistantVersion = z.strictObject(assistant);
const nodeId = z.union([z.string(), z.number()]);
export const Drawing = z.strictObject({
  nodes: z.array(z.looseObject({ id: nodeId })),
  edges: z.array(z.looseObject({ source: nodeId, target: nodeId })),
});
export const GraphSchemas = z.strictObject({
  graph_id: z.string(),
  input_schema: schema,
  output_schema: schema,
  state_schema: schema,
  config_schema: schema,
  context_schema: schema,
});
export const Subgraphs = z
  .record(z.string(), z.strictObject({ state: schema, input: schema, output: schema, config: schema }))
  .meta({ description: "By namespace." });

export const Interrupt = z.looseObject({ value: z.unknown() }).partial();
export const CheckpointPlace = z.strictObject({
  thread_id: threadId,
  checkpoint_ns: z.string(),
  checkpoint_id: z.string().optional(),
  checkpoint_map: fields.nullish(),
});
export const Thread = z.strictObject({
  thread_id: threadId,
  status: z.enum(["idle", "busy", "interrupted", "error"]),
  metadata: fields,
  config: fields,
  values: z.unknown().meta({ description: "The values of the newest state." }),
  interrupts: z
    .record(z.string(), z.array(Interrupt))
    .meta({ description: "Open questions, by the task that asks." }),
  error: failure.optional(),
  is_temporary: z.literal(true).optional(),
  created_at: time,
  updated_at: time,
  state_updated_at: time,
  ttl: z
    .strictObject({
      strategy: z.enum(["delete", "keep_latest"]),
      ttl_minutes: z.number(),
      expires_at: time.nullable(),
    })
    .nullable()
    .optional()
    .meta({ description: "With include=ttl; null for a thread that is kept for ever." }),
});
/** With `select`, only what was asked for. */
export const FoundThread = Thread.omit({ ttl: true }).partial().extend({ extracted: fields.optional() });

export const Task = z.strictObject({
  id: z.string(),
  name: z.string(),
  path: z.array(z.unknown()).nullable(),
  error: z.string().nullable(),
  interrupts: z.array(Interrupt),
  checkpoint: CheckpointPlace.nullable(),
  get state(): z.ZodType {
    return ThreadState.nullable();
  },
  result: z.unknown(),
});
export const Tasks = z.array(Task);
export const ThreadState = z.strictObject({
  values: z.unknown(),
  next: z.array(z.string()),
  tasks: Tasks,
  interrupts: z.array(Interrupt),
  metadata: fields,
  created_at: time.nullable(),
  checkpoint: CheckpointPlace.nullable(),
  parent_checkpoint: CheckpointPlace.nullable(),
});
/** With `select`, only what was asked for. */
export const StateParts = ThreadState.partial();
export const StateUpdated = z.strictObject({ checkpoint: CheckpointPlace });
export const Pruned = z.strictObject({ pruned_count: z.int() });

export const Run = z.strictObject({
  run_id: id,
  thread_id: threadId,
  assistant_id: id,
  status: z.enum(["pending", "running", "success", "error", "timeout", "interrupted"]),
  metadata: fields,
  kwargs: z.looseObject({ input: z.unknown() }).meta({ description: "What was asked." }),
  multitask_strategy: z.enum(["reject", "enqueue", "interrupt", "rollback"]),
  cancel_reason: z.string().nullable(),
  error: failure.optional(),
  created_at: time,
  updated_at: time,
});
/** With `select`, only what was asked for. */
export const RunParts = Run.partial();
/** What a graph of the functional API returns may be any value. */
export const Values = z.union([
  z.looseObject({ __interrupt__: z.array(Interrupt).optional(), __error__: failure.optional() }),
  z.array(z.unknown()),
  z.string(),
  z.number(),
  z.boolean(),
  z.null(),
]);
export const Events = z.string().meta({
  description:
    "Frames of three lines, `event`, `data` (one JSON document) and `id` (0, 1, 2, …), with an empty line after each. " +
    "Lines that begin with a colon are heartbeats. The connection ends cleanly only when the run is over; " +
    "otherwise come back with Last-Event-ID.",
});

export const RunsEvents = z.string().meta({
  description:
    "The frames of one run after the other, with the ids `<ordinal of the run in its thread>-<place in the run>`. " +
    "The stream ends only when the thread is deleted.",
});

export const ThreadEvents = z.string().meta({
  description:
    "Frames of three lines, `event`, `data` (one JSON document: `event_id`, `seq`, `method`, `params`) and `id` (time and " +
    "`seq`), with an empty line after each. Lines that begin with a colon are heartbeats. The stream never ends by itself.",
});

export const CommandAnswer = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("success"),
    id: z.int(),
    result: z.looseObject({}),
    meta: z.looseObject({ thread_id: z.string() }),
  }),
  z.strictObject({
    type: z.literal("error"),
    id: z.int(),
    error: z.enum([
      "invalid_argument",
      "unknown_command",
      "no_such_run",
      "no_such_subscription",
      "no_such_namespace",
      "no_such_interrupt",
      "no_such_checkpoint",
      "permission_denied",
      "not_supported",
    ]),
    message: z.string(),
  }),
]);

export const Cron = z.strictObject({
  cron_id: id,
  assistant_id: id,
  thread_id: threadId.nullable(),
  schedule: z.string(),
  timezone: z.string().nullable(),
  end_time: time.nullable(),
  enabled: z.boolean(),
  on_run_completed: z.enum(["delete", "keep"]),
  payload: fields.meta({ description: "The fields of its runs, as they were sent." }),
  metadata: fields,
  next_run_date: time.nullable(),
  user_id: z.string().nullable(),
  error: z.string().optional().meta({ description: "Why the last fire time made no run." }),
  created_at: time,
  updated_at: time,
});
/** With `select`, only what was asked for. */
export const FoundCron = Cron.partial();
export const FoundAssistant = Assistant.partial();

export const Item = z.strictObject({
  namespace: z.array(z.string()),
  key: z.string(),
  value: fields,
  created_at: time,
  updated_at: time,
});
const FoundItem = Item.extend({
  score: z.number().optional().meta({ description: "With `query`: how near it is in meaning, -1 to 1." }),
});
export const Items = z.strictObject({ items: z.array(FoundItem) });
export const Namespaces = z.strictObject({ namespaces: z.array(z.array(z.string())) });

export const Count = z.int().min(0);
export const Up = z.strictObject({ ok: z.literal(true) });
export const Ready = Up.extend({
  warning: z.string().meta({ description: "What is wrong, though it takes requests." }).optional(),
});
export const NotReady = z.strictObject({ ok: z.literal(false), reason: z.string() });
const cached = z
  .strictObject({
    hits: Count,
    misses: Count,
    shared: Count.meta({ description: "Answers that came from a call that somebody else had under way." }),
    stored: Count,
    age_ms: Count.meta({ description: "Of all hits together, in milliseconds." }),
  })
  .meta({ description: "Of this process, since it began." });
export const Info = z.strictObject({
  version: z.string(),
  langgraph_js_version: z.string(),
  context: z.literal("js"),
  privacy: z.strictObject({
    mode: z.enum(["redact", "tokenise", "off"]),
    graphs: z.record(z.string(), z.enum(["redact", "tokenise", "off"])),
    names: z.boolean(),
    sealed: z.boolean().meta({ description: "Whether what is stored is encrypted." }),
  }),
  cache: z.strictObject({
    store: z.enum(["postgres", "redis"]),
    responses: cached,
    embeddings: cached,
    passages: cached,
    nodes: cached,
  }),
  flags: z.record(z.string(), z.boolean()),
});

export const ValidationError = z.strictObject({
  success: z.literal(false),
  error: z.strictObject({
    name: z.literal("ZodError"),
    issues: z.array(
      z.looseObject({ path: z.array(z.union([z.string(), z.int()])), code: z.string(), message: z.string() }),
    ),
  }),
});

const whose = z.string();
const amount = z.number();
export const Budget = z.strictObject({
  budget_id: id,
  scope: z.enum(["tenant", "user", "assistant", "thread"]),
  scope_id: whose,
  unit: z.enum(["tokens", "usd"]),
  period: z.enum(["minute", "hour", "day", "month", "total"]),
  max: amount,
  created_at: time,
  updated_at: time,
  periods: z.array(
    z.strictObject({
      scope_id: whose,
      starts_at: time.nullable(),
      resets_at: time.nullable(),
      max: amount,
      spent: amount,
      reserved: amount,
      free: amount,
    }),
  ),
});
export const Budgets = z.array(Budget);
export const UsageLines = z.array(
  z.strictObject({
    group: z.string().nullable(),
    calls: z.int(),
    input_tokens: z.int(),
    cached_tokens: z.int(),
    output_tokens: z.int(),
    usd: amount,
    unpriced_calls: z.int(),
    presumed_calls: z.int(),
  }),
);
