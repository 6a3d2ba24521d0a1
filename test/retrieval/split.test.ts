import fc from "fast-check";
import { expect, test } from "vitest";
import { split } from "../../server/retrieval/split.ts";

const squeeze = (text: string): string => text.replaceAll(/\s/g, "");
const sentence = "The tide rises twice a day. ";

test("chunks together hold the whole text, each below 4 KB and none blank", async () => {
  const piece = fc.oneof(
    fc.string({ unit: "grapheme", maxLength: 300 }),
    fc.constantFrom(
      "\n\n",
      "\n## Head\n",
      " ",
      ". ",
      "。",
      "😀".repeat(900),
      "x".repeat(3000),
      sentence.repeat(40),
    ),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { maxLength: 12 }),
      fc.constantFrom("markdown" as const, "plain" as const),
      async (pieces, kind) => {
        // Loaded text holds no control characters.
        const text = pieces.join("").replaceAll(/[^\P{Cc}\n\t]/gu, " ");
        const chunks = await split(text, kind);
        expect(squeeze(chunks.join(""))).toBe(squeeze(text));
        for (const chunk of chunks) {
          expect(Buffer.byteLength(chunk)).toBeLessThanOrEqual(4096);
          expect(chunk.isWellFormed()).toBe(true);
          expect(chunk.trim()).not.toBe("");
        }
      },
    ),
    { numRuns: 150, seed: 11 },
  );
});

test("a short document stays one chunk", async () => {
  expect(await split(sentence.repeat(80), "plain")).toHaveLength(1);
});

test("a long text is cut after a sentence", async () => {
  const chunks = await split(sentence.repeat(300), "plain");
  expect(chunks.length).toBeGreaterThan(4);
  for (const chunk of chunks) expect(chunk).toMatch(/^The tide.*a day\.$/s);
});

test("a markdown section begins with its heading", async () => {
  const text = Array.from({ length: 6 }, (_, at) => `## Part ${at}\n\n${sentence.repeat(40)}`).join("\n\n");
  const chunks = await split(text, "markdown");
  expect(chunks).toHaveLength(6);
  for (const chunk of chunks) expect(chunk).toMatch(/^## Part/);
});
