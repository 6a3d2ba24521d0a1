// What is kept of an answer is all of it or nothing, and it comes back as a provider would give it.
import { afterAll, expect, test } from "vitest";
import { answerBytes, answerFrom, answerIn, replayed, wholeOf } from "../../server/models/caching/answer.ts";
import type { Answer } from "../../server/models/caching/answer.ts";
import { identityOf, mayBeCached, takeWish } from "../../server/models/caching/cacheable.ts";
import { readChat } from "../../server/models/gateway/chat-call.ts";
import type { ChatBody } from "../../server/models/gateway/chat-call.ts";
import { found } from "../support/found.ts";
import { startFakeModel } from "../support/model.ts";

const provider = await startFakeModel({
  scripts: (model) => (model === "fake-three" ? { pieces: ["Hold", " it", " fast."] } : undefined),
});
afterAll(() => provider.stop());

const ask = async (stream: boolean, model = "fake-three"): Promise<string> => {
  const options = stream ? { stream, stream_options: { include_usage: true } } : {};
  const body = { model, messages: [{ role: "user", content: "hi" }], ...options };
  const init = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(`${provider.url}/chat/completions`, init);
  return response.text().catch(() => "data: {}");
};

const kept = async (stream: boolean): Promise<Answer> =>
  found(answerIn(Buffer.from(await ask(stream))), "answer");
const again = async (answer: Answer, isStream: boolean): Promise<string> =>
  replayed(answer, { isStream, hasUsage: true, ageMs: 0 }).text();

/** Ids and times are other ones each time. */
const parsed = (text: string): unknown[] =>
  (text.startsWith("{") ? [text] : [...text.matchAll(/^data: (\{.*\})$/gm)].map(([, data = ""]) => data)).map(
    (one): unknown =>
      JSON.parse(one, (name, value: unknown) => (["id", "created"].includes(name) ? "" : value)),
  );

test.each([true, false])("an answer comes back as it came (as a stream: %s)", async (stream) => {
  const answer = found(answerFrom(answerBytes(await kept(stream))), "answer");
  expect(parsed(await again(answer, stream))).toEqual(parsed(await ask(stream)));
  expect((await again(answer, stream)).endsWith("data: [DONE]\n\n")).toBe(stream);
});

test("a stream answers who wants one piece, and one piece who wants a stream", async () => {
  expect(parsed(await again(await kept(true), false))).toEqual(parsed(await ask(false)));
  expect(parsed(await again(await kept(false), true)).length).toBe(parsed(await ask(true)).length);
  expect(wholeOf(await kept(true))).toEqual(wholeOf(await kept(false)));
});

test("each replay has an id of its own, and usage only for who asks for it", async () => {
  const answer = await kept(true);
  const id = async (): Promise<unknown> => (JSON.parse(await again(answer, false)) as { id: string }).id;
  expect(await id()).not.toBe(await id());
  const bare = await replayed(answer, { isStream: true, hasUsage: false, ageMs: 0 }).text();
  expect(bare).not.toContain("usage");
});

test.each(["fake-cut-2", "fake-nofinish", "fake-badjson"])(
  "of an answer that broke off nothing is kept: %s",
  async (model) => {
    expect(answerIn(Buffer.from(await ask(true, model)))).toBeUndefined();
  },
);

const said = (message: object, more: object = {}, choice: object = {}): Buffer =>
  Buffer.from(
    JSON.stringify({
      model: "m",
      created: 1,
      choices: [
        {
          index: 0,
          message: { role: "assistant", content: "x", ...message },
          finish_reason: "stop",
          ...choice,
        },
      ],
      ...more,
    }),
  );

test.each<[string, Buffer]>([
  ["calls a tool", said({ tool_calls: [{ id: "1" }] }, {}, { finish_reason: "tool_calls" })],
  ["was cut by its ceiling", said({}, {}, { finish_reason: "length" })],
  ["was filtered", said({}, {}, { finish_reason: "content_filter" })],
  ["says something unknown", said({ reasoning_details: [{ text: "x" }] })],
  ["comes with something unknown", said({}, { citations: ["https://x.example"] })],
  ["has logprobs", said({}, {}, { logprobs: { content: [] } })],
  ["is an error", Buffer.from('{"error":{"message":"no"}}')],
  ["is nothing", Buffer.from("")],
])("an answer that %s is not kept", (_, bytes) => {
  expect(answerIn(bytes)).toBeUndefined();
});

test("fields of a server's own that say nothing do not keep an answer from being kept", () => {
  const silent = said(
    { reasoning: null },
    { prompt_logprobs: null, kv_transfer_params: null },
    { stop_reason: null },
  );
  expect(answerIn(silent)?.pieces).toEqual([{ content: "x" }]);
});

test("bytes that are no answer are none", () => {
  expect(answerFrom(Buffer.from('{"pieces": 1}'))).toBeUndefined();
});

const body = (more: object = {}): ChatBody =>
  readChat(JSON.stringify({ model: "m", messages: [{ role: "user", content: "hi" }], ...more })) ??
  expect.fail("it is a chat");

test.each([
  ["asked", {}, undefined, false],
  ["asked", {}, "on", true],
  ["asked", { temperature: 0 }, undefined, false],
  ["asked", { tools: [{}] }, "on", true],
  ["asked", { n: 2 }, "on", false],
  ["deterministic", { temperature: 0 }, undefined, true],
  ["deterministic", { temperature: 0 }, "off", false],
  ["deterministic", { temperature: 0.1 }, undefined, false],
  ["deterministic", {}, undefined, false],
  ["deterministic", { temperature: 0, tools: [{}] }, undefined, false],
  ["off", { temperature: 0 }, "on", false],
] as const)(
  "with the setting %s, %j and the wish %s a request may be cached: %s",
  (rule, more, wish, may) => {
    expect(mayBeCached(body(more), rule, wish)).toBe(may);
  },
);

test("requests are equal when a provider is told the same, in whatever form and order", () => {
  const request = {
    url: "https://a/v1/chat/completions",
    body: "",
    init: { headers: { authorization: "Bearer k" } },
  };
  const of = (more: object, model = "m", at = request): string =>
    identityOf(at, body(more), model).join("\n");
  expect(of({ stream: true, stream_options: {}, seed: 1, top_p: 1 })).toBe(of({ top_p: 1, seed: 1 }));
  const other = { ...request, init: { headers: { authorization: "Bearer other" } } };
  const headed = (headers: Record<string, string>): typeof request =>
    Object.assign({}, request, { init: { headers: { ...request.init.headers, ...headers } } });
  const silent = headed({ "user-agent": "x", "x-stainless-retry-count": "1", traceparent: "00-1-1-01" });
  expect(of({}, "m", silent)).toBe(of({}));
  const all = [
    of({}, "m", headed({ "x-portkey-virtual-key": "tenant-b" })),
    of({}, "m", headed({ "openai-beta": "x=2" })),
    of({}),
    of({ seed: 1 }),
    of({}, "n"),
    of({}, "m", { ...request, url: "https://b" }),
    of({}, "m", other),
  ];
  expect(new Set(all).size).toBe(all.length);
});

test("a provider is not told what a request says of the cache", () => {
  const headers = { "X-Holdfast-Cache": "ON", "x-other": "1" };
  const { request, wish } = takeWish({ url: "https://a", body: "", init: { headers } });
  expect([wish, [...new Headers(request.init.headers)]]).toEqual(["on", [["x-other", "1"]]]);
});
