// Documents that are indexed although their file, or their line in it, is gone; a page at a time.
// A file is gone only if the disk says so: one that is merely unreadable, or skipped by the walk, keeps its
// document, and so does every line of a file that could not be read to its end.
import type { Queryable } from "../storage/database.ts";
import type { Collection } from "../storage/documents/collections.ts";
import { listDocuments } from "../storage/documents/documents.ts";
import type { KnownDocument } from "../storage/documents/documents.ts";
import type { Scope } from "../storage/scope.ts";
import { isGone } from "./files.ts";
import type { Found } from "./files.ts";

interface Index {
  readonly database: Queryable;
  readonly scope: Scope;
  readonly collection: Collection;
}

/** The records of each file that was read without a failure. */
export type CompleteFiles = ReadonlyMap<string, ReadonlySet<string>>;

const PAGE = 500;
/** The text that follows directly on `text` in the order of bytes: Postgres has no NUL. */
const next = (text: string): string => `${text}\u0001`;

export async function* vanished(
  index: Index,
  found: Found,
  complete: CompleteFiles,
): AsyncGenerator<KnownDocument[]> {
  const present = new Set(found.files.map(({ file }) => file));
  const onDisk = new Map<string, boolean>();
  const isVanished = async ({ file, record }: KnownDocument): Promise<boolean> => {
    const records = complete.get(file);
    if (records) return !records.has(record);
    if (present.has(file)) return false;
    const there = onDisk.get(file) ?? !(await isGone(file));
    onDisk.set(file, there);
    return !there;
  };
  for (const range of rangesOf(found)) {
    for await (const page of pages(index, range)) {
      const gone: KnownDocument[] = [];
      for (const row of page) {
        if (await isVanished(row)) gone.push(row);
      }
      if (gone.length > 0) yield gone;
    }
  }
}

interface Range {
  readonly from: string;
  readonly before: string;
}

/** The folders, and the files that are in none of them. */
function rangesOf({ folders, files }: Found): Range[] {
  const ranges = folders.map(below);
  const single = files.filter(({ file }) => ranges.every(({ from }) => !file.startsWith(from)));
  return [...ranges, ...single.map(({ file }) => only(file))];
}

/** Everything below a folder: in the order of bytes "/" is followed by "0". */
function below(folder: string): Range {
  const path = folder.endsWith("/") ? folder.slice(0, -1) : folder;
  return { from: `${path}/`, before: `${path}0` };
}

function only(file: string): Range {
  return { from: file, before: next(file) };
}

async function* pages(
  { database, scope, collection }: Index,
  { from, before }: Range,
): AsyncGenerator<KnownDocument[]> {
  let at = { file: from, record: "" };
  for (;;) {
    const page = await listDocuments(database, scope, { collection, from: at, before, limit: PAGE });
    const last = page.at(-1);
    if (last === undefined) return;
    yield page;
    at = { file: last.file, record: next(last.record) };
  }
}
