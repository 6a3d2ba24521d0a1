// Exceptions that nobody can catch: they end the run whose code they come from, and nobody else's.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holdfast, startHoldfast } from "../support/holdfast.ts";

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
  const folder = await mkdtemp(join(tmpdir(), "holdfast-uncaught-"));
  const path = join(folder, "graph.mjs");
  const graphs = resolve("test/fixtures/stubborn.ts");
  await writeFile(
    path,
    `export { waiting } from "${graphs}"; setTimeout(() => { throw new Error("of ada@lovelace.example"); }, 50);`,
  );
  const config = join(folder, "langgraph.json");
  await writeFile(config, JSON.stringify({ graphs: { waiting: "./graph.mjs:waiting" } }));
  const args = ["serve", "--port", "0", "--config", config];
  const { code, err } = await holdfast(args, { DATABASE_URL: scratch.url });
  await rm(folder, { recursive: true });
  expect([code, err]).toEqual([1, expect.stringContaining("of [REDACTED_EMAIL]")]);
  expect(err).not.toContain("lovelace.example");
});
