// What the routes of the store take. Whether a namespace is one is up to storage/store/names.ts, for graphs as for clients.
import { z } from "zod";
import { fields, flag, minutes, whole } from "./schemas.ts";

const labels = z.array(z.string());
const refreshTtl = flag.nullish().transform((value) => value ?? undefined);
const offset = whole(0, 1_000_000_000, 0);

export const itemPut = z.object({
  namespace: labels,
  key: z.string(),
  value: fields,
  ttl: minutes.nullish(),
  /** Paths into the value by whose texts the item is found; false: by none. */
  index: z
    .union([z.boolean(), z.array(z.string().max(1000)).max(100)])
    .nullish()
    .transform((index) => (index === true ? undefined : (index ?? undefined))),
});

export const itemQuery = z.object({
  /** Labels with dots between them, as the official client sends them. */
  namespace: z
    .string()
    .default("")
    .transform((text) => (text === "" ? [] : text.split("."))),
  key: z.string(),
  refresh_ttl: refreshTtl,
});

export const itemDelete = z.object({ namespace: labels, key: z.string() });

export const itemSearch = z.object({
  namespace_prefix: labels.nullish().transform((value) => value ?? []),
  filter: fields.nullish(),
  limit: whole(1, 1000, 10),
  offset,
  query: z.string().nullish(),
  refresh_ttl: refreshTtl,
});

export const namespaceList = z.object({
  prefix: labels.nullish(),
  suffix: labels.nullish(),
  max_depth: z.int().min(1).max(1_000_000).nullish(),
  limit: whole(1, 1000, 100),
  offset,
});
