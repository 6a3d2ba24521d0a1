// A real server on a free port, over the file's own database, with the fixture graphs or others.
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect } from "vitest";
import { readConfig } from "../../server/config.ts";
import { startServer } from "../../server/main.ts";
import type { RunningServer } from "../../server/main.ts";
import { readGraphsFile } from "../../server/runs/graph/graphs.ts";
import { testDatabase } from "./database.ts";
import type { TestDatabase } from "./database.ts";
import { suiteKeys } from "./keys.ts";

export interface TestServer extends RunningServer {
  readonly url: string;
  /** The official client, pointed at this server. */
  readonly client: Client;
}

export async function startTestServer(
  databaseUrl: string,
  settings: Record<string, string> = {},
  role: "all" | "http" = "all",
): Promise<TestServer> {
  const config = readConfig({
    DATABASE_URL: databaseUrl,
    PORT: "0",
    HOLDFAST_CONFIG: "test/fixtures/langgraph.json",
    HOLDFAST_LOG_LEVEL: "error",
    HOLDFAST_DRAIN_MS: "0",
    HOLDFAST_KEYS: suiteKeys,
    ...settings,
  });
  const graphs = await readGraphsFile(config.graphs);
  const server = await startServer({ config, graphs, mayModelBeOffline: false, say: () => {}, role });
  const { url } = server;
  if (url === undefined) expect.fail("a test server answers HTTP");
  const client = new Client({ apiUrl: url, callerOptions: { maxRetries: 0 } });
  return { ...server, url, client };
}

/** A database and a server for the whole test file; both are there from the first test on. */
export function useServer(settings: Record<string, string> = {}): {
  scratch: TestDatabase;
  server: TestServer;
} {
  const held: { scratch?: TestDatabase; server?: TestServer } = {};
  beforeAll(async () => {
    held.scratch = await testDatabase();
    held.server = await startTestServer(held.scratch.url, settings);
  });
  afterAll(async () => {
    await held.server?.stop();
    await held.scratch?.close();
  });
  return {
    get scratch() {
      return started(held.scratch);
    },
    get server() {
      return started(held.server);
    },
  };
}

const started = <Part>(part: Part | undefined): Part => part ?? expect.fail("the server did not start");

export interface Frame {
  readonly id?: string | undefined;
  readonly event: string;
  readonly data: unknown;
}

/** Reads an official-client stream to its end. */
export async function collect(stream: AsyncIterable<Frame>): Promise<Frame[]> {
  const frames: Frame[] = [];
  for await (const frame of stream) frames.push(frame);
  return frames;
}
