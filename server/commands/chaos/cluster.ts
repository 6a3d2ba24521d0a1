// Real server processes on one database, each behind a proxy of its own, that can be killed, stopped and replaced.
// Whatever happens to this process, none of them outlives it.
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { sleep } from "../../clock.ts";
import { startProxy } from "./proxy.ts";
import type { Proxy } from "./proxy.ts";
import type { Random } from "./random.ts";

export interface ClusterOptions {
  readonly databaseUrl: string;
  /** langgraph.json of the graphs to serve. */
  readonly graphs: string;
  /** All that the servers find in their environment. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly size: number;
  /** The command line to start; by default the one this file belongs to. */
  readonly cli?: string;
}

export interface Instance {
  /** What the database sees as application_name; never used twice. */
  readonly name: string;
  readonly workerId: string;
  readonly url: string;
  readonly proxy: Proxy;
  readonly hasExited: boolean;
  /** Resolves when the process is gone. */
  readonly exited: Promise<void>;
  /** What it ended with, if it ended by itself. */
  readonly exitCode: number | null;
  /** Its latest log lines of level warn and error, and whatever else it wrote to standard error. */
  readonly complaints: readonly string[];
  signal(signal: NodeJS.Signals): void;
}

export interface Cluster {
  /** Those whose process lives and that were not left out. */
  readonly instances: readonly Instance[];
  /** All that ever ran, for their worker ids and complaints. */
  readonly everyone: readonly Instance[];
  /** The address of an instance that clients may call, by chance. */
  address(random: Random): string;
  /** Most clients call this one from now on, while it lives. */
  favour(instance: Instance): void;
  start(extra?: Readonly<Record<string, string>>): Promise<Instance>;
  /** Waits for its end and starts another in its place. @throws when it does not end */
  replace(gone: Instance, extra?: Readonly<Record<string, string>>): Promise<Instance>;
  /** Asks all of them to stop, and kills those that do not. @returns their names */
  stop(): Promise<string[]>;
}

// Settings that would lead past the proxy, or stand in the way of its address.
const ELSEWHERE = {
  DATABASE_DIRECT_URL: undefined,
  DATABASE_URL_FILE: undefined,
  DATABASE_DIRECT_URL_FILE: undefined,
  HOLDFAST_POOLER: undefined,
  HOLDFAST_HTTPS: undefined,
  HOLDFAST_TLS_CERT: undefined,
  HOLDFAST_TLS_KEY: undefined,
};
const READY_MS = 60_000;
const STOP_MS = 15_000;
const LEAVE_MS = 60_000;
const COMPLAINTS = 200;
const FAVOUR = 0.6;

const ownCli = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "../../cli.ts" : "../../cli.js", import.meta.url),
);

export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const everyone: Instance[] = [];
  let favourite: Instance | undefined;
  let started = 0;
  const children = new Set<ChildProcess>();
  const killAll = (): void => {
    for (const child of children) child.kill("SIGKILL");
  };
  const onSignal = (signal: NodeJS.Signals): void => {
    killAll();
    process.kill(process.pid, signal); // the handler is gone: this ends the process
  };
  process.once("exit", killAll).once("SIGINT", onSignal).once("SIGTERM", onSignal);

  const start = async (extra: Readonly<Record<string, string>> = {}): Promise<Instance> => {
    started += 1;
    const name = `chaos-${started}`;
    const proxy = await startProxy(options.databaseUrl);
    const environment = {
      ...options.environment,
      ...ELSEWHERE,
      DATABASE_URL: proxy.url(name),
      HOLDFAST_HOST: "127.0.0.1",
      HOLDFAST_LOG_LEVEL: "info",
      ...extra,
    };
    const args = [options.cli ?? ownCli, "serve", "--port", "0", "--config", options.graphs];
    const child = spawn(process.execPath, args, { env: environment, stdio: ["ignore", "pipe", "pipe"] });
    children.add(child);
    child.once("exit", () => children.delete(child));
    try {
      const instance = await whenReady(child, { name, proxy });
      everyone.push(instance);
      return instance;
    } catch (error) {
      child.kill("SIGKILL");
      await proxy.close();
      throw error;
    }
  };
  const living = (): Instance[] => everyone.filter(({ hasExited }) => !hasExited);
  const stop = async (): Promise<string[]> => {
    for (const instance of living()) instance.signal("SIGCONT");
    for (const instance of living()) instance.signal("SIGTERM");
    await within(STOP_MS, Promise.all(everyone.map(({ exited }) => exited)));
    const unwilling = living().map(({ name }) => name);
    killAll();
    process.off("exit", killAll).off("SIGINT", onSignal).off("SIGTERM", onSignal);
    await Promise.all(everyone.map(({ proxy }) => proxy.close().catch(() => undefined))); // closed when it was replaced
    return unwilling;
  };

  try {
    await Promise.all(Array.from({ length: options.size }, () => start()));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    get instances() {
      return living();
    },
    everyone,
    address: (random) => {
      if (favourite && !favourite.hasExited && random.chance(FAVOUR)) return favourite.url;
      return random.pick(living()).url;
    },
    favour: (instance) => {
      favourite = instance;
    },
    start,
    replace: async (gone, extra) => {
      const hasGone = await within(
        LEAVE_MS,
        gone.exited.then(() => true),
      );
      if (!hasGone) throw new Error(`${gone.name} does not end: ${gone.complaints.slice(-5).join("\n")}`);
      await gone.proxy.close();
      return start(extra);
    },
    stop,
  };
}

async function whenReady(
  child: ChildProcess,
  { name, proxy }: { name: string; proxy: Proxy },
): Promise<Instance> {
  const ready = Promise.withResolvers<{ url: string; workerId: string }>();
  const complaints: string[] = [];
  const known: { url: string | undefined; workerId: string | undefined } = {
    url: undefined,
    workerId: undefined,
  };
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const settle = (): void => {
    if (known.url && known.workerId) ready.resolve({ url: known.url, workerId: known.workerId });
  };
  linesOf(child.stdout, (line) => {
    known.url ??= /^Ready on (http:\/\/\S+)/.exec(line)?.[1];
    settle();
  });
  linesOf(child.stderr, (line) => {
    const fact = factIn(line);
    known.workerId ??= fact?.event === "server.started" ? fact.worker_id : undefined;
    settle();
    if (fact && (fact.level === "info" || fact.level === "debug")) return;
    complaints.push(line);
    if (complaints.length > COMPLAINTS) complaints.shift();
  });
  const outcome = await within(READY_MS, Promise.race([ready.promise, exited]));
  if (!outcome) throw new Error(`A server did not start: ${complaints.slice(-5).join("\n")}`);
  return {
    name,
    ...outcome,
    proxy,
    get hasExited() {
      return child.exitCode !== null || child.signalCode !== null;
    },
    get exitCode() {
      return child.exitCode;
    },
    exited,
    complaints,
    signal: (signal) => {
      child.kill(signal);
    },
  };
}

/** What the promise gives, or undefined when it takes longer. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  const done = new AbortController();
  try {
    return await Promise.race([promise, sleep(ms, done.signal).then(() => undefined)]);
  } finally {
    done.abort();
  }
}

function linesOf(stream: NodeJS.ReadableStream | null, heard: (line: string) => void): void {
  if (stream) createInterface({ input: stream }).on("line", heard);
}

interface Fact {
  readonly level?: string;
  readonly event?: string;
  readonly worker_id?: string;
}

/** A line of the server's log; undefined for anything else. */
function factIn(line: string): Fact | undefined {
  try {
    return JSON.parse(line) as Fact;
  } catch {
    return undefined; // a warning of Node, a stack trace
  }
}
