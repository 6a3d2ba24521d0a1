// Documents that are indexed although their file, or their line in it, is gone. A page at a time, and each
// page is read again after it was handled, so that memory stays bounded.
// A file is gone only if the disk says so: one that is merely unreadable, or skipped by a walk, keeps its document.
import type { Collection } from "../storage/collections.ts";
import type { Queryable } from "../storage/database.ts";
import { listFiles, listRecords } from "../storage/documents.ts";
import type { KnownDocument } from "../storage/documents.ts";
import type { Scope } from "../storage/scope.ts";
import { isGone } from "./files.ts";
import type { Found } from "./files.ts";

interface Index {
  readonly database: Queryable;
  readonly scope: Scope;
  readonly collection: Collection;
}

const PAGE = 500;

/** Documents of files that were read completely, but without that record. */
export async function* vanishedRecords(
  index: Index,
  complete: ReadonlyMap<string, ReadonlySet<string>>,
): AsyncGenerator<KnownDocument[]> {
  for (const [file, records] of complete) {
    // A file of one document always has its record.
    if (records.size === 1 && records.has("")) continue;
    for await (const page of recordsOf(index, file)) {
      const gone = page.filter(({ record }) => !records.has(record));
      if (gone.length > 0) yield gone;
    }
  }
}

/** Documents of files below the folders of `found` that are on disk no more. */
export async function* vanishedFiles(index: Index, found: Found): AsyncGenerator<KnownDocument[]> {
  const present = new Set(found.files.map(({ file }) => file));
  for (const folder of found.folders) {
    for await (const page of filesBelow(index, folder)) {
      for (const file of page) {
        if (present.has(file) || !(await isGone(file))) continue;
        yield* recordsOf(index, file);
      }
    }
  }
}

async function* filesBelow({ database, scope, collection }: Index, folder: string): AsyncGenerator<string[]> {
  let after = "";
  for (;;) {
    const page = await listFiles(database, scope, { collection, folder, after, limit: PAGE });
    const last = page.at(-1);
    if (last === undefined) return;
    yield page;
    after = last;
  }
}

async function* recordsOf(
  { database, scope, collection }: Index,
  file: string,
): AsyncGenerator<KnownDocument[]> {
  // The record of a file of one document is "", which nothing is after.
  const single = await findSingle({ database, scope, collection }, file);
  if (single) yield [single];
  let after = "";
  for (;;) {
    const page = await listRecords(database, scope, { collection, file, after, limit: PAGE });
    const last = page.at(-1);
    if (last === undefined) return;
    yield page;
    after = last.record;
  }
}
