// The namespaces that hold items. Each step of the statement jumps over all items of a namespace to the next one, so that
// it costs one look into the index per namespace, however many items there are.
import type { AuthFilter } from "../auth-filter.ts";
import type { Queryable } from "../database.ts";
import { checkLabels, rangeUnder } from "./names.ts";

const ANY = "*";

export interface NamespaceMatch {
  readonly at: "prefix" | "suffix";
  /** "*" stands for any one label. */
  readonly labels: readonly string[];
}

export interface NamespacePage {
  readonly matches: readonly NamespaceMatch[];
  /** Show no more labels than this; namespaces that are then the same are shown once. */
  readonly maxDepth: number | null;
  readonly limit: number;
  readonly offset: number;
  /** Only namespaces that the caller may see. */
  readonly auth?: AuthFilter | undefined;
}

// Rows come in the order of their paths, as the walk makes them; a sort would have to walk to the end for each page.
// chr(1) is the smallest character there is: what follows a path begins with the path and at least that.
export const listNamespacesSql = `/* listStoreNamespaces */
with recursive walk (shown, next) as (
  select null::text[], $1::text collate "C"
  union all
  select case when m.matches then i.namespace[:coalesce($4, cardinality(i.namespace))] end,
         case when m.matches and $4 <= cardinality(i.namespace)
           then '.' || array_to_string(i.namespace[:$4], '.') || '/'
           else i.path || chr(1) end
    from walk,
         lateral (
           select path, namespace from holdfast.store_items
            where path >= walk.next and path < $2 and (expires_at is null or expires_at > now())
            order by path limit 1) as i,
         lateral (
           select not exists (
             select 1 from json_to_recordset($3::json) as c (at text, labels text[], held jsonb)
              where not jsonb_build_object('namespace', i.namespace) @> c.held
                 or cardinality(c.labels) > cardinality(i.namespace) or exists (
                select 1 from unnest(c.labels) with ordinality as l (label, n)
                 where l.label <> '*' and l.label <> i.namespace[
                   l.n + case c.at when 'suffix' then cardinality(i.namespace) - cardinality(c.labels) else 0 end])
           ) as matches) as m)
select shown as namespace from walk where shown is not null limit $5 offset $6`;

/** Namespaces in the order of their labels. @throws StoreNamespaceInvalid */
export async function listNamespaces(on: Queryable, page: NamespacePage): Promise<string[][]> {
  for (const { labels } of page.matches) checkLabels(labels);
  const { from, to } = rangeUnder(literalPrefixOf(page.matches));
  const held = page.auth ? [{ held: JSON.parse(page.auth) as object }] : [];
  const matches = JSON.stringify([...page.matches, ...held]);
  const values = [from, to, matches, page.maxDepth, page.limit, page.offset];
  const rows = await on.query<{ namespace: string[] }>(listNamespacesSql, values);
  return rows.map(({ namespace }) => namespace);
}

/** The labels that every namespace of the answer begins with. */
function literalPrefixOf(matches: readonly NamespaceMatch[]): readonly string[] {
  const labels = matches.find(({ at }) => at === "prefix")?.labels ?? [];
  const wildcard = labels.indexOf(ANY);
  return wildcard === -1 ? labels : labels.slice(0, wildcard);
}
