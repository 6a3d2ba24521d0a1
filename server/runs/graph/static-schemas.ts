// JSON schemas of graphs whose state is told by TypeScript types alone (`Annotation`). They are read from the source by
// the official @langchain/langgraph-api, if the project of the graphs has it: it is large, and never needed to run them.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { messageOf } from "../../errors.ts";
import type { Log } from "../../telemetry/log.ts";
import { placeOf } from "./graphs.ts";
import type { GraphsFile } from "./graphs.ts";

const PACKAGE = "@langchain/langgraph-api/schema";
const WITHIN_MS = 30_000;

export interface StaticSchema {
  readonly state?: object;
  readonly input?: object;
  readonly output?: object;
  readonly config?: object;
}

/** What the package exports: it reads the source in a worker thread of its own, and gives up after a time. */
interface SchemaPackage {
  readonly getStaticGraphSchema: (
    place: { sourceFile: string; exportSymbol: string },
    options: { timeoutMs: number },
  ) => Promise<Readonly<Record<string, StaticSchema>>>;
}

/** Schemas by namespace: the graph's own under "", those of graphs in it under `parent|child`. */
export type StaticSchemas = ReadonlyMap<string, StaticSchema>;

/**
 * Reads the schemas of a graph, once per process, when somebody asks for them.
 * @returns by graph id; none without the package, or for a source that it cannot read
 */
export function readStaticSchemas(file: GraphsFile, log: Log): (graphId: string) => Promise<StaticSchemas> {
  const read = new Map<string, Promise<StaticSchemas>>();
  return (graphId) => {
    const known = read.get(graphId) ?? readOne(file, graphId, log);
    read.set(graphId, known);
    return known;
  };
}

async function readOne(file: GraphsFile, graphId: string, log: Log): Promise<StaticSchemas> {
  const named = file.graphs[graphId];
  const path = resolved(file.path);
  if (named === undefined || path === undefined) return new Map();
  const { file: sourceFile, name: exportSymbol } = placeOf(file.path, named);
  try {
    const { getStaticGraphSchema }: SchemaPackage = await import(pathToFileURL(path).href);
    const found = await getStaticGraphSchema({ sourceFile, exportSymbol }, { timeoutMs: WITHIN_MS });
    // Named after the export: `graph`, `graph|child`.
    return new Map(Object.entries(found).map(([key, schema]) => [key.split("|").slice(1).join("|"), schema]));
  } catch (error) {
    log.warn("schemas.unreadable", { graph_id: graphId, reason: messageOf(error) });
    return new Map();
  }
}

function resolved(from: string): string | undefined {
  try {
    return createRequire(from).resolve(PACKAGE);
  } catch {
    return undefined;
  }
}
