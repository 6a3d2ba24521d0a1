// Laws of protocol v2 when the server that executes a run dies: two servers as operators run them, behind one address.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { StreamController } from "@langchain/langgraph-sdk/stream";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { startBalancer } from "../support/balancer.ts";
import type { Balancer } from "../support/balancer.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { startFakeModel } from "../support/model.ts";
import type { FakeModel } from "../support/model.ts";
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
  await Promise.all(servers.map(({ ended }) => ended));
  await balancer?.stop();
});
afterAll(async () => {
  await model?.stop();
  await scratch?.close();
});

const urlOf = (server: Running): string => /Ready on (\S+)/.exec(server.out())?.[1] ?? "";

async function startTwo(): Promise<{ url: string; owner: Running; other: Running }> {
  const settings = {
    DATABASE_URL: scratch?.url ?? "",
    OPENAI_API_KEY: "none",
    OPENAI_BASE_URL: model?.url ?? "",
    HOLDFAST_CONFIG: "test/fixtures/protocol.langgraph.json",
    HOLDFAST_POOL_SIZE: "5",
    HOLDFAST_DRAIN_MS: "100",
    PORT: "0",
  };
  const [owner, other] = [startHoldfast(["serve"], settings), startHoldfast(["serve"], settings)];
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
