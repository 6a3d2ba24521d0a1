// Paths to the files below them, in one order on every machine. A file is known by its real absolute path,
// so the same file reached in two ways is one file.
import type { Dirent } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { DocumentUnreadable } from "../errors.ts";
import { codeOf } from "../storage/postgres.ts";

const FORMATS = [".md", ".txt", ".html", ".htm", ".pdf", ".jsonl", ".jsonl.gz"];

export interface SourceFile {
  /** Absolute, real. */
  readonly file: string;
  /** Relative to the indexed folder, with "/"; the file's name if the file itself was named. */
  readonly source: string;
}

/** Something that was not indexed, and why. */
export interface Failure {
  readonly source: string;
  readonly code: string;
  readonly reason: string;
}

export interface Found {
  readonly files: SourceFile[];
  /** The folders that were named, absolute and real. */
  readonly folders: string[];
  readonly failures: Failure[];
}

/** Finds every readable format below `paths`; skips dot-files, node_modules and links to folders. */
export async function findFiles(paths: readonly string[]): Promise<Found> {
  const found: Found = { files: [], folders: [], failures: [] };
  for (const path of paths) {
    try {
      await visit(path, found);
    } catch (error) {
      found.failures.push(failureOf(path, unreadable(path, error)));
    }
  }
  const unique = new Map(found.files.toReversed().map((file) => [file.file, file]));
  return { ...found, files: [...unique.values()].toReversed() };
}

/** True only if nothing is there any more; a folder that cannot be entered proves nothing. */
export async function isGone(file: string): Promise<boolean> {
  try {
    return !(await stat(file)).isFile();
  } catch (error) {
    return ["ENOENT", "ENOTDIR"].includes(codeOf(error) ?? "");
  }
}

/** The format of a file by its name, or undefined. */
export function formatOf(file: string): string | undefined {
  const name = file.toLowerCase();
  return FORMATS.find((format) => name.endsWith(format));
}

export function failureOf(source: string, error: DocumentUnreadable): Failure {
  return { source, code: error.code, reason: error.message };
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file or folder",
  EACCES: "permission was denied",
  EPERM: "permission was denied",
  ELOOP: "its links go round in a circle",
};

/** The error of the file system in words. Anything else is thrown on. */
export function unreadable(name: string, error: unknown): DocumentUnreadable {
  if (error instanceof DocumentUnreadable) return error;
  const code = codeOf(error);
  if (code === undefined) throw error;
  const text = `${name} cannot be read: ${REASONS[code] ?? code}.`;
  return new DocumentUnreadable(text, { cause: error });
}

async function visit(path: string, found: Found): Promise<void> {
  const status = await stat(path);
  if (status.isDirectory()) {
    const folder = await realpath(path);
    found.folders.push(folder);
    await walk(folder, folder, found);
  } else if (formatOf(path) && status.isFile()) {
    // A link keeps its own name: what it points at may change.
    found.files.push({
      file: join(await realpath(dirname(resolve(path))), basename(path)),
      source: basename(path),
    });
  } else {
    throw new DocumentUnreadable(`${path} has a format that is not read. Read are: ${FORMATS.join(" ")}.`);
  }
}

async function walk(root: string, folder: string, found: Found): Promise<void> {
  for (const entry of await list(root, folder, found)) {
    const path = join(folder, entry.name);
    if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
    if (entry.isDirectory()) await walk(root, path, found);
    else if (formatOf(path) && (entry.isFile() || (entry.isSymbolicLink() && !(await isGone(path))))) {
      found.files.push({ file: path, source: relative(root, path).replaceAll(sep, "/") });
    }
  }
}

async function list(root: string, folder: string, found: Found): Promise<Dirent[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    const name = relative(root, folder) || folder;
    found.failures.push(failureOf(name, unreadable(name, error)));
    return [];
  }
}
