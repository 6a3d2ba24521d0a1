// Takes a collection away with all that it holds.
import { CollectionNotFound } from "../../errors.ts";
import type { Database } from "../database.ts";
import type { Scope } from "../scope.ts";
import { findCollection, lockCollection } from "./collections.ts";
import type { Collection } from "./collections.ts";
import { deleteDocuments, listDocuments } from "./documents.ts";

const DELETED_AT_ONCE = 500;
const LAST_TEXT = "\u{10FFFF}";

const deleteTermsSql = `/* deleteTerms */
delete from holdfast.terms where collection_id = $1`;

const deleteCollectionSql = `/* deleteCollection */
delete from holdfast.collections where tenant_id = $1 and collection_id = $2`;

/**
 * Deletes a collection and everything in it, in short transactions; if interrupted, call it again.
 * @returns the number of documents deleted
 * @throws CollectionNotFound
 */
export async function deleteCollection(database: Database, scope: Scope, name: string): Promise<number> {
  const collection = await findCollection(database, scope, name);
  if (!collection) throw new CollectionNotFound(`Collection ${name} not found.`);
  let documents = 0;
  for (;;) {
    const deleted = await deleteSlice(database, scope, collection);
    documents += deleted;
    if (deleted < DELETED_AT_ONCE) return documents;
  }
}

/** The last slice takes the collection with it, so that no document can slip in between. */
async function deleteSlice(database: Database, scope: Scope, collection: Collection): Promise<number> {
  return database.transaction(async (transaction) => {
    await lockCollection(transaction, scope, collection);
    const all = { collection, from: { file: "", record: "" }, before: LAST_TEXT };
    const slice = await listDocuments(transaction, scope, { ...all, limit: DELETED_AT_ONCE });
    await deleteDocuments(transaction, scope, { collection, keys: slice });
    if (slice.length < DELETED_AT_ONCE) {
      await transaction.query(deleteTermsSql, [collection.collection_id]);
      await transaction.query(deleteCollectionSql, [scope.tenantId, collection.collection_id]);
    }
    return slice.length;
  });
}
