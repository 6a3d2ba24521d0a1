// holdfast index: documents into a collection, with progress; and the sample documents of `holdfast dev`.
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Config } from "../config.ts";
import { Redactor } from "../privacy/redact.ts";
import { ingest } from "../retrieval/ingest.ts";
import type { Progress } from "../retrieval/ingest.ts";
import type { Database } from "../storage/database.ts";
import { openDatabase } from "../storage/open.ts";
import { defaultScope } from "../storage/scope.ts";

type Say = (text: string) => void;

/** @returns the exit code: 0, or 1 when a document could not be read; the others are indexed all the same */
export async function indexDocuments(
  config: Config,
  options: { paths: string[]; collection?: string; json?: boolean; say: Say },
): Promise<number> {
  const { paths, collection = config.collection, json = false, say } = options;
  const { database, migrate, close } = await openDatabase(config, json ? undefined : say);
  try {
    await migrate();
    const onProgress = json ? undefined : progressPrinter(say);
    const result = await ingest(database, defaultScope, {
      collection,
      paths,
      redact: redactionOf(config),
      ...(onProgress ? { onProgress } : {}),
    });
    say(json ? JSON.stringify({ collection, ...result }) : summary(collection, result));
    return result.failed.length > 0 ? 1 : 0;
  } finally {
    await close();
  }
}

/** The step of `holdfast dev` that makes this project's own docs searchable; another project indexes its own. */
export function indexSamples(
  config: Config,
  options: { graphsPath: string; say: Say },
): (database: Database) => Promise<void> {
  const home = dirname(options.graphsPath);
  const isOurs =
    import.meta.dirname.startsWith(join(home, "server")) ||
    import.meta.dirname.startsWith(join(home, "dist"));
  const docs = join(home, "docs");
  return async (database) => {
    if (!isOurs || !existsSync(docs)) return;
    const { collection } = config;
    const onProgress = progressPrinter(options.say);
    const result = await ingest(database, defaultScope, {
      collection,
      paths: [docs],
      redact: redactionOf(config),
      onProgress,
    });
    options.say(summary(collection, result));
  };
}

/** Own rules of langgraph.json belong to its graphs: an index is made without them. */
function redactionOf({ privacyIndex, privacyNames }: Config): ((text: string) => string) | undefined {
  if (!privacyIndex) return undefined;
  const redactor = new Redactor({ names: privacyNames });
  return (text) => redactor.redact(text);
}

function summary(collection: string, result: Awaited<ReturnType<typeof ingest>>): string {
  const { indexed, unchanged, removed, failed } = result;
  return `Documents in ${collection}: ${indexed} indexed, ${unchanged} unchanged, ${removed} removed, ${failed.length} failed`;
}

/** Every failure, and otherwise at most one line per tenth of the work. */
function progressPrinter(say: Say): (progress: Progress) => void {
  let shown = 0;
  return ({ done, total, source, outcome, reason }) => {
    if (outcome === "failed") say(`  ${source}: ${reason ?? "failed"}`);
    const tenth = Math.floor((done / Math.max(total, 1)) * 10);
    if (outcome === "unchanged" || tenth <= shown) return;
    shown = tenth;
    say(`  ${done}/${total} ${source}`);
  };
}
