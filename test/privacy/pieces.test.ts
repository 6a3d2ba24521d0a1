// A message in pieces: put together again it is what the whole message would have become, however it was cut.
import { AIMessageChunk } from "@langchain/core/messages";
import fc from "fast-check";
import { expect, test } from "vitest";
import { openPrivacy } from "../../server/privacy/guard.ts";
import { PieceRedactor, isPiece } from "../../server/privacy/pieces.ts";
import type { Piece } from "../../server/privacy/pieces.ts";

const guard = openPrivacy({ mode: "redact", graphs: {}, rules: [], names: false }).of();

const text = fc
  .array(
    fc.constantFrom(
      "write to ",
      "ada@example.org",
      ", ",
      "call +1 415 555 0123",
      " or ",
      "hello ",
      "AKIAIOSFODNN7EXAMPLE",
      "\n",
      "é😀",
    ),
    { minLength: 1, maxLength: 8 },
  )
  .map((parts) => parts.join(""));
const cuts = fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 20 });

function cut(whole: string, sizes: readonly number[]): string[] {
  const parts: string[] = [];
  for (let from = 0, turn = 0; from < whole.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 1;
    parts.push(whole.slice(from, from + size));
    from += size;
  }
  return parts;
}

const piece = (fields: object): Piece => {
  const made: unknown = new AIMessageChunk({ id: "chatcmpl-1", content: "", ...fields });
  return isPiece(made) ? made : expect.fail("a chunk is a piece");
};

function told(pieces: readonly Piece[]): AIMessageChunk[] {
  const [first] = pieces;
  if (!first) return [];
  const redactor = new PieceRedactor(guard, first);
  return [...pieces.flatMap((one) => redactor.take(one)), ...redactor.rest()] as unknown as AIMessageChunk[];
}

const joined = (pieces: readonly AIMessageChunk[]): AIMessageChunk =>
  pieces.reduce((whole, one) => whole.concat(one));

test("an answer in pieces is the redacted answer", () => {
  fc.assert(
    fc.property(text, cuts, fc.boolean(), (whole, sizes, ends) => {
      const pieces = cut(whole, sizes).map((content) => piece({ content }));
      if (ends) pieces.push(piece({ response_metadata: { finish_reason: "stop" } }));
      expect(joined(told(pieces)).content).toBe(guard.text(whole));
    }),
    { numRuns: 500 },
  );
});

test("thoughts, blocks and arguments of calls are texts of their own", () => {
  fc.assert(
    fc.property(fc.tuple(text, text, text, text), cuts, ([thought, said, first, second], sizes) => {
      const blocks = (type: string, key: string, index: number, whole: string): Piece[] =>
        cut(whole, sizes).map((part) => piece({ content: [{ type, index, [key]: part }] }));
      const calls = (index: number, whole: string): Piece[] =>
        cut(JSON.stringify({ to: whole }), sizes).map((args, at) =>
          piece({
            content: [],
            tool_call_chunks: [
              {
                type: "tool_call_chunk",
                index,
                args,
                ...(at === 0 ? { id: `call_${index}`, name: "send" } : {}),
              },
            ],
          }),
        );
      const pieces = [
        ...cut(thought, sizes).map((part) =>
          piece({ content: [], additional_kwargs: { reasoning_content: part } }),
        ),
        ...blocks("text", "text", 0, said),
        ...calls(0, first),
        ...calls(1, second),
      ];
      const whole = joined(told(pieces));
      expect(whole.additional_kwargs["reasoning_content"]).toBe(guard.text(thought));
      expect(whole.content).toEqual([{ type: "text", index: 0, text: guard.text(said) }]);
      expect(whole.tool_call_chunks?.map(({ args }) => args)).toEqual(
        [first, second].map((one) => guard.text(JSON.stringify({ to: one }))),
      );
    }),
    { numRuns: 200 },
  );
});

test.each([
  { type: "reasoning", index: 0, summary: [{ type: "summary_text", index: 0, text: "call 06 12 34" }] },
  { type: "reasoning", index: 0, reasoning: "call 06 12 34" },
  { type: "thinking", thinking: "call 06 12 34" },
])("the end of a thought is told before the answer that has its number: %j", (block) => {
  const pieces = [
    piece({ content: [block] }),
    piece({ content: [{ type: "text", index: 0, text: "Hi there" }] }),
  ];
  const all = told(pieces).map(({ content }) => JSON.stringify(content));
  expect(all.findIndex((one) => one.includes("34"))).toBeLessThan(all.findIndex((one) => one.includes("Hi")));
});

test("arguments of calls that come in turns are texts of their own, also when some pieces are empty", () => {
  const turns = fc.array(fc.nat(2), { minLength: 1, maxLength: 12 });
  const lengths = fc.array(fc.nat(25), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(fc.array(text, { minLength: 3, maxLength: 3 }), turns, lengths, (all, order, sizes) => {
      const wholes = all.map((one) =>
        JSON.stringify({ [one]: 1, to: [{ password: one }, 4111111111111111] }),
      );
      const left = [...wholes];
      const pieces: Piece[] = [];
      for (let turn = 0; left.some((one) => one !== ""); turn += 1) {
        const isSure = turn % 4 === 0;
        const index = isSure ? left.findIndex((one) => one !== "") : (order[turn % order.length] ?? 0);
        const size = (sizes[turn % sizes.length] ?? 0) + (isSure ? 1 : 0);
        const args = left[index]?.slice(0, size) ?? "";
        left[index] = left[index]?.slice(size) ?? "";
        pieces.push(piece({ content: [], tool_call_chunks: [{ type: "tool_call_chunk", index, args }] }));
      }
      const calls = joined(told(pieces)).tool_call_chunks ?? [];
      expect(wholes.map((_, at) => calls.find(({ index }) => index === at)?.args)).toEqual(
        wholes.map((one) => guard.text(one)),
      );
    }),
    { numRuns: 80 },
  );
});

test("a value is never told in part, whatever else the provider repeats", () => {
  const raw = "ada@example.org";
  const pieces = cut(raw, [3]).map((part) =>
    piece({
      content: part,
      additional_kwargs: { tool_calls: [{ index: 0, function: { arguments: part } }] },
      tool_calls: [{ id: "call_1", name: "send", args: { to: part } }],
    }),
  );
  expect(
    JSON.stringify(
      told(pieces).map(({ content, tool_calls: calls, additional_kwargs: more }) => [content, calls, more]),
    ),
  ).not.toMatch(/ada|exa|mple/);
});

test("nothing that is held back stays behind, and what says nothing is not told", () => {
  const pieces = [piece({ content: "" }), ...cut("call me", [1]).map((content) => piece({ content }))];
  const all = told(pieces);
  expect(all.map(({ content }) => content)).toEqual(["", "call ", "me"]);
  const usage = { input_tokens: 1, output_tokens: 2, total_tokens: 3 };
  const two = told([piece({ content: "a" }), piece({ usage_metadata: usage })]);
  expect([joined(two).content, joined(two).usage_metadata]).toEqual(["a", expect.objectContaining(usage)]);
});

test("a text is told to its end before what says that it ended, and is in no piece that says so", () => {
  const about = { model_provider: "openai", usage: {} };
  const usage = { input_tokens: 3, output_tokens: 4, total_tokens: 7 };
  const end = { finish_reason: "stop" };
  const words = ["write ", "to ", "some", "body", " or ", "other"];
  const pieces = [
    piece({ response_metadata: about }),
    ...words.map((content) => piece({ content, response_metadata: about })),
    piece({ response_metadata: about }),
    piece({ response_metadata: { usage }, usage_metadata: usage }),
  ];
  for (const last of [[], [piece({ response_metadata: end })]]) {
    const shown = told([...pieces, ...last]);
    const texts = shown.map(({ text: one }) => one);
    // The first one says who speaks; from then on nothing is empty before the text is over.
    const spoken = texts.slice(1, texts.findLastIndex((one) => one !== "") + 1);
    expect([texts[0], spoken.join(""), spoken.includes("")]).toEqual(["", words.join(""), false]);
    expect(shown.find(({ response_metadata: { finish_reason: reason } }) => reason)?.text ?? "").toBe("");
    expect(joined(shown).usage_metadata).toMatchObject(usage);
  }
});

test("a text that a call follows is over before it, though each piece has some content", () => {
  const call = { type: "tool_call_chunk", index: 0, id: "call_1", name: "send", args: "{}" };
  const all = told([
    piece({ content: "let me " }),
    piece({ content: "see" }),
    piece({ content: "", tool_call_chunks: [call] }),
  ]);
  const before = all.slice(0, -1);
  expect([joined(before).content, before.flatMap(({ tool_call_chunks: calls }) => calls ?? [])]).toEqual([
    "let me see",
    [],
  ]);
});

test.each([
  ["nothing", { finish_reason: "" }],
  ["the last", { finish_reason: "stop" }],
  ["the end", { stop_reason: "end_turn" }],
])("a provider that says %s of each piece is not believed", (_, response_metadata) => {
  const pieces = cut("ask ada@example.org", [4]).map((content) => piece({ content, response_metadata }));
  const all = told([...pieces, piece({ response_metadata })]);
  expect(joined(all).content).toBe("ask [REDACTED_EMAIL]");
});

test("tokens that a provider tells beside the text are not told, nor the text again in a raw answer", () => {
  const pieces = cut("ask ada@example.org", [4]).map((content) => {
    const choices = [{ index: 0, delta: { content } }];
    return piece({
      content,
      additional_kwargs: { raw: { choices } },
      response_metadata: { logprobs: { content: [{ token: content, logprob: -1 }] }, model: "m" },
    });
  });
  const whole = joined(told(pieces));
  expect(JSON.stringify(whole)).not.toMatch(/ada@|@exa/);
  expect(whole.response_metadata).toEqual({ model: expect.stringMatching(/^m/) });
});

test("what comes beside the text is looked at in each piece", () => {
  const beside: Record<string, unknown>[] = [
    { from: "the model" },
    { from: "the model" },
    { from: "ada@example.org" },
    { from: "the model" },
  ];
  const all = told([
    ...beside.map((metadata) => piece({ content: "so ", response_metadata: metadata })),
    piece({ content: "it is", name: "ada@example.org" }),
    piece({ content: ". ", additional_kwargs: { reasoning_content: "ada@example.org" } }),
    piece({ content: "ada@" }),
    piece({ content: "example.org" }),
  ]);
  expect(all.slice(0, 4).map(({ response_metadata: { from } }) => from)).toEqual([
    "the model",
    "the model",
    "[REDACTED_EMAIL]",
    "the model",
  ]);
  expect(joined(all).content).toBe("so so so so it is. [REDACTED_EMAIL]");
  expect(JSON.stringify(all)).not.toContain("ada@");
});

test("a text is one however deep it stands, beside the content and in it at the same time", () => {
  fc.assert(
    fc.property(fc.tuple(text, text, text), cuts, ([thought, second, said], sizes) => {
      // As the API of responses tells its thoughts: in a list of summaries, and in a block too.
      const thoughts = [thought, second].flatMap((whole, index) =>
        cut(whole, sizes).map((part) =>
          piece({
            content: [{ type: "reasoning", index: 0, reasoning: part }],
            additional_kwargs: {
              reasoning: {
                id: "rs_1",
                type: "reasoning",
                summary: [{ type: "summary_text", index, text: part }],
              },
            },
          }),
        ),
      );
      // As Bedrock does.
      const blocks = cut(said, sizes).map((part) =>
        piece({ content: [{ type: "reasoning_content", index: 1, reasoningText: { text: part } }] }),
      );
      const all = told([...thoughts, ...blocks]);
      const whole = joined(all);
      expect(whole.additional_kwargs["reasoning"]).toEqual({
        id: "rs_1",
        type: "reasoning",
        summary: [thought, second].map((one, index) => ({
          type: "summary_text",
          index,
          text: guard.text(one),
        })),
      });
      expect(whole.content).toEqual([
        { type: "reasoning", index: 0, reasoning: guard.text(thought + second) },
        { type: "reasoning_content", index: 1, reasoningText: { text: guard.text(said) } },
      ]);
    }),
    { numRuns: 200 },
  );
});

test("a text under delta, or in what a provider says beside the answer, is one text", () => {
  const pieces = cut("ask ada@example.org or hello", [4]).map((part) =>
    piece({
      content: [{ type: "text_delta", index: 0, delta: part }],
      response_metadata: { raw: [{ index: 0, delta: { role: "assistant", content: part } }], model: "m" },
    }),
  );
  const all = told(pieces);
  expect(JSON.stringify(all)).not.toMatch(/ada@|@exa/);
  const whole = joined(all);
  const kept = "ask [REDACTED_EMAIL] or hello";
  expect(whole.content).toEqual([{ type: "text_delta", index: 0, delta: kept }]);
  const [raw] = whole.response_metadata["raw"] as { delta: { content: string } }[];
  expect(raw?.delta.content).toBe(kept);
});

test("arguments that came whole, bytes and marks of providers are told as they are", () => {
  const block = {
    type: "tool_use",
    id: "toolu_12345",
    index: 0,
    name: "send",
    input: { to: "Bob", text: "call me" },
  };
  const more = { reasoning: { type: "reasoning", encrypted_content: "gAAAA call", summary: [] } };
  const [first] = told([piece({ content: [block], additional_kwargs: more }), piece({ content: [] })]);
  expect([first?.content, first?.additional_kwargs]).toEqual([[block], more]);
});

test("the name of a message is looked at again when the rest of it is told", () => {
  const all = told([
    piece({ content: "see ", name: "ada@example.org" }),
    piece({ content: "bob", name: "ada@example.org" }),
  ]);
  expect(all.map(({ name }) => name)).not.toContain("ada@example.org");
  expect(joined(all).content).toBe("see bob");
});
