// A server that has not started yet: what it leaves alone, what it says, and how it is stopped.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { sleep, turn } from "../server/clock.ts";
import { loadGraphs, readGraphsFile } from "../server/runs/graph/graphs.ts";
import { testDatabase } from "./support/database.ts";
import type { TestDatabase } from "./support/database.ts";
import { holdfast, startHoldfast } from "./support/holdfast.ts";

let scratch: TestDatabase;
let folder: string;
beforeAll(async () => {
  scratch = await testDatabase();
  folder = await mkdtemp(join(tmpdir(), "holdfast-starting-"));
});
afterEach(() => void vi.useRealTimers());
afterAll(async () => {
  await scratch.close();
  await rm(folder, { recursive: true });
});

/** A langgraph.json with one graph, whose module is `text`. */
async function project(text: string): Promise<string> {
  const path = join(await mkdtemp(join(folder, "project-")), "langgraph.json");
  await writeFile(path, JSON.stringify({ graphs: { mine: "./mine.mjs:graph" } }));
  await writeFile(join(path, "../mine.mjs"), text);
  return path;
}

test("a server that cannot start takes no run", async () => {
  const graphs = ["--config", "test/fixtures/langgraph.json"];
  const front = startHoldfast(["serve", "--no-worker", "--port", "0", ...graphs], {
    DATABASE_URL: scratch.url,
  });
  await front.says("Ready on");
  const [apiUrl = ""] = /http:\/\/[\d.:]+/.exec(front.out()) ?? [];
  const client = new Client({ apiUrl });
  const { thread_id: threadId } = await client.threads.create();
  const { run_id: runId } = await client.runs.create(threadId, "endless", { input: {} });
  const taken = ["serve", "--port", new URL(apiUrl).port, ...graphs];
  expect(await holdfast(taken, { DATABASE_URL: scratch.url })).toMatchObject({ code: 1 });
  const sql = "select state, attempt from holdfast.runs where run_id = $1";
  expect(await scratch.database.query(sql, [runId])).toEqual([{ state: "ready", attempt: 0 }]);
  front.process.kill("SIGTERM");
  await front.ended;
});

test("SIGTERM stops a server whose graph never comes to be loaded", async () => {
  const path = await project("await new Promise((resolve) => setTimeout(resolve, 1e9));");
  const server = startHoldfast(["serve", "--port", "0", "--config", path], { DATABASE_URL: scratch.url });
  await server.says("Model:");
  server.process.kill("SIGTERM");
  expect(await server.ended).toMatchObject({ code: 0, err: "" });
});

test.each([
  { again: "at once, as a Ctrl-C that the watcher passes on", afterMs: 0, code: 0 },
  { again: "later, by somebody who does not want to wait", afterMs: 1000, code: 130 },
])("a second signal $again, ends the process with $code", async ({ afterMs, code }) => {
  const path = await project("await new Promise((resolve) => setTimeout(resolve, 1e9));");
  const server = startHoldfast(["serve", "--port", "0", "--config", path], { DATABASE_URL: scratch.url });
  await server.says("Model:");
  server.process.kill("SIGINT");
  await sleep(afterMs);
  server.process.kill("SIGTERM");
  expect((await server.ended).code).toBe(code);
});

/** Two seconds that no fake timer knows of. */
async function aWhile(): Promise<void> {
  const until = performance.now() + 2000;
  while (performance.now() < until) await turn();
}

test.each([
  ["await new Promise(() => {});", 10_000, "mine (./mine.mjs:graph) is still being loaded"],
  [
    "export const graph = () => new Promise(() => {});",
    30_000,
    "mine (./mine.mjs:graph) cannot be made without the configuration of a run",
  ],
])("what never comes to its end is named: %s", async (text, ms, sentence) => {
  const said: string[] = [];
  const file = await readGraphsFile(await project(text));
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  void loadGraphs(file, (line) => said.push(line));
  await aWhile();
  vi.advanceTimersByTime(ms);
  await aWhile();
  expect(said).toEqual([expect.stringContaining(sentence)]);
});
