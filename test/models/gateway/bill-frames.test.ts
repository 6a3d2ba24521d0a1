// Clients that did not ask for the usage of a stream see the stream that they would have seen.
import fc from "fast-check";
import { expect, test } from "vitest";
import { withBody } from "../../../server/models/answer-body.ts";
import { withoutBill } from "../../../server/models/gateway/bill-frames.ts";

const said = (content: string): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }], usage: null })}\n\n`;
const bill = `data: ${JSON.stringify({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 2 } })}\n\n`;
const done = "data: [DONE]\n\n";

function streamed(text: string, cuts: readonly number[]): Response {
  const bytes = Buffer.from(text);
  const places = [...new Set([0, ...cuts.map((cut) => cut % bytes.length), bytes.length])].toSorted(
    (a, b) => a - b,
  );
  const parts = places.slice(1).map((end, index) => bytes.subarray(places[index], end));
  return new Response(ReadableStream.from(parts));
}

test("wherever a stream is cut, all of it comes through but the bill", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.string({ unit: "grapheme" })), fc.array(fc.nat()), async (words, cuts) => {
      const before = words.map(said).join("");
      const shown = await withoutBill(streamed(`: hello\n\n${before}${bill}${done}rest`, cuts)).text();
      expect(shown).toBe(`: hello\n\n${before}${done}rest`);
    }),
    { numRuns: 200 },
  );
});

test("who leaves such a stream has left the provider's when that returns", () => {
  const left: unknown[] = [];
  const source = {
    read: async () => ({ done: false, value: Buffer.from(said("a")) }),
    cancel: async (reason: unknown) => void left.push(reason),
  };
  void withoutBill(withBody(new Response(), source)).body?.cancel("enough");
  expect(left).toEqual(["enough"]);
});
