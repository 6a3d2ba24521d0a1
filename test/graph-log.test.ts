// What a graph writes with getLogger() of the SDK stands in the server's log, with the run that wrote it.
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "./support/database.ts";
import type { TestDatabase } from "./support/database.ts";
import { holdfast, startHoldfast } from "./support/holdfast.ts";

const GRAPH = `
import { inspect } from "node:util";
import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";
import { getLogger } from "@langchain/langgraph-sdk/logging";
const log = getLogger();
log.warn("graph is read");
export const graph = new StateGraph(MessagesAnnotation)
  .addNode("think", () => {
    log.info("thinks of", { mail: "ada@example.com", turns: 2 }, undefined, [3n]).verbose("in small steps");
    log.error(new Error("for ada@example.com"));
    log.info({ turns: 1n, [inspect.custom]: () => { throw new Error("not now"); } });
    log.info("-".repeat(9990) + " 4111 1111 1111 1111");
    return {};
  })
  .addEdge("__start__", "think")
  .compile();
`;

let folder: string;
let config: string;
let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
  folder = await mkdtemp(join(tmpdir(), "holdfast-graph-log-"));
  config = join(folder, "langgraph.json");
  await symlink(resolve("node_modules"), join(folder, "node_modules"));
  await writeFile(join(folder, "graph.mjs"), GRAPH);
  await writeFile(config, JSON.stringify({ graphs: { mine: "./graph.mjs:graph" } }));
});
afterAll(async () => {
  await scratch.close();
  await rm(folder, { recursive: true, force: true });
});

test("lines of a graph say their run and node, redacted as all lines are", async () => {
  const env = { DATABASE_URL: scratch.url, HOLDFAST_LOG_LEVEL: "info" };
  const server = startHoldfast(["serve", "--port", "0", "--config", config], env);
  await server.says("Ready on");
  const [apiUrl = ""] = /http:\S+/.exec(server.out()) ?? [];
  const client = new Client({ apiUrl });
  const { thread_id } = await client.threads.create();
  const run = await client.runs.create(thread_id, "mine", { input: { messages: [] } });
  await client.runs.join(thread_id, run.run_id);
  server.process.kill("SIGTERM");
  const { err } = await server.ended;
  const lines = err.split("\n").filter((line) => line.includes('"graph.logged"'));
  const where = { run_id: run.run_id, thread_id, node: "think" };
  expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
    expect.objectContaining({ level: "warn", text: "graph is read" }),
    expect.objectContaining({
      level: "info",
      text: 'thinks of {"mail":"[REDACTED_EMAIL]","turns":2} undefined [ 3n ]',
      ...where,
    }),
    expect.objectContaining({
      level: "error",
      text: expect.stringMatching(/^Error: for \[REDACTED_EMAIL\]\n +at .*graph\.mjs:10/),
      ...where,
    }),
    expect.objectContaining({ level: "info", text: "[not to be shown: not now]", ...where }),
    // What is cut in two is not seen to be a number of a card.
    expect.objectContaining({ level: "info", text: expect.stringMatching(/^-+ ?$/), ...where }),
  ]);
});

test("doctor reads a graph that asks for the log at its head", async () => {
  const { code, out } = await holdfast(["doctor", "--config", config], { DATABASE_URL: scratch.url });
  expect([code, out]).toEqual([0, expect.stringContaining("ok      graphs: mine")]);
});
