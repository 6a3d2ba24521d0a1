// Rows of holdfast.assistants and of all their versions. A row and the version that it shows are written in one
// statement, and each change gives the row a new revision: who remembers a row can ask whether it is still true.
// Which assistant is a graph's own, and may be changed, is decided above.
import type { AuthFilter } from "./auth-filter.ts";
import type { Queryable } from "./database.ts";

export interface AssistantFields {
  readonly graph_id: string;
  readonly name: string;
  readonly description: string | null;
  readonly config: Record<string, unknown>;
  readonly context: Record<string, unknown>;
  readonly metadata: Record<string, unknown>;
}

export interface AssistantVersionRow extends AssistantFields {
  readonly assistant_id: string;
  readonly version: number;
  readonly created_at: Date;
}

export interface AssistantRow extends AssistantVersionRow {
  readonly updated_at: Date;
  /** New with each change; not for clients. */
  readonly revision: string;
}

export interface AssistantFilter {
  readonly metadata?: object | undefined;
  readonly graphId?: string | undefined;
  /** A part of the name, in any case. */
  readonly name?: string | undefined;
  /** Only assistants that the caller may see, and those of graphs, which everybody may see. */
  readonly auth?: { readonly filter: AuthFilter; readonly ownIds: readonly string[] } | undefined;
}

export interface AssistantPage extends AssistantFilter {
  readonly sortBy: "assistant_id" | "graph_id" | "name" | "created_at" | "updated_at";
  readonly sortOrder: "asc" | "desc";
  readonly limit: number;
  readonly offset: number;
}

const upsertSystemRows = `/* upsertSystemAssistants */
with a as (
  insert into holdfast.assistants as a (assistant_id, graph_id, name, metadata, config, context)
  select n.assistant_id, n.graph_id, n.graph_id, '{"created_by": "system"}', n.config, n.context
    from unnest($1::uuid[], $2::text[], $3::jsonb[], $4::jsonb[]) as n (assistant_id, graph_id, config, context)
  on conflict (assistant_id) do update set graph_id = a.graph_id
  returning assistant_id, graph_id, name, description, version, config, context, metadata, created_at, updated_at, revision),
kept as (
  insert into holdfast.assistant_versions (assistant_id, version, graph_id, name, description, config, context, metadata)
  select assistant_id, version, graph_id, name, description, config, context, metadata from a
  on conflict (assistant_id, version) do nothing)
select * from a`;

const insertAssistantRow = `/* insertAssistant */
with a as (
  insert into holdfast.assistants (assistant_id, graph_id, name, description, config, context, metadata)
  values ($1, $2, $3, $4, $5, $6, $7)
  on conflict (assistant_id) do nothing
  returning assistant_id, graph_id, name, description, version, config, context, metadata, created_at, updated_at, revision),
kept as (
  insert into holdfast.assistant_versions (assistant_id, version, graph_id, name, description, config, context, metadata)
  select assistant_id, version, graph_id, name, description, config, context, metadata from a)
select * from a`;

const findAssistantRow = `/* findAssistant */
select assistant_id, graph_id, name, description, version, config, context, metadata, created_at, updated_at, revision
  from holdfast.assistants where assistant_id = $1`;

const lockAssistantRow = `/* lockAssistant */
select assistant_id, graph_id, name, description, version, config, context, metadata, created_at, updated_at, revision
  from holdfast.assistants where assistant_id = $1 for no key update`;

// The number after the highest: the versions after one that was gone back to stay.
const updateAssistantRow = `/* updateAssistant */
with a as (
  update holdfast.assistants
     set graph_id = $2, name = $3, description = $4, config = $5, context = $6, metadata = $7, updated_at = now(),
         revision = gen_random_uuid(),
         version = 1 + greatest(version, (select max(v.version) from holdfast.assistant_versions v where v.assistant_id = $1))
   where assistant_id = $1
  returning assistant_id, graph_id, name, description, version, config, context, metadata, created_at, updated_at, revision),
kept as (
  insert into holdfast.assistant_versions (assistant_id, version, graph_id, name, description, config, context, metadata)
  select assistant_id, version, graph_id, name, description, config, context, metadata from a)
select * from a`;

const restoreVersionRow = `/* restoreVersion */
update holdfast.assistants a
   set graph_id = v.graph_id, name = v.name, description = v.description, config = v.config, context = v.context,
       metadata = v.metadata, version = v.version, updated_at = now(), revision = gen_random_uuid()
  from holdfast.assistant_versions v
 where a.assistant_id = $1 and v.assistant_id = $1 and v.version = $2
returning a.assistant_id, a.graph_id, a.name, a.description, a.version, a.config, a.context, a.metadata, a.created_at,
  a.updated_at, a.revision`;

const deleteAssistantRow = `/* deleteAssistant */
delete from holdfast.assistants where assistant_id = $1 returning assistant_id`;

const listVersionRows = `/* listVersions */
select assistant_id, graph_id, name, description, version, config, context, metadata, created_at
  from holdfast.assistant_versions
 where assistant_id = $1 and ($2::jsonb is null or metadata @> $2)
 order by version desc limit $3 offset $4`;

// Planned with its values, all of the order but one column and the tie-break are constants, and an index gives it.
export const listAssistantRows = `/* listAssistants: planned for its values */
select assistant_id, graph_id, name, description, version, config, context, metadata, created_at, updated_at, revision
  from holdfast.assistants
 where ($1::jsonb is null or metadata @> $1) and ($2::text is null or graph_id = $2)
   and ($3::text is null or strpos(lower(name), lower($3)) > 0)
   and ($4::jsonb is null or metadata @> $4 or assistant_id = any ($5::uuid[]))
 order by
  case when $7 = 'asc' then case $6 when 'created_at' then created_at when 'updated_at' then updated_at end end,
  case when $7 = 'desc' then case $6 when 'created_at' then created_at when 'updated_at' then updated_at end end desc,
  case when $7 = 'asc' then case $6 when 'graph_id' then graph_id when 'name' then name end end,
  case when $7 = 'desc' then case $6 when 'graph_id' then graph_id when 'name' then name end end desc,
  case when $7 = 'desc' then assistant_id end desc,
  assistant_id
 limit $8 offset $9`;

const countAssistantRows = `/* countAssistants: planned for its values */
select count(*) as count from holdfast.assistants
 where ($1::jsonb is null or metadata @> $1) and ($2::text is null or graph_id = $2)
   and ($3::text is null or strpos(lower(name), lower($3)) > 0)
   and ($4::jsonb is null or metadata @> $4 or assistant_id = any ($5::uuid[]))`;

/** Makes the assistants of graphs that are missing and returns all of them, as clients left them. */
export const upsertSystemAssistants = (
  on: Queryable,
  assistants: readonly {
    assistantId: string;
    graphId: string;
    /** What it begins with. */
    config?: object;
    context?: object;
  }[],
): Promise<AssistantRow[]> =>
  on.query(upsertSystemRows, [
    assistants.map(({ assistantId }) => assistantId),
    assistants.map(({ graphId }) => graphId),
    assistants.map(({ config }) => JSON.stringify(config ?? {})),
    assistants.map(({ context }) => JSON.stringify(context ?? {})),
  ]);

/** The new assistant in its first version, or undefined when the id is taken. */
export async function insertAssistant(
  on: Queryable,
  assistantId: string,
  fields: AssistantFields,
): Promise<AssistantRow | undefined> {
  const [row] = await on.query<AssistantRow>(insertAssistantRow, valuesOf(assistantId, fields));
  return row;
}

export async function findAssistant(on: Queryable, assistantId: string): Promise<AssistantRow | undefined> {
  const [row] = await on.query<AssistantRow>(findAssistantRow, [assistantId]);
  return row;
}

export async function lockAssistant(
  transaction: Queryable,
  assistantId: string,
): Promise<AssistantRow | undefined> {
  const [row] = await transaction.query<AssistantRow>(lockAssistantRow, [assistantId]);
  return row;
}

/** Writes the next version and shows it. Lock the assistant first. */
export async function updateAssistant(
  transaction: Queryable,
  assistantId: string,
  fields: AssistantFields,
): Promise<AssistantRow | undefined> {
  const [row] = await transaction.query<AssistantRow>(updateAssistantRow, valuesOf(assistantId, fields));
  return row;
}

/** Shows an older or newer version again; undefined when there is none of that number. */
export async function restoreVersion(
  on: Queryable,
  assistantId: string,
  version: number,
): Promise<AssistantRow | undefined> {
  const [row] = await on.query<AssistantRow>(restoreVersionRow, [assistantId, version]);
  return row;
}

/** Deletes an assistant with its versions and crons; its runs stay. False: there was none. */
export async function deleteAssistant(on: Queryable, assistantId: string): Promise<boolean> {
  return (await on.query(deleteAssistantRow, [assistantId])).length > 0;
}

/** Versions of an assistant, the newest first. */
export const listVersions = (
  on: Queryable,
  assistantId: string,
  page: { metadata: object | undefined; limit: number; offset: number },
): Promise<AssistantVersionRow[]> =>
  on.query(listVersionRows, [
    assistantId,
    page.metadata ? JSON.stringify(page.metadata) : null,
    page.limit,
    page.offset,
  ]);

export const listAssistants = (on: Queryable, page: AssistantPage): Promise<AssistantRow[]> =>
  on.query(listAssistantRows, [...filtered(page), page.sortBy, page.sortOrder, page.limit, page.offset]);

export async function countAssistants(on: Queryable, filter: AssistantFilter): Promise<number> {
  const [row] = await on.query<{ count: number }>(countAssistantRows, filtered(filter));
  return row?.count ?? 0;
}

const filtered = ({ metadata, graphId, name, auth }: AssistantFilter): unknown[] => [
  metadata ? JSON.stringify(metadata) : null,
  graphId ?? null,
  name ?? null,
  auth?.filter ?? null,
  auth?.ownIds ?? null,
];

const valuesOf = (assistantId: string, fields: AssistantFields): unknown[] => [
  assistantId,
  fields.graph_id,
  fields.name,
  fields.description,
  fields.config,
  fields.context,
  fields.metadata,
];
