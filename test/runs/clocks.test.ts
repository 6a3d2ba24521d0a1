// Servers whose clocks differ: what a run writes is newer than what was there, whoever wrote that.
import { randomUUID } from "node:crypto";
import { afterEach, expect, test, vi } from "vitest";
import { useServer } from "../support/server.ts";

const held = useServer();

afterEach(() => {
  vi.restoreAllMocks();
});

/** This process with a clock that is so far behind: as another server, after those before it. */
function fallBehind(ms: number): void {
  const real = Date.now.bind(Date);
  vi.spyOn(Date, "now").mockImplementation(() => real() - ms);
}

const ask = (threadId: string, text: string, more: object = {}): Promise<unknown> =>
  held.server.client.runs.wait(threadId, "topical", {
    input: { messages: [{ type: "human", content: text }] },
    raiseError: false,
    ...more,
  });

const inADay = (next: unknown): number => new Date(String(next)).getTime() - Date.now() - 86_400_000;

async function textsOf(threadId: string): Promise<string[]> {
  const { values } = await held.server.client.threads.getState<{ messages: { content: string }[] }>(threadId);
  return values.messages.map(({ content }) => content);
}

test("what a run on a server with a slow clock adds is there for the next one", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  await ask(threadId, "one");
  fallBehind(1500);
  await ask(threadId, "two");
  vi.restoreAllMocks();
  await ask(threadId, "three");
  const answers = ["about none: one", "about none+: two", "about none++: three"];
  expect((await textsOf(threadId)).filter((text) => text.startsWith("about"))).toEqual(answers);
});

test("a branch from an older checkpoint, and a change by hand, are the newest state too", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  await ask(threadId, "one");
  const { checkpoint } = await client.threads.getState(threadId);
  await ask(threadId, "two");
  fallBehind(700);
  await ask(threadId, "other", { checkpointId: checkpoint.checkpoint_id });
  vi.restoreAllMocks();
  expect(await textsOf(threadId)).toEqual(["one", "about none: one", "other", "about none+: other"]);
  fallBehind(700);
  await client.threads.updateState(threadId, { values: { topic: "hand" } });
  vi.restoreAllMocks();
  await ask(threadId, "last");
  expect((await textsOf(threadId)).at(-1)).toBe("about hand: last");
});

test.each([1, -1])(
  "a cron that is made or changed where the clock is %i days ahead comes as the database says",
  async (days) => {
    const { crons } = held.server.client;
    fallBehind(-days * 86_400_000);
    const made = await crons.create("topical", { schedule: "0 0 * * *", input: { messages: [] } });
    const changed = await crons.create("topical", { schedule: "0 1 1 1 *", input: { messages: [] } });
    await crons.update(changed.cron_id, { schedule: "0 0 * * *" });
    vi.restoreAllMocks();
    const all = await crons.search();
    for (const { cron_id: id } of [made, changed]) {
      const next = all.find((one) => one.cron_id === id)?.next_run_date;
      expect(inADay(next)).toBeLessThanOrEqual(0);
      expect(inADay(next)).toBeGreaterThan(-86_400_000);
    }
  },
);

test.each([60_000, -60_000])(
  "a command that is sent again to a server whose clock is %i ms behind begins no second run",
  async (ms) => {
    const { client, url } = held.server;
    const threadId = randomUUID();
    const params = { assistant_id: "topical", input: { messages: [{ type: "human", content: "one" }] } };
    const body = JSON.stringify({ id: 1, method: "run.start", params });
    const send = async (): Promise<unknown> =>
      (await fetch(`${url}/threads/${threadId}/commands`, { method: "POST", body })).json();
    const first = await send();
    expect(first).toMatchObject({ type: "success" });
    fallBehind(ms);
    expect(await send()).toMatchObject({ type: "success", result: Object(first).result });
    vi.restoreAllMocks();
    expect(await client.runs.list(threadId)).toHaveLength(1);
  },
);

test("where a server wrote whose clock was far ahead, nothing is lost: a run there fails and says why", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  fallBehind(-60_000);
  await ask(threadId, "one");
  const before = await textsOf(threadId);
  vi.restoreAllMocks();
  expect(await ask(threadId, "two")).toMatchObject({ __error__: { error: "ClockBehind" } });
  await expect(client.threads.updateState(threadId, { values: { topic: "hand" } })).rejects.toThrow(
    "HTTP 503",
  );
  fallBehind(-60_000);
  expect(await textsOf(threadId)).toEqual(before);
  await ask(threadId, "three");
  expect((await textsOf(threadId)).at(-1)).toBe("about none+: three");
});
