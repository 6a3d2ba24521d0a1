// Search quality and speed on judged queries, through the real ingest and the real search.
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { createGunzip } from "node:zlib";
import { z } from "zod";
import { ingest } from "../server/retrieval/ingest.ts";
import { search } from "../server/retrieval/search.ts";
import { defaultScope } from "../server/storage/scope.ts";
import { openScratchDatabase } from "./scratch.ts";

const K = 10;
const COLLECTION = "bench";
// Passages of one document fold into it, so more are asked for than documents are judged.
const PASSAGES = 30;

const query = z.object({ _id: z.string(), text: z.string(), relevant: z.array(z.string()) });

export async function retrieval(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { corpus: { type: "string" }, queries: { type: "string" }, json: { type: "boolean" } },
  });
  const { corpus, queries, json = false } = values;
  if (!corpus || !queries)
    throw new Error("Usage: npm run bench -- retrieval --corpus FILE --queries FILE [--json]");
  const scratch = await openScratchDatabase();
  try {
    const startedAt = performance.now();
    const { indexed, failed } = await ingest(scratch.database, defaultScope, {
      collection: COLLECTION,
      paths: [corpus],
    });
    const ingestMs = performance.now() - startedAt;
    const scores: Score[] = [];
    for await (const line of linesOf(queries)) {
      const { text, relevant } = query.parse(JSON.parse(line));
      const askedAt = performance.now();
      const passages = await search(scratch.database, defaultScope, {
        collection: COLLECTION,
        query: text,
        limit: PASSAGES,
      });
      const ms = performance.now() - askedAt;
      const found = [
        ...new Set(passages.map(({ source_id: source }) => source.slice(source.indexOf("#") + 1))),
      ];
      scores.push({ ...judge(found.slice(0, K), new Set(relevant)), ms });
    }
    report({ indexed, failed: failed.length, documentsPerSecond: indexed / (ingestMs / 1000), scores }, json);
  } finally {
    await scratch.close();
  }
}

interface Score {
  readonly ndcg: number;
  readonly recall: number;
  readonly ms: number;
}

/** nDCG@10 with binary relevance, and recall@10. */
function judge(found: readonly string[], relevant: ReadonlySet<string>): Omit<Score, "ms"> {
  const gained = found.reduce((sum, id, rank) => sum + (relevant.has(id) ? gain(rank) : 0), 0);
  const best = Array.from({ length: Math.min(K, relevant.size) }, (_, rank) => gain(rank)).reduce(
    (a, b) => a + b,
    0,
  );
  const hits = found.filter((id) => relevant.has(id)).length;
  return { ndcg: best > 0 ? gained / best : 0, recall: relevant.size > 0 ? hits / relevant.size : 0 };
}

function report(
  result: { indexed: number; failed: number; documentsPerSecond: number; scores: readonly Score[] },
  json: boolean,
): void {
  const { scores, documentsPerSecond, indexed, failed } = result;
  const times = scores.map(({ ms }) => ms).toSorted((a, b) => a - b);
  const mean = (pick: (score: Score) => number): number =>
    scores.reduce((sum, score) => sum + pick(score), 0) / Math.max(scores.length, 1);
  const figures = {
    ndcg10: round(
      mean(({ ndcg }) => ndcg),
      4,
    ),
    recall10: round(
      mean(({ recall }) => recall),
      4,
    ),
    p50_ms: round(times[Math.floor(times.length * 0.5)] ?? 0, 2),
    p95_ms: round(times[Math.floor(times.length * 0.95)] ?? 0, 2),
    queries: scores.length,
    documents: indexed,
    failed,
    documents_per_second: Math.round(documentsPerSecond),
  };
  if (json) console.log(JSON.stringify(figures));
  else console.table(figures);
}

function linesOf(file: string): AsyncIterable<string> {
  const source = createReadStream(file);
  const input = file.endsWith(".gz") ? source.pipe(createGunzip()) : source;
  return createInterface({ input, crlfDelay: Infinity });
}

const gain = (rank: number): number => 1 / Math.log2(rank + 2);
const round = (value: number, digits: number): number => Number(value.toFixed(digits));
