// A question in, the best passages out. The work is bounded whatever the question's length.
import { CollectionNotFound } from "../errors.ts";
import type { Passage } from "../services.ts";
import type { Queryable } from "../storage/database.ts";
import { findCollection } from "../storage/documents/collections.ts";
import { rankPassages } from "../storage/documents/passages.ts";
import type { Scope } from "../storage/scope.ts";

/** Longer questions are cut: words beyond it hardly move the ranking and cost time. In UTF-16 units. */
const MAX_QUERY = 8192;
/** Of a long question only the weightiest lexemes are looked up. */
const MAX_LEXEMES = 64;

export interface SearchAsk {
  readonly collection: string;
  readonly query: string;
  /** Most passages returned. */
  readonly limit: number;
}

/**
 * Passages of a collection by BM25, best first; none if nothing matches.
 * @throws CollectionNotFound
 */
export async function search(database: Queryable, scope: Scope, ask: SearchAsk): Promise<Passage[]> {
  const query = cut(ask.query);
  const passages = await rankPassages(database, scope, { ...ask, query, lexemes: MAX_LEXEMES });
  if (passages.length === 0 && !(await findCollection(database, scope, ask.collection))) {
    throw new CollectionNotFound(
      `Collection ${ask.collection} not found. Index documents into it first: holdfast index PATH --collection ${ask.collection}`,
    );
  }
  return passages;
}

/** Ends at a word border, and holds nothing that Postgres refuses in a text. */
function cut(query: string): string {
  const head = query.slice(0, MAX_QUERY);
  const border = query.length > MAX_QUERY ? head.search(/\s\S*$/) : -1;
  return (border > 0 ? head.slice(0, border) : head).toWellFormed().replaceAll("\0", " ");
}
