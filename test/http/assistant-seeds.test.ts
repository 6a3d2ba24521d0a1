// What the assistants of graphs begin with, by LANGGRAPH_CONFIG.
import { afterAll, beforeAll, expect, test } from "vitest";
import { seedAssistants } from "../../server/runs/assistants.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holdfast } from "../support/holdfast.ts";
import { startTestServer } from "../support/server.ts";

const config = { configurable: { tone: "warm" }, tags: ["seeded"] };
const seeds = { telling: { ...config, context: { mood: "calm" } } };
let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());
const start = (value: object) =>
  startTestServer(scratch.url, {
    HOLDFAST_CONFIG: "test/fixtures/kinds.langgraph.json",
    LANGGRAPH_CONFIG: JSON.stringify(value),
  });

test("a graph's own assistant begins with its config and context, and runs with them", async () => {
  const server = await start(seeds);
  const assistant = await server.client.assistants.get("telling");
  expect(assistant).toMatchObject({ config, context: { mood: "calm" }, version: 1 });
  const [version] = await server.client.assistants.getVersions("telling");
  expect(version).toMatchObject({ config, context: { mood: "calm" }, version: 1 });
  expect(await server.client.assistants.get("echo")).toMatchObject({ config: {}, context: {} });
  const { told } = Object(await server.client.runs.wait(null, "telling", { input: {} }));
  expect(told).toMatchObject({ tone: "warm", mood: "calm" });
  await server.client.assistants.update("telling", { context: { mood: "changed" } });
  await server.stop();
});

test("one that exists keeps what it has, and whoever says otherwise is told", async () => {
  const server = await start({ telling: { context: { mood: "other" } } });
  const kept = await server.client.assistants.get("telling");
  expect(kept).toMatchObject({ config, context: { mood: "changed" }, version: 2 });
  await server.stop();
  const said: string[] = [];
  const say = (text: string): unknown => said.push(text);
  const asked = { telling: { ...config, context: { mood: "changed" } }, echo: { tags: ["x"] }, gone: {} };
  const rows = await seedAssistants(scratch.database, ["telling", "echo"], asked, say);
  expect(rows.map(({ graph_id: id }) => id).toSorted()).toEqual(["echo", "telling"]);
  expect(said).toEqual([
    "LANGGRAPH_CONFIG: the assistant of echo exists and keeps its own config and context.",
    "LANGGRAPH_CONFIG: gone is no graph of this server.",
  ]);
});

test("what is no JSON stops the start in one sentence", async () => {
  const { code, err } = await holdfast(["serve"], {
    DATABASE_URL: scratch.url,
    LANGGRAPH_CONFIG: "{telling",
  });
  expect([code, err]).toEqual([
    1,
    "holdfast: LANGGRAPH_CONFIG must be a JSON object of one object for each graph.\n",
  ]);
});
