// What protocol v2 takes: commands, and which events a stream shows. Unknown keys are ignored.
import { z } from "zod";
import { isStorable } from "../../privacy/storable.ts";
import { config, fields, flag, uuid } from "../schemas.ts";

const namespace = z.array(z.string().max(1000).refine(isStorable, "must hold no NUL character")).max(100);
const MOST_CHANNELS = 100;

export const command = z.object({
  id: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  method: z.string().max(100),
  params: fields.nullish().transform((value) => value ?? {}),
});

const strict = flag.nullish().transform((value) => value ?? false);

/** One client says it in one spelling, another in both. */
const multitask = z.enum(["reject", "enqueue", "interrupt", "rollback"]).nullish();

export const runStart = z
  .object({
    assistant_id: z.string().min(1),
    input: z
      .unknown()
      .optional()
      .transform((value) => value ?? null),
    config: config.nullish().transform((value) => value ?? undefined),
    metadata: fields.nullish().transform((value) => value ?? undefined),
    multitask_strategy: multitask,
    multitaskStrategy: multitask,
    strict_resume: strict,
  })
  .transform(({ multitaskStrategy, multitask_strategy: given, ...rest }) => ({
    ...rest,
    multitask_strategy: given ?? multitaskStrategy ?? ("enqueue" as const),
  }));

const response = z.object({
  interrupt_id: z.string().min(1).max(200),
  namespace: namespace.nullish(),
  response: z
    .unknown()
    .optional()
    .transform((value) => value ?? null),
});

const answering = {
  update: z.unknown().optional(),
  goto: z.unknown().optional(),
  config: config.nullish().transform((value) => value ?? undefined),
  metadata: fields.nullish().transform((value) => value ?? undefined),
  strict_resume: strict,
};

export const inputRespond = z.union([
  z.object({ responses: z.array(response).min(1).max(1000), ...answering }),
  response.extend(answering).transform(({ interrupt_id, namespace: _where, response: given, ...rest }) => ({
    responses: [{ interrupt_id, response: given }],
    ...rest,
  })),
]);

export const stateGet = z.object({
  namespace: namespace.nullish().transform((value) => value ?? undefined),
  keys: z
    .array(z.string())
    .max(1000)
    .nullish()
    .transform((value) => value ?? undefined),
});

export const stateListCheckpoints = z.object({
  namespace: namespace.nullish().transform((value) => value ?? undefined),
  limit: z
    .number()
    .int()
    .min(1)
    .max(1000)
    .nullish()
    .transform((value) => value ?? 10),
  before: uuid.nullish().transform((value) => value ?? undefined),
});

export const stateFork = z.object({
  checkpoint_id: uuid,
  input: z
    .unknown()
    .optional()
    .transform((value) => value ?? null),
  config: config.nullish().transform((value) => value ?? {}),
});

export const agentTree = z.object({ run_id: uuid.nullish().transform((value) => value ?? undefined) });

const filter = {
  channels: z.array(z.string().max(200)).max(MOST_CHANNELS),
  namespaces: z
    .array(namespace)
    .max(1000)
    .nullish()
    .transform((value) => value ?? undefined),
  depth: z
    .number()
    .int()
    .min(0)
    .nullish()
    .transform((value) => value ?? undefined),
};

export const subscribe = z.object(filter);
export const unsubscribe = z.object({ subscription_id: z.string().max(200) });

export const eventStream = z.object({
  ...filter,
  since: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).nullish(),
  since_event_id: z.string().max(200).nullish(),
});
