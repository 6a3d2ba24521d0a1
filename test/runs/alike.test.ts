// What differs between two texts that are mostly the same: applied to the one, it is the other.
import fc from "fast-check";
import { expect, test } from "vitest";
import { differenceOf, patched } from "../../server/runs/log/alike.ts";

const message = (id: number, words: number): Record<string, unknown> => ({
  type: id % 2 === 0 ? "human" : "ai",
  id: `m-${id}-${(id * 2_654_435_761) % 4_294_967_296}`,
  content: Array.from(
    { length: words },
    (_, at) => `word${Math.imul(id * 997 + at, 2_654_435_761) >>> 20}`,
  ).join(" "),
  additional_kwargs: {},
  response_metadata: {},
});

const conversation = (messages: number): Record<string, unknown>[] =>
  Array.from({ length: messages }, (_, id) => message(id, 40));

/** How much of `text` is told anew after `base`. */
const costOf = (base: unknown, text: unknown): number => {
  const difference = differenceOf(JSON.stringify(base), JSON.stringify(text), Infinity);
  if (!difference) throw new Error("It takes too many pieces.");
  return difference.added.length + difference.pieces.join().length;
};

test("any two texts: what differs makes the one of the other, without halves of characters", () => {
  const piece = fc.oneof(
    fc.string({ unit: "grapheme" }),
    fc.constantFrom("😀", "😁", "🀀", "é", "same ".repeat(40), "😀😁".repeat(40), "x".repeat(5000)),
  );
  const texts = fc.tuple(
    fc.array(piece, { minLength: 1, maxLength: 12 }),
    fc.array(piece),
    fc.nat(),
    fc.nat(),
  );
  fc.assert(
    fc.property(texts, ([pieces, others, at, gone]) => {
      const base = pieces.join("");
      const text = pieces.toSpliced(at % pieces.length, gone % 3, ...others).join("");
      const difference = differenceOf(base, text, Infinity);
      if (!difference) throw new Error("It takes too many pieces.");
      expect(patched(base, difference)).toBe(text);
      expect(difference.added.isWellFormed()).toBe(true);
    }),
    { numRuns: 2000 },
  );
});

test("a character that is replaced by one with the same second half is told whole", () => {
  const words = message(1, 40)["content"];
  const [base = "", text = ""] = ["\u{1f600}", "\u{1f200}"].map(
    (sign) => `${String(words)}${sign}${String(words)}`,
  );
  const difference = differenceOf(base, text, Infinity);
  expect(difference?.added.isWellFormed()).toBe(true);
  expect(difference && patched(base, difference)).toBe(text);
});

test("a state costs what is new in it, wherever that is", () => {
  const before = { turn: 7, messages: conversation(200), context: ["a passage"], left: 24 };
  const size = JSON.stringify(before).length;
  const added = message(200, 300);
  const grown = [...before.messages, added];
  expect(costOf(before, before)).toBeLessThan(50);
  expect(costOf(before, { ...before, messages: grown })).toBeLessThan(JSON.stringify(added).length + 150);
  // Fields in front of and behind what stays.
  const next = { turn: 8, messages: grown, context: ["another one"], left: 23 };
  expect(costOf(before, next)).toBeLessThan(JSON.stringify(added).length + 400);
  // One that changed in the midst, one that went, the oldest ones summed up.
  expect(costOf(before, { ...before, messages: before.messages.with(90, message(1000, 40)) })).toBeLessThan(
    800,
  );
  expect(costOf(before, { ...before, messages: before.messages.toSpliced(90, 1) })).toBeLessThan(300);
  const summed = [message(2000, 80), ...before.messages.slice(150)];
  expect(costOf(before, { ...before, messages: summed })).toBeLessThan(1200);
  // Inside something else, as in the events of another protocol.
  expect(costOf(before, { method: "values", params: { data: before, namespace: [] } })).toBeLessThan(300);
  expect(size).toBeGreaterThan(60_000);
});

const places = (mark: string): string =>
  Array.from({ length: 1000 }, (_, at) => `${mark}${"x".repeat(30)}${at}${"y".repeat(80)}`).join("");

test("texts that have little in common have no difference worth telling", () => {
  const base = JSON.stringify(conversation(50));
  const other = JSON.stringify(Array.from({ length: 2000 }, (_, at) => at * 7919));
  expect(differenceOf(base, other, other.length / 2)).toBeUndefined();
  expect(differenceOf("", base, base.length)).toEqual({ pieces: [0, 0, base.length], added: base });
  expect(differenceOf(base, "", 0)).toEqual({ pieces: [], added: "" });
  // Each of a thousand places changed: no list of a thousand pieces.
  expect(differenceOf(places("a"), places("b"), Infinity)).toBeUndefined();
});
