// Exceptions that nobody can catch: they end the run whose code they come from, and nobody else's.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holdfast, startHoldfast } from "../support/holdfast.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

test("a run that throws where no caller is ends in error, and the others go on", async () => {
  const args = ["serve", "--port", "0", "--config", "test/fixtures/stubborn.langgraph.json"];
  const server = startHoldfast(args, { DATABASE_URL: scratch.url, HOLDFAST_DRAIN_MS: "0" });
  await server.says("Ready on");
  const [apiUrl = ""] = /http:\/\/[\d.:]+/.exec(server.out()) ?? [];
  const { threads, runs } = new Client({ apiUrl, callerOptions: { maxRetries: 0 } });
  const [bystander, thrower] = [await threads.create(), await threads.create()];
  const waiting = await runs.create(bystander.thread_id, "waiting", { input: {} });
  const answer = await runs.wait(thrower.thread_id, "throwing", { input: {}, raiseError: false });
  expect(answer).toEqual({
    __error__: { error: "Error", message: expect.stringContaining("ECONNREFUSED") },
  });
  const [failed] = await runs.list(thrower.thread_id);
  expect(failed?.status).toBe("error");
  expect((await runs.get(bystander.thread_id, waiting.run_id)).status).toBe("running");
  await runs.cancel(bystander.thread_id, waiting.run_id, true);
  server.process.kill("SIGTERM");
  const { code, err } = await server.ended;
  expect([code, err]).toEqual([0, expect.stringContaining('"event":"exception.uncaught"')]);
});

test("one that belongs to no run ends the server, and what it says is redacted", async () => {
  const { args, remove } = await project(
    'setTimeout(() => { throw new Error("of ada@lovelace.example"); }, 50);',
  );
  const { code, err } = await holdfast(args, { DATABASE_URL: scratch.url });
  await remove();
  expect([code, err]).toEqual([1, expect.stringContaining("of [REDACTED_EMAIL]")]);
  expect(err).not.toContain("lovelace.example");
});

test("a warning is a line of the log as all others are, and redacted", async () => {
  const { args, remove } = await project('process.emitWarning("of ada@lovelace.example");');
  const server = startHoldfast(args, { DATABASE_URL: scratch.url, HOLDFAST_LOG_LEVEL: "warn" });
  await until(() => server.err().includes("\n"), "the line");
  server.process.kill("SIGTERM");
  const { err } = await server.ended;
  await remove();
  const lines = err.trim().split("\n");
  expect(lines.map((line) => JSON.parse(line) as object)).toContainEqual(
    expect.objectContaining({ event: "process.warned", name: "Warning", reason: "of [REDACTED_EMAIL]" }),
  );
});

/** A graph whose file does something beside. */
async function project(beside: string): Promise<{ args: string[]; remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-uncaught-"));
  const graphs = resolve("test/fixtures/stubborn.ts");
  await writeFile(join(folder, "graph.mjs"), `export { waiting } from "${graphs}"; ${beside}`);
  const config = join(folder, "langgraph.json");
  await writeFile(config, JSON.stringify({ graphs: { waiting: "./graph.mjs:waiting" } }));
  return {
    args: ["serve", "--port", "0", "--config", config],
    remove: () => rm(folder, { recursive: true }),
  };
}
