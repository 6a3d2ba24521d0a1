import { createServer } from "node:net";
import { once } from "node:events";
import { afterAll, beforeEach, expect, test } from "vitest";
import { useModelEndpoint } from "../../server/config.ts";
import { stopCounting } from "../../server/models/tokens.ts";
import { startFakeModel } from "../support/model.ts";
import { converse, servicesWith } from "../support/reference-graph.ts";
import { until } from "../support/until.ts";

const QUESTION = "a private question about ada@example.org";
const fake = await startFakeModel();
beforeEach(() => {
  fake.forgetCalls();
  useModelEndpoint({ baseUrl: fake.url, apiKey: "sk-a-very-private-key" });
});
afterAll(async () => {
  await fake.stop();
  await stopCounting();
});

const failureOf = async (model: string, modelTimeoutMs = 5000): Promise<Error> => {
  const outcome: unknown = await converse(servicesWith({ model, modelTimeoutMs }))
    .say(QUESTION)
    .catch((error: unknown) => error);
  if (outcome instanceof Error) return outcome;
  return expect.fail(`${model} did not fail`);
};

test.each([
  ["fake-401", /refused the key \(HTTP 401\).*OPENAI_API_KEY/, false],
  ["fake-404", /HOLDFAST_MODEL and OPENAI_BASE_URL/, false],
  ["fake-400", /refused the request \(HTTP 400/, false],
  ["fake-429", /limit is reached \(HTTP 429, rate_limit_exceeded\)/, true],
  ["fake-quota", /limit is reached \(HTTP 429, insufficient_quota\)/, false],
  ["fake-500", /failed \(HTTP 500\)/, true],
  ["fake-503", /failed \(HTTP 503\)/, true],
  ["fake-cut", /stream broke/, true],
  ["fake-cut-0", /stream broke/, true],
  ["fake-nofinish", /stopped in the middle/, true],
  ["fake-badjson", /not JSON/, true],
])(
  "%s fails the run with a clear sentence, once, and repeats nothing private",
  async (model, sentence, retryable) => {
    const error = await failureOf(model);
    expect(error).toMatchObject({
      code: "model_failed",
      retryable,
      message: expect.stringMatching(sentence),
    });
    expect(fake.calls).toHaveLength(1);
    const told = `${error.message} ${error.stack ?? ""} ${JSON.stringify(error)}`;
    expect(told).not.toMatch(/private|ada@|sk-/);
    expect(error.cause).toBeUndefined();
  },
);

test.each(["fake-stall", "fake-silent"])(
  "%s fails the run after the longest silence, and the call is closed",
  async (model) => {
    const error = await failureOf(model, 300);
    expect(error).toMatchObject({
      code: "model_failed",
      retryable: true,
      message: expect.stringMatching(/silent for 300 ms \(HOLDFAST_MODEL_TIMEOUT_MS\)/),
    });
    await until(() => fake.calls[0]?.aborted === true, "the call to be closed");
  },
);

test("an answer that takes longer than the longest silence, but keeps coming, is not cut", async () => {
  const services = servicesWith({ model: "fake-slow-12tok-50ms", modelTimeoutMs: 300 });
  const state = await converse(services).say("Anything at all, please?");
  expect(state.messages.at(-1)?.text).toMatch(/^tok0 .* tok11$/);
});

test("an answer with its finish reason is complete even if the [DONE] line is missing", async () => {
  const state = await converse(servicesWith({ model: "fake-nodone" })).say("Anything at all, please?");
  expect(state.messages.at(-1)?.text).toBe("All of it.");
});

test("a failed turn leaves no half answer behind, and the thread goes on", async () => {
  const services = servicesWith({ model: "fake-cut" });
  const talk = converse(services);
  await expect(talk.say(QUESTION)).rejects.toMatchObject({ code: "model_failed" });
  expect((await talk.state())["messages"]).toHaveLength(1);
  Object.assign(services.settings, { model: "fake-echo" });
  expect((await talk.say("Hello again")).messages.map(({ type }) => type)).toEqual(["human", "human", "ai"]);
});

test("a cancelled run closes the call and fails with the cancellation, not with the model", async () => {
  const cancel = new AbortController();
  const run = converse(servicesWith({ model: "fake-stall" }))
    .say(QUESTION, cancel.signal)
    .catch((error: unknown) => error);
  await until(() => fake.calls.length === 1, "the call to start");
  cancel.abort();
  expect(await run).toMatchObject({ name: "AbortError" });
  await until(() => fake.calls[0]?.aborted === true, "the call to be closed");
});

test("an endpoint nobody listens on is named as unreachable", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  const baseUrl = `http://127.0.0.1:${typeof address === "object" ? address?.port : 0}/v1`;
  useModelEndpoint({ baseUrl, apiKey: "key" });
  expect(await failureOf("gpt-4.1-mini")).toMatchObject({
    code: "model_failed",
    retryable: true,
    message: expect.stringMatching(/cannot be reached \(ECONNREFUSED\).*OPENAI_BASE_URL/),
  });
});

test("a missing key is named", async () => {
  useModelEndpoint({ baseUrl: fake.url, apiKey: "" });
  expect(await failureOf("gpt-4.1-mini")).toMatchObject({
    code: "model_failed",
    retryable: false,
    message: expect.stringMatching(/OPENAI_API_KEY/),
  });
});
