// Runs through the official client: streams, waits, resumed streams, interrupts, failures.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { collect, startTestServer, useServer } from "../support/server.ts";
import type { Frame } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer();

const newThread = async (): Promise<string> => (await held.server.client.threads.create()).thread_id;
const input = { messages: [{ role: "user", content: "hello" }] };
const events = (frames: Frame[]): string[] => [...new Set(frames.map(({ event }) => event))];
const dataOf = (frames: Frame[], event: string): unknown[] =>
  frames.filter((frame) => frame.event === event).map(({ data }) => data);

async function stream(assistant: string, options: object): Promise<Frame[]> {
  return collect(held.server.client.runs.stream(await newThread(), assistant, options));
}

test.each([
  ["values", "values"],
  ["updates", "updates"],
  ["messages-tuple", "messages"],
  ["custom", "custom"],
  ["events", "events"],
  ["tasks", "tasks"],
  ["checkpoints", "checkpoints"],
  ["debug", "debug"],
])("mode %s yields exactly its own events", async (streamMode, event) => {
  expect(events(await stream("echo", { input, streamMode }))).toEqual(["metadata", event]);
});

test("without a mode a run streams values, the last of which is the final state", async () => {
  const frames = await stream("echo", { input });
  expect(dataOf(frames, "values").at(-1)).toMatchObject({
    log: ["prepare", "answer"],
    messages: [
      { type: "human", content: "hello" },
      { type: "ai", content: "alpha beta" },
    ],
  });
});

test("messages come in pieces as soon as they may be told, each with where it comes from", async () => {
  const frames = await stream("echo", { input, streamMode: "messages-tuple" });
  const tuples = dataOf(frames, "messages") as [{ content: string; type: string; id: string }, object][];
  // The model tells letter by letter; the letters of a word may still become something.
  expect(tuples.length).toBeGreaterThan(1);
  expect(tuples.map(([chunk]) => chunk.content).join("")).toBe("alpha beta");
  expect(new Set(tuples.map(([chunk]) => chunk.id)).size).toBe(1);
  expect(tuples[0]?.[1]).toMatchObject({ langgraph_node: "answer" });
});

test("every token of every answer is in its stream, however many runs go on at once", async () => {
  const streamMode = ["values", "updates", "messages-tuple", "custom"];
  const runs = await Promise.all(Array.from({ length: 60 }, () => stream("echo", { input, streamMode })));
  const texts = runs.map((frames) => {
    const tuples = dataOf(frames, "messages") as [{ content: string; type: string }][];
    return tuples.map(([chunk]) => (chunk.type === "ai" ? chunk.content : "")).join("");
  });
  expect(new Set(texts)).toEqual(new Set(["alpha beta"]));
});

test("custom data and events go out in the same run", async () => {
  const frames = await stream("echo", { input, streamMode: ["custom", "events", "values"] });
  expect(dataOf(frames, "custom")).toEqual([{ progress: "preparing" }]);
  expect(dataOf(frames, "events").map((data) => (data as { event: string }).event)).toContain(
    "on_chat_model_stream",
  );
  expect(dataOf(frames, "values").at(-1)).toMatchObject({ log: ["prepare", "answer"] });
});

test("wait answers the final values, and a follow-up on the thread goes on from them", async () => {
  const threadId = await newThread();
  await held.server.client.runs.wait(threadId, "echo", { input });
  const values = (await held.server.client.runs.wait(threadId, "echo", { input })) as {
    messages: unknown[];
    log: string[];
  };
  expect([values.messages.length, values.log.length]).toEqual([4, 4]);
});

test("wait and stream take a graph as builder and as factory, by graph id and by assistant id", async () => {
  const { assistant_id: assistantId } = await held.server.client.assistants.get("made");
  for (const assistant of ["topical", "made", assistantId]) {
    const values = await held.server.client.runs.wait(await newThread(), assistant, {
      input: { ...input, topic: "tea" },
    });
    expect(values).toMatchObject({ topic: "tea+" });
  }
});

test("a breakpoint stops before its node, and null input goes on", async () => {
  const threadId = await newThread();
  await held.server.client.runs.wait(threadId, "echo", { input, interruptBefore: ["answer"] });
  expect((await held.server.client.threads.getState(threadId)).next).toEqual(["answer"]);
  const values = await held.server.client.runs.wait(threadId, "echo", { input: null });
  expect(values).toMatchObject({ log: ["prepare", "answer"] });
});

test("a failing node ends the stream with its class and message, and the thread stays usable", async () => {
  const threadId = await newThread();
  const frames = await collect(held.server.client.runs.stream(threadId, "failing", { input: { value: 1 } }));
  const error = { error: "RangeError", message: "the node failed on purpose" };
  expect(frames.at(-1)).toMatchObject({ event: "error", data: error });
  expect((await held.server.client.threads.get(threadId)).status).toBe("error");
  const response = await fetch(`${held.server.url}/threads/${threadId}/runs/wait`, {
    method: "POST",
    body: JSON.stringify({ assistant_id: "failing", input: { value: 1 } }),
  });
  expect(await response.json()).toEqual({ __error__: error });
  expect(await held.server.client.runs.wait(threadId, "keeping", { input: { value: 2 } })).toMatchObject({
    value: 2,
  });
});

test("a second run is refused while one is live, and state cannot be changed under it", async () => {
  const threadId = await newThread();
  const leave = new AbortController();
  const live = held.server.client.runs.stream(threadId, "endless", {
    input: {},
    signal: leave.signal,
    onDisconnect: "cancel",
  });
  await live.next();
  const busy = /HTTP 422: Thread is already running a task/;
  await expect(held.server.client.runs.wait(threadId, "endless", { input: {} })).rejects.toThrow(busy);
  await expect(held.server.client.threads.updateState(threadId, { values: {} })).rejects.toThrow(
    "HTTP 409: Thread is busy",
  );
  leave.abort();
  await live.next().catch(() => undefined);
  await until(
    async () => (await held.server.client.threads.get(threadId)).status === "idle",
    "the run to be cancelled",
  );
  expect(await held.server.client.runs.wait(threadId, "keeping", { input: { value: 1 } })).toMatchObject({
    value: 1,
  });
});

test("a client that comes back with Last-Event-ID gets exactly what it missed, and without one everything", async () => {
  const threadId = await newThread();
  let runId = "";
  const all = await collect(
    held.server.client.runs.stream(threadId, "echo", {
      input,
      streamMode: ["messages-tuple", "updates"],
      onRunCreated: (run) => {
        runId = run.run_id;
      },
    }),
  );
  const joined = await collect(held.server.client.runs.joinStream(threadId, runId, { lastEventId: "3" }));
  expect(joined).toEqual(all.slice(4));
  expect(await collect(held.server.client.runs.joinStream(threadId, runId, { lastEventId: "-1" }))).toEqual(
    all,
  );
  expect(await collect(held.server.client.runs.joinStream(threadId, runId))).toEqual(all);
  expect(await held.server.client.runs.get(threadId, runId)).toMatchObject({
    status: "success",
    kwargs: { input },
  });
});

test("a client that asked to cancel when it leaves still does after it came back on another connection", async () => {
  const threadId = await newThread();
  const leave = new AbortController();
  const body = JSON.stringify({ assistant_id: "endless", input: {}, on_disconnect: "cancel" });
  const first = await fetch(`${held.server.url}/threads/${threadId}/runs/stream`, { method: "POST", body });
  const again = await fetch(held.server.url + first.headers.get("location"), { signal: leave.signal });
  expect(again.status).toBe(200);
  leave.abort();
  await until(
    async () => (await held.server.client.threads.get(threadId)).status === "idle",
    "the run to be cancelled",
  );
  await first.body?.cancel();
});

test("a stream says where it can be resumed, and lets no proxy hold it back", async () => {
  const threadId = await newThread();
  const response = await fetch(`${held.server.url}/threads/${threadId}/runs/stream`, {
    method: "POST",
    headers: { origin: "https://studio.example" },
    body: JSON.stringify({ assistant_id: "echo", input }),
  });
  const headers = Object.fromEntries(response.headers);
  const [, runId] = /^id: 0$/m.test(await response.text()) ? [0, headers["location"]?.split("/")[4]] : [];
  expect(headers).toMatchObject({
    "content-type": "text/event-stream",
    "x-accel-buffering": "no",
    location: `/threads/${threadId}/runs/${runId}/stream`,
    "content-location": `/threads/${threadId}/runs/${runId}`,
    "access-control-allow-origin": "*",
  });
  expect(headers["access-control-expose-headers"]).toMatch(/Content-Location.*Location.*X-Pagination-Total/);
});

test("HEAD of a stream answers at once, although its run is live", async () => {
  const threadId = await newThread();
  const { run_id: runId } = await held.server.client.runs.create(threadId, "endless", { input: {} });
  const url = `${held.server.url}/threads/${threadId}/runs/${runId}/stream`;
  const response = await fetch(url, { method: "HEAD", signal: AbortSignal.timeout(5000) });
  expect([response.status, await response.text()]).toEqual([200, ""]);
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  await held.server.client.runs.cancel(threadId, runId, true);
});

test("clients that leave in the middle of whatever is sent hurt nobody", async () => {
  const leaving = Array.from({ length: 80 }, async (_, index) => {
    const threadId = await newThread();
    const signal = AbortSignal.timeout(1 + Math.floor(index / 2));
    const body = JSON.stringify({ assistant_id: "echo", input, stream_mode: ["messages-tuple", "values"] });
    const url = `${held.server.url}/threads/${threadId}/runs/stream`;
    const left = fetch(url, { method: "POST", body, signal }).then((response) => response.text());
    await left.catch(() => undefined); // most leave before the end
    return threadId;
  });
  const threadIds = await Promise.all(leaving);
  const client = held.server.client;
  const states = async (): Promise<string[]> =>
    (await Promise.all(threadIds.map((id) => client.runs.list(id)))).flat().map(({ status }) => status);
  await until(async () => (await states()).every((status) => status === "success"), "all runs to end");
  expect(await client.runs.wait(threadIds[0] ?? "", "echo", { input })).toHaveProperty("messages");
});

test("a thread is made on the way when asked, and refused otherwise", async () => {
  const threadId = randomUUID();
  expect(
    await held.server.client.runs.wait(threadId, "echo", { input, ifNotExists: "create" }),
  ).toMatchObject({
    log: ["prepare", "answer"],
  });
  expect((await held.server.client.threads.get(threadId)).metadata).toMatchObject({ graph_id: "echo" });
});

test("a run that is refused leaves no thread behind", async () => {
  const threadId = randomUUID();
  const checkpointId = randomUUID();
  const refused = held.server.client.runs.wait(threadId, "echo", {
    input,
    checkpointId,
    ifNotExists: "create",
  });
  await expect(refused).rejects.toThrow(/HTTP 404: Checkpoint/);
  await expect(held.server.client.threads.get(threadId)).rejects.toThrow(/HTTP 404: Thread/);
});

test("history and a conversation survive the server, and another server on the database serves them at once", async () => {
  const threadId = await newThread();
  const first = await startTestServer(held.scratch.url);
  await first.client.runs.wait(threadId, "topical", { input: { ...input, topic: "tea" } });
  await first.stop();
  const second = await startTestServer(held.scratch.url);
  try {
    expect(await second.client.threads.getHistory(threadId)).toHaveLength(3);
    expect(await second.client.runs.wait(threadId, "topical", { input })).toMatchObject({ topic: "tea++" });
  } finally {
    await second.stop();
  }
});
