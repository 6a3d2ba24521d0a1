// What goes into jsonb comes out as it was, or is refused by name.
import { assert, jsonValue, property } from "fast-check";
import { expect, test } from "vitest";
import { InputPoisoned, ValueUnserialisable } from "../../server/errors.ts";
import { isStorable, storableOf } from "../../server/privacy/storable.ts";

test("what JSON can hold stays as it is", () => {
  const law = property(jsonValue(), (value) => {
    if (!isStorable(JSON.stringify(value)) || JSON.stringify(value).includes(String.raw`\u0000`)) return;
    expect(JSON.stringify(storableOf({ value }))).toBe(JSON.stringify({ value }));
  });
  assert(law);
});

const cycle: { self?: object } = {};
cycle.self = cycle;

test.each([
  ["a function", { deep: [{ f: () => 1 }] }],
  ["a symbol", { s: Symbol("s") }],
  ["a BigInt", { n: 1n }],
  ["itself", cycle],
  ["NaN", { n: Number.NaN }],
  ["a number without end", { n: -Infinity }],
  ["a Map", { m: new Map() }],
  ["a Set", { s: new Set() }],
])("a value with %s is refused", (_, value) => {
  expect(() => storableOf(value)).toThrow(ValueUnserialisable);
});

test.each([["text"], [["list"]], [null], [undefined], [7]])("%j is no object", (value) => {
  expect(() => storableOf(value)).toThrow("is not an object with named fields");
});

test.each([[{ a: "\0" }], [{ "\0": 1 }], [{ a: ["\ud800"] }], [{ "\udc00": 1 }]])(
  "%j is refused",
  (value) => {
    expect(() => storableOf(value)).toThrow(InputPoisoned);
  },
);

test("an error that a value's own toJSON throws is not taken for ours", () => {
  const failing = {
    toJSON: () => {
      throw new RangeError("mine");
    },
  };
  expect(() => storableOf(failing)).toThrow("mine");
});
