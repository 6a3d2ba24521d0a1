// Quality and speed of the search, through the real ingest() and search(): nDCG@10 (binary relevance) and
// recall@10 over judged queries, latency of one search at a time, and the rate of indexing.
import { basename } from "node:path";
import { performance } from "node:perf_hooks";
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { z } from "zod";
import { ConfigInvalid, DocumentUnreadable } from "../server/errors.ts";
import { ingest } from "../server/retrieval/ingest.ts";
import { search } from "../server/retrieval/search.ts";
import type { Database } from "../server/storage/database.ts";
import { defaultScope } from "../server/storage/scope.ts";
import { openScratchDatabase } from "./scratch.ts";

export const help = `retrieval --corpus FILE --queries FILE [--json]
  FILE of documents: one {"_id","title","text"} per line, .jsonl or .jsonl.gz
  FILE of queries:   one {"_id","text","relevant":["_id"]} per line
  --json             the last line is the result as JSON`;

const COLLECTION = "bench";
const DEPTH = 10;
/** More than DEPTH, because several chunks of one document count once. */
const PASSAGES = 30;
const WARM_UP = 20;

const querySchema = z.object({ text: z.string(), relevant: z.array(z.string()).min(1) });
type Query = z.output<typeof querySchema>;

/** Prints a table, and with --json the result in one last line. */
export async function retrieval(argv: string[]): Promise<void> {
  const { values } = parseArgs({
    args: argv,
    options: { corpus: { type: "string" }, queries: { type: "string" }, json: { type: "boolean" } },
  });
  if (!values.corpus || !values.queries) throw new ConfigInvalid(`Give both files.\n${help}`);
  const queries = await readQueries(values.queries);
  const scratch = await openScratchDatabase();
  try {
    const indexed = await index(scratch.database, values.corpus);
    const asked = await ask(scratch.database, queries, values.corpus);
    const result = { ...asked, ...indexed };
    print(result);
    if (values.json) console.log(JSON.stringify(result));
  } finally {
    await scratch.close();
  }
}

async function index(database: Database, corpus: string): Promise<Record<string, number>> {
  const start = performance.now();
  const report = await ingest(database, defaultScope, { collection: COLLECTION, paths: [corpus] });
  const seconds = (performance.now() - start) / 1000;
  const [failure] = report.failed;
  if (report.indexed === 0) throw new DocumentUnreadable(failure?.reason ?? `${corpus} holds no document.`);
  return {
    documents: report.indexed,
    failed: report.failed.length,
    chunks: report.chunks,
    ingest_s: round(seconds, 2),
    documents_per_s: round(report.indexed / seconds, 0),
  };
}

async function ask(
  database: Database,
  queries: readonly Query[],
  corpus: string,
): Promise<Record<string, number>> {
  const prefix = `${basename(corpus)}#`;
  const once = async ({ text }: Query): Promise<string[]> => {
    const passages = await search(database, defaultScope, {
      collection: COLLECTION,
      query: text,
      limit: PASSAGES,
    });
    const ids = new Set(passages.map(({ source_id }) => source_id.slice(prefix.length)));
    return [...ids].slice(0, DEPTH);
  };
  for (const query of queries.slice(0, WARM_UP)) await once(query);
  const times: number[] = [];
  let ndcg = 0;
  let recall = 0;
  for (const query of queries) {
    const start = performance.now();
    const ranking = await once(query);
    times.push(performance.now() - start);
    const relevant = new Set(query.relevant);
    ndcg += ndcgOf(ranking, relevant);
    recall += ranking.filter((id) => relevant.has(id)).length / relevant.size;
  }
  times.sort((a, b) => a - b);
  return {
    queries: queries.length,
    ndcg10: round(ndcg / queries.length, 4),
    recall10: round(recall / queries.length, 4),
    p50_ms: round(quantile(times, 0.5), 2),
    p95_ms: round(quantile(times, 0.95), 2),
    max_ms: round(quantile(times, 1), 2),
  };
}

function gain(rank: number): number {
  return 1 / Math.log2(rank + 2);
}

function ndcgOf(ranking: readonly string[], relevant: ReadonlySet<string>): number {
  const reached = ranking.reduce((sum, id, rank) => sum + (relevant.has(id) ? gain(rank) : 0), 0);
  const possible = Array.from({ length: Math.min(DEPTH, relevant.size) }, (_, rank) => gain(rank));
  return reached / possible.reduce((sum, one) => sum + one, 0);
}

async function readQueries(file: string): Promise<Query[]> {
  const queries: Query[] = [];
  for await (const line of createInterface({ input: createReadStream(file) })) {
    if (line.trim() === "") continue;
    const result = querySchema.safeParse(JSON.parse(line));
    if (!result.success) {
      throw new DocumentUnreadable(`${file}: query ${queries.length + 1} lacks text or relevant.`);
    }
    queries.push(result.data);
  }
  if (queries.length === 0) throw new DocumentUnreadable(`${file} holds no query.`);
  return queries;
}

function quantile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(part * sorted.length) - 1)] ?? 0;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

function print(result: Record<string, number>): void {
  for (const [name, value] of Object.entries(result)) console.log(`${name.padEnd(16)} ${value}`);
}
