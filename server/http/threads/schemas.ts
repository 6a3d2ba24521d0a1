// What the routes of threads take: creating, changing and finding them, and which parts of an answer are wanted.
import { z } from "zod";
import {
  command,
  fields,
  history,
  minutes,
  names,
  stateAtCheckpoint,
  stateQuery,
  uuid,
  whole,
} from "../schemas.ts";

const MOST_PATHS = 10;
/** What a path of `extract` may begin with. */
const ROOTS = [
  "thread_id",
  "status",
  "metadata",
  "config",
  "values",
  "interrupts",
  "error",
  "created_at",
  "updated_at",
  "state_updated_at",
];
const PATH = /^[^.[\]]+(?:\.[^.[\]]+|\[-?\d{1,9}\])*$/;

/** Minutes, or minutes and what happens then. */
const threadTtl = z
  .union([minutes, z.object({ ttl: minutes, strategy: z.enum(["delete", "keep_latest"]).nullish() })])
  .nullish();

const superstep = z.object({
  updates: z
    .array(
      z.object({
        values: z.unknown().optional(),
        command: command.nullish(),
        as_node: z.string().nullish(),
      }),
    )
    .min(1),
});

export const threadCreate = z.object({
  thread_id: uuid.nullish(),
  metadata: fields.nullish(),
  ttl: threadTtl,
  if_exists: z.enum(["raise", "do_nothing"]).nullish(),
  supersteps: z.array(superstep).max(1000).nullish(),
});

export const threadPatch = z.object({ metadata: fields.nullish(), ttl: threadTtl });

export const threadQuery = z.object({ include: names });

/** A path such as values.messages[-1].content: keys, and places in lists, which count from the end when negative. */
const path = z
  .string()
  .max(500)
  .regex(PATH, "must be keys with dots and places in brackets, such as values.messages[-1].content")
  .transform((text) =>
    [...text.matchAll(/\[(-?\d+)\]|[^.[\]]+/g)].map(([key, at]) => (at ? Number(at) : key)),
  )
  .refine(([root]) => ROOTS.includes(String(root)), `must begin with one of ${ROOTS.join(", ")}`);

export type Path = z.output<typeof path>;

export const threadFilter = z.object({
  metadata: fields.nullish(),
  values: fields.nullish(),
  ids: z.array(uuid).max(1000).nullish(),
  status: z.enum(["idle", "busy", "interrupted", "error"]).nullish(),
});

export const threadSearch = threadFilter.extend({
  limit: whole(1, 1000, 10),
  offset: whole(0, 1_000_000_000, 0),
  sort_by: z.enum(["thread_id", "status", "created_at", "updated_at", "state_updated_at"]).nullish(),
  sort_order: z.enum(["asc", "desc"]).nullish(),
  select: names,
  extract: z
    .record(z.string(), path)
    .refine((paths) => Object.keys(paths).length <= MOST_PATHS, `takes at most ${MOST_PATHS} paths`)
    .nullish(),
});

export const selectedState = stateQuery.extend({ select: names });
export const selectedStateAt = stateAtCheckpoint.extend({ select: names });
export const selectedHistory = history.extend({ select: names });
