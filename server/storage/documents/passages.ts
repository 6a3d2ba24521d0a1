// Ranking by BM25 (k1 1.5, b .75) in one statement over the postings of the query's lexemes.
// It reads the primary key of terms and the index postings_lookup alone, then the rows of the best hits.
import type { Passage } from "../../services.ts";
import type { Queryable } from "../database.ts";
import type { Scope } from "../scope.ts";

export const rankPassagesSql = `/* rankPassages */
with collection as (
  select collection_id, language::regconfig as language, chunks::float8 as n,
         lexemes::float8 / greatest(chunks, 1) as mean_length
    from holdfast.collections where tenant_id = $1 and name = $2),
query as (
  select u.lexeme, cardinality(u.positions) as times
    from collection c, unnest(to_tsvector(c.language, holdfast.search_text($3))) u),
weight as (
  select q.lexeme, q.times * ln(1 + (c.n - t.df + 0.5) / (t.df + 0.5)) as idf
    from query q cross join collection c
    join holdfast.terms t on t.collection_id = c.collection_id and t.lexeme = q.lexeme
   where t.df > 0 order by idf desc, q.lexeme limit $5),
hit as (
  select p.chunk_id,
         sum(w.idf * p.tf * (1.5 + 1) / (p.tf + 1.5 * (1 - 0.75 + 0.75 * p.length / c.mean_length))) as score
    from weight w cross join collection c
    join holdfast.postings p on p.collection_id = c.collection_id and p.lexeme = w.lexeme
   group by p.chunk_id order by score desc, p.chunk_id limit $4)
select h.chunk_id, d.source_id, d.title, k.ordinal, h.score, k.body
  from hit h join holdfast.chunks k using (chunk_id) join holdfast.documents d using (document_id)
 order by h.score desc, h.chunk_id`;

const listPassagesSql = `/* listPassages */
select k.chunk_id, d.source_id, d.title, k.ordinal, k.body
  from unnest($2::bigint[]) with ordinality as wanted (chunk_id, place)
  join holdfast.chunks k using (chunk_id) join holdfast.documents d using (document_id)
 where k.tenant_id = $1 order by wanted.place`;

/** Passages by their ids, in that order; those that are gone are left out. */
export const listPassages = (
  database: Queryable,
  scope: Scope,
  ids: readonly number[],
): Promise<Omit<Passage, "score">[]> => database.query(listPassagesSql, [scope.tenantId, ids]);

/**
 * The best passages first; none if the collection is unknown or no lexeme of `query` occurs in it.
 * @param ask.lexemes at most so many distinct lexemes count, the weightiest ones
 */
export async function rankPassages(
  database: Queryable,
  scope: Scope,
  ask: { collection: string; query: string; limit: number; lexemes: number },
): Promise<Passage[]> {
  const values = [scope.tenantId, ask.collection, ask.query, ask.limit, ask.lexemes];
  return database.query<Passage>(rankPassagesSql, values);
}
