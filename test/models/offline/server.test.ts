import { afterAll, beforeEach, expect, test } from "vitest";
import { startOfflineModel } from "../../../server/models/offline/server.ts";
import { countChatTokens, countTokens, stopCounting } from "../../../server/models/tokens.ts";
import { startFakeModel } from "../../support/model.ts";
import { until } from "../../support/until.ts";

const fake = await startFakeModel();
beforeEach(() => fake.forgetCalls());
afterAll(async () => {
  await fake.stop();
  await stopCounting();
});

const messages = [{ role: "user", content: "Say hello to the world" }];
const post = async (path: string, body: object | string, signal?: AbortSignal): Promise<Response> =>
  fetch(`${fake.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer test" },
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });
const framesOf = async (body: object): Promise<string[]> => {
  const response = await post("/chat/completions", { messages, stream: true, ...body });
  return (await response.text())
    .split("\n\n")
    .filter(Boolean)
    .map((frame) => frame.replace(/^data: /, ""));
};

test("a stream is a role, the words, a finish reason, the usage and [DONE]", async () => {
  const frames = await framesOf({ model: "fake-echo", stream_options: { include_usage: true } });
  expect(frames.pop()).toBe("[DONE]");
  const chunks = frames.map((frame) => JSON.parse(frame));
  const deltas = chunks.map(({ choices }) => choices[0]?.delta);
  expect(deltas[0]).toEqual({ role: "assistant", content: "" });
  expect(deltas.map((delta) => delta?.content ?? "").join("")).toBe("Say hello to the world");
  expect(chunks.at(-2)?.choices[0]).toEqual({ index: 0, delta: {}, finish_reason: "stop" });
  const prompt = await countChatTokens(messages, "fake-echo");
  const completion = await countTokens("Say hello to the world", "fake-echo");
  expect(chunks.at(-1)).toMatchObject({
    choices: [],
    usage: { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion },
  });
});

test("a stream whose caller did not ask for usage has none", async () => {
  expect((await framesOf({ model: "fake-echo" })).join("")).not.toContain("usage");
});

test("an answer never has more tokens than its caller allows", async () => {
  const response = await post("/chat/completions", { model: "fake-echo", messages, max_tokens: 2 });
  const { choices, usage } = JSON.parse(await response.text());
  expect(choices[0]).toMatchObject({ message: { content: "Say hello" }, finish_reason: "length" });
  expect(usage.completion_tokens).toBe(2);
});

test("any other model answers from the passages in the prompt", async () => {
  const system = '<passage n="1" source="a.md" title="Opening hours">\nThe shop opens at nine.\n</passage>';
  const asked = [
    { role: "system", content: system },
    { role: "user", content: "When does the shop open?" },
  ];
  const response = await post("/chat/completions", { model: "gpt-4.1-mini", messages: asked });
  const { choices } = JSON.parse(await response.text());
  expect(choices[0].message.content).toBe("The shop opens at nine. [1]\n\nSources:\n[1] Opening hours");
});

test("equal texts have equal vectors of length 1, in both encodings", async () => {
  const input = ["same", "same", "other"];
  const floats = JSON.parse(await (await post("/embeddings", { model: "any", input })).text());
  const [one, two, three] = floats.data.map(({ embedding }: { embedding: number[] }) => embedding);
  expect(one).toEqual(two);
  expect(one).not.toEqual(three);
  expect(Math.hypot(...one)).toBeCloseTo(1, 5);
  const encoded = await post("/embeddings", { model: "any", input, encoding_format: "base64" });
  const bytes = Buffer.from(JSON.parse(await encoded.text()).data[0].embedding, "base64");
  expect(bytes.readFloatLE(0)).toBeCloseTo(one[0], 6);
});

test.each([
  ["GET", "/nothing", 404],
  ["GET", "/chat/completions", 404],
])("%s %s is refused in OpenAI's shape", async (method, path, status) => {
  const response = await fetch(`${fake.url}${path}`, { method });
  expect(response.status).toBe(status);
  expect(JSON.parse(await response.text())).toMatchObject({ error: { code: "unknown_url", param: null } });
});

test.each([
  ["not JSON", "{", 400],
  ["no messages", { model: "fake-echo" }, 400],
  ["more than 32 MB", " ".repeat(33_600_000), 413],
])("a body that is %s is refused, and the server goes on", async (_what, body, status) => {
  expect((await post("/chat/completions", body)).status).toBe(status);
  expect((await fetch(`${fake.url}/models`)).status).toBe(200);
});

test("a client that leaves is noticed, and one that stays is not taken for one that left", async () => {
  const leave = new AbortController();
  const response = await post(
    "/chat/completions",
    { model: "fake-stall", messages, stream: true },
    leave.signal,
  );
  await response.body?.getReader().read();
  leave.abort();
  await framesOf({ model: "fake-echo" });
  await until(() => fake.calls[0]?.aborted === true, "the server to notice");
  expect(fake.calls.map(({ model, aborted }) => [model, aborted])).toEqual([
    ["fake-stall", true],
    ["fake-echo", false],
  ]);
});

test("stopping ends every open answer and frees the port", async () => {
  const model = await startOfflineModel();
  const port = Number(new URL(model.url).port);
  const body = JSON.stringify({ model: "fake-silent", messages });
  const open = fetch(`${model.url}/chat/completions`, { method: "POST", body }).catch(
    (error: unknown) => error,
  );
  await model.stop();
  expect(await open).toBeInstanceOf(Error);
  const again = await startOfflineModel({ port });
  await expect(startOfflineModel({ port })).rejects.toMatchObject({ code: "resource_taken" });
  await again.stop();
});
