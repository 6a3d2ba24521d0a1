// Builds a server from its parts, in order, and takes it down in the opposite one.
// This file is the wiring diagram; it is also the only one that ends the process.
import type { Server } from "node:http";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { serve } from "@hono/node-server";
import { deadline, sleep } from "./clock.ts";
import { useModelEndpoint } from "./config.ts";
import type { Config } from "./config.ts";
import { ResourceTaken, messageOf } from "./errors.ts";
import { buildApp } from "./http/app.ts";
import { assistantIdOf, uuidv7 } from "./ids.ts";
import { search } from "./retrieval/search.ts";
import type { Engine } from "./runs/engine.ts";
import { RunCancelled } from "./runs/execute.ts";
import { loadGraphs } from "./runs/graphs.ts";
import type { GraphsFile } from "./runs/graphs.ts";
import { startInstance } from "./runs/instance.ts";
import { LiveRuns } from "./runs/live.ts";
import { startReaper } from "./runs/reap.ts";
import { Recorder } from "./runs/record.ts";
import { graphSettings } from "./services.ts";
import { upsertSystemAssistants } from "./storage/assistants.ts";
import type { Database } from "./storage/database.ts";
import { openDatabase } from "./storage/open.ts";
import { codeOf } from "./storage/postgres.ts";
import { defaultScope } from "./storage/scope.ts";
import { openLog } from "./telemetry/log.ts";

export interface ServerOptions {
  readonly config: Config;
  readonly graphs: GraphsFile;
  /** Answer with the offline model when no provider is configured. */
  readonly mayModelBeOffline: boolean;
  /** Told of each step, in words for a person. */
  readonly say: (text: string) => void;
  /** Runs after the migrations and before the graphs are loaded. */
  readonly prepare?: (database: Database) => Promise<void>;
}

export interface RunningServer {
  readonly url: string;
  readonly graphIds: readonly string[];
  /** Lets live runs end for `HOLDFAST_DRAIN_MS`, stops the rest, and releases everything. */
  stop(): Promise<void>;
}

/** @throws AppError in one sentence when a part cannot start; what had started is stopped again */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const parts = new AsyncDisposableStack();
  try {
    return await build(options, parts);
  } catch (error) {
    await parts.disposeAsync();
    throw error;
  }
}

async function build(options: ServerOptions, parts: AsyncDisposableStack): Promise<RunningServer> {
  const { config, say } = options;
  const log = openLog(config.logLevel);
  const { database, isEmbedded, migrate, close } = await openDatabase(config, say);
  parts.defer(close);
  const { applied, version } = await migrate();
  const changes = applied.length > 0 ? `applied ${applied.join(", ")}` : "up to date";
  say(
    `Database: ${isEmbedded ? "embedded PostgreSQL" : "PostgreSQL at DATABASE_URL"}, schema ${version} (${changes})`,
  );
  await options.prepare?.(database);
  await connectModel(options, parts);

  const graphs = await loadGraphs(options.graphs);
  const graphIds = [...graphs.keys()];
  const systemIds = graphIds.map((graphId) => ({ graphId, assistantId: assistantIdOf(graphId) }));
  const live = new LiveRuns();
  const engine: Engine = {
    database,
    log,
    workerId: uuidv7(),
    graphs,
    assistants: await upsertSystemAssistants(database, systemIds),
    live,
    recorder: new Recorder(database, log, (runIds) => live.wake(runIds)),
    services: {
      settings: graphSettings(config),
      search: (query, { collection = config.collection, limit = config.passages }) =>
        search(database, defaultScope, { collection, query, limit }),
    },
  };
  const instance = await startInstance(database, log, engine.workerId);
  parts.defer(() => instance.stop());
  const reaper = startReaper(engine);
  parts.defer(() => reaper.stop());

  const app = buildApp(engine, { ...config, ...versions() });
  const { server, url } = await listen(config, (request, bindings) => app.fetch(request, bindings));
  parts.defer(() => drain(engine, server, config.drainMs));
  log.info("server.started", { url, graphs: graphIds, worker_id: engine.workerId });
  return { url, graphIds, stop: () => parts.disposeAsync() };
}

/** Serves until SIGINT or SIGTERM, then stops in order; a second signal ends the process at once. */
export async function serveUntilStopped(
  options: ServerOptions,
  started: (server: RunningServer) => void,
): Promise<never> {
  const stopping = Promise.withResolvers<NodeJS.Signals>();
  const server = startServer(options);
  let signals = 0;
  const onSignal = (signal: NodeJS.Signals): void => {
    signals += 1;
    if (signals > 1) process.exit(130);
    stopping.resolve(signal);
  };
  // A promise that a node forgot is that node's fault, and no reason to end everybody's runs.
  const log = openLog(options.config.logLevel);
  process.on("unhandledRejection", (error) => log.error("promise.unhandled", { reason: messageOf(error) }));
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  const running = await server;
  started(running);
  const signal = await stopping.promise;
  options.say(`${signal}: waiting for live runs, then stopping. Press Ctrl-C again to end at once.`);
  await running.stop();
  process.exit(0); // a graph may have left timers of its own
}

async function connectModel(
  { config, mayModelBeOffline, say }: ServerOptions,
  parts: AsyncDisposableStack,
): Promise<void> {
  const { openaiApiKey, openaiBaseUrl: baseUrl } = config;
  if (openaiApiKey || baseUrl) {
    useModelEndpoint({ baseUrl, apiKey: openaiApiKey ?? "none" });
    say(`Model: ${config.model} at ${baseUrl ?? "the provider's own endpoint"}`);
  } else if (mayModelBeOffline) {
    const { startOfflineModel } = await import("./models/offline/server.ts"); // never loaded in production
    const offline = await startOfflineModel({});
    parts.defer(() => offline.stop());
    useModelEndpoint({ baseUrl: offline.url, apiKey: "offline" });
    say("Model: offline, extractive (set OPENAI_API_KEY or OPENAI_BASE_URL for a real one)");
  } else {
    say("Model: none configured; graphs that call OpenAI need OPENAI_API_KEY or OPENAI_BASE_URL");
  }
}

function listen(
  { host, port }: Config,
  fetch: (request: Request, bindings: object) => Response | Promise<Response>,
): Promise<{ server: Server; url: string }> {
  return new Promise((resolve, reject) => {
    // Without TLS or HTTP/2 options this is a plain http.Server.
    const server = serve({ fetch, port, hostname: host }, (address) => {
      const name = host.includes(":") ? `[${host}]` : host;
      resolve({ server, url: `http://${name}:${address.port}` });
    }) as Server;
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

async function drain(engine: Engine, server: Server, drainMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  await Promise.race([engine.live.settled(), sleep(drainMs, deadline(drainMs))]);
  engine.live.cancelAll(new RunCancelled("The server stopped."));
  await engine.live.settled();
  // Destroyed, not ended: a client of an unfinished stream must notice and come back.
  server.closeAllConnections();
  await closed;
}

function versions(): { version: string; langgraphVersion: string } {
  const require = createRequire(import.meta.url);
  const own = import.meta.url.endsWith(".js") ? "../../package.json" : "../package.json";
  const langgraph = require.resolve("@langchain/langgraph/package.json");
  return { version: versionIn(require.resolve(own)), langgraphVersion: versionIn(langgraph) };
}

const versionIn = (path: string): string => String(JSON.parse(readFileSync(path, "utf8")).version);
