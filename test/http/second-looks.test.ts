// Clients that look a second time: another subscription on the same socket, a stream that is taken up again, a request
// behind a stream, a batch that is sent once more.
import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import { sweep } from "../../server/runs/sweep.ts";
import { notify } from "../../server/storage/notifications.ts";
import { startTestServer, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

type Fields = Record<string, unknown>;

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/protocol.langgraph.json" });
/** Never answers: who asks it waits until he is stopped. */
const gate = createServer(() => undefined);
beforeAll(() => new Promise<void>((resolve) => void gate.listen(0, "127.0.0.1", resolve)));
afterAll(() => {
  gate.closeAllConnections();
  gate.close();
});
const waiting = (): Fields => ({
  name: "a",
  gate: `http://127.0.0.1:${(gate.address() as AddressInfo).port}`,
});

const post = (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${held.server.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });

const rollBack = (threadId: string, runId: string): Promise<Response> =>
  post(`/threads/${threadId}/runs/${runId}/cancel?wait=1&action=rollback`, {});

interface Talk {
  readonly say: (id: number, method: string, params: Fields) => void;
  readonly answerTo: (id: number) => Promise<Fields>;
  readonly hears: (text: string) => Promise<void>;
  readonly close: () => void;
}

async function talk(threadId: string): Promise<Talk> {
  const socket = new WebSocket(`${held.server.url.replace("http", "ws")}/threads/${threadId}/stream/events`);
  const heard: Fields[] = [];
  socket.on("message", (data: Buffer) => heard.push(JSON.parse(data.toString()) as Fields));
  await new Promise((resolve) => void socket.once("open", resolve));
  return {
    say: (id, method, params) => socket.send(JSON.stringify({ id, method, params })),
    answerTo: async (id) => {
      await until(() => heard.some((one) => one["id"] === id), `the answer to ${id}`);
      return heard.find((one) => one["id"] === id) ?? {};
    },
    hears: (text) => until(() => heard.some((one) => JSON.stringify(one).includes(text)), text),
    close: () => socket.terminate(),
  };
}

test("a socket answers after the run that it has told last is rolled back, or deleted", async () => {
  const threadId = randomUUID();
  const one = await talk(threadId);
  one.say(1, "subscription.subscribe", { channels: ["lifecycle", "values"] });
  one.say(2, "run.start", { assistant_id: "slow", input: waiting() });
  const { run_id: first } = (await one.answerTo(2))["result"] as { run_id: string };
  await one.hears("a:begin");
  expect((await rollBack(threadId, first)).status).toBe(204);
  await one.hears('"interrupted"');
  one.say(3, "subscription.subscribe", { channels: ["messages"] });
  expect(await one.answerTo(3)).toMatchObject({ type: "success" });

  one.say(4, "run.start", { assistant_id: "slow", input: { name: "b" } });
  const { run_id: second } = (await one.answerTo(4))["result"] as { run_id: string };
  await one.hears('"completed"');
  await held.server.client.runs.join(threadId, second);
  await held.server.client.runs.delete(threadId, second);
  one.say(5, "subscription.subscribe", { channels: ["values"] });
  one.say(6, "state.get", {});
  expect([await one.answerTo(5), await one.answerTo(6)]).toMatchObject([
    { type: "success" },
    { type: "success" },
  ]);
  one.close();
});

const EVERYTHING = [
  "lifecycle",
  "values",
  "updates",
  "messages",
  "tools",
  "input",
  "checkpoints",
  "tasks",
  "custom",
];

/** What is told of a thread from here on. */
async function listen(
  threadId: string,
  headers: Record<string, string> = {},
): Promise<{ text: string; stop: () => void }> {
  const leaving = new AbortController();
  const response = await fetch(`${held.server.url}/threads/${threadId}/stream/events`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ channels: EVERYTHING }),
    signal: leaving.signal,
  });
  const heard = { text: "", stop: () => leaving.abort() };
  void (async () => {
    for await (const piece of response.body ?? []) heard.text += Buffer.from(piece).toString();
  })().catch(() => undefined);
  return heard;
}

test("a client that has come back hears that its run was rolled back", async () => {
  const threadId = randomUUID();
  const first = await listen(threadId);
  const started = await post(`/threads/${threadId}/commands`, {
    id: 1,
    method: "run.start",
    params: { assistant_id: "slow", input: waiting() },
  });
  const { result } = (await started.json()) as { result: { run_id: string } };
  const idOf = (): string | undefined => [...first.text.matchAll(/^id: (.*)$/gm)].at(-1)?.[1];
  await until(() => first.text.includes("a:begin"), "its beginning");
  let last = idOf();
  // All that it tells before it waits.
  await until(async () => {
    const before = last;
    await new Promise((resolve) => setTimeout(resolve, 200));
    last = idOf();
    return before === last;
  }, "silence");
  first.stop();
  const second = await listen(threadId, { "last-event-id": last ?? "" });
  expect((await rollBack(threadId, result.run_id)).status).toBe(204);
  await until(() => second.text.includes("interrupted"), "the end");
  second.stop();
});

/** What was told, without heartbeats and half events. */
const toldTo = (text: string): { id: string; method: string; data: unknown }[] =>
  text
    .split("\n\n")
    .slice(0, -1)
    .flatMap((frame) => /^id: (.*)$/m.exec(frame)?.[1] && /^data: (.*)$/m.exec(frame)?.[1])
    .flatMap((data) => (data ? [JSON.parse(data)] : []))
    .map(({ event_id: id, method, params }) => ({ id, method, data: params.data }));

test.each(["cancelled", "queued again, and then cancelled"])(
  "a client hears when it comes back that its run was rolled back while it was away: %s",
  async (how) => {
    const threadId = randomUUID();
    const first = await listen(threadId);
    const kept = { id: 1, method: "run.start", params: { assistant_id: "slow", input: { name: "kept" } } };
    await post(`/threads/${threadId}/commands`, kept);
    await until(() => first.text.includes("completed"), "the end of the run before");
    const started = await post(`/threads/${threadId}/commands`, {
      ...kept,
      id: 2,
      params: { assistant_id: "slow", input: waiting() },
    });
    const { result } = (await started.json()) as { result: { run_id: string } };
    await until(() => first.text.includes("a:begin"), "its beginning");
    first.stop();
    const last = [...first.text.matchAll(/^id: (.*)$/gm)].at(-1)?.[1] ?? "";
    if (how !== "cancelled") {
      // As a reaper leaves it after the death of its server, at a moment when no other has taken it yet.
      const requeue =
        "update holdfast.runs set state = 'ready', worker_id = null, run_at = now() + interval '1 hour'";
      await held.scratch.database.query(`${requeue} where run_id = $1`, [result.run_id]);
    }
    expect((await rollBack(threadId, result.run_id)).status).toBe(204);

    const back = await listen(threadId, { "last-event-id": last });
    await until(() => back.text.includes("interrupted"), "the end");
    const { values } = await held.server.client.threads.getState(threadId);
    expect(toldTo(back.text).map(({ method, data }) => [method, data])).toEqual([
      ["values", values],
      ["lifecycle", { event: "interrupted" }],
    ]);
    expect(back.text).toContain(`synth:${result.run_id}:`);
    back.stop();

    // Once more behind that end: nothing is told again.
    const end = [...back.text.matchAll(/^id: (.*)$/gm)].at(-1)?.[1] ?? "";
    const again = await listen(threadId, { "last-event-id": end });
    await post(`/threads/${threadId}/commands`, { ...kept, id: 3 });
    await until(() => again.text.includes("completed"), "the next run");
    expect(toldTo(again.text)[0]).toMatchObject({ method: "lifecycle", data: { event: "running" } });
    again.stop();

    // Who has been away since before both runs, and who was never here.
    const late = await listen(threadId, { "last-event-id": last });
    await until(() => late.text.includes("completed"), "both runs");
    expect(
      toldTo(late.text)
        .slice(0, 3)
        .map(({ method }) => method),
    ).toEqual(["values", "lifecycle", "lifecycle"]);
    late.stop();
    const fresh = await listen(threadId);
    await until(() => fresh.text.includes("completed"), "the last run");
    expect(fresh.text).not.toContain(result.run_id);
    fresh.stop();
  },
);

test("a client that comes too late to a run that nobody followed hears that it was rolled back", async () => {
  const threadId = randomUUID();
  const { runs, threads } = held.server.client;
  const { run_id: runId } = await runs.create(threadId, "slow", { input: waiting(), ifNotExists: "create" });
  const shown = async (): Promise<string> => JSON.stringify(await threads.getState(threadId));
  await until(async () => (await shown()).includes("a:begin"), "what it has left half done");
  expect((await rollBack(threadId, runId)).status).toBe(204);
  const late = await listen(threadId);
  await until(() => late.text.includes("interrupted"), "the end");
  const { values } = await threads.getState(threadId);
  expect(toldTo(late.text).map(({ method, data }) => [method, data])).toEqual([
    ["values", values],
    ["lifecycle", { event: "interrupted" }],
  ]);
  late.stop();
});

const ignore = (): void => undefined;

test("who follows a thread for days before it is made is told of its first run", async () => {
  const threadId = randomUUID();
  const { database } = held.scratch;
  const listening = await listen(threadId);
  const age =
    "update holdfast.watched_threads set created_at = now() - interval '2 days' where thread_id = $1";
  await database.query(age, [threadId]);
  const real = performance.now.bind(performance);
  const passed = vi.spyOn(performance, "now").mockImplementation(() => real() + 2 * 60 * 60_000);
  const young =
    "select 1 from holdfast.watched_threads where thread_id = $1 and created_at > now() - interval '1 hour'";
  await until(async () => (await database.query(young, [threadId])).length > 0, "another sign of life");
  passed.mockRestore();
  await sweep({ database, log: { debug: ignore, info: ignore, warn: ignore, error: ignore } });
  const { runs } = held.server.client;
  await runs.wait(threadId, "slow", { input: { name: "b" }, ifNotExists: "create" });
  await until(() => listening.text.includes("completed"), "what the run tells");
  expect(toldTo(listening.text)[0]).toMatchObject({ method: "lifecycle", data: { event: "running" } });
  listening.stop();
});

test("of a batch that is refused no run begins", async () => {
  const refused = await post("/runs/batch", [
    { assistant_id: "slow", input: waiting() },
    { assistant_id: "slow", input: {}, checkpoint_id: randomUUID() },
  ]);
  expect([refused.status, refused.headers.get("x-holdfast-code")]).toEqual([404, "checkpoint_not_found"]);
  expect(await held.scratch.database.query("select from holdfast.threads where status = 'busy'")).toEqual([]);
});

const batchOf = (places: number): unknown[] =>
  Array.from({ length: places }, (_, index) => ({
    assistant_id: "slow",
    input: { name: String(index) },
    metadata: { place: index + 1 },
    on_completion: "keep",
  }));

test("of a batch that the database does not take to its end no run begins", async () => {
  await held.scratch.database.query(`
    create function refuse_third() returns trigger language plpgsql as
      $$begin if new.metadata ->> 'place' = '3' then raise exception 'full'; end if; return new; end$$;
    create trigger refuse_third before insert on holdfast.runs for each row execute function refuse_third()`);
  const left = `select from holdfast.runs where metadata ? 'place' union all
    select from holdfast.threads where status = 'busy'`;
  try {
    expect((await post("/runs/batch", batchOf(4))).status).toBe(500);
    expect(await held.scratch.database.query(left)).toEqual([]);
    const taken = (await (await post("/runs/batch", batchOf(2))).json()) as Fields[];
    for (const run of taken)
      await held.server.client.runs.join(String(run["thread_id"]), String(run["run_id"]));
    const ended = "select from holdfast.runs where metadata ? 'place' and state = 'success'";
    expect(await held.scratch.database.query(ended)).toHaveLength(2);
  } finally {
    await held.scratch.database.query("drop function refuse_third cascade");
  }
});

test("a batch of more runs than there are slots leaves room for others, and comes to its end", async () => {
  const { scratch } = held;
  const narrow = await startTestServer(scratch.url, {
    HOLDFAST_CONFIG: "test/fixtures/protocol.langgraph.json",
    HOLDFAST_SLOTS: "4",
  });
  const runs = Array.from({ length: 60 }, (_, index) => ({
    assistant_id: "slow",
    input: { name: `many-${index}` },
    metadata: { of: "many" },
    on_completion: "keep",
  }));
  const states = async (): Promise<unknown> =>
    scratch.database.query(
      "select state, count(*)::int as runs from holdfast.runs where metadata ->> 'of' = 'many' group by state",
    );
  try {
    const answer = await fetch(`${narrow.url}/runs/batch`, { method: "POST", body: JSON.stringify(runs) });
    expect(((await answer.json()) as Fields[]).map((run) => run["status"])).toEqual(
      runs.map(() => "pending"),
    );
    await narrow.client.runs.wait(null, "slow", { input: { name: "single" } });
    await until(
      async () => JSON.stringify(await states()) === '[{"state":"success","runs":60}]',
      "all of them",
    );
  } finally {
    await narrow.stop();
  }
});

test("all runs of a thread are cancelled, however many wait behind the live one, and no other thread's", async () => {
  const [threadId, other] = [randomUUID(), randomUUID()];
  const asked = { assistant_id: "slow", if_not_exists: "create", multitask_strategy: "enqueue" };
  await post(`/threads/${threadId}/runs`, { ...asked, input: waiting() });
  await post(`/threads/${threadId}/runs`, { ...asked, input: { name: "next" } });
  await post(`/threads/${other}/runs`, { ...asked, input: { name: "later" }, after_seconds: 3600 });
  await held.scratch.database.query(
    `insert into holdfast.runs (run_id, thread_id, assistant_id, state, attempt, multitask, metadata, kwargs, run_at)
     select gen_random_uuid(), thread_id, assistant_id, state, attempt, multitask, metadata, kwargs, run_at
       from holdfast.runs, generate_series(1, 1100) where thread_id = $1 and state = 'blocked'`,
    [threadId],
  );
  expect((await post("/runs/cancel", { thread_id: threadId, status: "all" })).status).toBe(204);
  const counted = (id: string): Promise<unknown> =>
    held.scratch.database.query(
      "select state, count(*)::int as runs, count(started_at)::int as begun from holdfast.runs where thread_id = $1 group by state",
      [id],
    );
  await until(
    async () => (await held.server.client.threads.get(threadId)).status !== "busy",
    "the live one to stop",
  );
  expect(await counted(threadId)).toEqual([{ state: "interrupted", runs: 1102, begun: 1 }]);
  expect(await counted(other)).toEqual([{ state: "delayed", runs: 1, begun: 0 }]);
});

test("what cannot be read behind a request for a stream is not answered in the middle of the stream", async () => {
  const socket = connect(Number(new URL(held.server.url).port), "127.0.0.1");
  let text = "";
  socket.on("data", (piece: Buffer) => (text += piece.toString()));
  socket.on("error", () => undefined);
  const closed = new Promise((resolve) => void socket.once("close", resolve));
  const asked = { assistant_id: "slow", input: waiting(), if_not_exists: "create", on_disconnect: "cancel" };
  const body = JSON.stringify(asked);
  const head = `POST /threads/${randomUUID()}/runs/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json`;
  socket.write(`${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  await until(() => text.includes("event: metadata"), "the stream");
  socket.write("\r\nGARBAGE\r\n\r\n");
  await closed;
  expect(text).not.toContain("400 Bad Request");
});

test("hints of threads with long ids are sent, in as many notifications as it takes", async () => {
  const ids = Array.from({ length: 300 }, (_, index) => `${"ü".repeat(120)}:${index}`);
  await notify(held.scratch.database, [{ kind: "events", runIds: ids }, { kind: "ready" }]);
  await expect(notify(held.scratch.database, [{ kind: "cancel", runIds: [] }])).resolves.toBeUndefined();
});
