// Laws of protocol v2 when the server that executes a run dies: two servers as operators run them, behind one address.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { StreamController } from "@langchain/langgraph-sdk/stream";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import { startBalancer } from "../support/balancer.ts";
import type { Balancer } from "../support/balancer.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { slowAnswer, startFakeModel } from "../support/model.ts";
import type { FakeModel } from "../support/model.ts";
import { ended, roots, startRun, watch } from "../support/protocol.ts";
import type { Event } from "../support/protocol.ts";
import { collect } from "../support/server.ts";
import { until } from "../support/until.ts";

const TOKENS = 40;
const WHOLE = Array.from({ length: TOKENS }, (_, index) => `tok${index}`).join(" ");
const INPUT = {
  messages: [{ role: "user", content: "hold fast" }],
  model: `fake-slow-${TOKENS}tok-30ms`,
};

let [scratch, model]: [TestDatabase?, FakeModel?] = [];
let balancer: Balancer | undefined;
let servers: Running[] = [];
let controller: StreamController | undefined;
beforeAll(async () => {
  [scratch, model] = await Promise.all([testDatabase(), startFakeModel()]);
});
afterEach(async () => {
  await controller?.dispose();
  for (const { process: child } of servers) child.kill("SIGTERM");
  await Promise.all(servers.map((server) => server.ended));
  await balancer?.stop();
});
afterAll(async () => {
  await model?.stop();
  await scratch?.close();
});

const urlOf = (server: Running): string => /Ready on (\S+)/.exec(server.out())?.[1] ?? "";

async function startTwo(
  more: Record<string, string> = {},
  roleOfOther: string[] = [],
): Promise<{ url: string; owner: Running; other: Running }> {
  const settings = {
    DATABASE_URL: scratch?.url ?? "",
    OPENAI_API_KEY: "none",
    OPENAI_BASE_URL: model?.url ?? "",
    HOLDFAST_CONFIG: "test/fixtures/protocol.langgraph.json",
    HOLDFAST_POOL_SIZE: "5",
    HOLDFAST_DRAIN_MS: "100",
    PORT: "0",
    ...more,
  };
  const owner = startHoldfast(["serve"], settings);
  const other = startHoldfast(["serve", ...roleOfOther], settings);
  servers = [owner, other];
  await Promise.all(servers.map((server) => server.says("Ready on")));
  balancer = await startBalancer(servers.map(urlOf));
  return { url: balancer.url, owner, other };
}

const textsOf = (one: StreamController): string[] =>
  one.rootStore.getSnapshot().messages.map(({ text }) => text);

/** All of a thread's events, in the order of their numbers. */
async function replay(
  url: string,
  threadId: string,
): Promise<{ event_id: string; seq: number; root: string | undefined }[]> {
  const gone = new AbortController();
  const asked = JSON.stringify({ channels: ["lifecycle", "messages", "values"], since: 0 });
  const path = `${url}/threads/${threadId}/stream/events`;
  const response = await fetch(path, { method: "POST", body: asked, signal: gone.signal });
  const { body } = response;
  if (!body) throw new Error("no body");
  let text = "";
  const reading = (async () => {
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) text += chunk;
  })().catch(() => undefined);
  await until(() => text.includes('"event":"completed","graph_name":"talk"'), "the run's end");
  gone.abort();
  await reading;
  return [...text.matchAll(/^data: (.*)$/gm)].map(([, json = ""]) => {
    const { event_id, seq, params } = JSON.parse(json) as {
      event_id: string;
      seq: number;
      params: { namespace: []; data: { event?: string } };
    };
    return { event_id, seq, root: event_id.startsWith("synth:") ? params.data.event : undefined };
  });
}

/** The messages of each state of the thread itself that was told. */
const statesOf = (events: readonly Event[]): { id: string; content: string }[][] =>
  events
    .filter(({ method, params }) => method === "values" && params.namespace.length === 0)
    .map(({ params }) => params.data["messages"] as { id: string; content: string }[]);

const isEmpty = ({ content }: { content: string }): boolean => content.length === 0;

const isOver = (events: readonly Event[], node: string): boolean =>
  events.some(
    ({ method, params: { namespace, data } }) =>
      method === "tasks" && namespace.length === 0 && data["name"] === node && "result" in data,
  );

/** How far the models at this depth of the graph have come. */
const saidIn = (events: readonly Event[], place: RegExp): string =>
  events
    .filter(({ method, params }) => method === "messages" && place.test(params.namespace.join("|")))
    .map(({ params }) => String(Object(params.data["delta"]).text ?? ""))
    .join("");

const lifeOf = (events: readonly Event[], node: string): unknown[] =>
  events
    .filter(({ method, params }) => method === "lifecycle" && params.namespace.length === 1)
    .filter(({ params }) => params.namespace[0]?.split(":")[0] === node)
    .map(({ params }) => params.data["event"]);

/** Begins and ends of messages. */
const messagesOf = (events: readonly Event[]): unknown[] =>
  events
    .filter(({ method }) => method === "messages")
    .map(({ params }) => params.data["event"])
    .filter((event) => event === "message-start" || event === "message-finish");

describe("a takeover", () => {
  const gone = new AbortController();
  afterAll(() => gone.abort());

  test("tells the end of a graph that was over already", async () => {
    const { url, owner, other } = await startTwo();
    const threadId = randomUUID();
    const events = await watch({ url: urlOf(other), fetch }, threadId, gone.signal);
    await startRun({ url, fetch }, threadId, "besides", slowAnswer(2, 1000).input);
    await until(() => isOver(events, "quick"), "the end of the quick one");
    owner.process.kill("SIGKILL");
    await ended(events);
    expect(roots(events)).toEqual(["running", "running", "completed"]);
    expect(lifeOf(events, "quick")).toEqual(["started", "completed"]);
  }, 60_000);

  test("tells the end of graphs that are run once more, as nothing of them was kept", async () => {
    const { owner, other } = await startTwo();
    const client = new Client({ apiUrl: urlOf(owner), apiKey: null });
    const { thread_id: threadId } = await client.threads.create();
    const events = await watch({ url: urlOf(other), fetch }, threadId, gone.signal);
    const { input } = slowAnswer(TOKENS, 40);
    await client.runs.create(threadId, "besides", { input, durability: "exit" });
    await until(() => saidIn(events, /^answer:/).length > 20, "the middle of the answer");
    owner.process.kill("SIGKILL");
    await ended(events);
    expect(roots(events)).toEqual(["running", "running", "completed"]);
    expect(lifeOf(events, "quick")).toEqual(["started", "completed", "started", "completed"]);
    expect(lifeOf(events, "answer")).toEqual(["started", "interrupted", "started", "completed"]);
  }, 60_000);

  test.each([
    { graph: "routes", node: "answer", what: "whose state nobody was told" },
    { graph: "remembers", node: "agent", what: "that remembers its earlier runs" },
  ])(
    "ends no graph that goes on, such as one $what",
    async ({ graph, node }) => {
      const { url, owner, other } = await startTwo();
      const threadId = randomUUID();
      const events = await watch({ url: urlOf(other), fetch }, threadId, gone.signal);
      await startRun({ url, fetch }, threadId, graph, slowAnswer(TOKENS, 40).input);
      const place = new RegExp(`^${node}`);
      await until(() => saidIn(events, place).includes("tok20"), "the middle of the answer");
      owner.process.kill("SIGKILL");
      await ended(events);
      expect(roots(events)).toEqual(["running", "running", "completed"]);
      expect(lifeOf(events, node)).toEqual(["started", "started", "completed"]);
    },
    60_000,
  );

  test("keeps what a called task has said, and ends the task that has called it", async () => {
    const { url, owner, other } = await startTwo();
    const threadId = randomUUID();
    const events = await watch({ url: urlOf(other), fetch }, threadId, gone.signal);
    await startRun({ url, fetch }, threadId, "calls", slowAnswer(TOKENS, 40).input);
    await until(() => saidIn(events, /\|say:/).includes("tok20"), "the middle of the second answer");
    // The first one is over, although the function that has called it is not.
    expect(messagesOf(events)).toEqual(["message-start", "message-finish", "message-start"]);
    owner.process.kill("SIGKILL");
    await ended(events);
    expect(roots(events)).toEqual(["running", "running", "completed"]);
    expect(messagesOf(events).slice(3)).toEqual(["message-start", "message-finish"]);
    expect(lifeOf(events, "calls")).toEqual(["started", "started", "completed"]);
  }, 60_000);

  /** Who takes the run over then may only end it. */
  async function diesInItsLastAttempt(
    graph = "besides",
  ): Promise<{ threadId: string; events: Event[]; other: Running }> {
    const { url, owner, other } = await startTwo({ HOLDFAST_MAX_ATTEMPTS: "1" });
    const threadId = randomUUID();
    const events = await watch({ url: urlOf(other), fetch }, threadId, gone.signal);
    await startRun({ url, fetch }, threadId, graph, slowAnswer(TOKENS, 40).input);
    await until(() => saidIn(events, /^answer:/).length > 20, "the middle of the answer");
    owner.process.kill("SIGKILL");
    await owner.ended;
    return { threadId, events, other };
  }

  test("that does nothing but end the run keeps what a finished task has said", async () => {
    const { threadId, events, other } = await diesInItsLastAttempt();
    await ended(events);
    const { threads } = new Client({ apiUrl: urlOf(other), apiKey: null });
    const { values } = await threads.getState<{ messages: { content: string }[] }>(threadId);
    expect(values.messages.map(({ content }) => content)).toEqual(["hold fast", "hold fast"]);
    expect(statesOf(events).at(-1)).toMatchObject(values.messages.map(({ content }) => ({ content })));
    expect(JSON.stringify(statesOf(events))).not.toContain("additional_kwargs");
  }, 60_000);

  test("that does nothing but end the run ends it also when the state cannot be read", async () => {
    const { events } = await diesInItsLastAttempt("chokes");
    await ended(events);
    expect(roots(events)).toEqual(["running", "running", "failed"]);
  }, 60_000);

  test("that does nothing but end the run tells the end of its graphs too", async () => {
    const { events } = await diesInItsLastAttempt();
    await ended(events);
    expect(roots(events)).toEqual(["running", "running", "failed"]);
    expect(lifeOf(events, "quick")).toEqual(["started", "completed"]);
    expect(lifeOf(events, "answer")).toEqual(["started", "failed"]);
  }, 60_000);

  test("that does nothing but end the run ends it also when the log cannot be read", async () => {
    const { threadId, other } = await diesInItsLastAttempt();
    await scratch?.database.query(
      "update holdfast.run_events e set body = 'broken' from holdfast.runs r where r.run_id = e.run_id and r.thread_id = $1 and e.seq > 0",
      [threadId],
    );
    const { runs } = new Client({ apiUrl: urlOf(other), apiKey: null });
    const status = async (): Promise<unknown> => (await runs.list(threadId))[0]?.status;
    // Between the two servers it is `pending` for a moment.
    const isOpen = async (): Promise<boolean> => ["pending", "running"].includes(String(await status()));
    await until(async () => !(await isOpen()), "the end of the run", 30_000);
    expect(await status()).toBe("error");
  }, 60_000);

  test("ends the calls of tools that the lost attempt had begun with the run", async () => {
    const { owner, other } = await startTwo();
    const gate = await startGate();
    const place = { url: urlOf(other), fetch };
    const client = new Client({ apiUrl: place.url, apiKey: null });
    const { thread_id: threadId } = await client.threads.create();
    const events = await watch(place, threadId, gone.signal);
    const calls = (): string[] =>
      events
        .filter(({ method }) => method === "tools")
        .map(({ params: { data } }) => `${String(data["event"])} ${String(data["tool_call_id"])}`);
    const input = { name: "lost", gate: gate.url };
    const { run_id: runId } = await new Client({ apiUrl: urlOf(owner), apiKey: null }).runs.create(
      threadId,
      "usesWithin",
      { input },
    );
    await until(() => calls().length === 1, "the call");
    owner.process.kill("SIGKILL");
    await until(() => calls().length === 2, "the call by the other server", 20_000);
    await client.runs.cancel(threadId, runId, true);
    await ended(events);
    expect(calls()).toHaveLength(4);
    expect(new Set(calls().slice(2))).toEqual(new Set(["tool-error call-1", "tool-error call-2"]));
    await gate.stop();
  }, 60_000);

  test("that nobody makes, because the run is cancelled while it waits for a worker, ends all that it began", async () => {
    const { owner, other } = await startTwo({}, ["--no-worker"]);
    const gate = await startGate();
    const place = { url: urlOf(other), fetch };
    const client = new Client({ apiUrl: place.url, apiKey: null });
    const { thread_id: threadId } = await client.threads.create();
    const events = await watch(place, threadId, gone.signal);
    const input = { name: "gone", gate: gate.url };
    const { run_id: runId } = await client.runs.create(threadId, "usesWithin", { input });
    await until(() => events.some(({ method }) => method === "tools"), "the call of the tool");
    owner.process.kill("SIGKILL");
    const status = async (): Promise<string> => (await client.runs.get(threadId, runId)).status;
    await until(async () => (await status()) === "pending", "the run to wait", 30_000);
    await client.runs.cancel(threadId, runId);
    await ended(events);
    const ends = events.slice(-4).map(({ method, params: { namespace, data } }) => {
      return `${method} ${namespace.length} ${String(data["event"])}`;
    });
    expect(ends).toEqual([
      "tools 2 tool-error",
      "lifecycle 2 interrupted",
      "lifecycle 1 interrupted",
      "lifecycle 0 interrupted",
    ]);
    // Whoever comes back is told the rest, wherever he was cut off.
    for (const left of [events.length, 5, 4, 3, 2, 1]) {
      const since = events.at(-left - 1)?.seq ?? 0;
      const later = await watch(place, threadId, gone.signal, { since });
      await ended(later);
      expect(later).toEqual(events.slice(-left));
    }
    await gate.stop();
  }, 60_000);

  test.each([
    { whose: "", asked: ["values"] },
    { whose: " with the events of LangChain", asked: ["values", "events"] },
    { whose: ", if the run goes on from a breakpoint", asked: ["values"], stopsFirst: true },
  ] as const)(
    "shows what a finished task has said all the time, and half messages never without their text$whose",
    async ({ asked, stopsFirst }) => {
      const { owner, other } = await startTwo();
      const client = new Client({ apiUrl: urlOf(owner), apiKey: null });
      const { thread_id: threadId } = await client.threads.create();
      const { input } = slowAnswer(TOKENS, 40);
      if (stopsFirst) await client.runs.wait(threadId, "besides", { input, interruptBefore: ["quick"] });
      const events = await watch({ url: urlOf(other), fetch }, threadId, gone.signal);
      const request = { input: stopsFirst ? null : input, streamMode: [...asked] };
      const { run_id: runId } = await client.runs.create(threadId, "besides", request);
      const hasBegun = (): boolean => saidIn(events, /^answer:/).length > 20;
      await until(() => hasBegun() && isOver(events, "quick"), "the middle of the answer");
      // It is over for followers while the other one still speaks.
      expect(lifeOf(events, "quick")).toEqual(["started", "completed"]);
      owner.process.kill("SIGKILL");
      await ended(events, stopsFirst ? 2 : 1);
      const again = events.findLastIndex((event) => roots([event])[0] === "running");
      expect(statesOf(events.slice(0, again)).flat().filter(isEmpty)).toHaveLength(1);
      expect(statesOf(events.slice(again)).flat().filter(isEmpty)).toEqual([]);
      const later = statesOf(events.slice(again)).map((messages) => JSON.stringify(messages));
      expect(later.map((text) => text.match(/hold fast/g)?.length)).toEqual([2, 2]);
      const apiUrl = urlOf(other);
      const frames = await collect(new Client({ apiUrl, apiKey: null }).runs.joinStream(threadId, runId));
      const attempt = frames.findLastIndex(({ event }) => event === "metadata");
      const states = frames
        .slice(attempt)
        .filter(({ event }) => event === "values")
        .map(({ data }) => (data as { messages: object[] }).messages);
      expect(states.map((messages) => messages.length)).toEqual([2, 3]);
    },
    60_000,
  );

  test("and a cancel leave what agents of tools say out of the thread's own messages", async () => {
    const { url, owner, other } = await startTwo();
    const threadId = randomUUID();
    const events = await watch({ url: urlOf(other), fetch }, threadId, gone.signal);
    await startRun({ url, fetch }, threadId, "delegates", slowAnswer(TOKENS, 40).input);
    const place = /^tools:[^|]*\|answer:/;
    await until(() => saidIn(events, place).length > 20, "the middle of the agent's answer");
    owner.process.kill("SIGKILL");
    await until(() => roots(events).length > 1, "the takeover");
    const before = events.length;
    await until(() => saidIn(events.slice(before), place).length > 20, "the answer again");
    const client = new Client({ apiUrl: urlOf(other), apiKey: null });
    const [run] = await client.runs.list(threadId);
    await client.runs.cancel(threadId, run?.run_id ?? "", true);
    await ended(events);
    expect(roots(events)).toEqual(["running", "running", "interrupted"]);
    expect(new Set(statesOf(events).map((messages) => messages.length))).toEqual(new Set([1]));
  }, 60_000);
});

describe.each(["sse", "websocket"] as const)("%s, who iterates when the owner is killed", (transport) => {
  async function iterate(graph: string, input: Record<string, unknown>, gone: AbortSignal) {
    const { owner, other } = await startTwo();
    const client = new Client({ apiUrl: urlOf(other), apiKey: null });
    const { thread_id: threadId } = await client.threads.create();
    const events = await watch({ url: urlOf(other), fetch }, threadId, gone);
    const thread = client.threads.stream(threadId, { assistantId: graph, transport });
    const start = (): Promise<unknown> =>
      new Client({ apiUrl: urlOf(owner), apiKey: null }).runs.create(threadId, graph, { input });
    return { owner, events, thread, start };
  }

  test("over messages goes on behind the half one before the run is over", async ({ signal }) => {
    const { input } = slowAnswer(TOKENS, 40);
    const { owner, events, thread, start } = await iterate("talk", input, signal);
    const texts: string[] = [];
    const reading = (async () => {
      for await (const { text } of thread.messages) texts.push(await text);
    })();
    await start();
    await until(() => saidIn(events, /^answer:/).length > 20, "the middle of the answer");
    owner.process.kill("SIGKILL");
    await until(() => texts.length === 1, "the end of the half message");
    expect(roots(events)).not.toContain("completed");
    await reading;
    expect(texts).toEqual([expect.stringMatching(/^tok0 /), WHOLE]);
    expect(WHOLE.startsWith(texts[0] ?? "")).toBe(true);
    await thread.close();
  }, 60_000);

  test("over calls of tools gets one call with one output", async ({ signal }) => {
    const gate = await startGate();
    const { owner, events, thread, start } = await iterate(
      "usesAgain",
      { name: "again", gate: gate.url },
      signal,
    );
    const outputs: Promise<unknown>[] = [];
    const reading = (async () => {
      for await (const { output } of thread.toolCalls) outputs.push(output);
    })();
    await start();
    await until(() => outputs.length === 1 && gate.came.length === 1, "the call");
    owner.process.kill("SIGKILL");
    await until(() => gate.came.length === 2, "the call by the other server");
    gate.open("again");
    await reading;
    // The client gives the same call out at its begin and at its end.
    expect(outputs).toHaveLength(2);
    expect(await Promise.all(outputs)).toEqual(["passed", "passed"]);
    const told = events.filter(({ method }) => method === "tools").map(({ params }) => params.data["event"]);
    expect(told).toEqual(["tool-started", "tool-finished"]);
    await thread.close();
    await gate.stop();
  }, 60_000);
});

describe.each([
  { how: "killed", signal: "SIGKILL", transport: "sse" },
  { how: "killed", signal: "SIGKILL", transport: "websocket" },
  { how: "stopped", signal: "SIGTERM", transport: "sse" },
  { how: "stopped", signal: "SIGTERM", transport: "websocket" },
] as const)("$transport, the owner is $how", ({ signal, transport }) => {
  test("a takeover drops the half message in StreamController", async () => {
    const { url, owner, other } = await startTwo();
    const client = new Client({ apiUrl: url, apiKey: null });
    const threadId = randomUUID();
    const control: StreamController = new StreamController({
      assistantId: "talk",
      client: client as never,
      threadId,
      transport,
    });
    controller = control;
    const seen: string[] = [];
    control.rootStore.subscribe(() => {
      const text = textsOf(control)[1] ?? "";
      if (text !== seen.at(-1)) seen.push(text);
    });
    await control.hydrate(threadId);
    const submitted = control.submit(INPUT);
    await until(() => (textsOf(control)[1] ?? "").length > 20, "the first tokens");
    owner.process.kill(signal);
    await submitted;
    await until(() => textsOf(control)[1] === WHOLE, "the whole answer");
    expect(textsOf(control)).toEqual(["hold fast", WHOLE]);
    // Whatever stood on the page was the beginning of the answer, never two beginnings one behind the other.
    expect(seen.filter((text) => !WHOLE.startsWith(text))).toEqual([]);
    const events = await replay(urlOf(other), threadId);
    expect(new Set(events.map(({ event_id: id }) => id)).size).toBe(events.length);
    expect(events.map(({ seq }) => seq)).toEqual(
      events.map(({ seq }) => seq).toSorted((left, right) => left - right),
    );
    expect(events.flatMap(({ root }) => root ?? [])).toEqual(["running", "running", "completed"]);
  });
});
