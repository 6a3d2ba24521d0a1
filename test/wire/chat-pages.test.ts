// Ready-made chat pages, by what they ask for: Agent Chat UI, which is legacy useStream over a list of threads, and
// assistant-ui, which reads messages as `messages/partial` and leaves a run by cancelling it.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { eachCluster } from "../support/cluster.ts";
import { collect } from "../support/server.ts";
import { until } from "../support/until.ts";

let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const saying = (content: string) => ({ messages: [{ id: randomUUID(), type: "human", content }] });
const textsOf = (values: unknown): string[] =>
  (Object(values).messages as { content: string }[]).map(({ content }) => content);

eachCluster({ HOLDFAST_CONFIG: "test/fixtures/laws.langgraph.json" }, (cluster) => {
  test("Agent Chat UI asks from another origin, with the headers of a hosted server", async () => {
    const headers = { origin: "https://chat.example", "x-api-key": "lsv2_x", "x-auth-scheme": "langsmith" };
    const asked = await cluster.ask("/info", {
      method: "OPTIONS",
      headers: {
        origin: headers.origin,
        "access-control-request-method": "GET",
        "access-control-request-headers": "x-api-key,x-auth-scheme",
        "access-control-request-private-network": "true",
      },
    });
    const allowed = asked.headers.get("access-control-allow-headers")?.toLowerCase() ?? "";
    expect([asked.status, allowed.split(/, ?/)]).toEqual([
      204,
      expect.arrayContaining(["x-api-key", "x-auth-scheme"]),
    ]);
    expect(asked.headers.get("access-control-allow-private-network")).toBe("true");
    const info = await cluster.ask("/info", { headers });
    expect([info.status, info.headers.get("access-control-allow-origin")]).toEqual([200, "*"]);
  });

  test("Agent Chat UI lists conversations by their graph, shows one and edits its first message", async () => {
    const { threads, runs } = cluster.client;
    const threadId = await cluster.newThread();
    const asPage = {
      streamMode: ["values" as const],
      streamSubgraphs: true,
      streamResumable: true,
      onDisconnect: "continue" as const,
    };
    const first = await collect(runs.stream(threadId, "echo", { ...asPage, input: saying("one") }));
    const listed = await threads.search({ metadata: { graph_id: "echo" }, limit: 100 });
    const shown = listed.find(({ thread_id: id }) => id === threadId);
    expect(textsOf(shown?.values)).toEqual(textsOf(first.at(-1)?.data));
    const history = await threads.getHistory(threadId, { limit: 10 });
    const before = history.find(({ values }) => !Object(values).messages?.length);
    expect(before).toBeDefined();
    const { thread_id: _thread, ...checkpoint } = Object(before).checkpoint;
    await collect(runs.stream(threadId, "echo", { ...asPage, input: saying("two"), checkpoint }));
    const { values } = await threads.getState(threadId);
    expect(textsOf(values)[0]).toBe("two");
    expect(textsOf(values)).toHaveLength(textsOf(shown?.values).length);
    // The other branch is there to go back to.
    const branches = (await threads.getHistory(threadId, { limit: 100 })).filter(
      ({ parent_checkpoint: parent }) => parent?.checkpoint_id === checkpoint.checkpoint_id,
    );
    expect(branches).toHaveLength(2);
  });

  test("Agent Chat UI finds a run that goes on after a reload, and stops it", async () => {
    const { threads, runs } = cluster.client;
    const threadId = await cluster.newThread();
    const name = randomUUID();
    const run = await runs.create(threadId, "slow", { input: { name, gate: gate.url } });
    await gate.waitFor(name);
    const [live] = await runs.list(threadId, { limit: 10, status: "running" });
    expect(live?.run_id).toBe(run.run_id);
    const joined = collect(runs.joinStream(threadId, run.run_id, { lastEventId: "-1" }));
    await runs.cancel(threadId, run.run_id);
    expect((await joined)[0]).toMatchObject({ event: "metadata", data: { run_id: run.run_id } });
    expect((await threads.get(threadId)).status).toBe("idle");
  });

  test("assistant-ui sees a message grow, and each message once complete", async () => {
    const { threads, runs } = cluster.client;
    const { thread_id: threadId } = await threads.create();
    const frames = await collect(
      runs.stream(threadId, "echo", {
        input: saying("hello"),
        streamMode: ["messages", "updates", "custom"],
        onDisconnect: "cancel",
      }),
    );
    const { values } = await threads.getState(threadId);
    const answer = textsOf(values).at(-1) ?? "";
    const partial = frames
      .filter(({ event }) => event === "messages/partial")
      .map(({ data }) => String(Object(data)[0].content));
    expect(partial.length).toBeGreaterThan(1);
    expect(partial.every((text, index) => text.startsWith(partial[index - 1] ?? ""))).toBe(true);
    expect(partial.at(-1)).toBe(answer);
    expect(frames.map(({ event }) => event)).toContain("updates");
  });

  test("assistant-ui answers a question of the graph by a command", async () => {
    const { threads, runs } = cluster.client;
    const { thread_id: threadId } = await threads.create();
    const asPage = {
      streamMode: ["messages" as const, "updates" as const, "custom" as const],
      onDisconnect: "cancel" as const,
    };
    const asked = await collect(runs.stream(threadId, "asking", { ...asPage, input: { count: 1 } }));
    expect(asked).toContainEqual(
      expect.objectContaining({ event: "updates", data: { __interrupt__: [expect.anything()] } }),
    );
    expect((await threads.getState(threadId)).tasks[0]?.interrupts).toHaveLength(1);
    await collect(runs.stream(threadId, "asking", { ...asPage, input: null, command: { resume: "yes" } }));
    expect((await threads.getState(threadId)).next).toEqual([]);
  });

  test("assistant-ui stops an answer by leaving its stream", async () => {
    const { threads, runs } = cluster.client;
    const { thread_id: threadId } = await threads.create();
    const [name, leaving] = [randomUUID(), new AbortController()];
    const reading = collect(
      runs.stream(threadId, "slow", {
        input: { name, gate: gate.url },
        streamMode: ["messages", "updates", "custom"],
        onDisconnect: "cancel",
        signal: leaving.signal,
      }),
    );
    reading.catch(() => undefined); // it fails while something else is awaited
    await gate.waitFor(name);
    leaving.abort();
    await expect(reading).rejects.toThrow("aborted");
    await until(async () => (await runs.list(threadId))[0]?.status === "interrupted", "the end of the run");
    expect((await threads.get(threadId)).status).toBe("idle");
  });
});
