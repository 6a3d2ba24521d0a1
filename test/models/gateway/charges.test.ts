// What an answer is charged that is none, that is longer than can be kept or that says less than it should: never less than
// it may have cost.
import { afterAll, beforeAll, expect, test } from "vitest";
import { stopCounting } from "../../../server/models/tokens.ts";
import { testDatabase } from "../../support/database.ts";
import type { TestDatabase } from "../../support/database.ts";
import { answering, frameOf, openRig, said, STREAM } from "../../support/gateway.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(async () => {
  await scratch.close();
  await stopCounting();
});

const request = { model: "gpt-4.1-mini", max_tokens: 30_000, messages: [{ role: "user", content: "hello" }] };
const PROMPT = 8;
const WORDS = 500;
const words = Array.from({ length: WORDS }, () => " word");
const end = `${frameOf({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] })}data: [DONE]\n\n`;
const wholeOf = (more: object): string =>
  JSON.stringify({
    choices: [{ index: 0, message: { role: "assistant", content: words.join("") }, finish_reason: "stop" }],
    ...more,
  });
const streamOf = (one: (word: string) => string): string => words.map(one).join("") + end;

/** The call and what it left of the budget, when its client has read such an answer. */
async function chargedFor(type: string, text: string): Promise<unknown[]> {
  const { send, calls, budget } = await openRig(scratch.database, { tokens: 1_000_000 });
  const provider = await answering((_, response) =>
    response.writeHead(200, { "content-type": type }).end(text),
  );
  const response = await send(provider.url, { ...request, stream: type === STREAM["content-type"] });
  expect(await response.text()).toBe(text);
  provider.close();
  return [...(await calls()), await budget()];
}

test.each([
  ["a usage without a number", "application/json", wholeOf({ usage: {} })],
  [
    "a usage with a number that is null",
    "application/json",
    wholeOf({ usage: { prompt_tokens: 3, completion_tokens: null, total_tokens: 503 } }),
  ],
  [
    "frames with a usage without a number",
    "text/event-stream",
    streamOf((content) => frameOf({ choices: [{ index: 0, delta: { content } }], usage: {} })),
  ],
  [
    "a stream that begins with how long to wait",
    "text/event-stream",
    `retry: 3000\n\n${streamOf((word) => said(word))}`,
  ],
])("a whole answer is counted that has %s", async (_, type, text) => {
  expect(await chargedFor(type, text)).toMatchObject([
    { state: "settled", input: PROMPT, output: WORDS },
    { spent: PROMPT + WORDS, reserved: 0 },
  ]);
});

const told = { usage: { prompt_tokens: PROMPT, completion_tokens: 1, total_tokens: PROMPT + 1 } };

test.each([
  ["ends in the middle, however politely", words.map((word) => said(word)).join("")],
  [
    "ends in the middle and has told what it was until then",
    frameOf({ ...told, choices: [{ delta: { content: "a" } }] }),
  ],
])("an answer is charged what it may have cost when it %s", async (_, text) => {
  expect(await chargedFor("text/event-stream", text)).toMatchObject([
    { state: "presumed" },
    { spent: PROMPT + 30_000, reserved: 0 },
  ]);
});

test("what is told of the prompt before the answer is no bill of it", async () => {
  const first = { ...told, choices: [{ index: 0, delta: { role: "assistant", content: "" } }] };
  const text = frameOf(first) + streamOf((word) => said(word));
  expect(await chargedFor("text/event-stream", text)).toMatchObject([
    { state: "settled", output: WORDS },
    { spent: PROMPT + WORDS, reserved: 0 },
  ]);
});

test.each([
  ["one of them", 1, { state: "presumed" }, PROMPT + 60_000],
  ["both", 2, { state: "settled", output: 1 }, PROMPT + 1],
])(
  "who asks for two answers and leaves when %s ended is charged as is known",
  async (_, ended, call, spent) => {
    const { send, calls, budget, gateway, context } = await openRig(scratch.database, { tokens: 1_000_000 });
    const ends = [0, 1]
      .slice(0, ended)
      .map((index) => frameOf({ ...told, choices: [{ index, delta: {}, finish_reason: "stop" }] }));
    const provider = await answering((__, response) => response.writeHead(200, STREAM).end(ends.join("")));
    const response = await send(provider.url, { ...request, n: 2, stream: true });
    await response.body?.getReader().cancel();
    await gateway.close(context);
    provider.close();

    expect(await calls()).toMatchObject([call]);
    expect(await budget()).toEqual({ spent, reserved: 0 });
  },
);

const long = Array.from({ length: 20_000 }, () =>
  frameOf({ id: "x".repeat(180), choices: [{ index: 0, delta: { content: " word" } }] }),
).join("");

test.each([
  ["is longer than can be kept", "text/event-stream", long + end],
  ["is in no form that is known", "application/json", JSON.stringify({ output: words.join("") })],
  ["is no JSON", "application/json", words.join("")],
])("a whole answer without a bill is charged what it may have cost when it %s", async (_, type, text) => {
  expect(await chargedFor(type, text)).toMatchObject([
    { state: "presumed" },
    { spent: PROMPT + 30_000, reserved: 0 },
  ]);
});

test.each([
  ["", {}],
  [" that may be cached", { temperature: 0 }],
])("an answer without a body%s is handed on, and charged its prompt", async (_, more) => {
  const { send, calls, budget } = await openRig(scratch.database, { tokens: 1_000_000 });
  const provider = await answering((__, response) => response.writeHead(204).end());
  expect((await send(provider.url, { ...request, ...more })).status).toBe(204);
  provider.close();

  expect(await calls()).toMatchObject([{ state: "settled", input: PROMPT, output: 0 }]);
  expect(await budget()).toEqual({ spent: PROMPT, reserved: 0 });
});

test("a call is sent whole although its client told the length of a shorter one", async () => {
  const models = { defaults: { retries: 0, connect_ms: 3000 } };
  const { send } = await openRig(scratch.database, { tokens: 1_000_000, models });
  const provider = await answering((_, response) => response.writeHead(200, STREAM).end(said("hi") + end));
  const body = { model: "gpt-4.1-mini", stream: true, messages: request.messages };
  const headers = { "content-length": String(JSON.stringify(body).length) };
  const response = await send(provider.url, body, { headers });

  expect(await response.text()).toBe(said("hi") + end);
  expect(provider.asked).toMatchObject([{ ...body, stream_options: { include_usage: true } }]);
  provider.close();
});

test("of two ceilings the larger is reserved, because a server may obey either", async () => {
  const { send, budget } = await openRig(scratch.database, { tokens: 1000 });
  const provider = await answering((_, response) => response.writeHead(200, STREAM).end(end));
  const asked = { ...request, max_completion_tokens: 10, max_tokens: 5000 };
  expect((await send(provider.url, asked)).status).toBe(402);
  expect([provider.asked, await budget()]).toEqual([[], { spent: 0, reserved: 0 }]);
  provider.close();
});
