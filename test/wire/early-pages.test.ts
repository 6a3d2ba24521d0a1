// A page that is opened before its run has stored anything: the official controller opens no stream of a thread whose
// state says that nothing is left to do.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { StreamController } from "@langchain/langgraph-sdk/stream";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { watch } from "../support/protocol.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

// The server that answers executes nothing: a run waits until another one is started.
let scratch: TestDatabase;
let server: TestServer;
let worker: TestServer | undefined;
beforeAll(async () => {
  scratch = await testDatabase();
  server = await startTestServer(scratch.url, {}, "http");
});
afterEach(async () => {
  await worker?.stop();
  worker = undefined;
});
afterAll(async () => {
  await server.stop();
  await scratch.close();
});

const work = async (): Promise<void> => {
  worker = await startTestServer(scratch.url);
};

const said = (content: string): Record<string, unknown> => ({ messages: [{ role: "user", content }] });

async function pageOf(threadId: string, transport: "sse" | "websocket"): Promise<StreamController> {
  const client = new Client({ apiUrl: server.url, apiKey: null });
  const page: StreamController = new StreamController({
    assistantId: "echo",
    client: client as never,
    threadId,
    transport,
  });
  await page.hydrate(threadId);
  return page;
}

const texts = (page: StreamController): string[] =>
  page.rootStore.getSnapshot().messages.map(({ text }) => text);

const isLoading = (page: StreamController): boolean => page.rootStore.getSnapshot().isLoading;

describe.each(["sse", "websocket"] as const)("over %s", (transport) => {
  test("a page shows the run that waits, its answer and its end, on the first turn and on the next", async () => {
    const threadId = randomUUID();
    const { client } = server;
    for (const turn of [1, 2]) {
      await client.runs.create(threadId, "echo", { input: said(`turn ${turn}`), ifNotExists: "create" });
      const page = await pageOf(threadId, transport);
      expect(isLoading(page)).toBe(true);
      await work();
      await until(() => texts(page).length === 2 * turn && !isLoading(page), "the answer and the end");
      await page.dispose();
      await worker?.stop();
      const { values } = await client.threads.getState(threadId);
      expect(Object(values).messages).toHaveLength(2 * turn);
    }
  });

  test.each(["interrupt", "rollback"] as const)(
    "a page shows that a run that waits is gone by %s",
    async (action) => {
      const threadId = randomUUID();
      const { client } = server;
      const { run_id: runId } = await client.runs.create(threadId, "echo", {
        input: said("never"),
        ifNotExists: "create",
      });
      const page = await pageOf(threadId, transport);
      expect(isLoading(page)).toBe(true);
      await client.runs.cancel(threadId, runId, false, action);
      await until(() => !isLoading(page), "the end");
      expect(texts(page)).toEqual([]);
      await page.dispose();
    },
  );
});

test.each([
  { graph: "echo", event: "completed", has: { messages: [expect.anything(), expect.anything()] } },
  { graph: "failing", event: "failed", has: { count: 0 } },
  { graph: "asking", event: "interrupted", has: { count: 0 } },
])("who follows a thread after a run of $graph is told what it left, not older than that", async (one) => {
  const { client } = server;
  const { thread_id: threadId } = await client.threads.create();
  await work();
  await client.runs.wait(threadId, one.graph, { input: said("hello"), raiseError: false });
  // The database's clock is behind those of the servers.
  await scratch.database.query(
    "update holdfast.runs set ended_at = ended_at - interval '2 min' where thread_id = $1",
    [threadId],
  );
  const gone = new AbortController();
  const events = await watch({ url: server.url, fetch }, threadId, gone.signal);
  await until(() => events.at(-1)?.method === "lifecycle", "the end");
  gone.abort();
  const state = await client.threads.getState(threadId);
  const asked = state.tasks.flatMap(({ interrupts }) => interrupts.map(() => "input.requested"));
  expect(events.map(({ method }) => method)).toEqual(["values", ...asked, "lifecycle"]);
  expect(events[0]?.params.data).toMatchObject(one.has);
  expect(events.at(-1)?.params.data["event"]).toBe(one.event);
  const made = Date.parse(String(state.created_at));
  for (const { params } of events) expect(params.timestamp).toBeGreaterThanOrEqual(made);
});

test("the state of a thread says what is to come until a run has stored something, and no longer", async () => {
  const { client } = server;
  const { thread_id: threadId } = await client.threads.create();
  const next = async (): Promise<string[]> => (await client.threads.getState(threadId)).next;
  expect(await next()).toEqual([]);
  await client.runs.create(threadId, "echo", { input: said("later"), afterSeconds: 3600 });
  expect(await next()).toEqual([]); // nothing is at work on it
  const { run_id: runId } = await client.runs.create(threadId, "echo", {
    input: said("now"),
    multitaskStrategy: "enqueue",
  });
  expect(await next()).toEqual(["__start__"]);
  const withParts = await client.threads.getState(threadId, undefined, { subgraphs: true });
  expect(withParts).toMatchObject({ next: ["__start__"], tasks: [], interrupts: [], checkpoint: null });
  await work();
  await client.runs.join(threadId, runId);
  expect(await next()).toEqual([]);
  const [head] = await client.threads.getHistory(threadId, { limit: 1 });
  expect(head?.next).toEqual([]);
});
