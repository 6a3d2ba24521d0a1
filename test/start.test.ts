// The first ten minutes of a new user: one command, a question, an answer with its sources, a restart.
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startHoldfast } from "./support/holdfast.ts";
import type { Running } from "./support/holdfast.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-start-"));
  await chmod(folder, 0o755); // as root, PostgreSQL runs as another user
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function start(): Promise<{ holdfast: Running; client: Client }> {
  const holdfast = startHoldfast(["dev", "--port", "0"], { HOLDFAST_DATA_DIR: folder });
  await holdfast.says("curl");
  return { holdfast, client: new Client({ apiUrl: /http:\/\/[\d.:]+/.exec(holdfast.out())?.[0] ?? "" }) };
}

async function ask(
  client: Client,
  threadId: string,
  content: string,
): Promise<{ tokens: number; answer: string }> {
  const input = { messages: [{ role: "user", content }] };
  let [tokens, answer] = [0, ""];
  for await (const frame of client.runs.stream(threadId, "holdfast", {
    input,
    streamMode: "messages-tuple",
  })) {
    if (frame.event !== "messages") continue;
    tokens += 1;
    answer += typeof frame.data[0].content === "string" ? frame.data[0].content : "";
  }
  return { tokens, answer };
}

interface Answered {
  messages: { type: string; content: string }[];
  citations: { n: number; source_id: string }[];
}

test("a question about the sample documents streams an answer with citations, and the thread outlives a restart", async () => {
  const first = await start();
  expect(first.holdfast.out()).toMatch(/Documents in docs: [1-9]\d* indexed/);
  const { thread_id: threadId } = await first.client.threads.create();
  const { tokens, answer } = await ask(first.client, threadId, "What happens to a run when its server dies?");
  expect(tokens).toBeGreaterThan(10);
  expect(answer).toMatch(/\[\d\][\s\S]*Sources:\n\[\d\] /);
  const { values } = await first.client.threads.getState<Answered>(threadId);
  expect(values.citations[0]?.source_id).toMatch(/\.md$/);
  first.holdfast.process.kill("SIGINT");
  expect((await first.holdfast.ended).code).toBe(0);

  const second = await start();
  expect(second.holdfast.out()).toMatch(/Documents in docs: 0 indexed, [1-9]\d* unchanged/);
  expect(await second.client.threads.getHistory(threadId)).toHaveLength(6);
  await ask(second.client, threadId, "And which error does its stream show?");
  const after = await second.client.threads.getState<Answered>(threadId);
  expect(after.values.messages.map(({ type }) => type)).toEqual(["human", "ai", "human", "ai"]);
  second.holdfast.process.kill("SIGINT");
  expect((await second.holdfast.ended).code).toBe(0);
}, 60_000);
