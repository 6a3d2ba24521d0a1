// Pages of the official hooks' controller when a node fails in the midst of its answer: when the run is over, they show
// what the thread holds, also without being loaded again.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { StreamController } from "@langchain/langgraph-sdk/stream";
import { Client as Client11 } from "langgraph-sdk-1.11";
import { StreamController as StreamController11 } from "langgraph-sdk-1.11/stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startFakeModel } from "../support/model.ts";
import type { FakeModel } from "../support/model.ts";
import { ended, roots, watch } from "../support/protocol.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
let model: FakeModel;
let server: TestServer;
beforeAll(async () => {
  [scratch, model] = await Promise.all([testDatabase(), startFakeModel()]);
  server = await startTestServer(scratch.url, {
    HOLDFAST_CONFIG: "test/fixtures/protocol.langgraph.json",
    OPENAI_API_KEY: "none",
    OPENAI_BASE_URL: model.url,
  });
});
afterAll(async () => {
  await server.stop();
  await model.stop();
  await scratch.close();
});

const PAGES = [
  { sdk: "1.15", Make: Client, Control: StreamController, transport: "sse" },
  { sdk: "1.15", Make: Client, Control: StreamController, transport: "websocket" },
  {
    sdk: "1.11",
    Make: Client11 as unknown as typeof Client,
    Control: StreamController11 as unknown as typeof StreamController,
    transport: "sse",
  },
] as const;

// A node's own error handler goes on without its answer.
const ENDS = [
  { graph: "talk", end: "failed", held: ["hold fast"] },
  { graph: "mends", end: "completed", held: ["hold fast", "sorry"] },
] as const;

describe.each(ENDS)("of a run that has $end", ({ graph, end, held }) => {
  test.each(PAGES)(
    "half an answer leaves a page of $sdk over $transport with it",
    async ({ Make, Control, transport }) => {
      const gone = new AbortController();
      const threadId = randomUUID();
      const events = await watch({ url: server.url, fetch }, threadId, gone.signal);
      const page: StreamController = new Control({
        assistantId: graph,
        client: new Make({ apiUrl: server.url, apiKey: null }) as never,
        threadId,
        transport,
      });
      const input = { messages: [{ role: "user", content: "hold fast" }], model: "fake-cut" };
      await page.submit(input).catch(() => undefined); // says that the run has failed
      await ended(events);
      expect(roots(events)).toEqual(["running", end]);
      const said = events.filter(({ method }) => method === "messages").map(({ params: { data } }) => data);
      expect(JSON.stringify(said)).toContain("tok1");
      const texts = (): string[] => page.rootStore.getSnapshot().messages.map(({ text }) => text);
      const { values } = await server.client.threads.getState<{ messages: { content: string }[] }>(threadId);
      expect(values.messages.map(({ content }) => content)).toEqual(held);
      await until(
        () => texts().length === held.length && !page.rootStore.getSnapshot().isLoading,
        "the page to be right",
      );
      expect(texts()).toEqual(held);
      expect(said.map(({ event, code }) => code ?? event)).toContain("aborted");
      await page.dispose();
      gone.abort();
    },
  );
});
