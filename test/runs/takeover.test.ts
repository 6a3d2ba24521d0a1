// Servers that die in the middle of a run: another goes on, and no client loses or repeats an event.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { claimRuns, requeueRuns } from "../../server/storage/queue.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { slowAnswer, startFakeModel } from "../support/model.ts";
import type { FakeModel } from "../support/model.ts";
import { collect } from "../support/server.ts";
import type { Frame } from "../support/server.ts";
import { shown } from "../support/shown.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
let model: FakeModel;
beforeAll(async () => {
  scratch = await testDatabase();
  model = await startFakeModel();
});
afterAll(async () => {
  await model.stop();
  await scratch.close();
});

interface Started {
  readonly running: Running;
  readonly url: string;
  readonly client: Client;
}

/** A server of its own process, as operators run it. */
async function startInstance(settings: Record<string, string> = {}): Promise<Started> {
  const running = startHoldfast(["serve"], {
    DATABASE_URL: scratch.url,
    PORT: "0",
    OPENAI_API_KEY: "none",
    OPENAI_BASE_URL: model.url,
    HOLDFAST_CONFIG: "test/fixtures/chat.langgraph.json",
    ...settings,
  });
  await running.says("Ready on ");
  return { running, url: urlOf(running), client: clientOf(running) };
}

/** A server that takes requests and executes nothing. */
const startFront = (): Running =>
  startHoldfast(["serve", "--no-worker"], {
    DATABASE_URL: scratch.url,
    PORT: "0",
    HOLDFAST_CONFIG: "test/fixtures/chat.langgraph.json",
  });

const urlOf = (running: Running): string => /Ready on (\S+)/.exec(running.out())?.[1] ?? "";
const clientOf = (running: Running): Client =>
  new Client({ apiUrl: urlOf(running), callerOptions: { maxRetries: 0 } });

const question = { messages: [{ role: "user", content: "What is kept in PostgreSQL?" }] };
const MODES = ["messages-tuple", "values"] as const;

const ids = (frames: readonly Frame[]): number[] => frames.map(({ id }) => Number(id));
const dense = (frames: readonly Frame[]): number[] => frames.map((_, index) => index);
const tokens = (frames: readonly Frame[]): number =>
  frames.filter(({ event }) => event === "messages").length;

test("a run whose server is killed goes on elsewhere, and a stream from there is one whole", async () => {
  const [a, b] = [await startInstance(), await startInstance()];
  const { thread_id: threadId } = await a.client.threads.create();
  const run = await a.client.runs.create(threadId, "chat", { input: question, streamMode: [...MODES] });
  const frames: Frame[] = [];
  const watching = (async () => {
    for await (const frame of b.client.runs.joinStream(threadId, run.run_id)) frames.push(frame);
  })();
  await until(() => tokens(frames) > 5, "tokens to come across instances");
  a.running.process.kill("SIGKILL");
  await watching;
  expect(ids(frames)).toEqual(dense(frames));
  const attempts = frames.filter(({ event }) => event === "metadata").map(({ data }) => data);
  expect(attempts).toEqual([
    { run_id: run.run_id, attempt: 1 },
    { run_id: run.run_id, attempt: 2 },
  ]);
  const { values: final } = await b.client.threads.getState<{ messages: { id: string; content: string }[] }>(
    threadId,
  );
  expect(final.messages).toHaveLength(2);
  expect(shown(frames)).toEqual(final.messages.map(({ id, content }) => [id, content]));
  expect((await b.client.runs.get(threadId, run.run_id)).status).toBe("success");

  await a.running.ended;
  const again = await collect(b.client.runs.joinStream(threadId, run.run_id));
  expect(again).toEqual(frames);
  // Who shows the state that the second attempt began with needs nothing of the first.
  const [, , before] = await b.client.threads.getHistory(threadId);
  expect(before).toMatchObject({ next: ["generate"] });
  const behind = { lastEventId: "-1", checkpointId: before?.checkpoint.checkpoint_id ?? "" };
  const second = frames.findLastIndex(({ event }) => event === "metadata");
  const state = frames.findIndex(({ event }, at) => event === "values" && at > second);
  expect(await collect(b.client.runs.joinStream(threadId, run.run_id, behind))).toEqual(frames.slice(state));
  b.running.process.kill("SIGTERM");
  expect((await b.running.ended).code).toBe(0);
}, 60_000);

test.each([
  ["in the midst of a graph that a tool runs", 2],
  ["after it", 3],
] as const)(
  "what a graph that a tool runs has said stays, with a takeover %s",
  async (_when, speaking) => {
    const settings = { HOLDFAST_CONFIG: "test/fixtures/slow.langgraph.json" };
    const [a, b] = [await startInstance(settings), await startInstance(settings)];
    const { thread_id: threadId } = await a.client.threads.create();
    const { input, whole } = slowAnswer(24, 40);
    const run = await a.client.runs.create(threadId, "delegates", {
      input,
      streamMode: ["messages-tuple", "messages"],
      streamSubgraphs: true,
    });
    const frames: Frame[] = [];
    const watching = (async () => {
      for await (const { event, ...frame } of b.client.runs.joinStream(threadId, run.run_id))
        frames.push({ event: event.replace(/\|.*/, ""), ...frame });
    })();
    const texts = (): string[] => shown(frames).map(([, text]) => text);
    await until(() => (texts()[speaking - 1]?.length ?? 0) > 20, "the middle of an answer");
    a.running.process.kill("SIGKILL");
    await watching;
    expect(texts()).toEqual(["hold fast", whole, whole]);
    const removed = frames.filter(({ data }) => Array.isArray(data) && Object(data[0]).type === "remove");
    expect(removed.map(({ event }) => event)).toEqual(["messages", "messages/partial"]);
    await a.running.ended;
    b.running.process.kill("SIGTERM");
    await b.running.ended;
  },
  60_000,
);

test("a client of the killed server comes back elsewhere with Last-Event-ID and misses nothing", async () => {
  const [a, b] = [await startInstance(), await startInstance()];
  const { thread_id: threadId } = await a.client.threads.create();
  const before: Frame[] = [];
  let runId = "";
  const watching = (async () => {
    const options = {
      input: question,
      streamMode: [...MODES],
      onRunCreated: (made: { run_id: string }) => (runId = made.run_id),
    };
    for await (const frame of a.client.runs.stream(threadId, "chat", options)) before.push(frame);
  })();
  await until(() => tokens(before) > 5, "the first tokens");
  a.running.process.kill("SIGKILL");
  await expect(watching).rejects.toThrow(/terminated|fetch failed/);
  const lastEventId = before.at(-1)?.id ?? "";
  const after = await collect(b.client.runs.joinStream(threadId, runId, { lastEventId }));
  const frames = [...before, ...after];
  expect(ids(frames)).toEqual(dense(frames));
  const { values } = await b.client.threads.getState<{ messages: { id: string; content: string }[] }>(
    threadId,
  );
  expect(shown(frames)).toEqual(values.messages.map(({ id, content }) => [id, content]));
  b.running.process.kill("SIGTERM");
  await b.running.ended;
}, 60_000);

test("a server that stops hands its run over at once, and the attempt does not count as a failure", async () => {
  const a = await startInstance({ HOLDFAST_DRAIN_MS: "0" });
  const b = await startInstance({ HOLDFAST_MAX_ATTEMPTS: "1" });
  const { thread_id: threadId } = await a.client.threads.create();
  const run = await a.client.runs.create(threadId, "chat", { input: question, streamMode: [...MODES] });
  const frames: Frame[] = [];
  const watching = (async () => {
    for await (const frame of b.client.runs.joinStream(threadId, run.run_id)) frames.push(frame);
  })();
  await until(() => tokens(frames) > 5, "tokens to come across instances");
  a.running.process.kill("SIGTERM");
  expect((await a.running.ended).code).toBe(0);
  await watching;
  expect(ids(frames)).toEqual(dense(frames));
  expect((await b.client.runs.get(threadId, run.run_id)).status).toBe("success");
  const sql = "select attempt, handovers from holdfast.runs where run_id = $1";
  expect(await scratch.database.query(sql, [run.run_id])).toEqual([{ attempt: 2, handovers: 1 }]);
  b.running.process.kill("SIGTERM");
  await b.running.ended;
}, 60_000);

test("what PostgreSQL and a server lose in one moment is taken back, and numbers mean one event for all", async () => {
  const front = startFront();
  await front.says("Ready on ");
  const client = clientOf(front);
  const a = await startInstance();
  const { thread_id: threadId } = await client.threads.create();
  // Legacy events are numbered without those that only followers of the thread see.
  const followed = await fetch(`${a.url}/threads/${threadId}/stream/events`, {
    method: "POST",
    body: JSON.stringify({ channels: ["messages", "values"] }),
  });
  await followed.body?.cancel();
  const run = await client.runs.create(threadId, "chat", { input: question, streamMode: "messages-tuple" });
  const frames: Frame[] = [];
  const watching = (async () => {
    for await (const frame of client.runs.joinStream(threadId, run.run_id)) frames.push(frame);
  })();
  await until(() => tokens(frames) > 5, "tokens to come across instances");
  a.running.process.kill("SIGKILL");
  await a.running.ended;

  // As a crash of the database leaves it: the end of the log is gone, with the whole answer so far.
  const { database } = scratch;
  await database.query("update holdfast.runs set boot = 'an earlier life' where run_id = $1", [run.run_id]);
  await database.query(
    `delete from holdfast.run_events where run_id = $1
      and seq >= (select min(seq) from holdfast.run_events where run_id = $1 and body like '%tok0%')`,
    [run.run_id],
  );
  const [owner] = await database.query<{ worker_id: string }>(
    "select worker_id from holdfast.runs where run_id = $1",
    [run.run_id],
  );
  await until(
    async () => (await requeueRuns(database, [owner?.worker_id ?? ""])).length > 0,
    "the run to be free",
  );
  // The next owner dies before it can write one event.
  await claimRuns(database, { workerId: randomUUID(), limit: 1, graphIds: ["chat"], timeoutMs: 60_000 });
  const b = await startInstance();
  await watching;

  const numbers = ids(frames);
  const gaps = numbers.flatMap((id, at) => (at > 0 && id !== (numbers[at - 1] ?? 0) + 1 ? [at] : []));
  expect(gaps.map((at) => frames[at])).toEqual([
    { id: expect.any(String) as string, event: "metadata", data: { run_id: run.run_id, attempt: 3 } },
  ]);
  const jump = Number(gaps[0]);
  expect((numbers[jump] ?? 0) - (numbers[jump - 1] ?? 0)).toBeGreaterThan(900_000);
  const { values } = await b.client.threads.getState<{ messages: { id: string; content: string }[] }>(
    threadId,
  );
  expect(shown(frames)).toEqual(values.messages.map(({ id, content }) => [id, content]));
  for (const at of [jump - 1, jump, jump + 3, frames.length - 2]) {
    const lastEventId = frames[at]?.id ?? "";
    expect(await collect(b.client.runs.joinStream(threadId, run.run_id, { lastEventId }))).toEqual(
      frames.slice(at + 1),
    );
  }
  for (const { process: child, ended } of [front, b.running]) {
    child.kill("SIGTERM");
    await ended;
  }
}, 60_000);

test("servers without HTTP and servers without runs share the work", async () => {
  const front = await startInstance();
  const only = startFront();
  await only.says("Ready on ");
  front.running.process.kill("SIGTERM");
  await front.running.ended;
  const client = clientOf(only);
  const { thread_id: threadId } = await client.threads.create();
  const run = await client.runs.create(threadId, "chat", { input: question, streamMode: "values" });
  expect(run.status).toBe("pending");
  const worker = startHoldfast(["work"], {
    DATABASE_URL: scratch.url,
    OPENAI_API_KEY: "none",
    OPENAI_BASE_URL: model.url,
    HOLDFAST_CONFIG: "test/fixtures/chat.langgraph.json",
  });
  const frames = await collect(client.runs.joinStream(threadId, run.run_id));
  expect(frames.at(-1)?.event).toBe("values");
  expect((await client.runs.get(threadId, run.run_id)).status).toBe("success");
  for (const { process: child, ended } of [only, worker]) {
    child.kill("SIGTERM");
    await ended;
  }
}, 60_000);
