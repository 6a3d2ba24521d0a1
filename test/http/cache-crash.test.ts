// A server that dies before an answer is kept leaves nothing of it behind, and keeps nobody waiting.
import { Client } from "@langchain/langgraph-sdk";
import { expect, onTestFinished, test } from "vitest";
import { useModelEndpoint } from "../../server/config.ts";
import { testDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { startFakeModel } from "../support/model.ts";
import { startTestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

test("after a crash in the middle of an answer the next server makes a call of its own, and keeps that", async () => {
  const [scratch, fake] = await Promise.all([testDatabase(), startFakeModel()]);
  onTestFinished(() => Promise.all([scratch.close(), fake.stop()]).then(() => undefined));
  const settings = { HOLDFAST_CONFIG: "test/fixtures/cached.langgraph.json", OPENAI_BASE_URL: fake.url };
  const rows = (): Promise<unknown[]> => scratch.database.query("select key from holdfast.cache_entries");
  const dying = startHoldfast(["serve"], {
    ...settings,
    DATABASE_URL: scratch.url,
    PORT: "0",
    HOLDFAST_FAULT: "call.settled:1",
  });
  await dying.says("Ready on");
  const client = new Client({ apiUrl: /Ready on (\S+)/.exec(dying.out())?.[1] ?? "" });
  const { thread_id: id } = await client.threads.create();
  const input = { messages: [{ role: "user", content: "hold fast" }] };
  const { run_id: run } = await client.runs.create(id, "asking", { input });
  await dying.ended;
  expect(await rows()).toEqual([]);
  useModelEndpoint({ baseUrl: fake.url, apiKey: "none" });
  const server = await startTestServer(scratch.url, settings);
  const values = await server.client.runs.join(id, run);
  await until(async () => (await rows()).length === 1, "the answer to be kept");
  await server.stop();
  expect((values as { messages: { content: string }[] }).messages.at(-1)?.content).toBe("hold fast");
  expect(fake.calls).toHaveLength(2);
});
