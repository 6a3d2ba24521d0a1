// Servers that die between two runs of one thread: the first is over, and nobody was told of it, or the next has not begun.
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { ended, roots, startRun, watch } from "../support/protocol.ts";
import type { Event } from "../support/protocol.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

const start = (command: string[], settings: Record<string, string> = {}): Running =>
  startHoldfast(command, {
    DATABASE_URL: scratch.url,
    PORT: "0",
    HOLDFAST_CONFIG: "test/fixtures/protocol.langgraph.json",
    HOLDFAST_POOL_SIZE: "5",
    HOLDFAST_DRAIN_MS: "0",
    ...settings,
  });

const textsOf = (events: readonly Event[]): unknown[] =>
  events
    .filter(({ method, params }) => method === "values" && params.namespace.length === 0)
    .map(({ params }) => (params.data["messages"] as { content: string }[]).map(({ content }) => content));

const ONE = ["one", "alpha beta"];

test.each(["run.ended:1", "run.promoting:1", "run.claimed:2"])(
  "who follows the thread is told both runs, each once, when the server dies at %s",
  async (fault) => {
    const front = start(["serve", "--no-worker"]);
    await front.says("Ready on");
    const url = /Ready on (\S+)/.exec(front.out())?.[1] ?? "";
    const client = new Client({ apiUrl: url, apiKey: null });
    const { thread_id: threadId } = await client.threads.create();
    const gone = new AbortController();
    const place = { url, fetch };
    const events = await watch(place, threadId, gone.signal);
    const legacy: string[] = [];
    const joining = (async () => {
      for await (const { event } of client.threads.joinStream(threadId, { signal: gone.signal }))
        legacy.push(event);
    })().catch(() => undefined); // until the signal ends it
    for (const content of ["one", "two"])
      await startRun(
        place,
        threadId,
        "echo",
        { messages: [{ role: "user", content }] },
        { multitask_strategy: "enqueue" },
      );
    // Both are there before the first begins, so that the second waits behind it.
    await start(["work"], { HOLDFAST_FAULT: fault }).ended;
    const next = start(["work"]);
    await ended(events, 2);
    expect(roots(events)).toEqual(["running", "completed", "running", "completed"]);
    // One state for the input and one for each of the two nodes: a state twice, or one too few, is a run told twice or not.
    expect(textsOf(events)).toEqual([
      ["one"],
      ["one"],
      ONE,
      [...ONE, "two"],
      [...ONE, "two"],
      [...ONE, "two", "alpha beta"],
    ]);
    expect(new Set(events.map(({ event_id: id }) => id)).size).toBe(events.length);
    // Each run's begin and end, since they stream nothing to legacy clients.
    await expect.poll(() => legacy).toEqual(["metadata", "metadata", "metadata", "metadata"]);
    gone.abort();
    await joining;
    for (const { process: child } of [front, next]) child.kill("SIGTERM");
    await Promise.all([front.ended, next.ended]);
  },
  60_000,
);
