// What a call costs at most, and how it is sent: text exactly, everything else never too low.
import { afterAll, describe, expect, test } from "vitest";
import { openCatalogue } from "../../../server/models/catalogue.ts";
import { billIn, isFinished, spokenIn } from "../../../server/models/gateway/answer-bytes.ts";
import {
  ceilingOf,
  preparedBody,
  promptTokensOf,
  readChat,
} from "../../../server/models/gateway/chat-call.ts";
import type { ChatBody } from "../../../server/models/gateway/chat-call.ts";
import { countChatTokens, stopCounting } from "../../../server/models/tokens.ts";

afterAll(stopCounting);

const catalogue = openCatalogue({ modelsFile: undefined, modelTimeoutMs: 1000 });
const messages = [
  { role: "system", content: "Be kind." },
  { role: "user", content: "Wie geht es dir, 世界? 🙂", name: "ada" },
];

function chat(more: object = {}): ChatBody {
  const body = readChat(JSON.stringify({ model: "gpt-4.1-mini", messages, ...more }));
  if (!body) throw new Error("It is a chat.");
  return body;
}
const tokensOf = (body: ChatBody): Promise<number> => promptTokensOf(body, catalogue.of(body.model));

describe("tokens of a prompt", () => {
  test("are those that the provider bills, for text of a known model", async () => {
    expect(await tokensOf(chat())).toBe(await countChatTokens(messages, "gpt-4.1-mini"));
  });

  test("of a text in parts are not fewer than of the text in one", async () => {
    const parts = ["Wie geht", " es dir?"].map((text) => ({ type: "text", text }));
    const [split, whole] = [
      await tokensOf(chat({ messages: [{ role: "user", content: parts }] })),
      await tokensOf(chat({ messages: [{ role: "user", content: "Wie geht es dir?" }] })),
    ];
    expect(split).toBeGreaterThanOrEqual(whole);
  });

  test("of tools and of calls of tools are their size in bytes", async () => {
    const tools = [{ type: "function", function: { name: "f", parameters: { a: "ü" } } }];
    const called = [{ id: "1", type: "function", function: { name: "f", arguments: '{"a":1}' } }];
    const asked = chat({ tools, messages: [...messages, { role: "assistant", tool_calls: called }] });
    const plain = chat({ messages: [...messages, { role: "assistant" }] });
    const bytes = Buffer.byteLength(JSON.stringify(tools)) + Buffer.byteLength(JSON.stringify(called));
    expect((await tokensOf(asked)) - (await tokensOf(plain))).toBe(bytes);
  });

  test.each([
    ["gpt-4o", "high", 1445],
    ["gpt-4o", "low", 85],
    ["gpt-4o-mini", undefined, 48_169],
    ["somebody/else", "low", 48_169],
  ])("of an image for %s with detail %s are at most %d", async (model, detail, most) => {
    const image = { type: "image_url", image_url: { url: "https://example.org/a.png", detail } };
    const content = [{ type: "text", text: "Look" }, image];
    const pictured = await tokensOf(chat({ model, messages: [{ role: "user", content }] }));
    const without = await tokensOf(
      chat({ model, messages: [{ role: "user", content: content.slice(0, 1) }] }),
    );
    expect(pictured - without).toBe(most);
  });

  test("of what nobody can count are not guessed", async () => {
    const content = [{ type: "input_audio", input_audio: { data: "", format: "wav" } }];
    await expect(tokensOf(chat({ messages: [{ role: "user", content }] }))).rejects.toMatchObject({
      code: "budget_exceeded",
    });
  });

  test("of a model whose tokenizer is unknown are not fewer than its bytes", async () => {
    const bytes = messages.reduce((sum, { content }) => sum + Buffer.byteLength(content), 0);
    expect(await tokensOf(chat({ model: "somebody/else" }))).toBeGreaterThan(bytes);
    const [short, long] = ["a", "a".repeat(5001)].map((name) =>
      tokensOf(chat({ model: "somebody/else", messages: [{ role: "user", content: "Hi", name }] })),
    );
    expect(((await long) ?? 0) - ((await short) ?? 0)).toBe(5000);
  });

  test("hold what only some servers make a prompt of, and nothing that none does", async () => {
    const plain = await tokensOf(chat());
    const documents = [{ title: "ü", text: "x".repeat(5000) }];
    const size = Buffer.byteLength(JSON.stringify(documents));
    expect((await tokensOf(chat({ documents, top_k: 5 }))) - plain).toBe(size);
    const more = { stop: ["x"], user: "ada", metadata: { a: "b" }, tool_choice: "auto", temperature: 0 };
    expect(await tokensOf(chat(more))).toBe(plain);
  });
});

const sent = (body: ChatBody, ceiling?: number): ChatBody =>
  JSON.parse(preparedBody(body, body.model, ceiling)) as ChatBody;

describe("what is sent", () => {
  test("has the ceiling that its model understands, and never another than was asked for", () => {
    expect(sent(chat(), 9)).toMatchObject({ max_tokens: 9 });
    expect(sent(chat({ model: "gpt-5-mini" }), 9)).toMatchObject({ max_completion_tokens: 9 });
    const capped = chat({ max_completion_tokens: 5 });
    expect([sent(capped, 9), ceilingOf(capped, catalogue.of("gpt-4o"), 9)]).toEqual([capped, 5]);
  });

  test("asks for a bill where a stream is to be paid for, and is otherwise as it was", () => {
    expect(sent(chat({ stream: true }), 9).stream_options).toEqual({ include_usage: true });
    expect(sent(chat({ stream: true }))).toEqual(chat({ stream: true }));
    expect(sent(chat({ seed: 7, unknown: { a: 1 } }))).toEqual(chat({ seed: 7, unknown: { a: 1 } }));
  });

  test("what is no chat is left to the provider to refuse", () => {
    for (const text of ["", "{", "[]", '{"model":"m"}', '{"model":"m","messages":[]}'])
      expect(readChat(text)).toBeUndefined();
  });
});

const frames = (...all: unknown[]): Uint8Array =>
  Buffer.from(all.map((one) => `data: ${typeof one === "string" ? one : JSON.stringify(one)}\n\n`).join(""));

const say = (index: number, delta: object) => ({ choices: [{ index, delta }] });

describe("the bill in an answer", () => {
  const usage = { prompt_tokens: 9, completion_tokens: 4, prompt_tokens_details: { cached_tokens: 2 } };

  test("is read from a stream and from a document", () => {
    const billed = { input: 9, cached: 2, output: 4 };
    expect(billIn(frames({ choices: [] }, { choices: [], usage }, "[DONE]"))).toEqual(billed);
    expect(billIn(Buffer.from(JSON.stringify({ choices: [], usage }, null, 2)))).toEqual(billed);
  });

  test("counts thoughts that stand only in the total, and is found in what is left of a long document", () => {
    const total = { ...usage, total_tokens: 35 };
    expect(billIn(Buffer.from(JSON.stringify({ usage: total })))).toEqual({
      input: 9,
      cached: 2,
      output: 26,
    });
    const tail = JSON.stringify({ choices: [{ message: { content: "x" } }], usage }).slice(20);
    expect(billIn(Buffer.from(tail))).toEqual({ input: 9, cached: 2, output: 4 });
  });

  test("what several choices say is a text each, with thoughts and calls of tools, whatever they are called", () => {
    const all = frames(
      say(0, { role: "assistant", reasoning: "hm " }),
      say(1, { content: "b" }),
      say(0, { tool_calls: [{ index: 0, id: "c1", function: { name: "f", arguments: "{}" } }] }),
    );
    expect(spokenIn(all)).toEqual(["hm f{}", "b"]);
  });

  test("is waited for where the last word was told, and not where it was not", () => {
    const last = { choices: [{ index: 0, delta: {}, finish_reason: "stop" }] };
    expect([isFinished(frames(last)), isFinished(frames("[DONE]"))]).toEqual([true, true]);
    for (const reason of [null, ""])
      expect(isFinished(frames({ choices: [{ delta: { content: "a" }, finish_reason: reason }] }))).toBe(
        false,
      );
  });

  test("is not there when the answer broke off, and what was said is", () => {
    const said = { choices: [{ index: 0, delta: { content: "Hel" } }] };
    const cut = frames(said, { choices: [{ delta: { content: "lo" } }], usage: null }, '{"choices": [{');
    expect([billIn(cut), spokenIn(cut)]).toEqual([undefined, ["Hello"]]);
  });
});
