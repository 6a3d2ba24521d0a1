// Files to text. What leaves here is well-formed, without control characters, and never blank;
// what cannot be is a DocumentUnreadable that names the file and the reason.
import { readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import { DocumentUnreadable, messageOf } from "../errors.ts";
import type { DocumentKey } from "../storage/documents/documents.ts";
import { failureOf, formatOf, unreadable } from "./files.ts";
import type { Failure, SourceFile } from "./files.ts";
import { htmlText } from "./html-text.ts";
import { readPdf } from "./pdf.ts";
import { parseRecord, readLines } from "./records.ts";
import type { TextKind } from "./split.ts";

export interface LoadedDocument extends DocumentKey {
  readonly source_id: string;
  readonly title: string;
  readonly text: string;
  readonly kind: TextKind;
}

type Content = Pick<LoadedDocument, "title" | "text"> & { readonly kind?: TextKind };

const MAX_FILE_BYTES = 50_000_000;
const MAX_TITLE = 300;
/** Together they are a key of an index, whose rows Postgres limits to 2,704 bytes. */
const MAX_KEY_BYTES = 2500;
const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * The documents in a file. A bad line of a file of many documents is a Failure among them.
 * @throws DocumentUnreadable when the file as a whole cannot be read (further)
 */
export async function* load(
  file: SourceFile,
  signal?: AbortSignal,
): AsyncGenerator<LoadedDocument | Failure> {
  try {
    if (isRecords(file)) yield* loadRecords(file);
    else yield checked({ ...file, record: "" }, await readContent(file, signal));
  } catch (error) {
    signal?.throwIfAborted();
    throw unreadable(file.source, error);
  }
}

/** How many documents a file holds, bad ones included; 1 if that cannot be told. */
export async function countDocuments(file: SourceFile): Promise<number> {
  if (!isRecords(file)) return 1;
  let count = 0;
  try {
    for await (const _ of readLines(file.file)) count += 1;
  } catch {
    // load() meets the same error and reports it.
  }
  return count;
}

async function* loadRecords(file: SourceFile): AsyncGenerator<LoadedDocument | Failure> {
  const seen = new Set<string>();
  for await (const { number, bytes } of readLines(file.file)) {
    const name = `${file.source}:${number}`;
    try {
      const { _id, title, text } = parseRecord(decode(bytes, name), name);
      const id = clean(_id); // as it is stored
      if (seen.has(id)) throw new DocumentUnreadable(`${name} has the _id of an earlier line.`);
      seen.add(id);
      yield checked({ file: file.file, record: id, source: `${file.source}#${id}` }, { title, text }, name);
    } catch (error) {
      if (!(error instanceof DocumentUnreadable)) throw error;
      yield failureOf(name, error);
    }
  }
}

async function readContent({ file, source }: SourceFile, signal?: AbortSignal): Promise<Content> {
  const { size } = await stat(file);
  if (size > MAX_FILE_BYTES) throw new DocumentUnreadable(`${source} is above 50 MB. Split it.`);
  const bytes = await readFile(file, { signal });
  switch (formatOf(file)) {
    case ".pdf": {
      const { text, title } = await readPdf(bytes, { name: source, signal });
      return { text, title: title || firstLine(text) };
    }
    case ".html":
    case ".htm":
      return readHtml(decode(bytes, source), source);
    case ".md": {
      const text = decode(bytes, source);
      return { text, title: firstHeading(text), kind: "markdown" };
    }
    default:
      return { text: decode(bytes, source), title: "" };
  }
}

/** The document as it will be hashed, split and stored. */
function checked(
  { file, record, source }: DocumentKey & { readonly source: string },
  content: Content,
  name = source,
): LoadedDocument {
  const text = clean(content.text);
  if (text.trim() === "") throw new DocumentUnreadable(`${name} holds no text.`);
  if (Buffer.byteLength(file) + Buffer.byteLength(record) > MAX_KEY_BYTES) {
    throw new DocumentUnreadable(`${name} has a path and _id above ${MAX_KEY_BYTES} bytes. Shorten them.`);
  }
  const title = clean(content.title).replaceAll(/\s+/g, " ").trim().slice(0, MAX_TITLE).toWellFormed();
  const source_id = clean(source);
  return {
    file,
    record,
    source_id,
    title: title || basename(file),
    text,
    kind: content.kind ?? "plain",
  };
}

function decode(bytes: Uint8Array, name: string): string {
  if (bytes.includes(0)) throw new DocumentUnreadable(`${name} is not text: it holds NUL bytes.`);
  try {
    return utf8.decode(bytes);
  } catch (error) {
    throw new DocumentUnreadable(`${name} is not UTF-8. Convert it.`, { cause: error });
  }
}

/** Postgres refuses NUL and half surrogate pairs, and the splitter uses a control character of its own. */
function clean(text: string): string {
  return text
    .replaceAll(/\r\n?/g, "\n")
    .replaceAll(/[^\P{Cc}\n\t]/gu, " ")
    .toWellFormed();
}

function readHtml(html: string, name: string): Content {
  try {
    return htmlText(html, MAX_FILE_BYTES);
  } catch (error) {
    // Such as a nesting so deep that the parser runs out of stack.
    throw new DocumentUnreadable(`${name} cannot be read as HTML: ${messageOf(error)}.`, { cause: error });
  }
}

function firstHeading(markdown: string): string {
  const prose = markdown.replaceAll(/^(```|~~~)[\s\S]*?^\1/gm, "");
  const heading = /^#{1,6}[ \t]+(\S.*)$/m.exec(prose)?.[1] ?? "";
  let end = heading.length;
  // An expression for the end tries it from each place anew.
  while (" \t\r#".includes(heading[end - 1] ?? ".")) end -= 1;
  return heading.slice(0, end);
}

function firstLine(text: string): string {
  return text.trim().split("\n", 1)[0] ?? "";
}

function isRecords({ file }: SourceFile): boolean {
  return formatOf(file)?.startsWith(".jsonl") ?? false;
}
