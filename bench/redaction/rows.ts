// Rows with known findings, in two halves: rules were written while looking at the seen one only.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { z } from "zod";
import { DocumentUnreadable } from "../../server/errors.ts";

const spanSchema = z.object({ start: z.number(), end: z.number(), type: z.string() });
const rowSchema = z.object({
  id: z.string(),
  source: z.string(),
  text: z.string(),
  spans: z.array(spanSchema),
});
const documentSchema = z.object({ title: z.string(), text: z.string() });

export type Row = z.output<typeof rowSchema>;

export function readRows(file: string): { seen: Row[]; unseen: Row[] } {
  const rows = readLines(file, rowSchema);
  const isSeen = ({ id }: Row): boolean => (createHash("sha256").update(id).digest()[0] ?? 0) % 2 === 0;
  return { seen: rows.filter(isSeen), unseen: rows.filter((row) => !isSeen(row)) };
}

/** Prose without personal data. */
export const readProse = (file: string): string[] =>
  readLines(file, documentSchema).map(({ title, text }) => `${title}\n${text}`);

function readLines<T>(file: string, schema: z.ZodType<T>): T[] {
  const bytes = readFileSync(file);
  const text = (file.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString();
  return text
    .trim()
    .split("\n")
    .map((line, index) => {
      const result = schema.safeParse(JSON.parse(line));
      if (!result.success) throw new DocumentUnreadable(`${file}: line ${index + 1} has another form.`);
      return result.data;
    });
}
