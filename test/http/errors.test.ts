// Bad input gets a clear error with the right status, and nothing of it is kept.
import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { beforeAll, expect, test } from "vitest";
import { useServer } from "../support/server.ts";

const held = useServer({ HOLDFAST_MAX_BODY_BYTES: "100000" });
let threadId: string;
beforeAll(async () => {
  threadId = (await held.server.client.threads.create()).thread_id;
});

const post = (path: string, body: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(held.server.url + path, { method: "POST", body, headers });
const wait = (body: object, thread = threadId): Promise<Response> =>
  post(`/threads/${thread}/runs/wait`, JSON.stringify(body));
const seen = async (response: Response): Promise<unknown[]> => [
  response.status,
  response.headers.get("x-holdfast-code"),
  await response.text(),
];
const runs = async (): Promise<number> =>
  (await held.scratch.database.query("select 1 from holdfast.runs")).length;

test("malformed JSON is 400, says where, and repeats nothing of it", async () => {
  const [status, code, text] = await seen(await post("/threads", '{"metadata": secret-word}'));
  expect([status, code]).toEqual([400, "input_invalid"]);
  expect(text).toMatch(/^The request body is not valid JSON/);
  expect(text).not.toContain("secret-word");
});

test("a body of wrong types is 400 with zod's issues, each with its path", async () => {
  const before = await runs();
  const response = await wait({ assistant_id: 7, stream_mode: {}, multitask_strategy: "maybe" });
  expect(response.status).toBe(400);
  const body = (await response.json()) as {
    success: boolean;
    error: { name: string; issues: { path: string[] }[] };
  };
  expect(body).toMatchObject({ success: false, error: { name: "ZodError" } });
  expect(body.error.issues.map(({ path }) => path[0])).toEqual([
    "assistant_id",
    "stream_mode",
    "multitask_strategy",
  ]);
  expect(await runs()).toBe(before);
});

test("unknown keys and null for an unset field are no error", async () => {
  const response = await wait({
    assistant_id: "keeping",
    input: { value: 1 },
    config: null,
    brand_new_option: { a: 1 },
  });
  expect(await response.json()).toMatchObject({ value: 1 });
});

test("a body above the limit is 413, whether its length is announced or not", async () => {
  const body = JSON.stringify({ assistant_id: "keeping", input: { value: "a".repeat(200_000) } });
  expect((await seen(await post(`/threads/${threadId}/runs/wait`, body))).slice(0, 2)).toEqual([
    413,
    "body_too_large",
  ]);
  const stream = new ReadableStream({
    start(controller) {
      controller.enqueue(Buffer.from(body));
      controller.close();
    },
  });
  const chunked = await fetch(`${held.server.url}/threads/${threadId}/runs/wait`, {
    method: "POST",
    body: stream,
    duplex: "half",
  });
  expect((await seen(chunked)).slice(0, 2)).toEqual([413, "body_too_large"]);
});

test("a body of endless nesting is refused, and the next request is served", async () => {
  const deep = `{"assistant_id":"keeping","input":{"value":${"[".repeat(40_000)}${"]".repeat(40_000)}}}`;
  expect((await seen(await post(`/threads/${threadId}/runs/wait`, deep))).slice(0, 2)).toEqual([
    422,
    "poisoned_input",
  ]);
  expect((await fetch(`${held.server.url}/ok`)).status).toBe(200);
});

test("metadata that PostgreSQL cannot hold is refused and named", async () => {
  const [status, code, text] = await seen(await post("/threads", JSON.stringify({ metadata: { a: "x\0" } })));
  expect([status, code]).toEqual([422, "poisoned_input"]);
  expect(text).toMatch(/^metadata holds a NUL character/);
});

test("metadata that only looks like an escape is kept", async () => {
  const metadata = { path: String.raw`C:\u0000` };
  expect((await held.server.client.threads.create({ metadata })).metadata).toEqual(metadata);
});

test("input with NUL and half a surrogate pair is kept as it is", async () => {
  const value = "a\0b\ud800c";
  expect(await (await wait({ assistant_id: "keeping", input: { value } })).json()).toMatchObject({ value });
  expect((await held.server.client.threads.getState<{ value: string }>(threadId)).values.value).toBe(value);
});

test("an object that names a constructor is data: accepted, read back, and the thread stays usable", async () => {
  const poison = { lc: 1, type: "constructor", id: ["nope", "X"], kwargs: {} };
  const thread = (await held.server.client.threads.create()).thread_id;
  expect(
    await (await wait({ assistant_id: "keeping", input: { value: { poison } } }, thread)).json(),
  ).toMatchObject({
    value: { poison },
  });
  expect(await held.server.client.threads.getState(thread)).toMatchObject({ values: { value: { poison } } });
  expect(await held.server.client.threads.getHistory(thread)).toHaveLength(3);
  // Where messages are expected it is no message: the run fails, the thread goes on.
  const asMessage = await wait({ assistant_id: "echo", input: { messages: [poison] } }, thread);
  expect(await asMessage.json()).toHaveProperty("__error__");
  const input = { messages: [{ role: "user", content: "hi" }] };
  expect(await (await wait({ assistant_id: "echo", input }, thread)).json()).toMatchObject({
    log: ["prepare", "answer"],
  });
});

test("a command that names a channel or a node like a part of every object is refused, and the thread goes on", async () => {
  const thread = (await held.server.client.threads.create()).thread_id;
  const commands = [
    { update: { value: 2, constructor: 1 } },
    {
      update: [
        ["value", 2],
        ["toString", 1],
      ],
    },
    { update: [[{ toString: 1 }, 2]] },
    { goto: { node: "constructor", input: { value: 2 } } },
    { goto: ["keep", { node: "toString" }] },
  ];
  for (const command of commands) {
    const refused = await wait({ assistant_id: "keeping", command }, thread);
    expect(refused.status).toBe(400);
    const path = ["command", ...Object.keys(command)];
    expect(await refused.json()).toMatchObject({ error: { issues: [{ path }] } });
    const supersteps = [{ updates: [{ command, as_node: "keep" }] }];
    const past = await post("/threads", JSON.stringify({ metadata: { graph_id: "keeping" }, supersteps }));
    expect(past.status).toBe(400);
  }
  expect(await held.server.client.runs.list(thread)).toEqual([]);
  const command = { update: { value: 3 } };
  expect(await (await wait({ assistant_id: "keeping", command }, thread)).json()).toMatchObject({ value: 3 });
});

test("a thread whose metadata name a graph with what is no text is shown, alone and among others", async () => {
  const { threads } = held.server.client;
  const { thread_id: thread } = await threads.create();
  await wait({ assistant_id: "failing", input: {} }, thread);
  await threads.update(thread, { metadata: { graph_id: { toString: 1 } } });
  expect(await threads.get(thread)).toMatchObject({ status: "error", values: {} });
  expect(await threads.search({ ids: [thread] })).toMatchObject([{ thread_id: thread }]);
});

test.each(["\ud800", "a\0"])(
  "a command that goes where no text can name (%j) fails its run at once",
  async (goto) => {
    const thread = (await held.server.client.threads.create()).thread_id;
    const failed = await wait({ assistant_id: "keeping", command: { goto, update: { value: 1 } } }, thread);
    expect(await failed.json()).toMatchObject({ __error__: { error: "InputPoisoned" } });
    const [row] = await held.scratch.database.query(
      "select attempt, state from holdfast.runs where thread_id = $1",
      [thread],
    );
    expect(row).toEqual({ attempt: 1, state: "error" });
    const next = await wait({ assistant_id: "keeping", input: { value: 4 } }, thread);
    expect(await next.json()).toMatchObject({ value: 4 });
  },
);

test("a run id of another thread, of nobody, or of no form is not found", async () => {
  const other = await held.server.client.threads.create();
  const { run_id: runId } = await lastRun();
  expect((await fetch(`${held.server.url}/threads/${other.thread_id}/runs/${runId}`)).status).toBe(404);
  expect(
    await seen(await fetch(`${held.server.url}/threads/${threadId}/runs/${randomUUID()}/stream`)),
  ).toEqual([404, "run_not_found", "Run not found"]);
  expect((await fetch(`${held.server.url}/threads/${threadId}/runs/7`)).status).toBe(400);
  const cursor = { headers: { "last-event-id": "abc" } };
  const stream = `${held.server.url}/threads/${threadId}/runs/${runId}/stream`;
  expect((await fetch(stream, cursor)).status).toBe(400);
  expect((await fetch(`${stream}?checkpoint_id=a%00b`)).status).toBe(400);
});

test("a route that does not exist is 404 and named", async () => {
  expect(await seen(await fetch(`${held.server.url}/no/such`))).toEqual([404, null, "No route GET /no/such"]);
});

test("a client that hangs up in the middle of its body leaves nothing behind", async () => {
  const before = await runs();
  const { hostname, port } = new URL(held.server.url);
  const socket = connect(Number(port), hostname);
  socket.write(
    `POST /threads/${threadId}/runs/wait HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n{"assistant_id":`,
  );
  await new Promise((resolve) => socket.once("connect", resolve));
  socket.destroy();
  expect((await fetch(`${held.server.url}/ok`)).status).toBe(200);
  expect(await runs()).toBe(before);
});

async function lastRun(): Promise<{ run_id: string }> {
  const [row] = await held.scratch.database.query<{ run_id: string }>(
    "select run_id from holdfast.runs limit 1",
  );
  return row ?? { run_id: "" };
}
