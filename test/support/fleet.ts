// One server, or three on one database that take requests in turn, as behind a load balancer.
import { afterAll, beforeAll, expect } from "vitest";
import { testDatabase } from "./database.ts";
import type { TestDatabase } from "./database.ts";
import { startTestServer } from "./server.ts";
import type { TestServer } from "./server.ts";

export const SIZES = [{ instances: 1 }, { instances: 3 }] as const;

export interface Fleet {
  readonly scratch: TestDatabase;
  readonly servers: TestServer[];
  /** Where requests are addressed; `fetch` sends each to the next server. */
  readonly url: string;
  readonly fetch: typeof fetch;
  /** Opens a socket to the next server. */
  socket(url: string): WebSocket;
  /** Stops every server and starts others on the same database. */
  restart(): Promise<void>;
}

/** A fleet for a block of tests. */
export function useFleet(instances: number, settings: Record<string, string> = {}): Fleet {
  let scratch: TestDatabase | undefined;
  let servers: TestServer[] = [];
  let turn = 0;
  const start = async (): Promise<void> => {
    const { url } = scratch ?? expect.fail("no database");
    servers = [];
    for (let at = 0; at < instances; at += 1) servers.push(await startTestServer(url, settings));
  };
  const stop = async (): Promise<void> => {
    await Promise.all(servers.map((server) => server.stop()));
  };
  beforeAll(async () => {
    scratch = await testDatabase();
    await start();
  });
  afterAll(async () => {
    await stop();
    await scratch?.close();
  });
  const next = (): TestServer => {
    turn += 1;
    return servers[turn % servers.length] ?? expect.fail("no server");
  };
  return {
    get scratch() {
      return scratch ?? expect.fail("no database");
    },
    get servers() {
      return servers;
    },
    get url() {
      return servers[0]?.url ?? expect.fail("no server");
    },
    fetch: (input, init) => {
      const url = input instanceof Request ? input.url : String(input);
      return fetch(rebased(url, next().url), init);
    },
    socket: (url) => new WebSocket(rebased(url, next().url.replace("http", "ws"))),
    restart: async () => {
      await stop();
      await start();
    },
  };
}

function rebased(url: string, base: string): string {
  const { pathname, search } = new URL(url);
  return new URL(pathname + search, base).href;
}
