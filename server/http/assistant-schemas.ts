// What the routes of assistants take. Unknown keys are ignored and null counts as unset, as in schemas.ts.
import { z } from "zod";
import { config, fields, flag, names, uuid, whole } from "./schemas.ts";

// An index holds names: PostgreSQL limits what fits into one of its rows.
const name = z.string().max(500).nullish();
const said = {
  name,
  description: z.string().max(10_000).nullish(),
  config: config.nullish(),
  context: fields.nullish(),
  metadata: fields.nullish(),
};
const graphId = z.string().min(1).max(500);
const page = { limit: whole(1, 1000, 10), offset: whole(0, 1_000_000_000, 0) };

export const assistantCreate = z.object({
  ...said,
  assistant_id: uuid.nullish(),
  graph_id: graphId,
  if_exists: z.enum(["raise", "do_nothing"]).nullish(),
});

export const assistantChange = z.object({ ...said, graph_id: graphId.nullish() });

export const assistantFilter = z.object({
  graph_id: z.string().nullish(),
  name: z.string().nullish(),
  metadata: fields.nullish(),
});

export const assistantSearch = assistantFilter.extend({
  ...page,
  sort_by: z.enum(["assistant_id", "graph_id", "name", "created_at", "updated_at"]).nullish(),
  sort_order: z.enum(["asc", "desc"]).nullish(),
  select: names,
});

export const versionList = z.object({ ...page, metadata: fields.nullish() });

export const latestBody = z.object({ version: z.number().int().min(1).max(2_147_483_647) });

export const deleteQuery = z.object({ delete_threads: flag.optional() });

export const subgraphQuery = z.object({ recurse: flag.optional() });

/** How deep subgraphs are opened: a number of levels, or all of them. */
export const graphQuery = z.object({
  xray: z
    .union([
      z
        .string()
        .regex(/^\d{1,9}$/)
        .transform(Number),
      flag,
    ])
    .optional()
    .transform((value) => value ?? false),
});
