// Laws of the wire when the instance that executes a run dies or stops: official clients come back by themselves, and
// what they show is whole.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { MessageTupleManager, StreamManager } from "@langchain/langgraph-sdk/ui";
import { afterAll, describe, expect, test } from "vitest";
import { SDKS } from "../support/clients.ts";
import type { OfficialClient, Sdk } from "../support/clients.ts";
import { ONE_REQUEST, useCluster } from "../support/cluster.ts";
import type { Cluster } from "../support/cluster.ts";
import type { Running } from "../support/holdfast.ts";
import { slowAnswer, startFakeModel } from "../support/model.ts";
import { collect } from "../support/server.ts";
import type { Frame } from "../support/server.ts";
import { shown } from "../support/shown.ts";
import { until } from "../support/until.ts";

const TOKENS = 24;
const { input: INPUT, whole: WHOLE } = slowAnswer(TOKENS, 30);

const model = await startFakeModel();
afterAll(() => model.stop());

const SETTINGS = {
  OPENAI_API_KEY: "none",
  OPENAI_BASE_URL: model.url,
  HOLDFAST_CONFIG: "test/fixtures/laws.langgraph.json",
  HOLDFAST_DRAIN_MS: "100",
  HOLDFAST_LOG_LEVEL: "info",
};

interface Watched {
  /** Executes the run. */
  readonly owner: Running;
  readonly client: OfficialClient;
  readonly threadId: string;
  readonly runId: string;
  /** All that the client yields, growing. */
  readonly frames: readonly Frame[];
  /** Settles as the client's stream does. */
  readonly ended: Promise<void>;
}

/** A run watched by the client that made it, in the middle of its answer. */
async function watchAnswer(cluster: Cluster, sdk: Sdk): Promise<Watched> {
  const client = cluster.connect(sdk);
  const threadId = randomUUID();
  let runId = "";
  const stream = client.runs.stream(threadId, "talk", {
    input: INPUT,
    streamMode: ["messages-tuple"],
    ifNotExists: "create",
    onRunCreated: (made) => (runId = made.run_id),
  });
  const frames: Frame[] = [];
  const ended = (async () => {
    for await (const frame of stream) frames.push(frame);
  })();
  await until(() => frames.length > 5, "the first tokens");
  return { owner: await cluster.ownerOf(runId), client, threadId, runId, frames, ended };
}

/** The client has seen every event once, and shows what the thread holds. */
async function expectWhole({ client, threadId, runId, frames }: Watched): Promise<void> {
  expect(frames.map(({ id }) => id)).toEqual(frames.map((_, index) => String(index)));
  const attempts = frames.filter(({ event }) => event === "metadata").map(({ data }) => data);
  expect(attempts).toEqual([1, 2].map((attempt) => ({ run_id: runId, attempt })));
  expect((await client.runs.get(threadId, runId)).status).toBe("success");
  const { values } = await client.threads.getState(threadId);
  const { messages } = values as { messages: { id: string; type: string; content: string }[] };
  expect(messages.map(({ content }) => content)).toEqual(["hold fast", WHOLE]);
  const answers = messages.filter(({ type }) => type === "ai");
  expect(shown(frames)).toEqual(answers.map(({ id, content }) => [id, content]));
  expect(await collect(client.runs.joinStream(threadId, runId))).toEqual(frames);
}

// Of one instance nobody is left to take over, and clients give up in seconds.
describe("instances: 3", () => {
  const cluster = useCluster(3, SETTINGS);

  describe.each(SDKS)("SDK $sdk", (sdk) => {
    test("kill -9 of the owner mid-token loses and repeats nothing", async () => {
      const watched = await watchAnswer(cluster, sdk);
      watched.owner.process.kill("SIGKILL");
      await watched.ended;
      expect((await watched.owner.ended).code).toBeNull(); // ended by the signal alone
      await expectWhole(watched);
      await cluster.restart(watched.owner);
    });
  });

  describe.each(SDKS)("SDK $sdk", (sdk) => {
    test("draining resets streams and never ends them cleanly", async () => {
      const watched = await watchAnswer(cluster, sdk);
      const { owner, threadId, runId } = watched;
      const url = cluster.urls.find((one) => owner.out().includes(one));
      const beside = await fetch(`${url}/threads/${threadId}/runs/${runId}/stream`);
      const end = beside.text().then(() => "a clean end", String);
      owner.process.kill("SIGTERM");
      expect(await end).toBe("TypeError: terminated");
      await watched.ended;
      expect((await owner.ended).code).toBe(0);
      await expectWhole(watched);
      await cluster.restart(owner);
    });
  });

  test("after a takeover assistant-ui, which reads messages as far as they have come, shows no half answer", async () => {
    const client = new Client({ apiUrl: cluster.url, defaultHeaders: ONE_REQUEST });
    const { thread_id: threadId } = await client.threads.create();
    const run = { id: "" };
    const page = new Map<string, string>();
    const stream = client.runs.stream(threadId, "talk", {
      input: INPUT,
      streamMode: ["messages", "updates", "custom"],
      onRunCreated: (made) => (run.id = made.run_id),
    });
    // As its accumulator does: a message that comes again takes the place of what it was, one to be removed goes.
    const reading = (async () => {
      for await (const { event, data } of stream) {
        if (event !== "messages/partial" && event !== "messages/complete") continue;
        for (const { id, type, content } of data as { id: string; type: string; content: string }[])
          if (type === "remove") page.delete(id);
          else page.set(id, content);
      }
    })();
    await until(() => [...page.values()].some((text) => text.length > 20), "the first tokens");
    const owner = await cluster.ownerOf(run.id);
    owner.process.kill("SIGKILL");
    await reading;
    const { values } = await client.threads.getState(threadId);
    const { messages } = values as { messages: { id: string; content: string }[] };
    expect([...page]).toEqual(messages.map(({ id, content }) => [id, content]));
    expect(messages.at(-1)?.content).toBe(WHOLE);
    await owner.ended;
    await cluster.restart(owner);
  });

  test("after a takeover the half answer disappears from StreamManager", async () => {
    type Values = { messages: { type: string; content: string }[] };
    const manager = new StreamManager<Values>(new MessageTupleManager(), { throttle: false });
    const texts: string[] = [];
    manager.subscribe(() => {
      const answer = manager.values?.messages.find(({ type }) => type === "ai");
      texts.push(answer?.content ?? "");
    });
    const client = new Client({ apiUrl: cluster.url, defaultHeaders: ONE_REQUEST });
    const threadId = await cluster.newThread();
    const { promise: created, resolve: onRunCreated } = Promise.withResolvers<{ run_id: string }>();
    const options = { input: INPUT, streamMode: ["messages-tuple" as const], onRunCreated };
    const done = manager.start(
      async (signal) => client.runs.stream(threadId, "talk", { ...options, signal }) as never,
      {
        getMessages: ({ messages }) => messages as never,
        setMessages: (current, messages) => ({ ...current, messages: messages as Values["messages"] }),
        initialValues: { messages: [] },
        callbacks: {},
        onSuccess: () => undefined,
        onError: (error) => expect.fail(String(error)),
      },
    );
    const { run_id: runId } = await created;
    await until(() => (texts.at(-1) ?? "").includes("tok5"), "half an answer");
    const owner = await cluster.ownerOf(runId);
    owner.process.kill("SIGKILL");
    await done;
    const half = texts.findLastIndex((text, index) => text.length < (texts[index - 1]?.length ?? 0));
    expect(texts[half]).not.toContain("tok5");
    // From there on the answer grows to its end, and stands there once.
    expect(texts.slice(half).every((text) => WHOLE.startsWith(text.trim()))).toBe(true);
    expect(manager.values?.messages.map(({ content }) => content)).toEqual([WHOLE]);
    await cluster.restart(owner);
  });
});
