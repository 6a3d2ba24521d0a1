// The stream of a thread over all its runs, as client.threads.joinStream of the official client shows it.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { SIZES, useFleet } from "../support/fleet.ts";
import { watch } from "../support/protocol.ts";
import { collect } from "../support/server.ts";
import type { Frame } from "../support/server.ts";
import { until } from "../support/until.ts";

let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const leaving: AbortController[] = [];
afterEach(() => {
  for (const gone of leaving.splice(0)) gone.abort();
});

const INPUT = { messages: [{ role: "user", content: "hello" }] };
const ASKED = { input: INPUT, streamMode: ["messages-tuple", "values", "updates"] as const };

type JoinOptions = Parameters<Client["threads"]["joinStream"]>[1];

const isDone = ({ event, data }: Frame): boolean =>
  event === "metadata" && Object(data).status === "run_done";
const donesOf = (frames: readonly Frame[]): unknown[] =>
  frames.filter(isDone).map(({ data }) => Object(data).run_id);
const withoutIds = (frames: readonly Frame[]): unknown[] => frames.map(({ event, data }) => [event, data]);
const idsOf = (frames: readonly Frame[]): string[] => frames.map(({ id }) => id ?? "none");

describe.each(SIZES)("$instances instances", ({ instances }) => {
  const fleet = useFleet(instances, {
    HOLDFAST_CONFIG: "test/fixtures/laws.langgraph.json",
    HOLDFAST_HEARTBEAT_MS: "100",
  });
  const connect = (): Client =>
    new Client({ apiUrl: fleet.url, apiKey: null, callerOptions: { fetch: fleet.fetch, maxRetries: 0 } });
  const newThread = async (): Promise<string> => (await connect().threads.create()).thread_id;

  /** What the client yields, growing, until the test is over. */
  function join(threadId: string, options: JoinOptions = {}): Frame[] {
    const gone = new AbortController();
    leaving.push(gone);
    const frames: Frame[] = [];
    void (async () => {
      for await (const frame of connect().threads.joinStream(threadId, { ...options, signal: gone.signal }))
        frames.push(frame);
    })().catch(() => undefined); // the signal ends it
    return frames;
  }

  /** What the client yields until so many runs are done. */
  async function joined(threadId: string, runs: number, options: JoinOptions = {}): Promise<Frame[]> {
    const frames = join(threadId, options);
    await until(() => donesOf(frames).length >= runs, `${runs} runs to be done`);
    return frames;
  }

  /** A stream that is open when this resolves: it has answered. */
  async function opened(threadId: string): Promise<{ location: string }> {
    const gone = new AbortController();
    leaving.push(gone);
    const response = await fleet.fetch(`${fleet.url}/threads/${threadId}/stream`, { signal: gone.signal });
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    return { location: response.headers.get("location") ?? "" };
  }

  const slowRun = (threadId: string, name: string, more: object = {}): Promise<{ run_id: string }> =>
    connect().runs.create(threadId, "slow", {
      input: { name, gate: gate.url },
      multitaskStrategy: "enqueue",
      ...more,
    });

  test("shows what the streams of all runs show, run after run, and that each is done", async () => {
    const client = connect();
    const threadId = await newThread();
    const frames = join(threadId);
    let last: unknown;
    await until(async () => {
      // Until the stream is open, what it shows is not decided.
      const [begin] = await collect(client.runs.stream(threadId, "silent", { input: {} }));
      last = Object(begin?.data).run_id;
      return donesOf(frames).length > 0;
    }, "the stream to be open");
    await until(() => donesOf(frames).includes(last), "all of that to be shown");
    const before = frames.length;
    const [first, second, third] = [randomUUID(), randomUUID(), randomUUID()];
    const runs = [await slowRun(threadId, first), await slowRun(threadId, second)];
    runs.push(
      await client.runs.create(threadId, "echo", {
        ...ASKED,
        streamMode: [...ASKED.streamMode],
        multitaskStrategy: "enqueue",
      }),
    );
    runs.push(await slowRun(threadId, third));
    for (const name of [first, second, third]) {
      await gate.waitFor(name);
      gate.open(name);
    }
    const ids = runs.map(({ run_id: runId }) => runId);
    await until(() => donesOf(frames.slice(before)).length === 4, "four runs to be done");
    const expected: unknown[] = [];
    for (const runId of ids) {
      expected.push(...withoutIds(await collect(client.runs.joinStream(threadId, runId))));
      expected.push(["metadata", { status: "run_done", run_id: runId }]);
    }
    expect(withoutIds(frames.slice(before))).toEqual(expected);
    expect(expected).toContainEqual(["metadata", { run_id: ids[2], attempt: 1 }]);
    expect(new Set(idsOf(frames)).size).toBe(frames.length);
  });

  test("begins with the live run, or with the next one, or with the first of all", async () => {
    const client = connect();
    const threadId = await newThread();
    await collect(client.runs.stream(threadId, "echo", { input: INPUT }));
    const { location } = await opened(threadId);
    const name = randomUUID();
    const { run_id: runId } = await slowRun(threadId, name);
    await gate.waitFor(name);
    const live = join(threadId);
    await until(() => live.length > 2, "the first events of the live run");
    expect(live[0]).toMatchObject({ event: "metadata", data: { run_id: runId, attempt: 1 } });
    gate.open(name);
    await until(() => donesOf(live).length === 1, "the end");
    const whole = await joined(threadId, 2, { lastEventId: "-1" });
    expect(whole.slice(-live.length)).toEqual(live);
    expect(withoutIds(whole.slice(0, -live.length))).toEqual([
      ...withoutIds(await collect(client.runs.joinStream(threadId, String(donesOf(whole)[0])))),
      ["metadata", { status: "run_done", run_id: donesOf(whole)[0] }],
    ]);
    expect(await joined(threadId, 2, { lastEventId: "-" })).toEqual(whole);
    // Cut before its first event, a stream goes on where it began.
    const again = await fleet.fetch(fleet.url + location);
    const text = await textOf(again, "run_done");
    expect([...text.matchAll(/^id: (.*)$/gm)].map(([, id]) => id)).toEqual(idsOf(live));
  });

  test("goes on behind any event, on any instance", async () => {
    const client = connect();
    const threadId = await newThread();
    for (const assistant of ["echo", "silent", "failing", "echo"])
      await collect(
        client.runs.stream(threadId, assistant, { ...ASKED, streamMode: [...ASKED.streamMode] }),
      ).catch(() => undefined);
    const whole = await joined(threadId, 4, { lastEventId: "-1" });
    expect(whole.filter(({ event }) => event === "error")).toHaveLength(1);
    for (const [index, id] of idsOf(whole).slice(0, -1).entries()) {
      const rest = whole.slice(index + 1);
      expect(await joined(threadId, donesOf(rest).length, { lastEventId: id })).toEqual(rest);
    }
    const last = join(threadId, { lastEventId: idsOf(whole).at(-1) ?? "" });
    const { run_id: runId } = await client.runs.create(threadId, "silent", { input: {} });
    await until(() => donesOf(last).length === 1, "the next run");
    expect(donesOf(last)).toEqual([runId]);
  });

  test("modes show the begin and the end of runs, or the state at their end, or both", async () => {
    const client = connect();
    const threadId = await newThread();
    const runs: string[] = [];
    for (let count = 1; count <= 2; count += 1) {
      const { run_id: runId } = await client.runs.create(threadId, "keeping", { input: INPUT });
      await client.runs.join(threadId, runId);
      runs.push(runId);
    }
    await client.threads.updateState(threadId, { values: { count: 7 } });
    const lifecycle = await joined(threadId, 2, { lastEventId: "-1", streamMode: "lifecycle" });
    expect(withoutIds(lifecycle)).toEqual(
      runs.flatMap((runId) => [
        ["metadata", { run_id: runId, attempt: 1 }],
        ["metadata", { status: "run_done", run_id: runId }],
      ]),
    );
    const both = await joined(threadId, 2, { lastEventId: "-1", streamMode: ["lifecycle", "state_update"] });
    expect(both.filter(({ event }) => event !== "state_update")).toEqual(lifecycle);
    const states = both.filter(({ event }) => event === "state_update");
    const history = await client.threads.getHistory(threadId, { limit: 100 });
    const lastOf = runs.map((runId) => history.find(({ metadata }) => Object(metadata).run_id === runId));
    expect(states.map(({ data }) => data)).toEqual(
      lastOf.map((state) => ({ thread_id: threadId, state: state })),
    );
    const alone = join(threadId, { lastEventId: "-1", streamMode: "state_update" });
    await until(() => alone.length === 2, "two states");
    expect(alone).toEqual(states);
    const all = await joined(threadId, 2, {
      lastEventId: "-1",
      streamMode: ["run_modes", "lifecycle", "state_update"],
    });
    expect(all.filter(({ event }) => event !== "state_update")).toEqual(
      await joined(threadId, 2, { lastEventId: "-1" }),
    );
    const documented = await fleet.fetch(
      `${fleet.url}/threads/${threadId}/stream?stream_modes=lifecycle&stream_modes=state_update`,
      { headers: { "last-event-id": idsOf(both)[0] ?? "" }, signal: AbortSignal.timeout(10_000) },
    );
    const rest = await textOf(documented, `id: ${idsOf(both).at(-1)}\n`);
    expect([...rest.matchAll(/^id: (.*)$/gm)].map(([, id]) => id)).toEqual(idsOf(both).slice(1));
  });

  test("a run that is rolled back is done, and a run that waited and was cancelled is not told", async () => {
    const client = connect();
    const threadId = await newThread();
    const [name, waiting] = [randomUUID(), randomUUID()];
    const { run_id: rolledBack } = await slowRun(threadId, name);
    await gate.waitFor(name);
    const frames = join(threadId);
    await until(() => frames.length > 0, "the live run");
    const { run_id: cancelled } = await slowRun(threadId, waiting);
    await client.runs.cancel(threadId, cancelled, true);
    await client.runs.cancel(threadId, rolledBack, true, "rollback");
    const { run_id: after } = await client.runs.create(threadId, "silent", { input: {} });
    await until(() => donesOf(frames).length === 2, "the end of both");
    expect(donesOf(frames)).toEqual([rolledBack, after]);
  });

  test("a run that is tried again is told again under new ids, from where it had come", async () => {
    const client = connect();
    const threadId = await newThread();
    const name = randomUUID();
    const { run_id: runId } = await slowRun(threadId, name);
    const frames = join(threadId);
    await gate.waitFor(name);
    gate.refuse(name);
    await until(() => donesOf(frames).length === 1, "the failure");
    expect(frames.at(-2)).toMatchObject({ event: "error" });
    const failed = frames.length;
    gate.open(name);
    expect(
      (await fleet.fetch(`${fleet.url}/threads/${threadId}/runs/${runId}/retry`, { method: "POST" })).status,
    ).toBe(200);
    await until(() => donesOf(frames).length === 2, "the second try");
    expect(donesOf(frames)).toEqual([runId, runId]);
    expect(frames[failed]).toMatchObject({ event: "metadata", data: { run_id: runId, attempt: 2 } });
    expect(new Set(idsOf(frames)).size).toBe(frames.length);
    expect(withoutIds(frames.filter((frame) => !isDone(frame)))).toEqual(
      withoutIds(await collect(client.runs.joinStream(threadId, runId))),
    );
  });

  test("what is told by protocol v2 is not shown here, and changes nothing", async () => {
    const threadId = randomUUID();
    const gone = new AbortController();
    leaving.push(gone);
    const watched = await watch(fleet, threadId, gone.signal);
    const client = connect();
    await client.threads.create({ threadId });
    const shown = await collect(
      client.runs.stream(threadId, "echo", { ...ASKED, streamMode: [...ASKED.streamMode] }),
    );
    const frames = await joined(threadId, 1, { lastEventId: "-1" });
    expect(watched.length).toBeGreaterThan(0);
    expect(withoutIds(frames.slice(0, -1))).toEqual(withoutIds(shown));
    const middle = idsOf(frames)[3] ?? "";
    expect(await joined(threadId, 1, { lastEventId: middle })).toEqual(frames.slice(4));
  });

  test("ends when its thread is deleted, and shows nothing of one that is made under its id", async () => {
    const client = connect();
    const threadId = await newThread();
    await collect(client.runs.stream(threadId, "silent", { input: {} }));
    const response = await fetch(`${fleet.url}/threads/${threadId}/stream?last_event_id=-1`);
    const reading = textOf(response);
    await client.threads.delete(threadId);
    await client.threads.create({ threadId });
    await collect(client.runs.stream(threadId, "silent", { input: {} }));
    const again = await client.runs.create(threadId, "silent", { input: {} });
    const text = await reading;
    expect(text).not.toContain(again.run_id);
    expect(text.match(/run_done/g)?.length ?? 0).toBeLessThanOrEqual(1);
    const missing = await fleet.fetch(`${fleet.url}/threads/${randomUUID()}/stream`);
    expect([missing.status, missing.headers.get("x-holdfast-code")]).toEqual([404, "thread_not_found"]);
  });

  test.each([
    ["an id of another kind", { "last-event-id": "17" }, ""],
    ["an event of a run that has not begun", { "last-event-id": "3-0" }, ""],
    ["a place that no run has", { "last-event-id": "0-99999999" }, ""],
    ["another mode", {}, "?stream_mode=values"],
  ])("%s is refused", async (_, headers: Record<string, string>, search) => {
    const threadId = await newThread();
    const response = await fleet.fetch(`${fleet.url}/threads/${threadId}/stream${search}`, { headers });
    expect([response.status, response.headers.get("x-holdfast-code")]).toEqual([400, "input_invalid"]);
  });
});

/** A body, as far as it has come when it holds `mark`, else to its end. */
async function textOf({ body }: Response, mark?: string): Promise<string> {
  if (!body) throw new Error("The response has no body.");
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += part.value;
    if (mark !== undefined && text.includes(mark)) break;
  }
  await reader.cancel();
  return text;
}
