// Builds a server from its parts, in order, and takes it down in the opposite one.
// This file is the wiring diagram.
import type { Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { serve } from "@hono/node-server";
import { sleep, unlessAborted } from "./clock.ts";
import { awaitCallbacks } from "./config.ts";
import type { Config } from "./config.ts";
import { ConfigInvalid, ResourceTaken, messageOf } from "./errors.ts";
import { armFault } from "./faults.ts";
import { buildApp } from "./http/app.ts";
import type { Fetch } from "./http/bindings.ts";
import type { Certificate } from "./http/edge/certificate.ts";
import { tendConnections } from "./http/edge/connections.ts";
import { corsPolicyOf } from "./http/edge/cors.ts";
import { loadCustomApp } from "./http/edge/custom-app.ts";
import { openLimits } from "./http/callers/limits.ts";
import { announceLoopback } from "./http/edge/loopback.ts";
import { certificateOf } from "./http/edge/tls.ts";
import { buildUi } from "./http/web/ui-build.ts";
import { serveSockets } from "./http/protocol/websocket.ts";
import { uuidv7 } from "./ids.ts";
import { openEgress } from "./models/egress.ts";
import { connectModel } from "./models/endpoint.ts";
import { interceptCalls } from "./models/gateway/intercept.ts";
import { openGateway } from "./models/gateway/open.ts";
import { ownVersion, versionOf } from "./peers.ts";
import { TOKENISES_UNSEALED, openPrivacy } from "./privacy/guard.ts";
import type { Privacy } from "./privacy/guard.ts";
import { search } from "./retrieval/search.ts";
import { cachedSearch } from "./retrieval/search-cache.ts";
import { seedAssistants } from "./runs/assistants.ts";
import { startAuditChain } from "./runs/audit.ts";
import { loadAuthority } from "./runs/auth.ts";
import { startCrons } from "./runs/crons.ts";
import { drain } from "./runs/drain.ts";
import type { Engine } from "./runs/engine.ts";
import { lendLog } from "./runs/graph/graph-log.ts";
import { loadGraphs } from "./runs/graph/graphs.ts";
import type { GraphsFile } from "./runs/graph/graphs.ts";
import { readStaticSchemas } from "./runs/graph/static-schemas.ts";
import { carryPlainly } from "./runs/graph/step-context.ts";
import { openEmbedder } from "./runs/graph/store-index.ts";
import type { VectorCache } from "./runs/graph/store-index.ts";
import { Hints } from "./runs/hints.ts";
import { startInstance } from "./runs/instance.ts";
import { LiveRuns } from "./runs/live.ts";
import { EventLog } from "./runs/log/event-log.ts";
import { EventReader } from "./runs/log/reader.ts";
import { Recorder } from "./runs/log/record.ts";
import { OwnClock } from "./runs/own-clock.ts";
import { startSweep } from "./runs/sweep.ts";
import { Totals } from "./runs/totals.ts";
import { startWebhooks } from "./runs/webhook.ts";
import { Worker } from "./runs/worker.ts";
import { graphSettings } from "./services.ts";
import type { Caches } from "./storage/caches/caches.ts";
import { openCaches } from "./storage/caches/open.ts";
import { CallNotes } from "./storage/call-notes.ts";
import { CheckpointBatch } from "./storage/checkpoints/batch.ts";
import type { Database } from "./storage/database.ts";
import { settleSealing } from "./storage/keys/sealing.ts";
import { openDatabase } from "./storage/open.ts";
import { openCounters } from "./storage/open-counters.ts";
import { codeOf } from "./storage/postgres.ts";
import type { CounterStore } from "./storage/rate-limits.ts";
import { defaultScope } from "./storage/scope.ts";
import { wakeStoreQueues } from "./storage/store/queue.ts";
import { openLog } from "./telemetry/log.ts";

const DAY_MS = 86_400_000;

export interface ServerOptions {
  readonly config: Config;
  readonly graphs: GraphsFile;
  /** Answer with the offline model when no provider is configured. */
  readonly mayModelBeOffline: boolean;
  /** Make a certificate for HTTPS when none is named. */
  readonly maySelfSign?: boolean;
  /** Whether this process answers HTTP, executes runs, or both. */
  readonly role?: "all" | "http" | "worker";
  /** Told of each step, in words for a person. */
  readonly say: (text: string) => void;
  /** Aborts when it is to start no more. */
  readonly signal?: AbortSignal;
  /** Runs after the migrations and before the graphs are loaded. */
  readonly prepare?: (database: Database) => Promise<void>;
}

export interface RunningServer {
  /** Undefined for a worker, which answers no requests. */
  readonly url: string | undefined;
  readonly graphIds: readonly string[];
  /** Lets live runs end for `HOLDFAST_DRAIN_MS`, hands the rest over, and releases everything. */
  stop(): Promise<void>;
}

/** @throws AppError in one sentence when a part cannot start, the signal's reason; what had started is stopped again */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const parts = new AsyncDisposableStack();
  try {
    const { signal = new AbortController().signal } = options;
    return await unlessAborted(build(options, parts), signal);
  } catch (error) {
    await parts.disposeAsync();
    throw error;
  }
}

async function build(options: ServerOptions, parts: AsyncDisposableStack): Promise<RunningServer> {
  const { config, say, role = "all" } = options;
  const privacy = privacyOf(options);
  const log = openLog(config.logLevel, privacy.strict);
  const { database, isEmbedded, migrate, close } = await openDatabase(config, say);
  parts.defer(close);
  const { applied, version } = await migrate();
  const changes = applied.length > 0 ? `applied ${applied.join(", ")}` : "up to date";
  say(
    `Database: ${isEmbedded ? "embedded PostgreSQL" : "PostgreSQL at DATABASE_URL"}, schema ${version} (${changes})`,
  );
  const isSealed = await settleSealing(database);
  say(
    isSealed
      ? "Sealing: on"
      : "Sealing: off; set HOLDFAST_KEYS_FILE to encrypt what is stored (docs/sealing.md)",
  );
  await options.prepare?.(database);
  const model = await connectModel(options, parts);
  // Before graphs are loaded, which may make their clients at once.
  parts.defer(interceptCalls());
  if (config.fault) armFaultOf(config.fault);

  awaitCallbacks();
  wakeStoreQueues();
  parts.defer(carryPlainly());
  parts.defer(lendLog(log, privacy.strict));
  const graphs = await loadGraphs(options.graphs, say);
  const graphIds = [...graphs.keys()];
  const caches = await openCaches(config, database, log);
  parts.defer(() => caches.close());
  if (config.cacheUrl) say("Cache: Redis at HOLDFAST_CACHE_URL");
  const embedder = await openEmbedder(options.graphs, {
    timeoutMs: config.modelTimeoutMs,
    hasEndpoint: model !== "none",
    cache: vectorCacheOf(config, { model, caches, privacy }),
  });
  const isEmpty = model === "offline" ? "; vectors of the offline model carry no meaning" : "";
  if (embedder) say(`Store: searched by meaning with ${embedder.name}${isEmpty}`);
  if (privacy.tokenises && !isSealed) throw new ConfigInvalid(TOKENISES_UNSEALED);
  say(`Privacy: ${privacy.describe()}`);
  const own = await seedAssistants(database, graphIds, config.assistantSeeds ?? {}, say);
  const hasSessions = !config.pooler || config.databaseDirectUrl !== undefined;
  if (!hasSessions) say("No DATABASE_DIRECT_URL behind the pooler: runs of a server that dies wait 15 s.");
  const workerId = uuidv7();
  const live = new LiveRuns();
  const hints = new Hints(database, log);
  const eventLog = new EventLog(database, workerId, hasSessions);
  parts.defer(() => eventLog.close());
  const recorder = new Recorder(eventLog, log, (runIds) => hints.events(runIds));
  const worker = new Worker();
  const egress = openEgress({ allow: config.egressAllow });
  parts.defer(() => egress.close());
  const stopping = new AbortController();
  const notes = new CallNotes(database, log);
  parts.defer(() => notes.close());
  const gateway = openGateway(config, {
    database,
    caches,
    log,
    notes,
    onOpen: (name, ms) => hints.raise({ kind: "breaker", model: name, ms }),
  });
  const engine: Engine = {
    database,
    log,
    workerId,
    graphs,
    staticSchemas: readStaticSchemas(options.graphs, log),
    assistants: new Map(own.map((assistant) => [assistant.assistant_id, assistant])),
    limits: {
      ...config,
      slots: role === "http" ? 0 : config.slots,
      threadTtl:
        config.threadTtlMinutes > 0
          ? { minutes: config.threadTtlMinutes, strategy: "delete" }
          : options.graphs.threadTtl,
    },
    live,
    clock: new OwnClock(log),
    hints,
    recorder,
    reader: new EventReader(database),
    checkpoints: new CheckpointBatch(database, workerId, { events: recorder, notes }),
    notes,
    totals: new Totals(),
    services: {
      settings: graphSettings(config),
      search: (query, { collection = config.collection, limit = config.passages } = {}) => {
        const ask = { collection, query, limit };
        const ttlMs = config.cacheSearchSeconds * 1000;
        if (ttlMs === 0) return search(database, defaultScope, ask);
        return cachedSearch({ database, scope: defaultScope, caches, ttlMs }, ask);
      },
    },
    embedder,
    storeTtl: options.graphs.storeTtl,
    caches,
    gateway,
    egress,
    privacy,
    stopping: stopping.signal,
    poke: () => worker.poke(),
    freed: () => worker.freed(),
    claimed: () => worker.settled(),
    compare: () => worker.compare(),
  };
  const instance = await startInstance(engine, worker, hasSessions);
  parts.defer(() => instance.stop());

  const counters = await openCounters(config, database, log);
  parts.defer(() => counters.close());
  const http = role === "worker" ? undefined : await serveHttp(engine, counters, options);
  if (http) parts.defer(announceLoopback(http.loopbackUrl));
  // Stopped after the runs, so that those that end now still call back.
  const webhooks = startWebhooks({
    ...engine,
    secrets: config.webhookSecrets,
    loopbackUrl: http?.loopbackUrl,
  });
  hints.whenDue("webhooks", () => webhooks.wake());
  parts.defer(() => webhooks.stop());
  parts.defer(() => {
    stopping.abort();
    return leave(engine, http, config);
  });
  // Only now: what is claimed by a server that then fails to start counts as an attempt of the run.
  worker.start(engine);
  const [crons, sweep, audit] = [startCrons(engine), startSweep(engine), startAuditChain(engine)];
  parts.defer(() => Promise.all([crons.stop(), sweep.stop(), audit.stop()]).then(() => undefined));
  log.info("server.started", { url: http?.url, graphs: graphIds, worker_id: workerId, role });
  return { url: http?.url, graphIds, stop: () => parts.disposeAsync() };
}

/** Vectors of the offline model mean nothing, and are made faster than they are found. */
function vectorCacheOf(
  { cacheEmbeddingsDays: days, openaiBaseUrl }: Config,
  { model, caches, privacy }: { model: string; caches: Caches; privacy: Privacy },
): VectorCache | undefined {
  if (days === 0 || model !== "given") return undefined;
  const guard = privacy.of();
  return {
    caches,
    endpoint: openaiBaseUrl ?? "",
    ttlMs: days * DAY_MS,
    mayKeep: (text) => guard.text(text) === text,
  };
}

const versions = {
  version: ownVersion,
  langgraphVersion: versionOf("@langchain/langgraph", import.meta.url) ?? "",
};

interface Served {
  readonly servers: readonly Server[];
  readonly url: string;
  /** Where this process reaches itself. */
  readonly loopbackUrl: string;
  /** Closes the sockets that were let in. */
  readonly sendAway: () => Promise<void>;
}

async function serveHttp(
  engine: Engine,
  counters: CounterStore,
  { config, say, maySelfSign = false, graphs }: ServerOptions,
): Promise<Served> {
  const { path, http, authPath } = graphs;
  const custom = http.app === undefined ? undefined : await loadCustomApp(path, http.app);
  const authority = authPath === undefined ? undefined : await loadAuthority(path, authPath);
  if (authority && !authority.hasHandlers)
    say(`Auth: ${authPath} has no handlers (on), so whoever it lets in may do everything.`);
  const ui = await buildUi(graphs, say);
  const certificate = await certificateOf(config, maySelfSign);
  const cors = corsPolicyOf(config.corsOrigins, http.cors);
  const limits = openLimits(counters, config);
  if (limits) say(`Limits: ${limits.text}`);
  const fetch = buildApp(engine, { ...config, ...versions, http, cors, custom, authority, limits, ui });
  const outside = await listen(config, fetch, certificate);
  const takeSockets = (server: Server): (() => Promise<void>) =>
    http.disable_runs ? async () => {} : serveSockets(server, fetch, engine, { ...config, cors });
  const sendAway = takeSockets(outside.server);
  const { url: outsideUrl } = outside;
  if (!certificate) return { servers: [outside.server], url: outsideUrl, loopbackUrl: outsideUrl, sendAway };
  // A certificate is for the name that clients use, and no process trusts one that it made for itself.
  const inside = await listen({ host: "127.0.0.1", port: 0 }, fetch).catch((error: unknown) => {
    outside.server.close();
    throw error;
  });
  const sendAwayInside = takeSockets(inside.server);
  return {
    servers: [outside.server, inside.server],
    url: outsideUrl,
    loopbackUrl: inside.url,
    sendAway: async () => void (await Promise.all([sendAway(), sendAwayInside()])),
  };
}

export const privacyOf = ({ graphs, config }: ServerOptions): Privacy =>
  openPrivacy({ ...graphs.privacy, names: config.privacyNames });

/** The process ends itself as `kill -9` would. */
function armFaultOf(fault: string): void {
  const [name = "", nth] = fault.split(":");
  armFault(name, Number(nth), () => process.kill(process.pid, "SIGKILL"));
}

function listen(
  { host, port }: Pick<Config, "host" | "port">,
  fetch: Fetch,
  certificate?: Certificate,
): Promise<{ server: Server; url: string }> {
  return new Promise((resolve, reject) => {
    const tls = certificate && { createServer: createHttpsServer, serverOptions: { ...certificate } };
    const options = { fetch: fetch as Parameters<typeof serve>[0]["fetch"], port, hostname: host, ...tls };
    const server = serve(options, (address) => {
      const name = host.includes(":") ? `[${host}]` : host;
      resolve({ server, url: `${tls ? "https" : "http"}://${name}:${address.port}` });
    }) as Server; // or one of HTTPS, which has all that is used here; never HTTP/2
    tendConnections(server);
    server.once("error", (error) => {
      if (codeOf(error) !== "EADDRINUSE")
        reject(new ResourceTaken(`Cannot listen on ${host}:${port}: ${messageOf(error)}.`));
      else
        reject(
          new ResourceTaken(
            `Port ${port} on ${host} is taken; stop what listens there or choose another with --port.`,
          ),
        );
    });
  });
}

/**
 * Leaves in order: balancers notice, runs end or are handed over, streams that are not over are cut.
 * Destroyed, not ended: a client of an unfinished stream must notice and come back.
 */
async function leave(engine: Engine, http: Served | undefined, config: Config): Promise<void> {
  const servers = http?.servers ?? [];
  if (servers.length > 0 && config.drainDelayMs > 0) await sleep(config.drainDelayMs);
  const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
  for (const server of servers) server.closeIdleConnections();
  await drain(engine, config.drainMs);
  await http?.sendAway();
  for (const server of servers) server.closeAllConnections();
  await Promise.all(closed);
}
