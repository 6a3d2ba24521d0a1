// Search by meaning: what is written gets its vectors first, and a search finds the items whose vectors are nearest.
// All vectors under the prefix are looked at, in their coarse form and a page at a time; where that leaves open which
// item is nearer, the exact form decides. So the answer is the one that comparing all exact vectors would give.
import { InputInvalid } from "../../errors.ts";
import type { Queryable } from "../database.ts";
import { meetsAll } from "../json-match.ts";
import { openRows } from "../keys/sealed.ts";
import type { Reading } from "../keys/sealed.ts";
import { asJson, meets } from "./filter.ts";
import { rangeUnder } from "./names.ts";
import { after, lastOfEach, openItems, refreshing, searchItems } from "./store.ts";
import type { StoreItem, StoreSearch, StoreWrite } from "./store.ts";
import { textsOf } from "./texts.ts";
import { boundsOf, pack, scoreOf, unit } from "./vectors.ts";
import type { Bounds, Embedder } from "./vectors.ts";

/** Items whose vectors are held in memory at a time; fewer when they have many: then so many bytes of coarse ones. */
const PAGE = 500;
const PAGE_BYTES = 4_000_000;
/** How far into a ranking a search may reach. */
const MOST_RANKED = 10_000;
const MOST_QUERY_CHARACTERS = 10_000;

export interface IndexedWrite extends StoreWrite {
  /** Paths into the value that are embedded; false for none, undefined for those of the embedder. */
  readonly index?: false | readonly string[] | undefined;
}

export interface MeaningSearch extends StoreSearch {
  /** What is searched for, as a vector of the embedder. */
  readonly vector: Float32Array;
  readonly embedder: Embedder;
}

export interface RankedItem extends StoreItem {
  /** The cosine similarity of its nearest vector, from -1 to 1; an item without vectors has none. */
  readonly score?: number | undefined;
}

interface Place {
  readonly path: string;
  readonly key: string;
  /** When the item was last written, in microseconds: later it is another item. */
  readonly written: number;
}

interface Candidate extends Place, Bounds {
  /** Of its coarse vectors. */
  readonly bytes: number;
}

const WRITTEN = "(extract(epoch from i.updated_at) * 1000000)::int8";

// One lower bound and one upper bound: with a second lower bound PostgreSQL begins at the one that is further away.
export const readVectorsSql = `/* readStoreVectors */
select path, key, written, encode(coarse, 'base64') as coarse, namespace, value
  from (select v.path, v.key, ${WRITTEN} as written, v.coarse, i.namespace, case when $8::boolean then i.value end as value,
               sum(octet_length(v.coarse)) over (order by v.path, v.key rows unbounded preceding)
                 - octet_length(v.coarse) as bytes_before
          from holdfast.store_vectors v
          join holdfast.store_items i on i.path = v.path and i.key = v.key and i.updated_at = v.item_updated_at
         where (v.path, v.key) >= ($1, $4) and v.path < $2 and v.embedder = $5
           and (i.expires_at is null or i.expires_at > now()) and ${meets("$3")}
         order by v.path, v.key limit $6) as page
 where bytes_before < $7
 order by path, key`;

export const readExactSql = `/* readExactStoreVectors */
select w.n::int as n, v.exact
  from unnest($1::text[], $2::text[], $3::int8[]) with ordinality as w (path, key, written, n)
  join holdfast.store_items i on i.path = w.path and i.key = w.key and ${WRITTEN} = w.written
  join holdfast.store_vectors v on v.path = i.path and v.key = i.key and v.item_updated_at = i.updated_at
 where v.embedder = $4`;

// Only items that are still what they were when their filter was looked at.
export const readRankedSql = `/* readRankedStoreItems */
with wanted as (
  select w.n, i.path, i.key, i.namespace, i.value, i.created_at, i.updated_at
    from unnest($1::text[], $2::text[], $3::int8[]) with ordinality as w (path, key, written, n)
    join holdfast.store_items i on i.path = w.path and i.key = w.key and ${WRITTEN} = w.written
   where i.expires_at is null or i.expires_at > now()),
${refreshing("wanted f", "$4")}
select n::int as n, namespace, key, value, created_at, updated_at from wanted order by n`;

/**
 * The last write of each key, with what a search by meaning finds it by. All that is to be embedded is one request.
 * @throws InputInvalid for too much text, EmbeddingFailed, and as placeOf does
 */
export async function withVectors(
  writes: readonly IndexedWrite[],
  embedder: Embedder | undefined,
  signal?: AbortSignal,
): Promise<StoreWrite[]> {
  const last = lastOfEach(writes);
  if (!embedder) return last;
  const texts = last.map(({ value, index = embedder.fields }) =>
    value === null || index === false ? [] : textsOf(value, index),
  );
  const distinct = [...new Set(texts.flat())];
  if (distinct.length === 0) return last;
  const vectors = await embedder.documents(distinct, signal);
  const vectorOf = new Map(distinct.map((text, index) => [text, vectors[index]]));
  return last.map(({ namespace, key, value, ttlMinutes }, index) => {
    const own = texts[index]?.flatMap((text) => vectorOf.get(text) ?? []) ?? [];
    const packed = own.length > 0 ? pack(embedder.name, own) : undefined;
    return { namespace, key, value, ttlMinutes, vectors: packed };
  });
}

/**
 * The vectors of what is searched for.
 * @throws InputInvalid for a text that is too long, EmbeddingFailed
 */
export async function queryVectors(
  embedder: Embedder,
  queries: readonly string[],
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, Float32Array>> {
  const distinct = [...new Set(queries)];
  if (distinct.some(({ length }) => length > MOST_QUERY_CHARACTERS))
    throw new InputInvalid(
      `query has more than ${MOST_QUERY_CHARACTERS} characters. Search for less at a time.`,
    );
  const vectors = distinct.length > 0 ? await embedder.queries(distinct, signal) : [];
  return new Map(vectors.map((vector, index) => [distinct[index] ?? "", vector]));
}

/**
 * Items under a prefix, the nearest first; those without vectors of the embedder follow, in the order of their
 * namespaces and keys.
 * @throws InputInvalid when the page begins too far down
 */
export async function searchByMeaning(on: Queryable, search: MeaningSearch): Promise<RankedItem[]> {
  const { limit, offset, embedder } = search;
  if (offset + limit > MOST_RANKED)
    throw new InputInvalid(
      `A search with query reaches ${MOST_RANKED} items far; offset and limit together are more. Search without query to see all.`,
    );
  const query = unit(search.vector);
  const { candidates, known } = await candidatesOf(on, search, query);
  const ranked = offset < known ? await rank(on, search, candidates, query) : [];
  const page = ranked.slice(offset, offset + limit);
  const items = await readRanked(on, page, search.refreshesTtl);
  if (offset + limit <= known) return items;
  const left = { limit: limit - page.length, offset: Math.max(0, offset - known) };
  return [...items, ...(await searchItems(on, { ...search, ...left, unknownTo: embedder.name }))];
}

/** Those that can be among the first, and how many there are in all. */
async function candidatesOf(
  on: Queryable,
  { prefix, conditions, limit, offset, embedder }: MeaningSearch,
  query: Float64Array,
): Promise<{ candidates: Candidate[]; known: number }> {
  const { from, to } = rangeUnder(prefix);
  // PostgreSQL cannot see what is asked of sealed values.
  const isAskedHere = on.seals.isOn && conditions.length > 0;
  const askedHere = isAskedHere ? asJson(conditions) : [];
  const asked = isAskedHere ? "[]" : JSON.stringify(conditions);
  let [candidates, known, path, key]: [Candidate[], number, string, string] = [[], 0, from, ""];
  for (;;) {
    const values: unknown[] = [path, to, asked, key, embedder.name, PAGE, PAGE_BYTES, isAskedHere];
    const rows: CoarseRow[] = await on.query(readVectorsSql, values);
    const bytes = rows.reduce((sum, { coarse }) => sum + Math.floor((coarse.length * 3) / 4), 0);
    const met = isAskedHere ? (await openItems(on, rows)).filter((item) => meetsAll(item, askedHere)) : rows;
    for (const { vector, ...place } of await openVectors(on, embedder.name, "coarse", met.map(placedOf)))
      candidates.push({ ...place, ...boundsOf(vector, query), bytes: vector.length });
    known += met.length;
    candidates = nearest(candidates, offset + limit);
    const last = rows.at(-1);
    if (!last || (rows.length < PAGE && bytes < PAGE_BYTES)) return { candidates, known };
    ({ path, key } = after(last));
  }
}

type CoarseRow = Place & StoreItem & { readonly coarse: string };

const placedOf = ({ path, key, written, coarse }: CoarseRow): Place & { vector: Buffer } => ({
  path,
  key,
  written,
  vector: Buffer.from(coarse, "base64"),
});

/** Vectors as they were read, opened. @throws SealedValueInvalid, DataKeyUnusable */
function openVectors<Row extends Place & { readonly vector: Buffer }>(
  on: Queryable,
  embedder: string,
  form: "coarse" | "exact",
  rows: Row[],
): Promise<Row[]> {
  const reading: Reading<Place> = {
    name: `store_vectors.${form}`,
    as: "bytes",
    row: ({ path, key }) => [path, key, embedder],
  };
  return openRows<Row>(on, rows, { vector: reading });
}

/** All that can be among the first `most`. */
function nearest(candidates: Candidate[], most: number): Candidate[] {
  const sure = candidates.map(({ lower }) => lower).toSorted((one, other) => other - one)[most - 1];
  return sure === undefined ? candidates : candidates.filter(({ upper }) => upper >= sure);
}

type Ranked = Place & { readonly score: number };

async function rank(
  on: Queryable,
  { embedder }: MeaningSearch,
  candidates: readonly Candidate[],
  query: Float64Array,
): Promise<Ranked[]> {
  const ranked: Ranked[] = [];
  for (const some of pagesOf(candidates)) {
    const values = [...columnsOf(some), embedder.name];
    const rows = await on.query<{ n: number; exact: Buffer }>(readExactSql, values);
    const placed = rows.flatMap(({ n, exact }) => {
      const place = some[n - 1];
      return place ? Object.assign({ vector: exact }, place) : [];
    });
    for (const { vector, ...place } of await openVectors(on, embedder.name, "exact", placed))
      ranked.push({ ...place, score: scoreOf(vector, query) });
  }
  return ranked.toSorted(
    (one, other) => other.score - one.score || byBytes(one.path, other.path) || byBytes(one.key, other.key),
  );
}

function* pagesOf(candidates: readonly Candidate[]): Generator<Candidate[]> {
  let [page, bytes]: [Candidate[], number] = [[], 0];
  for (const candidate of candidates) {
    page.push(candidate);
    bytes += candidate.bytes;
    if (page.length < PAGE && bytes < PAGE_BYTES) continue;
    yield page;
    [page, bytes] = [[], 0];
  }
  if (page.length > 0) yield page;
}

async function readRanked(
  on: Queryable,
  page: readonly Ranked[],
  refreshesTtl: boolean,
): Promise<RankedItem[]> {
  if (page.length === 0) return [];
  const values = [...columnsOf(page), refreshesTtl];
  const rows = await openItems(on, await on.query<StoreItem & { n: number }>(readRankedSql, values));
  return rows.map(({ n, ...item }) => Object.assign(item, { score: page[n - 1]?.score }));
}

const columnsOf = (places: readonly Place[]): unknown[] => [
  places.map(({ path }) => path),
  places.map(({ key }) => key),
  places.map(({ written }) => written),
];

const byBytes = (one: string, other: string): number => Buffer.compare(Buffer.from(one), Buffer.from(other));
