// What the routes take. Unknown keys are ignored and null counts as unset, as the official clients expect.
import { z } from "zod";
import { InputInvalid, InputPoisoned } from "../errors.ts";
import { isUuid } from "../ids.ts";
import { isStorable } from "../privacy/storable.ts";
import { parseBody } from "./edge/ingress.ts";

export const fields = z.record(z.string(), z.unknown());
/** LangGraph waits for ever for a place among fewer than one, in whichever spelling it is told so. */
const leavesPlace = (most: unknown): boolean =>
  most === undefined || most === null || (Number.isInteger(most) && Number(most) > 0);
const message = "must be a whole number above 0";
export const config = fields
  .refine((given) => leavesPlace(given["max_concurrency"]), { path: ["max_concurrency"], message })
  .refine((given) => leavesPlace(given["maxConcurrency"]), { path: ["maxConcurrency"], message });
const mode = z.union([z.string(), z.array(z.string())]);
const breakpoints = z.union([z.literal("*"), z.array(z.string())]);
export const uuid = z
  .string()
  .refine(isUuid, "must be a UUID")
  .meta({ format: "uuid" })
  .transform((id) => id.toLowerCase());
export const flag = z
  .union([z.boolean(), z.string()])
  .transform((value) => value === true || /^(true|1|yes)$/i.test(String(value)));
/** A whole number in a body or a query, with what counts when it is not given. */
export const whole = (min: number, max: number, otherwise: number) =>
  z.coerce
    .number()
    .int()
    .min(min)
    .max(max)
    .nullish()
    .transform((value) => value ?? otherwise);

/** A checkpoint as answers name it; its thread is the one that the path names. */
const checkpoint = z
  .looseObject({
    checkpoint_id: uuid.nullish(),
    checkpoint_ns: z.string().refine(isStorable, "must hold no NUL character").nullish(),
    checkpoint_map: fields.nullish(),
  })
  .transform((given) => Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null)));

/** Every object has such a field: LangGraph takes it for one of the graph's, and no run could read the thread again. */
const INHERITED = new Set(Object.getOwnPropertyNames(Object.prototype));

/** An object is no name either, and not each can be made a text. */
const isName = (name: unknown): boolean => !(name instanceof Object) && !INHERITED.has(String(name));

function namesChannels(update: unknown): boolean {
  const pairs: unknown[] = Array.isArray(update) ? update : Object.entries(Object(update));
  return pairs.every((pair) => !Array.isArray(pair) || isName(pair[0]));
}

/** A node that is given an input is looked up; one that is only named is not. */
const namesNodes = (goto: unknown): boolean => [goto].flat().every((place) => isName(Object(place).node));

export const command = z.object({
  resume: z.unknown().optional(),
  update: z
    .unknown()
    .optional()
    .refine(namesChannels, 'must not name a channel like a part of every object, such as "constructor"'),
  goto: z
    .unknown()
    .optional()
    .refine(namesNodes, 'must not name a node like a part of every object, such as "constructor"'),
});

export const minutes = z.number().positive().max(100_000_000);

export const runCreate = z.object({
  assistant_id: z.string().min(1),
  input: z.unknown().optional(),
  command: command.nullish(),
  config: config.nullish(),
  context: fields.nullish(),
  metadata: fields.nullish(),
  // No modes are the default, as when none are sent.
  stream_mode: mode.nullish().transform((value) => (value?.length ? [value].flat() : ["values"])),
  stream_subgraphs: flag.nullish().transform((value) => value ?? false),
  interrupt_before: breakpoints.nullish(),
  interrupt_after: breakpoints.nullish(),
  checkpoint: checkpoint.nullish(),
  checkpoint_id: uuid.nullish(),
  on_disconnect: z.enum(["cancel", "continue"]).nullish(),
  multitask_strategy: z
    .enum(["reject", "enqueue", "interrupt", "rollback"])
    .nullish()
    .transform((value) => value ?? "reject"),
  if_not_exists: z
    .enum(["create", "reject"])
    .nullish()
    .transform((value) => value ?? "reject"),
  strict_resume: flag.nullish().transform((value) => value ?? false),
  after_seconds: z.number().min(0).max(31_536_000).nullish(),
  webhook: z
    .string()
    .min(1)
    .max(2048)
    .refine(isStorable, "must hold no NUL character and no half of a surrogate pair")
    .nullish(),
  // The client's type says complete|continue, the server means delete|keep: the former leave it unset.
  on_completion: z
    .enum(["delete", "keep", "complete", "continue"])
    .nullish()
    .transform((value) => (value === "delete" || value === "keep" ? value : undefined)),
  durability: z.enum(["sync", "async", "exit"]).nullish(),
});

/** What a batch holds; the official client sends the keys in its own spelling. */
export function bodiesOf(body: unknown): z.output<typeof runCreate>[] {
  const bodies = check(z.array(fields).max(1000), body);
  return bodies.map((one) => check(runCreate, Object.fromEntries(Object.entries(one).map(snakeCased))));
}

const snakeCased = ([key, value]: [string, unknown]): [string, unknown] => [
  key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
  value,
];

const isSet = flag.optional().transform((value) => value ?? false);

export const cancelQuery = z.object({
  wait: isSet,
  action: z
    .enum(["interrupt", "rollback"])
    .optional()
    .transform((value) => value ?? "interrupt"),
  reason: z.string().max(200).optional(),
});

export const cancelManyBody = z
  .object({
    thread_id: uuid.nullish(),
    run_ids: z.array(uuid).max(1000).nullish(),
    status: z.enum(["pending", "running", "all"]).nullish(),
  })
  // A body that was left empty by mistake would stop everything.
  .refine(({ thread_id: thread, run_ids: runs, status }) => Boolean(thread ?? runs ?? status), {
    path: ["status"],
    message: "say which: run_ids, thread_id, or a status, which may be all",
  });

/** Keys to select. No names are all names, as when none are sent. */
export const names = z
  .array(z.string())
  .nullish()
  .transform((list) => (list?.length ? list : undefined));

export const runList = z.object({
  select: names,
  limit: whole(1, 1000, 10),
  offset: whole(0, 1_000_000_000, 0),
  status: z.enum(["pending", "running", "success", "error", "timeout", "interrupted"]).optional(),
  metadata: z
    .string()
    .transform((text, context) => {
      try {
        return fields.parse(parseBody(text));
      } catch (error) {
        if (error instanceof InputPoisoned) throw error;
        context.addIssue({ code: "custom", message: "must be a JSON object" });
        return z.NEVER;
      }
    })
    .optional(),
});

export const stateUpdate = z.object({
  values: z.unknown().optional(),
  as_node: z.string().nullish(),
  checkpoint: checkpoint.nullish(),
  checkpoint_id: uuid.nullish(),
});

export const stateQuery = z.object({ subgraphs: flag.optional() });

const threadModes = z.array(z.enum(["run_modes", "lifecycle", "state_update"]));
/** What to show of a thread's runs. The official documentation calls it stream_modes, the official clients send the other. */
export const threadStreamQuery = z.object({ stream_mode: threadModes, stream_modes: threadModes }).partial();

/** What a page asks to draw. */
export const componentAsked = z.object({ name: z.string().min(1).max(255) });

const namespace = z
  .union([z.string(), z.array(z.string()).max(100)])
  .optional()
  .transform((value) => (value === undefined ? undefined : [value].flat()));

/** Only events of these namespaces, as frames name them; empty for the graph itself. */
export const streamQuery = z.object({ namespace });

export const joinQuery = streamQuery.extend({
  cancel_on_disconnect: flag.optional(),
  /** Only events of these modes; all if none is named. */
  stream_mode: mode.optional().transform((value) => (value === undefined ? undefined : [value].flat())),
  /** Only events after this checkpoint, if it is one of the run's and no last event is named. */
  checkpoint_id: z.string().refine(isStorable, "must hold no NUL character").optional(),
});

export const stateAtCheckpoint = z.object({ checkpoint, subgraphs: flag.nullish() });

const before = z.union([uuid, fields]).nullish();
export const history = z.object({
  limit: whole(1, 1000, 10),
  before: before.transform((value) =>
    typeof value === "object" && value !== null ? checkpointIdOf(value) : value,
  ),
  metadata: fields.nullish(),
  checkpoint: checkpoint.nullish(),
});

/** @throws InputInvalid with zod's issues */
export function check<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new InputInvalid("The request is not what this route takes.", result.error.issues);
}

/** @throws InputInvalid naming the kind of id */
export function checkId(kind: "thread" | "run" | "checkpoint", id: string): string {
  if (isUuid(id)) return id.toLowerCase();
  throw new InputInvalid(`Invalid ${kind} ID: a ${kind} is named by a UUID.`);
}

function checkpointIdOf(value: Record<string, unknown>): string | undefined {
  const configurable = value["configurable"];
  const holder = typeof configurable === "object" && configurable !== null ? configurable : value;
  const id: unknown = Reflect.get(holder, "checkpoint_id");
  return typeof id === "string" ? id : undefined;
}
