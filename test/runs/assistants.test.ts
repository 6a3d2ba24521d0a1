// Assistants are one thing for all servers: what one makes, changes or deletes is so for the next run on any other.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { usePair } from "../fixtures/pair.ts";
import type { TestServer } from "../support/server.ts";

const pair = usePair({ HOLDFAST_CONFIG: "test/fixtures/kinds.langgraph.json" });

async function tellOf(server: TestServer, assistant: string): Promise<Record<string, unknown>> {
  const { told } = Object(await server.client.runs.wait(null, assistant, { input: {} }));
  return told;
}

const saying = (word: string) => ({
  config: { configurable: { tone: word } },
  context: { mood: word },
  metadata: { team: word },
});

test("an assistant made on one server runs at once on another, with its config and context", async () => {
  for (const [one, other] of [
    [pair.here, pair.there],
    [pair.there, pair.here],
  ] as const) {
    const { assistant_id: id } = await one.client.assistants.create({ graphId: "telling", ...saying("x") });
    expect(await tellOf(other, id)).toEqual({ tone: "x", mood: "x", team: "x", assistant: id });
    expect(await one.client.assistants.delete(id)).toEqual([id]);
    await expect(tellOf(other, id)).rejects.toThrow("HTTP 404: No assistant found");
  }
});

test("the run after a change is made from it, whichever server was asked for either", async () => {
  const { client } = pair.here;
  const { assistant_id: made } = await client.assistants.create({ graphId: "telling" });
  for (const assistant of ["telling", made]) {
    for (const word of ["one", "two", "three"]) {
      await client.assistants.update(assistant, saying(word));
      for (const server of [pair.there, pair.here])
        expect(await tellOf(server, assistant)).toMatchObject({ tone: word, mood: word, team: word });
    }
    const { version } = await pair.there.client.assistants.get(assistant);
    await client.assistants.setLatest(assistant, version - 1);
    expect(await tellOf(pair.there, assistant)).toMatchObject({ tone: "two" });
  }
});

test("a change reaches a run that has to wait for its turn, or whose thread is new", async () => {
  const { client } = pair.there;
  const { thread_id: busy } = await client.threads.create();
  const live = await client.runs.create(busy, "endless", { input: {} });
  await pair.here.client.assistants.update("telling", saying("late"));
  const waiting = await client.runs.create(busy, "telling", { input: {}, multitaskStrategy: "enqueue" });
  await pair.here.client.assistants.update("telling", saying("later"));
  const fresh = await client.runs.create(randomUUID(), "telling", { input: {}, ifNotExists: "create" });
  await client.runs.cancel(busy, live.run_id, true);
  const toldBy = async (run: { thread_id: string; run_id: string }): Promise<unknown> =>
    Reflect.get(Object(await client.runs.join(run.thread_id, run.run_id)), "told");
  // What was accepted stays as it was accepted.
  expect(await toldBy(waiting)).toMatchObject({ tone: "late", mood: "late", team: "late" });
  expect(await toldBy(fresh)).toMatchObject({ tone: "later", mood: "later", team: "later" });
});

test("while an assistant changes all the time, each run is made from one version, and none is refused", async () => {
  const { assistant_id: id } = await pair.here.client.assistants.create({
    graphId: "telling",
    ...saying("0"),
  });
  const over = new AbortController();
  const change = async (): Promise<void> => {
    for (let count = 1; !over.signal.aborted; count += 1) {
      await pair.here.client.assistants.update(id, saying(String(count)));
      expect(await tellOf(pair.there, id)).toMatchObject({ tone: String(count) });
    }
  };
  const changing = change();
  const told = await Promise.all(
    Array.from({ length: 40 }, (_, index) => tellOf(index % 2 === 0 ? pair.there : pair.here, id)),
  );
  over.abort();
  await changing;
  for (const { tone, mood, team } of told) expect([mood, team]).toEqual([tone, tone]);
});

test("a run outlives its assistant, also when it has not begun", async () => {
  const { client } = pair.here;
  const { assistant_id: id } = await client.assistants.create({ graphId: "telling", ...saying("kept") });
  const { thread_id: threadId } = await client.threads.create();
  const run = await client.runs.create(threadId, id, { input: {}, afterSeconds: 1 });
  expect(await pair.there.client.assistants.delete(id)).toEqual([id]);
  expect(await client.runs.join(threadId, run.run_id)).toEqual({
    told: { tone: "kept", mood: "kept", team: "kept", assistant: id },
  });
});

test("a run goes on with the graph it was accepted for when its assistant moves to another", async () => {
  const { client } = pair.here;
  const { assistant_id: id } = await client.assistants.create({ graphId: "telling", ...saying("moved") });
  const { thread_id: threadId } = await client.threads.create();
  const run = await client.runs.create(threadId, id, { input: {}, afterSeconds: 1 });
  await pair.there.client.assistants.update(id, { graphId: "annotated" });
  expect(await client.runs.join(threadId, run.run_id)).toMatchObject({ told: { tone: "moved" } });
  expect(await pair.here.client.runs.wait(null, id, { input: {} })).toEqual({ count: 1 });
});

test("a cron fires with what its assistant is then", async () => {
  const { client } = pair.here;
  const { assistant_id: id } = await client.assistants.create({ graphId: "telling", ...saying("old") });
  const { thread_id: threadId } = await client.threads.create();
  const { cron_id: cronId } = await client.crons.createForThread(threadId, id, {
    schedule: "* * * * * *",
    input: {},
    enabled: false,
  });
  await pair.there.client.assistants.update(id, saying("new"));
  await client.crons.update(cronId, { enabled: true });
  await expect
    .poll(async () => (await client.threads.getState(threadId)).values, { timeout: 10_000 })
    .toMatchObject({ told: { tone: "new" } });
  await client.crons.delete(cronId);
});
