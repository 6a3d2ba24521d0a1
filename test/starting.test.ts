// A server that has not started yet: what it leaves alone, what it says, and how it is stopped.
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "./support/database.ts";
import type { TestDatabase } from "./support/database.ts";
import { holdfast, startHoldfast } from "./support/holdfast.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

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
