// A folder of documents in a test: write files, index them, look at what the collection holds.
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { ingest } from "../../server/retrieval/ingest.ts";
import type { IngestOptions, IngestReport } from "../../server/retrieval/ingest.ts";
import { search } from "../../server/retrieval/search.ts";
import type { Database } from "../../server/storage/database.ts";
import { defaultScope } from "../../server/storage/scope.ts";

export interface Folder {
  readonly path: string;
  write(files: Record<string, string | Uint8Array>): Promise<void>;
  delete(...names: string[]): Promise<void>;
}

/** Deleted when the test has finished. */
export async function makeFolder(files: Record<string, string | Uint8Array> = {}): Promise<Folder> {
  const path = await realpath(await mkdtemp(join(tmpdir(), "holdfast-documents-")));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  const folder: Folder = {
    path,
    write: async (more) => {
      for (const [name, content] of Object.entries(more)) {
        await mkdir(dirname(join(path, name)), { recursive: true });
        await writeFile(join(path, name), content);
      }
    },
    delete: async (...names) => {
      for (const name of names) await rm(join(path, name), { recursive: true });
    },
  };
  await folder.write(files);
  return folder;
}

export async function index(
  database: Database,
  collection: string,
  paths: string[],
  options: Partial<IngestOptions> = {},
): Promise<IngestReport> {
  return ingest(database, defaultScope, { collection, paths, ...options });
}

/** Source ids of what a query finds, best first. */
export async function find(database: Database, collection: string, query: string): Promise<string[]> {
  const passages = await search(database, defaultScope, { collection, query, limit: 50 });
  return passages.map(({ source_id }) => source_id);
}

/** Everything stored for a collection that does not depend on the order of the work, as text. */
export async function contentsOf(database: Database, collection: string): Promise<string> {
  const rows = await database.query(
    `select d.file, d.record, d.title, encode(d.sha256, 'hex') as sha256, k.ordinal, k.body, k.length,
            (select json_agg(json_build_array(p.lexeme, p.tf, p.length) order by p.lexeme)
               from holdfast.postings p where p.chunk_id = k.chunk_id) as postings
       from holdfast.collections c join holdfast.documents d using (collection_id)
       join holdfast.chunks k using (document_id)
      where c.name = $1 order by d.file, d.record, k.ordinal`,
    [collection],
  );
  const totals = await database.query(
    `select c.documents, c.chunks, c.lexemes,
            (select json_agg(json_build_array(t.lexeme, t.df) order by t.lexeme) from holdfast.terms t
              where t.collection_id = c.collection_id and t.df > 0) as terms
       from holdfast.collections c where c.name = $1`,
    [collection],
  );
  return JSON.stringify({ rows, totals });
}

/** A PDF of one page per text, written by hand; "" makes a page without text. */
export function pdfOf(title: string, ...pages: string[]): Uint8Array {
  const objects = [
    "<< /Type /Catalog /Pages 2 0 R >>",
    `<< /Type /Pages /Count ${pages.length} /Kids [${pages.map((_, at) => `${5 + 2 * at} 0 R`).join(" ")}] >>`,
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    `<< /Title (${title}) >>`,
    ...pages.flatMap((text, at) => {
      const content = `BT /F1 12 Tf 72 720 Td (${text}) Tj ET`;
      return [
        `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents ${6 + 2 * at} 0 R /Resources << /Font << /F1 3 0 R >> >> >>`,
        `<< /Length ${content.length} >>\nstream\n${content}\nendstream`,
      ];
    }),
  ];
  let body = "%PDF-1.4\n";
  const offsets = objects.map((object, at) => {
    const offset = body.length;
    body += `${at + 1} 0 obj\n${object}\nendobj\n`;
    return `${String(offset).padStart(10, "0")} 00000 n \n`;
  });
  const table = `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${offsets.join("")}`;
  const trailer = `trailer\n<< /Size ${objects.length + 1} /Root 1 0 R /Info 4 0 R >>\nstartxref\n${body.length}\n%%EOF\n`;
  return Buffer.from(body + table + trailer, "latin1");
}
