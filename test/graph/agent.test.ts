// The agent as it is served: it looks documents up, cites them, streams, and fetches pages only when a person says so.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { stopCounting } from "../../server/models/tokens.ts";
import { index } from "../retrieval/folder.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startFakeModel } from "../support/model.ts";
import { startPages } from "../support/pages.ts";
import { collect, startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";

const fake = await startFakeModel({
  scripts: (model, turns) => {
    const asked = turns.at(-1)?.content ?? "";
    if (model !== "offline-extractive") return undefined;
    if (asked.includes("for ever")) return { calls: [{ name: "search_documents", args: { query: "x" } }] };
    if (asked.includes("write to"))
      return { calls: [{ name: "search_documents", args: { query: "ada@example.org" } }] };
    const isLooping = turns.some(({ content }) => content.includes("for ever"));
    return isLooping ? { calls: [{ name: "search_documents", args: { query: "x" } }] } : undefined;
  },
});
const pages = await startPages({
  "/tea": ["text/html", "<title>Tea</title><p>Green tea is brewed for two minutes.</p>"],
});
let scratch: TestDatabase;
let server: TestServer;
let folder: string;
beforeAll(async () => {
  scratch = await testDatabase();
  folder = await mkdtemp(join(tmpdir(), "holdfast-agent-"));
  await writeFile(
    join(folder, "refunds.md"),
    "# Refunds\n\nWe refund every order that comes back within 30 days of delivery.",
  );
  await writeFile(join(folder, "shipping.md"), "# Shipping\n\nParcels to Norway take eight days.");
  await index(scratch.database, "docs", [folder]);
  server = await startTestServer(scratch.url, {
    HOLDFAST_CONFIG: "langgraph.json",
    HOLDFAST_MODEL: "offline-extractive",
    OPENAI_BASE_URL: fake.url,
    OPENAI_API_KEY: "none",
    HOLDFAST_EGRESS_ALLOW: "127.0.0.1",
  });
});
afterAll(async () => {
  await server.stop();
  await fake.stop();
  await pages.stop();
  await stopCounting();
  await scratch.close();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => {
  fake.forgetCalls();
  pages.asked.length = 0;
});

interface Values {
  messages: {
    type: string;
    content: string;
    name?: string;
    status?: string;
    tool_calls?: { id: string; args: object }[];
  }[];
  citations: { n: number; source_id: string; title: string }[];
}
const valuesOf = (values: unknown): Values => values as Values;
const asking = (content: string): { messages: object[] } => ({ messages: [{ role: "user", content }] });
const newThread = async (): Promise<string> => (await server.client.threads.create()).thread_id;
const ask = async (threadId: string, content: string): Promise<Values> =>
  valuesOf(await server.client.runs.wait(threadId, "agent", { input: asking(content) }));
const answer = async (threadId: string, resume: unknown): Promise<Values> =>
  valuesOf(await server.client.runs.wait(threadId, "agent", { command: { resume } }));

test("a question is looked up by a tool and answered with the source of every citation", async () => {
  const { messages, citations } = await ask(await newThread(), "Can I get a refund for my order?");
  expect(messages.map(({ type }) => type)).toEqual(["human", "ai", "tool", "ai"]);
  expect(messages[1]?.tool_calls).toMatchObject([{ args: { query: "Can I get a refund for my order?" } }]);
  expect(messages.at(-1)?.content).toContain("within 30 days of delivery. [1]");
  expect(citations).toEqual([{ n: 1, source_id: "refunds.md", title: "Refunds" }]);
});

test("the answer and the arguments of the call stream, as the messages that are in the state", async () => {
  const threadId = await newThread();
  const frames = await collect(
    server.client.runs.stream(threadId, "agent", {
      input: asking("Can I get a refund for my order?"),
      streamMode: "messages-tuple",
    }),
  );
  const pieces = frames.filter(({ event }) => event === "messages").map(({ data }) => Object(data)[0]);
  const args = pieces.flatMap(({ tool_call_chunks: chunks = [] }) =>
    chunks.map((one: { args: string }) => one.args),
  );
  expect(args.filter(Boolean).length).toBeGreaterThan(3);
  expect(JSON.parse(args.join(""))).toEqual({ query: "Can I get a refund for my order?" });
  const { values } = await server.client.threads.getState<Values>(threadId);
  const last = values.messages.at(-1);
  const said = pieces.filter(({ id }) => id === Object(last).id).map(({ content }) => content);
  expect(said.length).toBeGreaterThan(5);
  expect(said.join("")).toBe(last?.content);
});

test("passages are numbered through the conversation, so that no two sources share a number", async () => {
  const threadId = await newThread();
  await ask(threadId, "Can I get a refund for my order?");
  const { messages, citations } = await ask(threadId, "How many days do parcels to Norway take?");
  expect(messages.at(-1)?.content).toMatch(/eight days\. \[(\d+)\]/);
  expect(citations).toMatchObject([{ source_id: "shipping.md" }]);
  expect(citations[0]?.n).toBeGreaterThan(1);
});

test("what the documents do not hold is not answered", async () => {
  const { messages, citations } = await ask(await newThread(), "Who won the chess championship of 1972?");
  expect(messages.at(-1)?.content).toMatch(/^(I found nothing|No document says)/);
  expect(citations).toEqual([]);
});

test("a model that never stops calling tools has a bounded number of rounds, and the thread goes on", async () => {
  const threadId = await newThread();
  const { messages } = await ask(threadId, "Look for ever");
  expect(messages.filter(({ type }) => type === "tool")).toHaveLength(5);
  expect(fake.calls.at(-1)?.body.tool_choice).toBe("none");
  const sent = fake.calls.at(-1)?.body.messages ?? [];
  expect(sent.filter(({ role }) => role === "tool")).toHaveLength(5);
});

test("a page is fetched only after a person has allowed it, and is cited by its address", async () => {
  const threadId = await newThread();
  const waiting = await ask(threadId, `What does ${pages.url}/tea say about brewing tea?`);
  expect(waiting.messages.map(({ type }) => type)).toEqual(["human", "ai"]);
  expect(pages.asked).toEqual([]);
  const { interrupts } = await server.client.threads.get(threadId);
  expect(Object.values(interrupts).flat()).toMatchObject([
    { value: { type: "tool_approval", tool: "fetch_page", args: { url: `${pages.url}/tea` } } },
  ]);
  const { messages, citations } = await answer(threadId, { approved: true });
  expect(pages.asked).toEqual(["/tea"]);
  expect(messages.at(-1)?.content).toContain("Green tea is brewed for two minutes. [1]");
  expect(citations).toEqual([{ n: 1, source_id: `${pages.url}/tea`, title: "Tea" }]);
});

test("a private address is not fetched, also if a person allowed it; one that is not allowed is not either", async () => {
  const threadId = await newThread();
  await ask(threadId, "What does http://localhost/secret say?");
  const { messages } = await answer(threadId, true);
  expect(messages.find(({ type }) => type === "tool")).toMatchObject({
    status: "error",
    content: expect.stringMatching(/^url_refused: This address may not be fetched/),
  });
  await ask(threadId, `What does ${pages.url}/tea say about brewing tea?`);
  const { messages: after } = await answer(threadId, false);
  expect(after.at(-2)?.content).toMatch(/^tool_rejected: /);
  expect(pages.asked).toEqual([]);
});

test("personal data in the arguments of a call is a placeholder in the state and for the tool", async () => {
  const { messages } = await ask(await newThread(), "Whom can I write to?");
  expect(messages[1]?.tool_calls).toMatchObject([{ args: { query: "[REDACTED_EMAIL]" } }]);
  expect(JSON.stringify(messages)).not.toContain("ada@");
});
