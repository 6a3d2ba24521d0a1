// An answer that was given before costs nothing, whatever library asks for it, and is given to nobody who may not have it.
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { useModelEndpoint } from "../../server/config.ts";
import { startFakeModel } from "../support/model.ts";
import { startRedis } from "../support/redis.ts";
import { collect, startTestServer, useServer } from "../support/server.ts";
import { TEST_KEYS } from "../support/keys.ts";
import { until } from "../support/until.ts";

const settings = { HOLDFAST_CONFIG: "test/fixtures/cached.langgraph.json", HOLDFAST_KEYS: TEST_KEYS };
let failing = 0;
const fake = await startFakeModel({
  scripts: (model) => {
    if (model === "fake-first-fails" && failing++ === 0) return { pieces: ["Half"], ending: "cut" };
    if (model === "fake-first-fails") return { pieces: ["All", " of it"] };
    return model === "fake-mail" ? { pieces: ["Write to ada@", "example.org"] } : undefined;
  },
});
useModelEndpoint({ baseUrl: fake.url, apiKey: "sk-test" });
const held = useServer({ ...settings, OPENAI_BASE_URL: fake.url });
afterAll(() => fake.stop());
afterEach(() => fake.forgetCalls());

type Asked = { content?: string; graph?: string; at?: typeof held.server } & Record<string, unknown>;

async function ask({
  content = "hi",
  graph = "asking",
  at = held.server,
  ...configurable
}: Asked): Promise<string> {
  const input = { messages: [{ role: "user", content }] };
  const options = { input, config: { configurable }, raiseError: false };
  const values = (await at.client.runs.wait(null, graph, options)) as { messages?: { content: string }[] };
  return values.messages?.at(-1)?.content ?? JSON.stringify(values);
}

const rows = (): Promise<{ kind: string; value: Buffer }[]> =>
  held.scratch.database.query("select kind, value from holdfast.cache_entries where kind = 'responses'");

/** What is kept is kept beside the run that brought it. */
async function askFirst(asked: Asked): Promise<string> {
  const before = (await rows()).length;
  const said = await ask(asked);
  await until(async () => (await rows()).length > before, "an answer to be kept");
  return said;
}

const calls = async (): Promise<unknown> =>
  (await held.scratch.database.query("select count(*)::int as n from holdfast.model_calls"))[0];

// A cache is waited for half a second, and left alone for one after that: the first looks of a server that has just
// started may take longer on a busy machine.
beforeAll(async () => {
  const isKept = async (): Promise<boolean> => {
    fake.forgetCalls();
    await ask({ content: "warm" });
    return fake.calls.length === 0;
  };
  await until(isKept, "a question to be answered from the cache", 20_000);
  fake.forgetCalls();
}, 30_000);

test("the same question a second time costs no call, and says the same under another id", async () => {
  const question = { content: "the same question" };
  const said = await askFirst(question);
  const before = await calls();
  const [one, two] = await Promise.all([ask(question), ask({ ...question, streaming: true })]);
  expect([one, two, fake.calls.length, await calls()]).toEqual([said, said, 1, before]);
  const { thread_id: id } = await held.server.client.threads.create();
  const input = { messages: [{ role: "user", ...question }] };
  for (let n = 0; n < 2; n += 1) await held.server.client.runs.wait(id, "asking", { input });
  const state = await held.server.client.threads.getState<{ messages: object[] }>(id);
  expect(state.values.messages).toHaveLength(4);
});

test.each([
  [true, false],
  [false, true],
  [true, true],
])("a kept answer is streamed as a live one is (asked as a stream: %s, then: %s)", async (first, second) => {
  const content = `one two three ${first} ${second}`;
  await askFirst({ content, streaming: first });
  const stream = held.server.client.runs.stream(null, "asking", {
    input: { messages: [{ role: "user", content }] },
    config: { configurable: { streaming: second } },
    streamMode: "messages-tuple",
  });
  const frames = (await collect(stream)).filter(({ event }) => event === "messages");
  const pieces = frames.map(({ data }) => (data as [{ content: string }])[0].content);
  expect(pieces.join("")).toContain(content);
  expect(pieces.filter(Boolean).length).toBeGreaterThan(second ? 3 : 0);
  expect(fake.calls).toHaveLength(1);
});

test("a hundred runs that ask the same at the same time make one call", async () => {
  const asked = { model: "fake-slow-5tok-20ms", content: "a crowd", streaming: true };
  const said = await Promise.all(Array.from({ length: 100 }, () => ask(asked)));
  expect([new Set(said), fake.calls.length]).toEqual([new Set(["tok0 tok1 tok2 tok3 tok4"]), 1]);
});

test("when the one that is asked for all breaks off, another is made, and one only", async () => {
  const asked = { model: "fake-first-fails", streaming: true };
  const said = await Promise.all(Array.from({ length: 10 }, () => ask(asked)));
  expect(said.filter((one) => one === "All of it")).toHaveLength(9);
  expect(fake.calls).toHaveLength(2);
});

test("when the run that is asked for all is cancelled, the others get their answer", async () => {
  const { threads, runs } = held.server.client;
  const { thread_id: id } = await threads.create();
  const asked = { content: "cancelled", model: "fake-slow-20tok-25ms", streaming: true };
  const { content, ...configurable } = asked;
  const input = { messages: [{ role: "user", content }] };
  const { run_id: leader } = await runs.create(id, "asking", { input, config: { configurable } });
  await until(() => fake.calls.length === 1, "the first call");
  const others = Array.from({ length: 5 }, () => ask(asked));
  await runs.cancel(id, leader, true);
  expect(new Set(await Promise.all(others)).size).toBe(1);
  expect(fake.calls.length).toBe(2);
});

test("of an answer that breaks off nothing is kept", async () => {
  const before = (await rows()).length;
  for (const model of ["fake-cut-2", "fake-500", "fake-nofinish"]) await ask({ model, streaming: true });
  await askFirst({ content: "a whole one" });
  expect((await rows()).length).toBe(before + 1);
});

test("who does not ask for it gets an answer of his own, and the provider is not told of the header", async () => {
  await askFirst({ content: "own" });
  await ask({ content: "own", wish: "off" });
  expect(fake.calls).toHaveLength(2);
  await ask({ content: "own", model: "fake-nodone" });
  expect(fake.calls).toHaveLength(3);
});

test("what the graph's guard would change is not kept, and a graph with another mode has its own", async () => {
  for (let n = 0; n < 2; n += 1) await ask({ model: "fake-mail" });
  expect(fake.calls).toHaveLength(2);
  await askFirst({ model: "fake-mail", graph: "open" });
  expect(await ask({ model: "fake-mail", graph: "open" })).toContain("ada@example.org");
  expect(fake.calls).toHaveLength(3);
  await ask({ model: "fake-mail" });
  expect(fake.calls).toHaveLength(4);
});

test("with keys nothing of a question or an answer can be read in the table, and a changed row is a miss", async () => {
  await askFirst({ content: "zq7marker" });
  for (const { value } of await rows()) expect(value.includes("zq7marker")).toBe(false);
  await held.scratch.database.query(
    "update holdfast.cache_entries set value = set_byte(value, 40, get_byte(value, 40) # 1)",
  );
  expect([await ask({ content: "zq7marker" }), fake.calls.length]).toEqual(["zq7marker", 2]);
});

test("a kept answer is given where no budget is left for a call", async () => {
  await askFirst({ content: "frugal" });
  const budget = { scope: "tenant", unit: "tokens", period: "day", max: 1 };
  const headers = { "content-type": "application/json" };
  const send = async (method: string, path: string, body?: string): Promise<Response> =>
    fetch(`${held.server.url}${path}`, { method, headers, ...(body ? { body } : {}) });
  const { budget_id: id } = (await (await send("POST", "/budgets", JSON.stringify(budget))).json()) as {
    budget_id: string;
  };
  onTestFinished(async () => void (await send("DELETE", `/budgets/${id}`)));
  expect(await ask({ content: "frugal" })).toBe("frugal");
  expect(await ask({ content: "not asked before" })).toContain("BudgetExceeded");
});

test("what a server's caches did is told", async () => {
  const info = (await (await fetch(`${held.server.url}/info`)).json()) as { cache: object };
  expect(info.cache).toMatchObject({ store: "postgres", responses: { hits: expect.any(Number) } });
});

describe("with a Redis", async () => {
  const redis = await startRedis();
  afterAll(() => redis.stop());

  const start = async (fail: string): Promise<typeof held.server> => {
    const server = await startTestServer(held.scratch.url, {
      ...settings,
      OPENAI_BASE_URL: fake.url,
      HOLDFAST_CACHE_URL: redis.url,
      HOLDFAST_CACHE_FAIL: fail,
    });
    onTestFinished(async () => {
      await server.stop();
      await redis.set("on");
    });
    return server;
  };

  test.each(["cut", "silent"] as const)("that is %s runs end as without one", async (state) => {
    const at = await start("open");
    await redis.set(state);
    for (let n = 0; n < 2; n += 1) expect(await ask({ content: state, at })).toBe(state);
    expect(fake.calls).toHaveLength(2);
  });

  test("that is gone runs that ask for it are refused where the operator says so, and others are not", async () => {
    const at = await start("closed");
    await redis.set("cut");
    expect(await ask({ content: "closed", at })).toContain("CacheUnavailable");
    expect(fake.calls).toEqual([]);
    expect(await ask({ content: "closed", at, wish: "off" })).toBe("closed");
  });

  test("an answer is kept there, and given by another server", async () => {
    const [at, other] = [await start("open"), await start("open")];
    await ask({ content: "everywhere", at });
    await until(async () => {
      fake.forgetCalls();
      return (await ask({ content: "everywhere", at: other })) === "everywhere" && fake.calls.length === 0;
    }, "an answer from Redis");
    expect(await ask({ content: "everywhere", at: other, wish: "off" })).toBe("everywhere");
    expect(fake.calls).toHaveLength(1);
  });
});
