// Holdfast as operators run it: one instance or several, each a process of its own, on one database, behind one address
// that deals each request to the next of them. What a law says must hold for every size.
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { startBalancer } from "./balancer.ts";
import type { Balancer } from "./balancer.ts";
import type { OfficialClient, Sdk } from "./clients.ts";
import { testDatabase } from "./database.ts";
import type { TestDatabase } from "./database.ts";
import { startHoldfast } from "./holdfast.ts";
import { TEST_KEYS, suiteKeys } from "./keys.ts";
import type { Running } from "./holdfast.ts";

type Settings = Record<string, string>;

export interface Cluster {
  readonly size: number;
  /** The address before all instances. */
  readonly url: string;
  /** The addresses of the instances. */
  readonly urls: readonly string[];
  readonly servers: readonly Running[];
  readonly scratch: TestDatabase;
  /** The client that Holdfast is built for, without retries. */
  readonly client: Client;
  /** An official client as it is by default. */
  connect(sdk: Sdk): OfficialClient;
  /** A raw request, for what the official clients do not show. */
  ask(path: string, init?: RequestInit): Promise<Response>;
  /** A raw POST of JSON. */
  post(path: string, body?: object, headers?: Record<string, string>): Promise<Response>;
  newThread(): Promise<string>;
  /** The instance that executes a run. Needs HOLDFAST_LOG_LEVEL=info: the log says who is who. */
  ownerOf(runId: string): Promise<Running>;
  /** Starts an instance that has ended again, at the same address. */
  restart(server: Running): Promise<void>;
}

/** A connection serves one request, so that the next request finds another instance. */
export const ONE_REQUEST = { connection: "close" };

/**
 * Runs the same tests under one instance and under three.
 * @param isConcurrent all tests at once, under both: for tests that wait more than they work
 */
export function eachCluster(
  settings: Settings,
  tests: (cluster: Cluster) => void,
  isConcurrent = false,
): void {
  const about = { concurrent: isConcurrent };
  describe.each([1, 3])("instances: %i", about, (size) => {
    tests(useCluster(size, settings));
  });
}

/** Instances for all tests of a describe block, there from the first test on. Several of them seal what they store. */
export function useCluster(size: number, settings: Settings): Cluster {
  let [scratch, balancer]: [TestDatabase?, Balancer?] = [];
  let servers: Running[] = [];
  const keys = size > 1 ? TEST_KEYS : suiteKeys;
  const all = { ...(keys === undefined ? {} : { HOLDFAST_KEYS: keys }), ...settings };
  beforeAll(async () => {
    scratch = await testDatabase(keys);
    servers = startInstances(size, { DATABASE_URL: scratch.url, ...all });
    balancer = await startBalancer(await urlsOf(servers), { inTurn: true });
  });
  afterAll(async () => {
    await balancer?.stop();
    await stopInstances(servers);
    await scratch?.close();
  });
  const cluster: Cluster = {
    size,
    get url() {
      return started(balancer).url;
    },
    get urls() {
      return servers.map(urlOf);
    },
    get servers() {
      return servers;
    },
    get scratch() {
      return started(scratch);
    },
    get client() {
      return new Client({
        apiUrl: cluster.url,
        callerOptions: { maxRetries: 0 },
        defaultHeaders: ONE_REQUEST,
      });
    },
    connect: (sdk) => sdk.connect({ apiUrl: cluster.url, defaultHeaders: ONE_REQUEST }),
    ask: (path, init = {}) =>
      fetch(cluster.url + path, { ...init, headers: { ...ONE_REQUEST, ...Object(init.headers) } }),
    post: (path, body = {}, headers = {}) =>
      cluster.ask(path, { method: "POST", headers, body: JSON.stringify(body) }),
    newThread: async () => (await cluster.client.threads.create()).thread_id,
    ownerOf: async (runId) => {
      const sql = "select worker_id from holdfast.runs where run_id = $1";
      const [run] = await started(scratch).database.query<{ worker_id: string }>(sql, [runId]);
      const isOwner = (line: string): boolean =>
        line.includes("server.started") && line.includes(run?.worker_id ?? "nobody");
      const owner = servers.find((server) => server.err().split("\n").some(isOwner));
      return owner ?? expect.fail(`nobody executes run ${runId}`);
    },
    restart: async (server) => {
      await server.ended;
      const { port } = new URL(urlOf(server));
      const [again] = startInstances(1, { DATABASE_URL: started(scratch).url, ...all, PORT: port });
      servers = servers.map((one) => (one === server && again ? again : one));
      await urlsOf(servers);
    },
  };
  return cluster;
}

const started = <Part>(part: Part | undefined): Part => part ?? expect.fail("the instances did not start");

/** Processes that are starting. Few connections each: test files run side by side on one PostgreSQL. */
const startInstances = (size: number, settings: Settings): Running[] =>
  Array.from({ length: size }, () =>
    startHoldfast(["serve"], {
      PORT: "0",
      HOLDFAST_POOL_SIZE: "5",
      HOLDFAST_DRAIN_MS: "0",
      ...settings,
    }),
  );

/** The addresses of these servers, once they answer. */
async function urlsOf(servers: readonly Running[]): Promise<string[]> {
  await Promise.all(servers.map((server) => server.says("Ready on")));
  return servers.map(urlOf);
}

const urlOf = (server: Running): string =>
  /Ready on (\S+)/.exec(server.out())?.[1] ?? expect.fail("no address");

/** Asks them to stop, and waits until they have. */
async function stopInstances(servers: readonly Running[]): Promise<void> {
  for (const { process: child } of servers) child.kill("SIGTERM");
  await Promise.all(servers.map(({ ended }) => ended));
}
