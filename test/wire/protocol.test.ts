// Laws of protocol v2, through the official client: its thread streams, and the controller under its hooks.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { StreamController } from "@langchain/langgraph-sdk/stream";
import { Client as Client11 } from "langgraph-sdk-1.11";
import { StreamController as StreamController11 } from "langgraph-sdk-1.11/stream";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { SIZES, useFleet } from "../support/fleet.ts";
import type { Fleet } from "../support/fleet.ts";
import { command, ended, roots, startRun, watch as watchThread } from "../support/protocol.ts";
import type { Event } from "../support/protocol.ts";
import { until } from "../support/until.ts";

let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const open: { dispose(): Promise<void> | void }[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.dispose();
});

/** A thread's events until the test is over. */
function watch(fleet: Fleet, threadId: string, body: object = {}): Promise<Event[]> {
  const gone = new AbortController();
  open.push({ dispose: () => gone.abort() });
  return watchThread(fleet, threadId, gone.signal, body);
}

const hello = { messages: [{ role: "user", content: "hello" }] };

type Controller = StreamController;

const SDKS = [
  { sdk: "1.15.0", Make: Client, Control: StreamController },
  {
    sdk: "1.11.0",
    Make: Client11 as unknown as typeof Client,
    Control: StreamController11 as unknown as typeof StreamController,
  },
];

function control(
  fleet: Fleet,
  assistantId: string,
  {
    threadId = null,
    transport = "sse",
    sdk = "1.15.0",
  }: { threadId?: string | null; transport?: "sse" | "websocket"; sdk?: string },
): Controller {
  const [{ Make, Control }] = SDKS.filter((one) => one.sdk === sdk) as [(typeof SDKS)[number]];
  const client = new Make({ apiUrl: fleet.url, apiKey: null, callerOptions: { fetch: fleet.fetch } });
  const wire =
    transport === "sse" ? { fetch: fleet.fetch } : { webSocketFactory: (url: string) => fleet.socket(url) };
  // The client's type of values is wider than the controller's default one.
  const controller: Controller = new Control({
    assistantId,
    client: client as never,
    threadId,
    transport,
    ...wire,
  });
  open.push(controller);
  return controller;
}

const texts = (controller: Controller): string[] =>
  controller.rootStore.getSnapshot().messages.map(({ text }) => text);

describe.each(SIZES)("$instances instances", ({ instances }) => {
  const fleet = useFleet(instances, {
    HOLDFAST_CONFIG: "test/fixtures/protocol.langgraph.json",
    HOLDFAST_HEARTBEAT_MS: "100",
  });

  describe.each(SDKS)("SDK $sdk", ({ sdk }) => {
    test("submit on a thread with earlier runs resolves with its own run", async () => {
      const threadId = randomUUID();
      const events = await watch(fleet, threadId);
      await startRun(fleet, threadId, "slow", { name: "earlier" });
      await ended(events);
      const controller = control(fleet, "slow", { threadId, sdk });
      await controller.hydrate(threadId);
      const name = randomUUID();
      let isOver = false;
      const submitted = controller.submit({ name, gate: gate.url }).then(() => (isOver = true));
      await gate.waitFor(name);
      await until(() => roots(events).length === 3, "the second run to be told");
      expect(isOver).toBe(false);
      gate.open(name);
      await submitted;
      await ended(events, 2);
      expect(roots(events)).toEqual(["running", "completed", "running", "completed"]);
      await until(
        () => JSON.stringify(controller.rootStore.getSnapshot().values).includes(`${name}:finish`),
        "its values",
      );
    });
  });

  describe.each(["sse", "websocket"] as const)("%s", (transport) => {
    test("a stream opened before the thread exists sees its first run", async () => {
      const client = new Client({ apiUrl: fleet.url, apiKey: null, callerOptions: { fetch: fleet.fetch } });
      const threadId = randomUUID();
      const options =
        transport === "sse"
          ? { fetch: fleet.fetch }
          : { webSocketFactory: (url: string) => fleet.socket(url) };
      const thread = client.threads.stream(threadId, { assistantId: "echo", transport, ...options });
      open.push({ dispose: () => thread.close() });
      const subscription = await thread.subscribe({ channels: ["lifecycle", "messages"] });
      const seen: unknown[] = [];
      const reading = (async () => {
        for await (const event of subscription) {
          seen.push(event);
          if (roots(seen as Event[]).includes("completed")) return;
        }
      })();
      await thread.run.start({ input: hello });
      await reading;
      expect(roots(seen as Event[])).toEqual(["running", "completed"]);
      const deltas = (seen as Event[]).filter(({ params }) => params.data["event"] === "content-block-delta");
      expect(deltas.map(({ params }) => Object(params.data["delta"]).text).join("")).toBe("alpha beta");
    });
  });

  test("a run created over REST is seen by a v2 watcher", async () => {
    const threadId = randomUUID();
    const events = await watch(fleet, threadId);
    const client = new Client({ apiUrl: fleet.url, apiKey: null, callerOptions: { fetch: fleet.fetch } });
    const asked = { input: hello, streamMode: ["messages-tuple", "values"], ifNotExists: "create" } as const;
    const frames: { id?: string; event: string; data: unknown }[] = [];
    for await (const frame of client.runs.stream(threadId, "echo", {
      ...asked,
      streamMode: [...asked.streamMode],
    }))
      frames.push(frame);
    await ended(events);
    expect(roots(events)).toEqual(["running", "completed"]);
    const deltas = events.filter(({ params }) => params.data["event"] === "content-block-delta");
    expect(deltas.map(({ params }) => Object(params.data["delta"]).text).join("")).toBe("alpha beta");
    // Its legacy stream is what it would be if nobody watched: dense ids, and only what was asked.
    expect(frames.map(({ id }) => id)).toEqual(frames.map((_, index) => String(index)));
    expect(new Set(frames.map(({ event }) => event))).toEqual(new Set(["metadata", "messages", "values"]));
    const runId = String(Object(frames[0]?.data).run_id);
    for (const last of frames.keys()) {
      const rest = [];
      for await (const frame of client.runs.joinStream(threadId, runId, { lastEventId: String(last) }))
        rest.push(frame);
      expect(rest).toEqual(frames.slice(last + 1));
    }
  });

  test("event ids survive a restart and never repeat", async () => {
    const threadId = randomUUID();
    const before = await watch(fleet, threadId);
    await startRun(fleet, threadId, "echo", hello);
    await ended(before);
    // It is told by protocol v2 alone: nobody asked for a legacy mode.
    const [run] = await new Client({ apiUrl: fleet.url, callerOptions: { fetch: fleet.fetch } }).runs.list(
      threadId,
    );
    expect(Object(run).kwargs.stream_mode).toEqual([]);
    await fleet.restart();
    await startRun(fleet, threadId, "echo", hello, { metadata: { second: true } });
    const all = await watch(fleet, threadId, { since: 0 });
    await ended(all, 2);
    expect(all.slice(0, before.length)).toEqual(before);
    expect(new Set(all.map(({ event_id: id }) => id)).size).toBe(all.length);
    expect(all.map(({ seq }) => seq)).toEqual(
      all.map(({ seq }) => seq).toSorted((left, right) => left - right),
    );
    // From any event on, by its number or by its id, the rest comes.
    for (const [index, { seq, event_id: id, params }] of [...all.entries()].filter(([at]) => at % 7 === 0)) {
      const rest = await watch(fleet, threadId, index % 2 === 0 ? { since: seq } : { since_event_id: id });
      await until(() => rest.length >= all.length - index - 1, `events after ${params.timestamp}`);
      expect(rest).toEqual(all.slice(index + 1));
    }
  });

  test("a slower clock on another instance hides nothing", async () => {
    const threadId = randomUUID();
    const fast = await watch(fleet, threadId);
    vi.setSystemTime(Date.now() + 3000);
    await startRun(fleet, threadId, "echo", hello);
    await ended(fast);
    vi.useRealTimers();
    const controller = control(fleet, "echo", { threadId });
    await controller.hydrate(threadId);
    await controller.submit({ messages: [{ role: "user", content: "again" }] });
    await until(() => texts(controller).length === 4, "both answers");
    expect(texts(controller)).toEqual(["hello", "alpha beta", "again", "alpha beta"]);
    await ended(fast, 2);
    const times = fast.map(({ params }) => params.timestamp);
    expect(times).toEqual(times.toSorted((left, right) => left - right));
  });

  test("checkpoints comes right before its values", async () => {
    const threadId = randomUUID();
    const events = await watch(fleet, threadId);
    await startRun(fleet, threadId, "slow", { name: "plain" });
    await ended(events);
    const values = [...events.entries()].filter(([, { method }]) => method === "values");
    expect(values.length).toBe(4);
    const client = new Client({ apiUrl: fleet.url, apiKey: null, callerOptions: { fetch: fleet.fetch } });
    const history = await client.threads.getHistory(threadId);
    for (const [index, { params }] of values) {
      const before = events[index - 1];
      expect([before?.method, before?.params.namespace]).toEqual(["checkpoints", params.namespace]);
      const state = history.find(({ checkpoint }) => checkpoint.checkpoint_id === before?.params.data["id"]);
      expect(state?.values).toEqual(params.data);
      expect(state?.metadata).toMatchObject({ step: before?.params.data["step"], source: "loop" });
    }
    expect(JSON.stringify(events)).not.toContain("__interrupt__");
  });

  test("answering an interrupt hides it on every watcher", async () => {
    const threadId = randomUUID();
    const [first, second] = [
      control(fleet, "asking", { threadId }),
      control(fleet, "asking", { threadId, transport: "websocket" }),
    ];
    await first.hydrate(threadId);
    await first.submit({ value: "x" });
    await until(() => first.rootStore.getSnapshot().interrupts.length === 1, "the question");
    await second.hydrate(threadId);
    const [question] = second.rootStore.getSnapshot().interrupts;
    expect(question?.value).toEqual({ question: "go on?" });
    const raw = await watch(fleet, threadId, { since: 0 });
    await first.respond("yes");
    await until(() => first.rootStore.getSnapshot().interrupts.length === 0, "the question to go");
    await until(() => second.rootStore.getSnapshot().interrupts.length === 0, "the question to go elsewhere");
    await until(() => roots(raw).length === 4, "both runs");
    const inputs = raw.filter(({ method }) => method.startsWith("input."));
    expect(inputs.map(({ method, params }) => [method, params.data])).toEqual([
      ["input.requested", { interrupt_id: question?.id, payload: { question: "go on?" } }],
      ["input.answered", { interrupt_ids: [question?.id] }],
    ]);
    expect(roots(raw)).toEqual(["running", "interrupted", "running", "completed"]);
    const { result } = await command(fleet, threadId, "state.get", { keys: ["value", "no such"] });
    expect(Object(result).values).toEqual({ value: "yes" });
  });

  test.each([
    ["node", "asksThenWaits"],
    ["tool", "asksByTool"],
  ])("the question of a %s is open again when the run that answers it is rolled back", async (_, graph) => {
    const threadId = randomUUID();
    const controller = control(fleet, graph, { threadId });
    const questions = (): readonly unknown[] => controller.rootStore.getSnapshot().interrupts;
    await controller.hydrate(threadId);
    await controller.submit({ name: threadId, gate: gate.url });
    await until(() => questions().length === 1, "the question");
    const [question] = questions();
    const raw = await watch(fleet, threadId, { since: 0 });
    void controller.respond("yes").catch(() => undefined);
    await until(() => questions().length === 0, "the question to go");
    await gate.waitFor(threadId);
    // With the run its events go: who has not read them by then never does.
    await until(() => raw.some(({ method }) => method === "input.answered"), "the answer to be told");
    const client = new Client({ apiUrl: fleet.url, apiKey: null, callerOptions: { fetch: fleet.fetch } });
    const [run] = await client.runs.list(threadId, { status: "running" });
    await client.runs.cancel(threadId, run?.run_id ?? "", true, "rollback");
    await ended(raw, 2);
    const inputs = raw.filter(({ method }) => method.startsWith("input."));
    expect(inputs.map(({ method }) => method)).toEqual([
      "input.requested",
      "input.answered",
      "input.requested",
    ]);
    expect(inputs[2]?.params.data).toEqual(inputs[0]?.params.data);
    const calls = raw.filter(({ method }) => method === "tools").map(({ params }) => params.data["event"]);
    expect(new Set(calls)).toEqual(new Set(graph === "asksByTool" ? ["tool-started"] : []));
    await until(() => questions().length === 1, "the question to come back");
    expect(questions()).toEqual([question]);
  });

  test("idle for a minute, then a run: the same stream shows it", async () => {
    const threadId = randomUUID();
    const client = new Client({ apiUrl: fleet.url, apiKey: null, callerOptions: { fetch: fleet.fetch } });
    let opened = 0;
    const counted: typeof fetch = (input, init) => {
      if (new Request(input).url.endsWith("/stream/events")) opened += 1;
      return fleet.fetch(input, init);
    };
    const thread = client.threads.stream(threadId, { assistantId: "echo", fetch: counted });
    open.push({ dispose: () => thread.close() });
    const subscription = await thread.subscribe({ channels: ["lifecycle"] });
    const seen: Event[] = [];
    void (async () => {
      for await (const event of subscription) seen.push(event as unknown as Event);
    })();
    const before = opened;
    // As many heartbeats as a minute has at the usual interval of 5 s.
    await new Promise((resolve) => setTimeout(resolve, 1200));
    await startRun(fleet, threadId, "echo", hello);
    await ended(seen);
    expect(opened).toBe(before);
  });

  test("a WebSocket subscribe is answered before its events", async () => {
    const threadId = randomUUID();
    const events = await watch(fleet, threadId);
    await startRun(fleet, threadId, "echo", hello);
    await ended(events);
    const socket = fleet.socket(`${fleet.url}/threads/${threadId}/stream`);
    open.push({ dispose: () => socket.close() });
    const heard: Record<string, unknown>[] = [];
    socket.addEventListener("message", ({ data }) =>
      heard.push(JSON.parse(String(data)) as Record<string, unknown>),
    );
    await new Promise((resolve) => socket.addEventListener("open", resolve, { once: true }));
    const ask = (id: number, method: string, params: object): void =>
      socket.send(JSON.stringify({ id, method, params }));
    ask(7, "subscription.subscribe", { channels: ["lifecycle"] });
    await until(() => roots(heard.slice(1) as never).length === 2, "the run's events");
    expect(heard[0]).toMatchObject({ type: "success", id: 7, result: { replayed_events: 0 } });
    // A later subscription gets what the first one has passed, and nothing of it twice.
    const count = heard.length;
    ask(8, "subscription.subscribe", { channels: ["values"] });
    const values = events.filter(({ method }) => method === "values");
    await until(() => heard.length === count + 1 + values.length, "earlier values");
    expect(heard[count]).toMatchObject({
      type: "success",
      id: 8,
      result: { replayed_events: values.length },
    });
    expect(heard.slice(count + 1)).toEqual(values);
    // What is wrong with a command is an answer, and the socket stays.
    ask(9, "subscription.subscribe", { channels: [] });
    ask(10, "subscription.unsubscribe", { subscription_id: "none" });
    ask(11, "bogus", {});
    socket.send("no JSON");
    await until(() => heard.length === count + 5 + values.length, "the refusals");
    expect(heard.slice(-4).map(({ id, error }) => [id, error])).toEqual([
      [9, "invalid_argument"],
      [10, "no_such_subscription"],
      [11, "unknown_command"],
      [null, "invalid_argument"],
    ]);
    const { subscription_id: id } = Object(Object(heard[0]).result) as Record<string, string>;
    ask(12, "subscription.unsubscribe", { subscription_id: id });
    ask(13, "run.start", { assistant_id: "echo", input: hello });
    await until(
      () => heard.filter(({ method }) => method === "values").length === 2 * values.length,
      "the next run's values",
    );
    expect(roots(heard.slice(count) as never)).toEqual([]);
  });

  test("closing one socket leaves the other watcher whole", async () => {
    const threadId = randomUUID();
    const name = randomUUID();
    const [leaving, staying] = [
      control(fleet, "slow", { threadId, transport: "websocket" }),
      control(fleet, "slow", { threadId, transport: "websocket" }),
    ];
    const raw = await watch(fleet, threadId);
    await startRun(fleet, threadId, "slow", { name, gate: gate.url });
    await gate.waitFor(name);
    await Promise.all([leaving.hydrate(threadId), staying.hydrate(threadId)]);
    await until(() => staying.rootStore.getSnapshot().isLoading, "the run to be seen");
    await leaving.dispose();
    gate.open(name);
    await ended(raw);
    await until(() => !staying.rootStore.getSnapshot().isLoading, "the run to end");
    expect(Object(staying.rootStore.getSnapshot().values).log).toEqual(
      ["begin", "work", "finish"].map((step) => `${name}:${step}`),
    );
  });

  test("an unknown namespace suffix matches its static name", async () => {
    const threadId = randomUUID();
    const events = await watch(fleet, threadId, { channels: ["messages"], namespaces: [["answer"]] });
    const others = await watch(fleet, threadId, { channels: ["messages"], namespaces: [["prepare"]] });
    const shallow = await watch(fleet, threadId, {
      channels: ["messages", "lifecycle"],
      namespaces: [[]],
      depth: 0,
    });
    await startRun(fleet, threadId, "echo", hello);
    await ended(shallow);
    await until(() => events.some(({ params }) => params.data["event"] === "message-finish"), "its message");
    expect(events.every(({ params }) => params.namespace[0]?.startsWith("answer:"))).toBe(true);
    expect(others).toEqual([]);
    expect(shallow.every(({ params }) => params.namespace.length === 0)).toBe(true);
  });

  test("many answers go into one command, and respond without a pending interrupt is invalid_argument", async () => {
    const threadId = randomUUID();
    const events = await watch(fleet, threadId);
    expect(
      await command(fleet, threadId, "input.respond", { namespace: [], interrupt_id: "x", response: 1 }),
    ).toMatchObject({
      type: "error",
      error: "invalid_argument",
    });
    await startRun(fleet, threadId, "asksTwice", { name: "two" });
    await ended(events);
    const ids = events
      .filter(({ method }) => method === "input.requested")
      .map(({ params }) => String(params.data["interrupt_id"]));
    expect(new Set(ids).size).toBe(2);
    const responses = ids.map((id, index) => ({ namespace: [], interrupt_id: id, response: index }));
    expect(
      await command(
        fleet,
        threadId,
        "input.respond",
        { responses: [{ ...responses[0], interrupt_id: "0".repeat(32) }] },
        2,
      ),
    ).toMatchObject({
      error: "no_such_interrupt",
    });
    expect(await command(fleet, threadId, "input.respond", { responses }, 3)).toMatchObject({
      type: "success",
      result: {},
    });
    await ended(events, 2);
    expect(roots(events)).toEqual(["running", "interrupted", "running", "completed"]);
    const { result } = await command(fleet, threadId, "state.get", {}, 4);
    expect(Object(result).values.log.toSorted()).toEqual(["left:0", "right:1"]);
  });

  test("a question that was answered is open no more, while another one still is", async () => {
    const threadId = randomUUID();
    const events = await watch(fleet, threadId);
    await startRun(fleet, threadId, "asksTwice", { name: "two" });
    await ended(events);
    const [first = "", second = ""] = events
      .filter(({ method }) => method === "input.requested")
      .map(({ params }) => String(params.data["interrupt_id"]));
    const respond = (id: number, question: string): Promise<object> =>
      command(
        fleet,
        threadId,
        "input.respond",
        { namespace: [], interrupt_id: question, response: "yes" },
        id,
      );
    expect(await respond(2, first)).toMatchObject({ type: "success" });
    await ended(events, 2);
    const client = new Client({ apiUrl: fleet.url, callerOptions: { fetch: fleet.fetch } });
    const [found] = await client.threads.search({ ids: [threadId] });
    for (const { interrupts } of [await client.threads.get(threadId), Object(found)])
      expect(Object.values(interrupts).flat()).toMatchObject([{ id: second }]);
    expect(await respond(3, first)).toMatchObject({
      error: "no_such_interrupt",
      message: `Question ${first} is not open on this thread. Open are: ${second}.`,
    });
    expect(await respond(4, second)).toMatchObject({ type: "success" });
    await ended(events, 3);
    expect(roots(events).at(-1)).toBe("completed");
  });

  test("a repeated run.start never makes two runs", async () => {
    const threadId = randomUUID();
    const client = new Client({ apiUrl: fleet.url, apiKey: null, callerOptions: { fetch: fleet.fetch } });
    const input = { messages: [{ role: "user", content: "once", id: randomUUID() }] };
    const [first, second] = await Promise.all([
      startRun(fleet, threadId, "echo", input),
      startRun(fleet, threadId, "echo", input),
    ]);
    expect(first).toMatchObject({ type: "success" });
    expect(Object(second["result"])).toEqual(Object(first["result"]));
    expect((await client.runs.list(threadId)).length).toBe(1);
    await command(fleet, threadId, "run.start", { assistant_id: "echo", input }, 2);
    expect((await client.runs.list(threadId)).length).toBe(2);
  });
});
