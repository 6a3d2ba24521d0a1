// A provider that fails, under graphs that know nothing of it: runs go on where they can, clients see each text once, and
// servers learn from one another.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { useModelEndpoint } from "../../server/config.ts";
import type { Script } from "../../server/models/offline/scripts.ts";
import { startFakeModel } from "../support/model.ts";
import { collect, startTestServer, useServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const failing: Script = { refusal: { status: 500, code: "server_error", message: "down" } };
let failures = 0;
const fake = await startFakeModel({
  scripts: (model) => {
    if (model === "down" || model.startsWith("shared")) return failing;
    if (model === "shaky" && failures-- > 0) return failing;
    if (model === "dozes") return failures-- > 0 ? { isSilent: true } : { pieces: ["awake"] };
    return model === "stalls" ? { pieces: [], ending: "stall" } : undefined;
  },
});
useModelEndpoint({ baseUrl: fake.url, apiKey: "sk-test" });
const folder = mkdtempSync(join(tmpdir(), "holdfast-models-"));
const file = join(folder, "models.json");
const quick = { retry_base_ms: 5, retry_max_ms: 20 };
writeFileSync(
  file,
  JSON.stringify({
    defaults: quick,
    models: {
      down: { retries: 0, fallback: ["stalls", "fake-echo"] },
      stalls: { retries: 0, first_token_ms: 200 },
      "shared*": { retries: 0, breaker_window: 4, breaker_min_calls: 2, breaker_open_ms: 60_000 },
    },
    route: [{ from: "large", to: "fake-echo", max_prompt_tokens: 20, tools: false }],
  }),
);
const settings = {
  HOLDFAST_CONFIG: "test/fixtures/asking.langgraph.json",
  OPENAI_BASE_URL: fake.url,
  HOLDFAST_MODELS: file,
};
const held = useServer(settings);
let other: TestServer;
beforeAll(async () => {
  other = await startTestServer(held.scratch.url, settings);
});
beforeEach(() => fake.forgetCalls());
afterAll(async () => {
  await other.stop();
  await fake.stop();
  rmSync(folder, { recursive: true });
});

const input = (content: string): object => ({ messages: [{ role: "user", content }] });
const ask = (model: string, content = "hold fast", at = held.server): Promise<unknown> =>
  at.client.runs.wait(null, "asking", {
    input: { messages: [{ role: "user", content }] },
    config: { configurable: { model } },
    raiseError: false,
  });
const models = (): string[] => fake.calls.map(({ model }) => model);

test("an answer comes from the next model of the chain when the first fails and the second is silent, and is shown once", async () => {
  const frames = await collect(
    held.server.client.runs.stream(null, "asking", {
      input: input("hold fast to what is good") as Record<string, unknown>,
      config: { configurable: { model: "down" } },
      streamMode: ["messages-tuple"],
    }),
  );
  const text = frames
    .filter(({ event }) => event === "messages")
    .map(({ data }) => (data as [{ content: string }])[0].content)
    .join("");
  expect([text, models()]).toEqual(["hold fast to what is good", ["down", "stalls", "fake-echo"]]);
});

test("a call that fails in passing is made again, and is told and charged once", async () => {
  failures = 2;
  await ask("shaky");
  expect(models()).toEqual(["shaky", "shaky", "shaky"]);
  const calls = await held.scratch.database.query<{ model: string }>(
    "select model from holdfast.model_calls where model = 'shaky'",
  );
  expect(calls).toHaveLength(1);
});

test("a call that never answers is made again for a graph that comes with the server, too", async () => {
  const own = await startTestServer(held.scratch.url, {
    ...settings,
    HOLDFAST_CONFIG: "langgraph.json",
    HOLDFAST_MODEL: "dozes",
    HOLDFAST_MODEL_TIMEOUT_MS: "300",
  });
  failures = 1;
  const state = await own.client.runs.wait(null, "agent", {
    input: { messages: [{ role: "user", content: "hold fast" }] },
    raiseError: false,
  });
  await own.stop();
  expect(state).not.toHaveProperty("__error__");
  expect(models()).toEqual(["dozes", "dozes"]);
});

test("a short prompt goes to the small model, a long one to the large", async () => {
  await ask("large", "hi");
  await ask("large", "word ".repeat(50));
  expect(models()).toEqual(["fake-echo", "large"]);
});

test("a model that one server found failing is asked by none of them", async () => {
  const one = "shared-by-all";
  for (let count = 0; count < 3; count += 1) await ask(one);
  const asked = models().length;
  expect(await ask(one)).toMatchObject({ __error__: { message: expect.stringContaining("breaker") } });
  await until(
    async () => JSON.stringify(await ask(one, "hold fast", other)).includes("breaker"),
    "the other server's breaker",
  );
  expect(models().slice(asked).length).toBeLessThanOrEqual(1);
});
