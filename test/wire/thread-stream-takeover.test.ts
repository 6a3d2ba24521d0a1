// The stream of a thread when instances die: official clients come back by themselves and miss nothing.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, describe, expect, test } from "vitest";
import { ONE_REQUEST, useCluster } from "../support/cluster.ts";
import { slowAnswer, startFakeModel } from "../support/model.ts";
import type { Frame } from "../support/server.ts";
import { shown } from "../support/shown.ts";
import { until } from "../support/until.ts";

const TOKENS = 60;
const { input: INPUT, whole: WHOLE } = slowAnswer(TOKENS, 30);

const model = await startFakeModel();
afterAll(() => model.stop());

const isDone = ({ data }: Frame): boolean => Object(data).status === "run_done";
const isToken = ({ event }: Frame): boolean => event === "messages";

describe("instances: 3", () => {
  const cluster = useCluster(3, {
    OPENAI_API_KEY: "none",
    OPENAI_BASE_URL: model.url,
    HOLDFAST_CONFIG: "test/fixtures/laws.langgraph.json",
    HOLDFAST_DRAIN_MS: "100",
    HOLDFAST_LOG_LEVEL: "info",
  });

  test.each([
    { how: "killed", signal: "SIGKILL" },
    { how: "stopped", signal: "SIGTERM" },
  ] as const)("the owner of a run is $how: each event comes once", async ({ signal }) => {
    const client = new Client({ apiUrl: cluster.url, apiKey: null, defaultHeaders: ONE_REQUEST });
    const threadId = randomUUID();
    await client.threads.create({ threadId });
    const gone = new AbortController();
    // One for each instance: whichever dies, a stream was on it, and one was not.
    const streams = cluster.urls.map(() => {
      const frames: Frame[] = [];
      const options = { lastEventId: "-1", signal: gone.signal };
      void (async () => {
        for await (const frame of client.threads.joinStream(threadId, options)) frames.push(frame);
      })().catch(() => undefined); // the signal ends it
      return frames;
    });
    const asked = { input: INPUT, streamMode: ["messages-tuple" as const], durability: "sync" as const };
    const { run_id: runId } = await client.runs.create(threadId, "talk", asked);
    const next = await client.runs.create(threadId, "silent", { input: {}, multitaskStrategy: "enqueue" });
    await until(() => streams.every((frames) => frames.filter(isToken).length > 5), "the first tokens");
    const owner = await cluster.ownerOf(runId);
    owner.process.kill(signal);
    await until(
      () => streams.every((frames) => frames.filter(isDone).length === 2),
      "the end of both runs",
      20_000,
    );
    gone.abort();
    const [first = []] = streams;
    for (const frames of streams) expect(frames).toEqual(first);
    expect(new Set(first.map(({ id }) => id)).size).toBe(first.length);
    expect(first.filter(({ event }) => event === "metadata").map(({ data }) => data)).toEqual([
      { run_id: runId, attempt: 1 },
      { run_id: runId, attempt: 2 },
      { status: "run_done", run_id: runId },
      { run_id: next.run_id, attempt: 1 },
      { status: "run_done", run_id: next.run_id },
    ]);
    const answers = shown(first.slice(0, first.findIndex(isDone)));
    expect(answers.map(([, text]) => text)).toEqual([WHOLE]);
    await cluster.restart(owner);
  });
});
