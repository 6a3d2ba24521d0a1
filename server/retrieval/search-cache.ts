// Which passages a search found, as long as its collection stays as it is: ids and scores alone, never a text. An entry of
// an older state of the collection is never found again, so nothing has to be taken away.
import type { Passage } from "../services.ts";
import type { Caches } from "../storage/caches/caches.ts";
import type { Queryable } from "../storage/database.ts";
import { findRevision } from "../storage/documents/collections.ts";
import { listPassages } from "../storage/documents/passages.ts";
import type { Scope } from "../storage/scope.ts";
import { search } from "./search.ts";
import type { SearchAsk } from "./search.ts";

/** An id and a score for each passage, as two float8. */
const PAIR_BYTES = 16;

/**
 * As search(), from the cache where it knows.
 * @throws CollectionNotFound, CacheUnavailable
 */
export async function cachedSearch(
  { database, scope, caches, ttlMs }: { database: Queryable; scope: Scope; caches: Caches; ttlMs: number },
  ask: SearchAsk,
): Promise<Passage[]> {
  const at = await findRevision(database, scope, ask.collection);
  if (!at) return search(database, scope, ask); // which says so
  const { collection_id: id, revision } = at;
  const query = ask.query.trim().replaceAll(/\s+/g, " ");
  const key = await caches.keyOf("passages", `${id}:${revision}:${ask.limit}`, query);
  if (key === undefined) return search(database, scope, ask);
  const hit = (await caches.get("passages", [key])).get(key);
  const known = hit && (await passagesOf(database, scope, hit.value));
  if (known) return known;
  const found = await search(database, scope, ask);
  const pairs = Float64Array.from(found.flatMap(({ chunk_id: chunk, score }) => [chunk, score]));
  await caches.put("passages", [{ key, value: new Uint8Array(pairs.buffer), ttlMs }]);
  return found;
}

/** Undefined: some of them are gone, so this is no answer any more. */
async function passagesOf(database: Queryable, scope: Scope, value: Buffer): Promise<Passage[] | undefined> {
  if (value.length % PAIR_BYTES !== 0) return undefined;
  const pairs = new Float64Array(Uint8Array.from(value).buffer); // a copy begins where float8 may
  const scores = new Map<number, number>();
  for (let at = 0; at < pairs.length; at += 2) scores.set(pairs[at] ?? 0, pairs[at + 1] ?? 0);
  const passages = scores.size > 0 ? await listPassages(database, scope, [...scores.keys()]) : [];
  if (passages.length < scores.size) return undefined;
  return passages.map((passage) => Object.assign(passage, { score: scores.get(passage.chunk_id) ?? 0 }));
}
