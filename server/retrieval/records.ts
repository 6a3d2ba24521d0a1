// Files of many documents: one JSON object {_id, title, text} per line, plain or gzipped.
// A bad line is reported by its number and the others are read; memory holds one line at a time.
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { z } from "zod";
import { DocumentUnreadable } from "../errors.ts";

const MAX_LINE_BYTES = 50_000_000;
const LINE_FEED = 10;

const schema = z.object({
  _id: z.union([z.string().min(1), z.number().transform(String)], "must be a text or a number"),
  title: z.string().default(""),
  text: z.string(),
});

export interface Line {
  /** From 1. */
  readonly number: number;
  readonly bytes: Buffer;
}

/** The lines that are not blank. Throws what the file system or gzip throws. */
export async function* readLines(file: string): AsyncGenerator<Line> {
  let number = 0;
  for await (const bytes of splitLines(open(file), file)) {
    number += 1;
    if (bytes.some((byte) => byte > 32)) yield { number, bytes };
  }
}

/**
 * The document on one line.
 * @param name names the line in an error
 * @throws DocumentUnreadable
 */
export function parseRecord(text: string, name: string): z.output<typeof schema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DocumentUnreadable(`${name} is not JSON.`, { cause: error });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const field = issue?.path.join(".") || "the line";
  throw new DocumentUnreadable(`${name}: ${field} is wrong: ${issue?.message ?? "unknown"}.`);
}

function open(file: string): AsyncIterable<Buffer> {
  const source = createReadStream(file);
  if (!file.toLowerCase().endsWith(".gz")) return source;
  return pipeline(source, createGunzip(), () => {
    // The reader of the lines meets the same error; this one must only not be unhandled.
  });
}

async function* splitLines(source: AsyncIterable<Buffer>, file: string): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of source) {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]);
      parts = [];
      length = 0;
      start = end + 1;
    }
    parts.push(chunk.subarray(start));
    length += chunk.length - start;
    if (length > MAX_LINE_BYTES) throw new DocumentUnreadable(`${file} has a line above 50 MB. Split it.`);
  }
  if (length > 0) yield Buffer.concat(parts);
}
