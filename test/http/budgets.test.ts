// Budgets hold for every graph, whatever library calls the model, and say what they refuse.
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { useModelEndpoint } from "../../server/config.ts";
import { startFakeModel } from "../support/model.ts";
import { startTestServer, useServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";

const fake = await startFakeModel();
useModelEndpoint({ baseUrl: fake.url, apiKey: "sk-test" });
const held = useServer({
  HOLDFAST_CONFIG: "test/fixtures/asking.langgraph.json",
  OPENAI_BASE_URL: fake.url,
  HOLDFAST_MAX_OUTPUT_TOKENS: "50",
});
afterAll(() => fake.stop());

type Json = Record<string, unknown>;

async function send(
  method: string,
  path: string,
  body?: object,
  as?: string,
  at = held.server,
): Promise<Response> {
  return fetch(`${at.url}${path}`, {
    method,
    headers: { "content-type": "application/json", ...(as ? { authorization: `Bearer ${as}` } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
}

const made: string[] = [];
async function limit(budget: object, as?: string, at = held.server): Promise<Json> {
  const response = await send("POST", "/budgets", budget, as, at);
  expect(response.status).toBe(200);
  const row = (await response.json()) as Json;
  made.push(String(row["budget_id"]));
  return row;
}
afterEach(async () => {
  for (const id of made.splice(0)) await send("DELETE", `/budgets/${id}`);
  fake.forgetCalls();
});

const ask = (configurable: Json = {}, content = "hello there"): Promise<unknown> =>
  held.server.client.runs.wait(null, "asking", {
    input: { messages: [{ role: "user", content }] },
    config: { configurable },
    raiseError: false,
  });

const shown = async (id: unknown): Promise<Json & { periods: Json[] }> =>
  (await send("GET", `/budgets/${String(id)}`)).json() as Promise<Json & { periods: Json[] }>;

const tenant = { scope: "tenant", unit: "tokens", period: "day" } as const;

test("a call of a plain client is charged what the provider billed, and what is free says so", async () => {
  const { budget_id: id } = await limit({ ...tenant, max: 1000 });
  await ask();
  const [call] = await held.scratch.database.query<Json>(
    "select node, state, input_tokens::int, output_tokens::int from holdfast.model_calls order by created_at desc limit 1",
  );
  expect(call).toEqual({ node: "ask", state: "settled", input_tokens: 9, output_tokens: 2 });
  expect((await shown(id)).periods).toMatchObject([{ spent: 11, reserved: 0, free: 989, max: 1000 }]);
});

test("a budget that is too small ends the run before anything is sent, and says how much is left and until when", async () => {
  const { budget_id: id } = await limit({ ...tenant, max: 40 });
  const answer = await ask();
  expect(answer).toMatchObject({
    __error__: {
      error: "BudgetExceeded",
      code: "budget_exceeded",
      budget: {
        budget_id: id,
        scope: "tenant",
        unit: "tokens",
        period: "day",
        max: 40,
        free: 40,
        asked: 197,
      },
    },
  });
  expect(JSON.stringify(answer)).toMatch(
    /40 tokens a day for this tenant has 40 tokens left.*Nothing was sent/,
  );
  expect(fake.calls).toEqual([]);
});

test("where a budget applies every call has a ceiling; where none does, calls are sent as they are", async () => {
  await ask();
  expect(fake.calls[0]?.body).not.toHaveProperty("max_tokens");
  await limit({ ...tenant, max: 1000 });
  await ask();
  await ask({ maxTokens: 7 });
  expect(fake.calls.slice(1).map(({ body }) => body.max_tokens ?? body.max_completion_tokens)).toEqual([
    50, 7,
  ]);
});

test("a budget of money refuses a model without a price, and counts one that has one", async () => {
  const { budget_id: id } = await limit({ ...tenant, unit: "usd", max: 0.01 });
  expect(await ask()).toMatchObject({ __error__: { message: expect.stringContaining("has no price") } });
  await ask({ model: "gpt-4.1-mini" });
  const [period] = (await shown(id)).periods;
  expect(period?.["spent"]).toBeGreaterThan(0);
  expect(period?.["spent"]).toBeLessThan(0.0001);
});

test("a request that cannot be counted passes without a budget, and is refused with one", async () => {
  const other = { useResponsesApi: true };
  expect(JSON.stringify(await ask(other))).not.toContain("BudgetExceeded");
  await limit({ ...tenant, max: 1000 });
  expect(await ask(other)).toMatchObject({ __error__: { error: "BudgetExceeded" } });
  expect(await ask({ isAnthropic: true })).toMatchObject({
    __error__: { error: "BudgetExceeded", message: expect.stringMatching(/^A budget applies/) },
  });
});

test("a provider that refuses costs nothing; an answer that breaks off costs what it may have cost", async () => {
  const { budget_id: id } = await limit({ ...tenant, max: 5000 });
  await ask({ model: "fake-401" });
  expect((await shown(id)).periods).toMatchObject([{ spent: 0, reserved: 0 }]);
  const stream = held.server.client.runs.stream(null, "asking", {
    input: { messages: [{ role: "user", content: "hello there" }] },
    config: { configurable: { model: "fake-cut-3" } },
    streamMode: ["messages"],
  });
  for await (const _ of stream);
  expect((await shown(id)).periods).toMatchObject([{ spent: 147 + 50, reserved: 0 }]);
});

test.each([
  [{ ...tenant, max: -1 }, "max"],
  [{ ...tenant, max: 1.5 }, "max"],
  [{ ...tenant, unit: "usd", max: 0.000_000_1 }, "max"],
  [{ ...tenant, scope: "galaxy", max: 1 }, "scope"],
  [{ ...tenant, period: "fortnight", max: 1 }, "period"],
  [{ ...tenant, max: 1, most: 2 }, ""],
])("a budget that makes no sense is refused: %j", async (budget, field) => {
  const response = await send("POST", "/budgets", budget);
  expect(response.status).toBe(400);
  expect(await response.text()).toContain(field);
});

test("there is one budget of a kind, it can be changed and deleted, and each change is in the audit log", async () => {
  const { budget_id: id } = await limit({ ...tenant, max: 10 });
  const again = await send("POST", "/budgets", { ...tenant, max: 20 });
  expect([again.status, again.headers.get("x-holdfast-code")]).toEqual([409, "budget_exists"]);
  expect(await (await send("PATCH", `/budgets/${String(id)}`, { max: 30 })).json()).toMatchObject({
    max: 30,
  });
  for (const max of [1.5, -1])
    expect((await send("PATCH", `/budgets/${String(id)}`, { max })).status).toBe(400);
  expect((await send("DELETE", `/budgets/${String(id)}`)).status).toBe(204);
  for (const method of ["GET", "DELETE"]) {
    const gone = await send(method, `/budgets/${String(id)}`);
    expect([gone.status, gone.headers.get("x-holdfast-code")]).toEqual([404, "budget_not_found"]);
  }
  const entries = await held.scratch.database.query<{ action: string; detail: Json }>(
    "select action, detail from holdfast.audit_entries where object = $1 order by entry_id",
    [`budget ${String(id)}`],
  );
  const told = entries.map(({ action, detail }) => [action, detail["max"], detail["was"]]);
  expect(told).toEqual([
    ["budget.created", 10, undefined],
    ["budget.changed", 30, 10],
    ["budget.deleted", 30, undefined],
  ]);
});

test.each([
  { of: "a graph by its name", place: { scope: "assistant", scope_id: "asking" } },
  {
    of: "a thread in capitals",
    place: { scope: "thread", scope_id: "01900000-0000-7000-8000-0000000000AB" },
  },
])("a budget of $of limits what is counted for it", async ({ place }) => {
  const { budget_id: id } = await limit({ ...place, unit: "tokens", period: "day", max: 0 });
  const threadId = "01900000-0000-7000-8000-0000000000ab";
  const { client } = held.server;
  await client.threads.create({ threadId, ifExists: "do_nothing" });
  const input = { messages: [{ role: "user", content: "hello there" }] };
  const ended = await client.runs.wait(threadId, "asking", { input, raiseError: false });
  expect(JSON.stringify(ended)).toContain("budget_exceeded");
  const query = new URLSearchParams(place).toString();
  expect(await (await send("GET", `/budgets?${query}`)).json()).toMatchObject([{ budget_id: id }]);
});

test("a budget that would limit nobody is refused", async () => {
  const kind = { unit: "tokens", period: "day", max: 5 };
  const refused = async (place: object): Promise<unknown[]> => {
    const answer = await send("POST", "/budgets", { ...kind, ...place });
    return [answer.status, answer.headers.get("x-holdfast-code")];
  };
  expect(await refused({ scope: "assistant", scope_id: "nobody" })).toEqual([404, "assistant_not_found"]);
  expect(await refused({ scope: "tenant", scope_id: "alice" })).toEqual([400, "input_invalid"]);
  for (const id of ["a\u0000b", "ada@example.org"])
    expect(await refused({ scope: "thread", scope_id: id })).toEqual([400, "input_invalid"]);
  expect((await send("GET", "/budgets?scope=thread&scope_id=%00")).status).toBe(400);
  expect((await send("GET", "/budgets/usage?thread_id=%00")).status).toBe(400);
});

test("usage is told by model and by node", async () => {
  await ask({ model: "fake-echo" });
  const lines = (await (await send("GET", "/budgets/usage?by=node")).json()) as Json[];
  expect(lines).toMatchObject([{ group: "ask", unpriced_calls: expect.any(Number) }]);
  const models = (await (await send("GET", "/budgets/usage?by=model")).json()) as Json[];
  expect(models.map(({ group }) => group)).toContain("fake-echo");
});

describe("with auth", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer(held.scratch.url, {
      HOLDFAST_CONFIG: "test/fixtures/budgeted.langgraph.json",
      OPENAI_BASE_URL: fake.url,
    });
  });
  afterAll(() => server.stop());

  const askAs = (user: string): Promise<unknown> =>
    new Client({ apiUrl: server.url, defaultHeaders: { authorization: `Bearer ${user}` } }).runs.wait(
      null,
      "asking",
      {
        input: { messages: [{ role: "user", content: "hello there" }] },
        config: { configurable: { maxTokens: 10 } },
        raiseError: false,
      },
    );

  test("each user has a limit of his own, and none of their names is kept", async () => {
    const daily = { scope: "user", unit: "tokens", period: "day" };
    await limit({ ...daily, max: 160 }, "operator", server);
    await limit({ ...daily, scope_id: "alice", max: 500 }, "operator", server);
    for (const user of ["alice", "alice", "bob"]) expect(await askAs(user)).not.toHaveProperty("__error__");
    expect(await askAs("bob")).toMatchObject({
      __error__: { budget: { scope: "user", max: 160, free: 149 } },
    });
    const list = await (await send("GET", "/budgets?scope=user&scope_id=alice")).text();
    expect(JSON.parse(list)).toMatchObject([{ max: 500, periods: [{ spent: 22 }] }]);
    expect(list).not.toContain("alice");
  });

  test("only who has the permission sees and sets budgets", async () => {
    const budget = { scope: "tenant", unit: "tokens", period: "hour", max: 10_000 };
    const statuses: number[] = [];
    for (const user of ["alice", "clerk", "operator"])
      for (const body of [undefined, budget])
        statuses.push((await send(body ? "POST" : "GET", "/budgets", body, user, server)).status);
    expect(statuses).toEqual([403, 403, 200, 403, 200, 200]);
  });
});
