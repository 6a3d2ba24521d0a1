// Collections: one language, one set of documents, and the totals that BM25 divides by.
// The totals are exact because every writer of a collection holds its row's lock.
import { CollectionNotFound, InputInvalid } from "../../errors.ts";
import type { Queryable } from "../database.ts";
import type { Scope } from "../scope.ts";

export interface Collection {
  readonly collection_id: number;
  readonly name: string;
  /** A text search configuration of Postgres, such as `english` or `simple`. */
  readonly language: string;
}

export interface CollectionSummary {
  readonly name: string;
  readonly language: string;
  readonly documents: number;
  readonly chunks: number;
}

/** Every path comes before it in the order of bytes. */
export const findCollectionSql = `/* findCollection */
select collection_id, name, language from holdfast.collections where tenant_id = $1 and name = $2`;

const findRevisionSql = `/* findRevision */
select collection_id, revision from holdfast.collections where tenant_id = $1 and name = $2`;

const insertCollection = `/* insertCollection */
insert into holdfast.collections (tenant_id, name, language) values ($1, $2, $3)
on conflict (tenant_id, name) do nothing`;

export const listCollectionsSql = `/* listCollections */
select name, language, documents, chunks from holdfast.collections where tenant_id = $1 order by name`;

const listLanguages = `/* listLanguages */
select cfgname::text as language from pg_catalog.pg_ts_config
 where pg_catalog.pg_ts_config_is_visible(oid) order by 1`;

// A statement of its own: inside the statement that writes, its snapshot would be older than its lock, and
// eight writers of the same documents drove the totals below zero.
export const lockCollectionSql = `/* lockCollection */
select 1 from holdfast.collections where tenant_id = $1 and collection_id = $2 for update`;

const vacuumIndex = `/* vacuumIndex */
vacuum (analyze) holdfast.postings, holdfast.terms, holdfast.chunks, holdfast.documents, holdfast.collections`;

/** Which state of its documents a collection is in: each change makes another one. */
export async function findRevision(
  on: Queryable,
  scope: Scope,
  name: string,
): Promise<{ collection_id: number; revision: number } | undefined> {
  const [row] = await on.query<{ collection_id: number; revision: number }>(findRevisionSql, [
    scope.tenantId,
    name,
  ]);
  return row;
}

export async function findCollection(
  database: Queryable,
  scope: Scope,
  name: string,
): Promise<Collection | undefined> {
  const [row] = await database.query<Collection>(findCollectionSql, [scope.tenantId, name]);
  return row;
}

/**
 * Finds the collection or creates it.
 * @throws InputInvalid when Postgres has no such language, or the collection is in another one
 */
export async function ensureCollection(
  database: Queryable,
  scope: Scope,
  wanted: { name: string; language?: string | undefined },
): Promise<Collection> {
  const found = await findCollection(database, scope, wanted.name);
  const collection = found ?? (await createCollection(database, scope, wanted));
  if (wanted.language === undefined || wanted.language === collection.language) return collection;
  throw new InputInvalid(
    `Collection ${wanted.name} is indexed in ${collection.language}. Delete it first to index it in ${wanted.language}.`,
  );
}

/** By name. */
export async function listCollections(database: Queryable, scope: Scope): Promise<CollectionSummary[]> {
  return database.query<CollectionSummary>(listCollectionsSql, [scope.tenantId]);
}

/**
 * Takes the collection's write lock until the transaction ends.
 * @throws CollectionNotFound when it was deleted meanwhile
 */
export async function lockCollection(
  transaction: Queryable,
  scope: Scope,
  collection: Collection,
): Promise<void> {
  const rows = await transaction.query(lockCollectionSql, [scope.tenantId, collection.collection_id]);
  if (rows.length === 0) throw new CollectionNotFound(`Collection ${collection.name} was deleted meanwhile.`);
}

/** Lets the search read postings from the index alone; worth its time after many changes. */
export async function vacuum(database: Queryable): Promise<void> {
  await database.query(vacuumIndex);
}

async function createCollection(
  database: Queryable,
  scope: Scope,
  { name, language = "english" }: { name: string; language?: string | undefined },
): Promise<Collection> {
  const languages = await database.query<{ language: string }>(listLanguages);
  if (languages.every((row) => row.language !== language)) {
    const known = languages.map((row) => row.language).join(", ");
    throw new InputInvalid(`PostgreSQL has no text search for ${language}. Use one of: ${known}.`);
  }
  await database.query(insertCollection, [scope.tenantId, name, language]);
  const collection = await findCollection(database, scope, name);
  if (!collection) throw new CollectionNotFound(`Collection ${name} was deleted meanwhile.`);
  return collection;
}
