// Laws of the wire that hold for both official clients, each with its own retries and its own reader of streams.
// What happens when servers die or stop stands in both-clients-takeover.test.ts.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { startBalancer } from "../support/balancer.ts";
import { SDKS } from "../support/clients.ts";
import type { OfficialClient, Sdk } from "../support/clients.ts";
import { startFakeModel } from "../support/model.ts";
import { collect, useServer } from "../support/server.ts";
import type { Frame } from "../support/server.ts";
import { shown } from "../support/shown.ts";
import { until } from "../support/until.ts";

const model = await startFakeModel();
const held = useServer({
  OPENAI_API_KEY: "none",
  OPENAI_BASE_URL: model.url,
  HOLDFAST_CONFIG: "test/fixtures/slow.langgraph.json",
  HOLDFAST_HEARTBEAT_MS: "100",
});
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => Promise.all([gate.stop(), model.stop()]));

const direct = ({ connect }: Sdk): OfficialClient => connect({ apiUrl: held.server.url });
const newThread = async (): Promise<string> => (await held.server.client.threads.create()).thread_id;
const question = { messages: [{ role: "user", content: "hello" }] };
const ALL_MODES = { streamMode: ["values", "updates", "messages-tuple", "custom"] as const };
const asking = (input: Record<string, unknown>) => ({ input, streamMode: [...ALL_MODES.streamMode] });

/** The input of a run that waits at the gate under a name of its own. */
const gated = (): { name: string; gate: string } => ({ name: randomUUID(), gate: gate.url });

const idsOf = (frames: readonly Frame[]): (string | undefined)[] => frames.map(({ id }) => id);
const dense = (frames: readonly Frame[]): string[] => frames.map((_, index) => String(index));

test.each(SDKS)("a missing thread is 404 with its id in the text (SDK $sdk)", async (sdk) => {
  const { threads, runs } = direct(sdk);
  const id = randomUUID();
  const refused = [
    threads.get(id),
    threads.getState(id),
    threads.getHistory(id),
    threads.update(id, { metadata: {} }),
    threads.updateState(id, { values: {} }),
    threads.delete(id),
    runs.create(id, "echo", { input: question }),
    runs.wait(id, "echo", { input: question }),
    collect(runs.stream(id, "echo", { input: question })),
  ];
  const errors = (await Promise.allSettled(refused)).map((one) => one.status === "rejected" && one.reason);
  const texts = errors.map((error) => (error instanceof Error ? error.message : error));
  expect(texts).toEqual(refused.map(() => `HTTP 404: Thread with ID ${id} not found`));
});

/** Streams of every kind of run, by their kind. */
async function streamEveryKind({ runs }: OfficialClient): Promise<Map<string, Frame[]>> {
  const [threaded, busy, asked, failed] = await Promise.all(Array.from({ length: 4 }, newThread));
  const [first, second] = [gated(), gated()];
  const before = collect(runs.stream(busy ?? "", "slow", asking(first)));
  await gate.waitFor(first.name);
  const enqueued = collect(
    runs.stream(busy ?? "", "slow", { ...asking(second), multitaskStrategy: "enqueue" }),
  );
  for (const { name } of [first, second]) gate.open(name);
  return new Map([
    ["threaded", await collect(runs.stream(threaded ?? "", "echo", asking(question)))],
    ["stateless", await collect(runs.stream(null, "echo", asking(question)))],
    ["before", await before],
    ["enqueued", await enqueued],
    ["interrupted", await collect(runs.stream(asked ?? "", "asking", asking({ count: 1 })))],
    ["resumed", await collect(runs.stream(asked ?? "", "asking", { command: { resume: "yes" } }))],
    ["failing", await collect(runs.stream(failed ?? "", "failing", asking({ count: 1 })))],
  ]);
}

test.each(SDKS)("ids are 0,1,2… without a gap for every kind of run (SDK $sdk)", async (sdk) => {
  for (const [kind, frames] of await streamEveryKind(direct(sdk))) {
    expect([kind, ...idsOf(frames)]).toEqual([kind, ...dense(frames)]);
    expect(frames.length).toBeGreaterThan(1);
    expect(frames[0]).toMatchObject({ event: "metadata", data: { attempt: 1 } });
  }
});

test.each(SDKS)("a failing node ends the stream with its class and message (SDK $sdk)", async (sdk) => {
  const { runs } = direct(sdk);
  const error = { error: "RangeError", message: "the node failed on purpose" };
  const threadId = await newThread();
  for (const stream of [
    runs.stream(threadId, "failing", asking({ count: 1 })),
    runs.stream(null, "failing", asking({ count: 1 })),
  ]) {
    const frames = await collect(stream);
    expect(frames.at(-1)).toMatchObject({ event: "error", data: error });
    expect(frames.filter(({ event }) => event === "error")).toHaveLength(1);
  }
  const failure = `${error.error}: ${error.message}`;
  await expect(runs.wait(threadId, "failing", { input: { count: 1 } })).rejects.toThrow(failure);
});

// Not `echo`: when many of its runs go at once, the last tokens of some are missing from the stream though the state is
// whole, for a reason not yet found. Its number of frames is not fixed, and a place to cut at must exist.
const ANSWER = "one two three four five six";
const TALK = { messages: [{ role: "user", content: ANSWER }], model: "fake-echo" };

/** Streams a run whose connection is reset once, right behind the nth mark. */
async function streamWithReset(sdk: Sdk, mark: string, nth: number): Promise<void> {
  const balancer = await startBalancer([held.server.url]);
  balancer.resetBehind(mark, nth);
  let runId = "";
  const threadId = randomUUID();
  const frames = await collect(
    sdk.connect({ apiUrl: balancer.url }).runs.stream(threadId, "talk", {
      ...asking(TALK),
      ifNotExists: "create",
      onRunCreated: (made) => (runId = made.run_id),
    }),
  );
  const seen = { mark, nth, resets: balancer.resets(), ids: idsOf(frames) };
  expect(seen).toEqual({ mark, nth, resets: 1, ids: dense(frames) });
  expect(shown(frames).map(([, text]) => text)).toEqual([ANSWER, ANSWER]);
  expect(frames).toEqual(await collect(direct(sdk).runs.joinStream(threadId, runId)));
  await balancer.stop();
}

test.each(SDKS)("a reset at any frame loses and repeats nothing (SDK $sdk)", async (sdk) => {
  const whole = await collect(direct(sdk).runs.stream(null, "talk", asking(TALK)));
  expect(shown(whole).map(([, text]) => text)).toEqual([ANSWER, ANSWER]);
  expect(whole.length).toBeGreaterThan(ANSWER.split(" ").length);
  const numbers = whole.map((_, index) => index + 1);
  await Promise.all([
    streamWithReset(sdk, "\r\n\r\n", 1), // behind the headers, before any frame
    ...numbers.map((nth) => streamWithReset(sdk, "data: ", nth)), // in the middle of a frame
    ...numbers.map((nth) => streamWithReset(sdk, "\n\n", nth)), // behind a frame
  ]);
});

/** Reads the bytes of a stream beside the client's own connection. */
async function heartbeatsOf(path: string): Promise<() => number> {
  let text = "";
  const { body } = await fetch(held.server.url + path);
  void (async () => {
    for await (const chunk of body ?? []) text += Buffer.from(chunk).toString();
  })();
  return () => text.split(": heartbeat\n").length - 1;
}

test.each(SDKS)("heartbeats are invisible to the caller (SDK $sdk)", async (sdk) => {
  const { runs } = direct(sdk);
  const threadId = await newThread();
  const [first, second] = [gated(), gated()];
  await runs.create(threadId, "slow", { input: first });
  await gate.waitFor(first.name);
  const { promise: created, resolve: onRunCreated } = Promise.withResolvers<{ run_id: string }>();
  const options = { ...asking(second), multitaskStrategy: "enqueue", onRunCreated } as const;
  const streaming = collect(runs.stream(threadId, "slow", options));
  const { run_id: runId } = await created;
  const heartbeats = await heartbeatsOf(`/threads/${threadId}/runs/${runId}/stream`);
  await until(() => heartbeats() > 2, "heartbeats before the first frame");
  gate.open(first.name);
  await gate.waitFor(second.name);
  const before = heartbeats();
  await until(() => heartbeats() > before + 2, "heartbeats between frames");
  gate.open(second.name);
  const frames = await streaming;
  const expected = ["metadata", "values", "values", "updates", "values", "updates", "values", "updates"];
  expect(frames.map(({ event }) => event).toSorted()).toEqual(expected.toSorted());
  expect(idsOf(frames)).toEqual(dense(frames));
  expect(frames).toEqual(await collect(runs.joinStream(threadId, runId)));
});

type Ask = (client: OfficialClient, threadId: string) => Promise<string>;

/** The ways to make a run, each answering the run's id. */
const WAYS: readonly Ask[] = [
  async ({ runs }, threadId) => (await runs.create(threadId, "keeping", { input: { count: 1 } })).run_id,
  async ({ runs }, threadId) => {
    const [frame] = await collect(runs.stream(threadId, "keeping", { input: { count: 1 } }));
    return String(Object(frame?.data).run_id);
  },
  async ({ runs }, threadId) => {
    const values = await runs.wait(threadId, "keeping", { input: { count: 1 } });
    expect(values).toEqual({ count: 2 });
    return (await runs.list(threadId))[0]?.run_id ?? "";
  },
];

/** A gateway that passes the first POST on, and answers 503 in the server's place. */
function losingGateway(): typeof fetch {
  let isFirst = true;
  return async (input, init) => {
    const response = await fetch(input, init);
    if (init?.method !== "POST" || !isFirst) return response;
    isFirst = false;
    await response.body?.cancel();
    return new Response("no upstream", { status: 503 });
  };
}

/** Asks as a caller does that never gives up: SDK 2.0.0 repeats what was answered 503 by itself, the other does not. */
const insist = (ask: () => Promise<string>): Promise<string> =>
  ask().catch((error: unknown) => {
    if (/HTTP 4/.test(String(error))) throw error;
    return ask();
  });

test.each(SDKS)("a repeated create never makes two runs (SDK $sdk)", async (sdk) => {
  const { runs } = direct(sdk);
  const onceEach = async (ask: Ask, way: "503" | "lost"): Promise<void> => {
    const balancer = await startBalancer([held.server.url]);
    if (way === "lost") balancer.resetBehind("HTTP/1.1", 1);
    const client = sdk.connect({
      apiUrl: balancer.url,
      defaultHeaders: { "idempotency-key": randomUUID() },
      ...(way === "503" ? { callerOptions: { fetch: losingGateway() } } : {}),
    });
    const threadId = await newThread();
    const runId = await insist(() => ask(client, threadId));
    expect(balancer.resets()).toBe(way === "lost" ? 1 : 0);
    expect((await runs.list(threadId)).map((run) => run.run_id)).toEqual([runId]);
    expect(await runs.join(threadId, runId)).toEqual({ count: 2 });
    await balancer.stop();
  };
  await Promise.all(WAYS.flatMap((ask) => [onceEach(ask, "503"), onceEach(ask, "lost")]));
});

test.each(SDKS)(
  "a create repeated without a key is refused while its run is live (SDK $sdk)",
  async (sdk) => {
    const client = sdk.connect({ apiUrl: held.server.url, callerOptions: { fetch: losingGateway() } });
    const threadId = await newThread();
    const input = gated();
    const ask = async (): Promise<string> => (await client.runs.create(threadId, "slow", { input })).run_id;
    await expect(insist(ask)).rejects.toThrow("HTTP 422: Thread is already running a task");
    expect(await direct(sdk).runs.list(threadId)).toHaveLength(1);
    gate.open(input.name);
  },
);
