// Every setting: its name, type, default, unit and help. The only reader of process.env.
// A wrong, unknown or unreadable setting stops the start with one sentence; a secret is never printed.
import { readFileSync } from "node:fs";
import { z } from "zod";
import { ConfigInvalid, messageOf } from "./errors.ts";
import {
  apiBase,
  commaSeparated,
  flag,
  integer,
  nearest,
  postgres,
  redis,
  setting,
  word,
} from "./setting.ts";
import type { Setting } from "./setting.ts";

export const DEFAULT_DATA_DIR = ".holdfast";

const seeds = z.record(z.string(), z.record(z.string(), z.unknown()));
const seedsOf = (text: string, context: z.RefinementCtx): z.output<typeof seeds> => {
  try {
    return seeds.parse(JSON.parse(text));
  } catch {
    context.addIssue({ code: "custom", message: "must be a JSON object of one object for each graph" });
    return z.NEVER;
  }
};

export const settings = {
  databaseUrl: setting({
    env: "DATABASE_URL",
    secret: true,
    schema: postgres.optional(),
    help: "PostgreSQL 15 or newer. Unset: an embedded PostgreSQL is started in HOLDFAST_DATA_DIR.",
  }),
  databaseDirectUrl: setting({
    env: "DATABASE_DIRECT_URL",
    secret: true,
    schema: postgres.optional(),
    help: "The same database without a transaction pooler between; carries session locks. Unset: DATABASE_URL.",
  }),
  host: setting({
    env: "HOLDFAST_HOST",
    schema: z.string().min(1).default("127.0.0.1"),
    help: "Address the server listens on. Without auth in langgraph.json (docs/auth.md) everybody who reaches it may do everything: keep it on loopback or behind your own gateway.",
  }),
  port: setting({
    env: "PORT",
    schema: integer(0, 65_535).default(8123),
    help: "Port the server listens on; 0 picks a free one.",
  }),
  https: setting({
    env: "HOLDFAST_HTTPS",
    schema: flag.prefault("off"),
    help: "on: the server speaks HTTPS (--https). Without HOLDFAST_TLS_CERT only `holdfast dev` can: it makes a certificate for this machine that browsers have to be told to trust.",
  }),
  tlsCert: setting({
    env: "HOLDFAST_TLS_CERT",
    schema: z.string().min(1).optional(),
    help: "File with the certificate, and those between it and its authority, in PEM form. Set with HOLDFAST_TLS_KEY: the server speaks HTTPS. Read at start.",
  }),
  tlsKey: setting({
    env: "HOLDFAST_TLS_KEY",
    schema: z.string().min(1).optional(),
    help: "File with the private key of HOLDFAST_TLS_CERT in PEM form.",
  }),
  graphs: setting({
    env: "HOLDFAST_CONFIG",
    schema: z.string().min(1).default("./langgraph.json"),
    help: "The langgraph.json that names the graphs to serve.",
  }),
  assistantSeeds: setting({
    env: "LANGGRAPH_CONFIG",
    schema: z.string().transform(seedsOf).optional(),
    help: 'What the assistants that the server makes for its graphs begin with, as JSON by graph: their config, and under "context" their context. For example {"support": {"configurable": {"tone": "warm"}, "context": {"tenant": "acme"}}}. Assistants that exist keep what they have.',
  }),
  dataDir: setting({
    env: "HOLDFAST_DATA_DIR",
    schema: z.string().min(1).default(DEFAULT_DATA_DIR),
    help: "Where the embedded PostgreSQL keeps its data.",
  }),
  openaiApiKey: setting({
    env: "OPENAI_API_KEY",
    secret: true,
    schema: word.optional(),
    help: "Key of the model provider. Unset, with OPENAI_BASE_URL unset too: the offline model answers.",
  }),
  openaiBaseUrl: setting({
    env: "OPENAI_BASE_URL",
    schema: apiBase.optional(),
    help: "Any OpenAI-compatible endpoint. Unset: the provider's own.",
  }),
  model: setting({
    env: "HOLDFAST_MODEL",
    schema: z.string().min(1).default("gpt-4.1-mini"),
    help: "Model the reference graph asks.",
  }),
  modelsFile: setting({
    env: "HOLDFAST_MODELS",
    schema: z.string().min(1).optional(),
    help: "JSON file with what models cost and how they are called: timeouts, retries, limits, fallbacks (docs/models.md). Unset: the shipped prices and defaults. Read at start.",
  }),
  modelTimeoutMs: setting({
    env: "HOLDFAST_MODEL_TIMEOUT_MS",
    schema: integer(100, 3_600_000).default(60_000),
    help: "Longest silence of the model in milliseconds, before an answer or between two tokens, five times of it before the first token; also the longest wait for vectors of the store.",
  }),
  maxPromptTokens: setting({
    env: "HOLDFAST_MAX_PROMPT_TOKENS",
    schema: integer(1, 10_000_000).default(16_000),
    help: "Ceiling of one model call's prompt in tokens, counted exactly; a larger prompt is refused before it is sent.",
  }),
  maxOutputTokens: setting({
    env: "HOLDFAST_MAX_OUTPUT_TOKENS",
    schema: integer(1, 1_000_000).default(1024),
    help: "Ceiling of one model call's answer in tokens.",
  }),
  collection: setting({
    env: "HOLDFAST_COLLECTION",
    schema: z.string().min(1).max(200).default("docs"),
    help: "Collection of documents the reference graph searches.",
  }),
  passages: setting({
    env: "HOLDFAST_PASSAGES",
    schema: integer(1, 100).default(6),
    help: "How many passages the reference graph retrieves for a question.",
  }),
  messages: setting({
    env: "HOLDFAST_MESSAGES",
    schema: z.enum(["delta", "plain"], "must be delta or plain").default("delta"),
    help: "How the reference graph keeps its messages: delta stores what each step adds, plain the whole list each time.",
  }),
  maxBodyBytes: setting({
    env: "HOLDFAST_MAX_BODY_BYTES",
    schema: integer(1024, 1_000_000_000).default(4_194_304),
    help: "Largest request body in bytes.",
  }),
  corsOrigins: setting({
    env: "HOLDFAST_CORS_ORIGINS",
    schema: z
      .string()
      .default("*")
      .transform((list) => list.split(",").map((origin) => origin.trim())),
    help: "Origins a browser may call from, as it sends them (https://chat.example), separated by commas; * is any.",
  }),
  poolSize: setting({
    env: "HOLDFAST_POOL_SIZE",
    schema: integer(2, 500).default(10),
    help: "Most connections to PostgreSQL that one process keeps in its pool.",
  }),
  connectTimeoutMs: setting({
    env: "HOLDFAST_CONNECT_TIMEOUT_MS",
    schema: integer(100, 600_000).default(5000),
    help: "Longest wait for a connection to PostgreSQL in milliseconds.",
  }),
  statementTimeoutMs: setting({
    env: "HOLDFAST_STATEMENT_TIMEOUT_MS",
    schema: integer(100, 3_600_000).default(30_000),
    help: "Longest time one SQL statement may take in milliseconds.",
  }),
  preparedStatements: setting({
    env: "HOLDFAST_PREPARED_STATEMENTS",
    schema: flag.prefault("on"),
    help: "Named prepared statements; off for transaction poolers that cannot keep them.",
  }),
  pooler: setting({
    env: "HOLDFAST_POOLER",
    schema: flag.prefault("off"),
    help: "on: DATABASE_URL is a transaction pooler such as PgBouncer; no prepared statements are used. Session locks and notifications then need DATABASE_DIRECT_URL; without it takeover takes up to 15 s.",
  }),
  slots: setting({
    env: "HOLDFAST_SLOTS",
    schema: integer(1, 100_000).default(512),
    help: "Runs that one process executes at a time; more wait in the queue.",
  }),
  runTimeoutMs: setting({
    env: "HOLDFAST_RUN_TIMEOUT_MS",
    schema: integer(100, 2_000_000_000).default(3_600_000),
    help: "Longest time a run may take from its first start in milliseconds, takeovers included; then it ends with status timeout.",
  }),
  maxAttempts: setting({
    env: "HOLDFAST_MAX_ATTEMPTS",
    schema: integer(1, 1000).default(3),
    help: "How often a run is begun again after its server died before it ends in error. An orderly hand-over does not count, nor does a database that was away.",
  }),
  maxQueuedRuns: setting({
    env: "HOLDFAST_MAX_QUEUED_RUNS",
    schema: integer(1, 1_000_000).default(1000),
    help: "Runs that may wait on one thread; one more is refused.",
  }),
  fault: setting({
    env: "HOLDFAST_FAULT",
    schema: z
      .string()
      .regex(/^[a-z.]+:\d+$/, "must look like run.claimed:1")
      .optional(),
    help: "For tests only: the process kills itself when it passes this fault point for the nth time (name:n).",
  }),
  heartbeatMs: setting({
    env: "HOLDFAST_HEARTBEAT_MS",
    schema: integer(100, 60_000).default(5000),
    help: "Time between two keep-alive lines on an open stream in milliseconds.",
  }),
  drainMs: setting({
    env: "HOLDFAST_DRAIN_MS",
    schema: integer(0, 3_600_000).default(25_000),
    help: "How long a stopping server waits for its runs in milliseconds before it hands them over to another.",
  }),
  drainDelayMs: setting({
    env: "HOLDFAST_DRAIN_DELAY_MS",
    schema: integer(0, 600_000).default(0),
    help: "How long a stopping server answers /ready with 503 in milliseconds before it stops listening, so that load balancers notice.",
  }),
  threadTtlMinutes: setting({
    env: "HOLDFAST_THREAD_TTL_MINUTES",
    schema: integer(0, 100_000_000).default(0),
    help: "How long a thread is kept after its last activity in minutes, unless it was created with a ttl of its own; 0: as checkpointer.ttl of langgraph.json says, else for ever.",
  }),
  webhookSecrets: setting({
    env: "HOLDFAST_WEBHOOK_SECRETS",
    secret: true,
    schema: commaSeparated.refine(
      (secrets) => secrets.every((one) => /^whsec_[A-Za-z0-9+/]{32,88}={0,2}$/.test(one)),
      "must be secrets that look like whsec_ and 24 to 64 bytes in base64, separated by commas",
    ),
    help: "Secrets that sign webhooks, separated by commas; each signs, so that one can be exchanged. Unset: webhooks are not signed.",
  }),
  egressAllow: setting({
    env: "HOLDFAST_EGRESS_ALLOW",
    schema: commaSeparated,
    help: "Networks (CIDR), addresses and host names (*.example.com too) that webhooks may reach although they are not public, separated by commas.",
  }),
  keys: setting({
    env: "HOLDFAST_KEYS",
    secret: true,
    schema: z.string().optional(),
    help: "Keys that seal what is stored, a line name:base64 each, the first for what is new; holdfast keys new makes one. Unset: nothing is sealed (docs/sealing.md).",
  }),
  privacyNames: setting({
    env: "HOLDFAST_PRIVACY_NAMES",
    schema: flag.prefault("off"),
    help: "on: names of people are redacted too, as far as a list of names finds them. E-mail addresses, numbers and secrets are redacted without it (docs/privacy.md).",
  }),
  privacyIndex: setting({
    env: "HOLDFAST_PRIVACY_INDEX",
    schema: flag.prefault("on"),
    help: "on: documents are redacted before they are indexed. off: passages hold what the documents say, and models are shown it.",
  }),
  limitRuns: setting({
    env: "HOLDFAST_LIMIT_RUNS_PER_MINUTE",
    schema: integer(0, 1_000_000).default(0),
    help: "Runs that one caller may start in a minute, over all servers; 0: any number (docs/limits.md).",
  }),
  limitRequests: setting({
    env: "HOLDFAST_LIMIT_REQUESTS_PER_MINUTE",
    schema: integer(0, 1_000_000).default(0),
    help: "Requests besides those that start runs that one caller may send in a minute, over all servers; 0: any number.",
  }),
  limitFailedLogins: setting({
    env: "HOLDFAST_LIMIT_FAILED_LOGINS_PER_MINUTE",
    schema: integer(0, 1_000_000).default(0),
    help: "Requests from one address that auth of langgraph.json may turn away in a minute before the address is; 0: any number.",
  }),
  limitStreams: setting({
    env: "HOLDFAST_LIMIT_STREAMS",
    schema: integer(0, 1_000_000).default(0),
    help: "Streams and WebSockets that one caller may hold open at one process; 0: any number.",
  }),
  limitStore: setting({
    env: "HOLDFAST_LIMIT_STORE",
    schema: z.enum(["postgres", "redis"], "must be postgres or redis").default("postgres"),
    help: "Where limits per minute are counted: PostgreSQL, or the Redis of HOLDFAST_CACHE_URL. While that does not answer, HOLDFAST_CACHE_FAIL says what happens: open, PostgreSQL counts from nothing; closed, requests are refused.",
  }),
  limitBy: setting({
    env: "HOLDFAST_LIMIT_BY",
    schema: z.enum(["identity", "address"], "must be identity or address").default("identity"),
    help: "Who is one caller: an identity, as auth of langgraph.json gave it (without auth, an address), or always an address.",
  }),
  trustedProxies: setting({
    env: "HOLDFAST_TRUSTED_PROXIES",
    schema: commaSeparated,
    help: "Networks (CIDR) and addresses of your own proxies, separated by commas: whom X-Forwarded-For names as the caller is believed from these alone.",
  }),
  cacheResponses: setting({
    env: "HOLDFAST_CACHE_RESPONSES",
    schema: z
      .enum(["off", "asked", "deterministic"], "must be off, asked or deterministic")
      .default("deterministic"),
    help: "Which answers of models are kept for equal requests: deterministic, those of requests with temperature 0 and no tools, and those whose request has the header x-holdfast-cache: on; asked, only the latter; off, none (docs/caches.md).",
  }),
  cacheTtlSeconds: setting({
    env: "HOLDFAST_CACHE_TTL_SECONDS",
    schema: integer(1, 2_592_000).default(300),
    help: "How long an answer of a model is kept in seconds.",
  }),
  cacheSearchSeconds: setting({
    env: "HOLDFAST_CACHE_SEARCH_SECONDS",
    schema: integer(0, 86_400).default(0),
    help: "How long is remembered which passages a search of documents found, in seconds; it ends with the next change of the collection. 0: it is not.",
  }),
  cacheEmbeddingsDays: setting({
    env: "HOLDFAST_CACHE_EMBEDDINGS_DAYS",
    schema: integer(0, 3650).default(90),
    help: "How long a vector that a provider made of a text is kept after its last use in days; 0: none are.",
  }),
  cacheUrl: setting({
    env: "HOLDFAST_CACHE_URL",
    secret: true,
    schema: redis.optional(),
    help: "Redis 6.2 or newer for all that is cached. Unset: PostgreSQL.",
  }),
  cacheFail: setting({
    env: "HOLDFAST_CACHE_FAIL",
    schema: z.enum(["open", "closed"], "must be open or closed").default("open"),
    help: "When the cache does not answer: open, work goes on without it; closed, what would be looked up there is refused.",
  }),
  logLevel: setting({
    env: "HOLDFAST_LOG_LEVEL",
    schema: z.enum(["debug", "info", "warn", "error"], "must be debug, info, warn or error").default("info"),
    help: "Least severe log line that is written.",
  }),
};

export type Config = { readonly [Key in keyof typeof settings]: z.output<(typeof settings)[Key]["schema"]> };
type Environment = Readonly<Record<string, string | undefined>>;

const schema = z.object(
  Object.fromEntries(Object.entries(settings).map(([key, { schema: one }]) => [key, one])),
);

/**
 * Reads and checks every setting.
 * @param env where to read; `undefined` and empty values count as unset
 * @param over values that win, by environment name (from the command line)
 * @throws ConfigInvalid naming the first setting that is unknown, unreadable or wrong
 */
export function readConfig(env: Environment = process.env, over: Environment = {}): Config {
  const given = { ...env, ...withoutUnset(over) };
  refuseUnknown(given);
  const values = Object.entries(settings).map(([key, one]) => [key, valueOf(one, given)]);
  const result = schema.safeParse(Object.fromEntries(values));
  // The schema is built from the same table as the type, key by key.
  if (result.success) return result.data as unknown as Config;
  const [issue] = result.error.issues;
  const wrong = Object.entries(settings).find(([key]) => key === issue?.path[0])?.[1];
  throw new ConfigInvalid(`${wrong?.env ?? "A setting"} ${issue?.message ?? "is wrong"}.`);
}

/** Points every OpenAI client of this process at an endpoint: a graph then needs to know nothing about it. */
export function useModelEndpoint(endpoint: { baseUrl?: string | undefined; apiKey: string }): void {
  if (endpoint.baseUrl) process.env["OPENAI_BASE_URL"] = endpoint.baseUrl;
  process.env["OPENAI_API_KEY"] = endpoint.apiKey;
}

/**
 * Makes LangChain hand each token on before the model goes on. By default it does so in the background, in one queue for
 * the whole process: while that is behind, a graph ends before its last tokens come, and its stream never shows them.
 */
export function awaitCallbacks(): void {
  process.env["LANGCHAIN_CALLBACKS_BACKGROUND"] ??= "false";
}

/** Adds what an env file or `env` map of langgraph.json holds; what is set already, and not empty, wins. */
export function addToEnvironment(values: Environment): void {
  for (const [name, value] of Object.entries(values)) if (!process.env[name]) process.env[name] = value;
}

function valueOf(one: Setting, env: Environment): string | undefined {
  const value = env[one.env] || undefined;
  const file = env[`${one.env}_FILE`] || undefined;
  // As a number it would be 0, and as a secret none.
  if (value?.trim() === "") throw new ConfigInvalid(`${one.env} holds nothing but blanks; leave it empty.`);
  if (!one.secret || !file) return value;
  if (value) throw new ConfigInvalid(`${one.env} and ${one.env}_FILE are both set; keep one.`);
  let secret: string;
  try {
    secret = readFileSync(file, "utf8").trim();
  } catch (error) {
    throw new ConfigInvalid(`${one.env}_FILE names a file that cannot be read: ${messageOf(error)}.`);
  }
  if (secret === "") throw new ConfigInvalid(`${one.env}_FILE names a file that holds nothing.`);
  return secret;
}

function refuseUnknown(env: Environment): void {
  const known = Object.values(settings).flatMap(({ env: name, secret }) =>
    secret ? [name, `${name}_FILE`] : [name],
  );
  for (const name of Object.keys(env)) {
    if (!name.startsWith("HOLDFAST_") || known.includes(name)) continue;
    throw new ConfigInvalid(`${name} is not a setting; did you mean ${nearest(name, known)}?`);
  }
}

function withoutUnset(env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined));
}
