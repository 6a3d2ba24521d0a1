// The graphs named in langgraph.json: loaded once at start, each ready to run with a checkpointer lent per call.
// A graph may be compiled, a builder, a promise of one of these, or a function that makes one of a configuration.
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { later, within } from "../../clock.ts";
import { ConfigInvalid, GraphUnloadable, messageOf } from "../../errors.ts";
import { asFields } from "../../fields.ts";
import { requirePeersOf } from "../../peers.ts";
import type { PrivacyPolicy } from "../../privacy/guard.ts";
import type { Own } from "../../privacy/redact.ts";
import type { ThreadTtl } from "../../storage/expiry.ts";
import type { StoreTtl } from "../../storage/store/store.ts";
import type { Graph } from "./graph.ts";
import { GraphFactory, MAKE_MS, READING } from "./graph-factory.ts";
import { importExport } from "./modules.ts";
import { useLoader } from "./typescript.ts";

export interface GraphsFile {
  /** The absolute path of the file that was read. */
  readonly path: string;
  /** Graph id to `./file.ts:export`. */
  readonly graphs: Readonly<Record<string, string>>;
  /** Variables for the graphs, from an env file or given in place. */
  readonly env: Readonly<Record<string, string>>;
  /** The env file, if it is not there: an image is made without it, and is given its variables otherwise. */
  readonly missingEnv: string | undefined;
  /** What of the project reads its TypeScript; undefined: the server's own reader. */
  readonly nodeLoader: string | undefined;
  readonly http: HttpSection;
  /** Where the handlers are that say who may do what; undefined: everybody may do everything. */
  readonly authPath: string | undefined;
  /** Components for web pages: files by name, and packages that pages bring themselves. */
  readonly ui: UiSection | undefined;
  /** Who makes the vectors by which the store is searched; undefined: nobody. */
  readonly storeIndex: z.output<typeof storeIndexSchema> | undefined;
  readonly storeTtl: StoreTtl;
  /** How long threads are kept that say nothing of it; null: for ever. */
  readonly threadTtl: ThreadTtl | null;
  /** What of which graph may be kept as it is, and what is to be found besides. */
  readonly privacy: Omit<PrivacyPolicy, "names"> & { readonly rules: readonly Own[] };
}

export interface UiSection {
  readonly defs: Readonly<Record<string, string>>;
  readonly config: { readonly shared: readonly string[] };
}

type HttpSection = z.output<typeof httpSchema>;

const off = z
  .boolean()
  .optional()
  .transform((value) => value ?? false);

const texts = z.array(z.string()).optional();

const corsSchema = z.object({
  allow_origins: texts,
  allow_origin_regex: z.string().optional(),
  allow_methods: texts,
  allow_headers: texts,
  allow_credentials: z.boolean().optional(),
  expose_headers: texts,
  max_age: z.int().min(0).optional(),
});

const httpSchema = z.object({
  /** An app of the user in front of the API, as `./file.ts:export`. */
  app: z.string().min(1).optional(),
  disable_assistants: off,
  disable_threads: off,
  disable_runs: off,
  disable_store: off,
  disable_meta: off,
  cors: corsSchema.optional(),
});

const storeIndexSchema = z.object({
  /** `openai:<model>`, or code as `./file.ts:export`. */
  embed: z.string().min(1),
  dims: z.int().min(1).max(16_000),
  fields: texts.transform((fields) => fields ?? ["$"]),
});

// How often to look, which these may say too, is up to Holdfast.
const minutes = z.number().positive().max(100_000_000).nullish();
const storeTtlSchema = z.object({ default_ttl: minutes, refresh_on_read: z.boolean().nullish() });
const threadTtlSchema = z.object({
  default_ttl: minutes,
  strategy: z.enum(["delete", "keep_latest"]).nullish(),
});

const privacyMode = z.enum(["redact", "tokenise", "off"], 'must be "redact", "tokenise" or "off"');
const privacySchema = z.object({
  mode: privacyMode.default("redact"),
  /** Graphs that are treated otherwise. */
  graphs: z.record(z.string(), privacyMode).default({}),
  /** What else is to be found. */
  rules: z
    .array(
      z.object({
        kind: z.string().regex(/^[A-Z][A-Z0-9_]{0,23}$/, "must look like EMPLOYEE_ID"),
        pattern: z.string().min(1),
        flags: z
          .string()
          .regex(/^[is]*$/, "may hold i and s")
          .optional(),
        group: z.literal(1, "must be 1").optional(),
      }),
    )
    .transform((rules) => rules.map((rule): Own => JSON.parse(JSON.stringify(rule)) as Own)) // without what is unset
    .default([]),
});

const spec = z.string().regex(/.+:[\w$]+$/, "must look like ./graph.ts:graph");
const fileSchema = z.object({
  graphs: z.record(
    z.string().min(1, "must be named"),
    z.union([spec, z.object({ path: spec }).transform(({ path }) => path)], {
      error: "must look like ./graph.ts:graph",
    }),
  ),
  // A list names variables that a deployment brings along: nothing is to be read.
  env: z
    .union([z.string(), z.record(z.string(), z.string()), z.array(z.string()).transform(() => ({}))], {
      error: 'must be the path of a file, or texts by name such as {"LEVEL": "1"}',
    })
    .optional(),
  node_loader: z.string().min(1).optional(),
  http: httpSchema.prefault({}),
  auth: z.object({ path: z.string().min(1).optional() }).optional(),
  ui: z
    .record(
      z.string().regex(/^\w[\w.-]*$/, "must be named with letters, digits, _ - and ."),
      z.string().min(1),
    )
    .optional(),
  ui_config: z.object({ shared: z.array(z.string()).default([]) }).prefault({}),
  store: z.object({ index: storeIndexSchema.optional(), ttl: storeTtlSchema.optional() }).optional(),
  checkpointer: z.object({ ttl: threadTtlSchema.optional() }).optional(),
  privacy: privacySchema.prefault({}),
});

const threadTtlOf = ({ default_ttl: after, strategy }: z.output<typeof threadTtlSchema>): ThreadTtl | null =>
  after ? { minutes: after, strategy: strategy ?? "delete" } : null;

/**
 * Reads a langgraph.json.
 * @throws ConfigInvalid naming the file and what is wrong in it
 */
export async function readGraphsFile(path: string): Promise<GraphsFile> {
  const absolute = resolve(path);
  const text = await readFile(absolute, "utf8").catch((error: unknown) => {
    const cure = 'Make one, such as {"graphs": {"agent": "./agent.ts:graph"}}, or name another';
    throw new ConfigInvalid(
      `HOLDFAST_CONFIG (--config) names ${path}, which cannot be read: ${messageOf(error)}. ${cure}.`,
    );
  });
  const result = fileSchema.safeParse(parse(text, path));
  if (!result.success) throw new ConfigInvalid(`${path}: ${sentenceOf(result.error.issues[0])}.`);
  const { graphs, env, http, auth, ui, ui_config: uiConfig, store, checkpointer, privacy } = result.data;
  if (Object.keys(graphs).length === 0) throw new ConfigInvalid(`${path} names no graph.`);
  const stranger = Object.keys(privacy.graphs).find((id) => !Object.hasOwn(graphs, id));
  if (stranger !== undefined)
    throw new ConfigInvalid(`${path}: privacy.graphs names ${stranger}, which is no graph of this file.`);
  return {
    path: absolute,
    graphs,
    ...(typeof env === "string" ? await readEnv(absolute, env) : { env: env ?? {}, missingEnv: undefined }),
    nodeLoader: result.data.node_loader,
    http,
    authPath: auth?.path,
    ui: ui && Object.keys(ui).length > 0 ? { defs: ui, config: uiConfig } : undefined,
    storeIndex: store?.index,
    storeTtl: {
      minutes: store?.ttl?.default_ttl ?? null,
      // As the official servers do.
      refreshesOnRead: store?.ttl?.refresh_on_read ?? true,
    },
    threadTtl: threadTtlOf(checkpointer?.ttl ?? {}),
    privacy,
  };
}

/**
 * Loads every graph of the file.
 * @param warn told of what takes long, and of a function that makes no graph without the configuration of a run
 * @throws GraphUnloadable naming the graph, its file and the reason
 */
export async function loadGraphs(
  file: GraphsFile,
  warn: (text: string) => void = () => undefined,
): Promise<ReadonlyMap<string, Graph>> {
  if (file.missingEnv !== undefined)
    warn(`Env file ${file.missingEnv}, which ${file.path} names, is not there; going on without it.`);
  await useLoader(file.path, file.nodeLoader);
  const entries = await Promise.all(
    Object.entries(file.graphs).map(
      async ([id, named]) => [id, await loadGraph(file.path, id, named, warn)] as const,
    ),
  );
  return new Map(entries);
}

const SLOW_MS = 10_000;

/** The file and the export that a graph is. */
export function placeOf(base: string, named: string): { file: string; name: string } {
  const [, path = "", name = ""] = /^(.+):([\w$]+)$/.exec(named) ?? [];
  return { file: resolve(dirname(base), path), name };
}

async function loadGraph(
  base: string,
  id: string,
  named: string,
  warn: (text: string) => void,
): Promise<Graph> {
  const { file, name } = placeOf(base, named);
  try {
    requirePeersOf(file);
    // A module may wait for ever, and nobody would know what the server waits for.
    const loaded = later(SLOW_MS, () =>
      warn(`Graph ${id} (${named}) is still being loaded; nothing is served before it is.`),
    );
    const value = await importExport(base, file, name).finally(loaded);
    if (typeof value !== "function") return compile(value);
    const make = async (config: object, runtime?: object): Promise<unknown> => value(config, runtime);
    const refused = Symbol(id);
    const made = await within(make({ configurable: {} }, READING), MAKE_MS).catch((error: unknown) => {
      warn(`Graph ${id} (${named}) cannot be made without the configuration of a run: ${messageOf(error)}`);
      return refused;
    });
    if (made !== refused) compile(made);
    return new GraphFactory(async (config, runtime) => compile(await make(config, runtime)));
  } catch (error) {
    throw new GraphUnloadable(`Graph ${id} (${named}) cannot be loaded: ${messageOf(error)}.`, {
      cause: error,
    });
  }
}

function compile(value: unknown): Graph {
  if (typeof value !== "object" || value === null) throw new Error("it is neither a graph nor makes one");
  if ("compile" in value && typeof value.compile === "function") return compile(value.compile());
  // What createAgent of the package langchain gives is a coat around the graph that is to run.
  if ("graph" in value && isCompiled(value.graph)) return value.graph;
  if (!isCompiled(value)) throw new Error("it is not a compiled graph");
  return value;
}

// Two of its methods tell it.
const isCompiled = (value: unknown): value is Graph =>
  typeof value === "object" && value !== null && "streamEvents" in value && "getState" in value;

function sentenceOf(issue?: z.core.$ZodIssue): string {
  const place = issue?.path.join(".") || "the file";
  // What is wrong with a name stands one level deeper.
  const message = issue?.code === "invalid_key" ? issue.issues[0]?.message : issue?.message;
  return `${place} ${message ?? "is wrong"}`;
}

async function readEnv(base: string, path: string): Promise<Pick<GraphsFile, "env" | "missingEnv">> {
  const { parseEnv } = await import("node:util");
  try {
    const text = await readFile(resolve(dirname(base), path), "utf8");
    const entries = Object.entries(parseEnv(text)).filter((entry): entry is [string, string] => !!entry[1]);
    return { env: Object.fromEntries(entries), missingEnv: undefined };
  } catch (error) {
    if (asFields(error)["code"] === "ENOENT") return { env: {}, missingEnv: path };
    throw new ConfigInvalid(`${base}: env names ${path}, which cannot be read: ${messageOf(error)}.`);
  }
}

function parse(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ConfigInvalid(`${path} is not valid JSON: ${messageOf(error)}.`);
  }
}
