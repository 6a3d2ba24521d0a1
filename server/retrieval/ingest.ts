// Indexing: what the files say now is what the collection holds afterwards.
// Each batch is one transaction under the collection's lock, so a run that was cut continues where it stopped:
// what is stored with the same hash is skipped.
import { createHash } from "node:crypto";
import { DatabaseUnavailable, DocumentUnreadable } from "../errors.ts";
import type { Database } from "../storage/database.ts";
import { ensureCollection, lockCollection, vacuum } from "../storage/documents/collections.ts";
import type { Collection } from "../storage/documents/collections.ts";
import { deleteDocuments, findDocuments, insertDocuments, keyOf } from "../storage/documents/documents.ts";
import type { DocumentKey, DocumentRow } from "../storage/documents/documents.ts";
import type { Scope } from "../storage/scope.ts";
import { failureOf, findFiles } from "./files.ts";
import type { Failure, SourceFile } from "./files.ts";
import { countDocuments, load } from "./load.ts";
import type { LoadedDocument } from "./load.ts";
import { SPLIT_VERSION, split } from "./split.ts";
import { vanished } from "./vanished.ts";

export interface IngestOptions {
  readonly collection: string;
  /** Files and folders. */
  readonly paths: readonly string[];
  /** Of the collection, when it is created; a text search configuration of Postgres. Default `english`. */
  readonly language?: string | undefined;
  /** Remove documents whose file or line is gone. Default true. */
  readonly prune?: boolean | undefined;
  /** Says what of a document's text and title may be kept; all of it without. */
  readonly redact?: ((text: string) => string) | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Stops between two documents; what was committed stays. */
  readonly signal?: AbortSignal | undefined;
}

export interface Progress {
  readonly done: number;
  readonly total: number;
  readonly source: string;
  readonly outcome: "indexed" | "unchanged" | "removed" | "failed";
  readonly reason?: string;
}

/** Numbers of documents, and of chunks written. */
export interface IngestReport {
  indexed: number;
  unchanged: number;
  removed: number;
  failed: Failure[];
  chunks: number;
}

interface Run {
  readonly database: Database;
  readonly scope: Scope;
  readonly collection: Collection;
  readonly report: IngestReport;
  tell(outcome: Progress["outcome"], source: string, reason?: string): void;
}

interface Batch {
  documents: { document: LoadedDocument; sha256: string }[];
  characters: number;
}

const BATCH_DOCUMENTS = 500;
const BATCH_CHARACTERS = 2_000_000;
/** From so many changes on, waiting for autovacuum would make searches read the heap for a while. */
const VACUUM_CHANGES = 1000;

/**
 * Makes a collection equal to the files below `paths`; documents read from elsewhere are not touched.
 * A file or line that cannot be read is reported and keeps what it had; the others are indexed.
 * @throws InputInvalid for a wrong language; DatabaseUnavailable; the signal's reason when it aborts
 */
export async function ingest(
  database: Database,
  scope: Scope,
  options: IngestOptions,
): Promise<IngestReport> {
  const { signal, prune = true } = options;
  const report: IngestReport = { indexed: 0, unchanged: 0, removed: 0, failed: [], chunks: 0 };
  const found = await findFiles(options.paths);
  const tell = await progressOf(found.files, options.onProgress);
  for (const failure of found.failures) fail({ report, tell }, failure);
  if (found.files.length + found.folders.length === 0) return report;

  const wanted = { name: options.collection, language: options.language };
  const collection = await ensureCollection(database, scope, wanted);
  const run: Run = { database, scope, collection, report, tell };
  const complete = await indexFiles(run, found.files, options);
  if (prune) {
    for await (const gone of vanished(run, found, complete)) {
      signal?.throwIfAborted();
      await remove(run, gone);
    }
  }
  if (report.chunks + report.removed >= VACUUM_CHANGES) await tidy(database);
  return report;
}

/** Returns the files of which every document could be read, with the records they hold. */
async function indexFiles(
  run: Run,
  files: readonly SourceFile[],
  { signal, redact = (text) => text }: Pick<IngestOptions, "signal" | "redact">,
): Promise<Map<string, Set<string>>> {
  const complete = new Map<string, Set<string>>();
  const batch: Batch = { documents: [], characters: 0 };
  for (const file of files) {
    const records = new Set<string>();
    let failures = 0;
    for await (const loaded of loadSafely(file, signal)) {
      signal?.throwIfAborted();
      if ("reason" in loaded) {
        failures += 1;
        fail(run, loaded);
        continue;
      }
      records.add(loaded.record);
      const document = { ...loaded, title: redact(loaded.title), text: redact(loaded.text) };
      batch.documents.push({ document, sha256: hashOf(document, run.collection) });
      batch.characters += loaded.text.length;
      if (isFull(batch)) await flush(run, batch);
    }
    if (failures === 0) complete.set(file.file, records);
  }
  await flush(run, batch);
  return complete;
}

/** A file that fails as a whole is one more Failure. */
async function* loadSafely(
  file: SourceFile,
  signal: AbortSignal | undefined,
): AsyncGenerator<LoadedDocument | Failure> {
  try {
    yield* load(file, signal);
  } catch (error) {
    if (!(error instanceof DocumentUnreadable)) throw error;
    yield failureOf(file.source, error);
  }
}

/** Writes what has changed in the batch, in one transaction, and empties it. */
async function flush(run: Run, batch: Batch): Promise<void> {
  const { database, scope, collection, report } = run;
  const { documents } = batch;
  batch.documents = [];
  batch.characters = 0;
  const keys = documents.map(({ document }) => document);
  const known = await findDocuments(database, scope, { collection, keys });
  const hashes = new Map(known.map((row) => [keyOf(row), row.sha256]));
  const changed = documents.filter(({ document, sha256 }) => hashes.get(keyOf(document)) !== sha256);
  const rows = await Promise.all(changed.map(({ document, sha256 }) => rowOf(document, sha256)));
  if (rows.length > 0) {
    await database.transaction(async (transaction) => {
      await lockCollection(transaction, scope, collection);
      await deleteDocuments(transaction, scope, { collection, keys: rows });
      await insertDocuments(transaction, scope, { collection, rows });
    });
  }
  const written = new Set(rows.map(keyOf));
  for (const { document } of documents) {
    const outcome = written.has(keyOf(document)) ? "indexed" : "unchanged";
    report[outcome] += 1;
    run.tell(outcome, document.source_id);
  }
  report.chunks += rows.reduce((sum, row) => sum + row.chunks.length, 0);
}

async function remove(run: Run, gone: readonly (DocumentKey & { source_id: string })[]): Promise<void> {
  const { database, scope, collection, report } = run;
  report.removed += await database.transaction(async (transaction) => {
    await lockCollection(transaction, scope, collection);
    return deleteDocuments(transaction, scope, { collection, keys: gone });
  });
  for (const { source_id: source } of gone) run.tell("removed", source);
}

async function rowOf(document: LoadedDocument, sha256: string): Promise<DocumentRow> {
  const { file, record, source_id, title, text, kind } = document;
  return { file, record, source_id, title, sha256, chunks: await split(text, kind) };
}

/** Covers everything that decides what is stored, and the version of how. */
function hashOf({ title, text, kind }: LoadedDocument, { language }: Collection): string {
  const parts = [SPLIT_VERSION, language, kind, title, text];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}

function isFull({ documents, characters }: Batch): boolean {
  return documents.length >= BATCH_DOCUMENTS || characters >= BATCH_CHARACTERS;
}

function fail({ report, tell }: Pick<Run, "report" | "tell">, failure: Failure): void {
  report.failed.push(failure);
  tell("failed", failure.source, failure.reason);
}

async function progressOf(
  files: readonly SourceFile[],
  onProgress: IngestOptions["onProgress"],
): Promise<Run["tell"]> {
  if (!onProgress) return () => undefined;
  let total = 0;
  for (const file of files) total += await countDocuments(file);
  let done = 0;
  return (outcome, source, reason) => {
    done += 1;
    total = Math.max(total, done);
    onProgress({ done, total, source, outcome, ...(reason === undefined ? {} : { reason }) });
  };
}

async function tidy(database: Database): Promise<void> {
  try {
    await vacuum(database);
  } catch (error) {
    // The index is complete; a very large one takes longer than a statement may, and autovacuum does it later.
    if (!(error instanceof DatabaseUnavailable)) throw error;
  }
}
