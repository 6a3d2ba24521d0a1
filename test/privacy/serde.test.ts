// What state holds comes back as it was, or is refused; what it looks like never matters.
import {
  AIMessage,
  AIMessageChunk,
  HumanMessage,
  RemoveMessage,
  ToolMessage,
} from "@langchain/core/messages";
import { JsonPlusSerializer } from "@langchain/langgraph-checkpoint";
import { Send } from "@langchain/langgraph";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ValueUnreadable, ValueUnserialisable } from "../../server/errors.ts";
import { dump, load } from "../../server/privacy/serde.ts";

const roundTrip = (value: unknown): unknown => load(...dump(value));
const POISON = { lc: 1, type: "constructor", id: ["nope", "X"], kwargs: {} };

test("any JSON value comes back equal", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      expect(roundTrip(value)).toEqual(value);
    }),
  );
});

test("any object with keys of our own envelopes comes back as data", () => {
  const key = fc.constantFrom(
    "lc",
    "type",
    "id",
    "kwargs",
    "value",
    "args",
    "entries",
    "__lc_escaped__",
    "x",
  );
  const leaf = fc.oneof(fc.constantFrom(1, 2, "constructor", "undefined", "data", "bigint"), fc.jsonValue());
  const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof({ depthSize: "small" }, leaf, fc.dictionary(key, tie("tree")), fc.array(tie("tree"))),
  }));
  fc.assert(
    fc.property(tree, (value) => {
      expect(roundTrip(value)).toEqual(value);
    }),
  );
});

test.each([
  ["BigInt", 12345678901234567890n],
  ["Date", new Date("2026-01-02T03:04:05.678Z")],
  ["undefined in an object and an array", { a: undefined, b: [undefined] }],
  ["NaN, infinities and minus zero", [Number.NaN, Infinity, -Infinity, -0]],
  ["Map", new Map<unknown, unknown>([[{ a: 1 }, new Set([1n])]])],
  ["RegExp", /a+/giu],
  ["Error", new Error("no")],
  ["Uint8Array inside state", { bytes: new Uint8Array([1, 2, 255]) }],
  ["text with NUL and half a surrogate pair", "a\0b\ud800c"],
])("%s survives", (_, value) => {
  expect(roundTrip(value)).toEqual(value);
});

test("bare bytes are stored as they are", () => {
  expect(dump(new Uint8Array([0, 255]))).toEqual(["bytes", new Uint8Array([0, 255])]);
});

test("messages of every kind come back as messages with all their fields", () => {
  const messages = [
    new HumanMessage({
      content: "hi",
      id: "1",
      name: "ann",
      additional_kwargs: { lc: 1, when: new Date(0) },
    }),
    // With raw tool calls beside it, an empty list means: do not parse them.
    new AIMessage({ content: "raw", tool_calls: [], additional_kwargs: { tool_calls: [] } }),
    new AIMessage({
      content: "yo",
      tool_calls: [{ name: "f", args: { a: 1 }, id: "t", type: "tool_call" as const }],
    }),
    new AIMessageChunk({ content: "y", tool_call_chunks: [{ name: "f", args: "{}", id: "t", index: 0 }] }),
    new ToolMessage({ content: "r", tool_call_id: "t", artifact: { z: 1n }, status: "error" }),
    new RemoveMessage({ id: "x" }),
  ];
  const back = roundTrip(messages);
  expect(back).toEqual(messages);
  expect(Array.isArray(back) && back.map((message) => message.constructor)).toEqual(
    messages.map((m) => m.constructor),
  );
});

test("what was set on a message after it was made is kept", () => {
  const message = new AIMessage("hi");
  Object.assign(message, {
    id: "a",
    name: "ann",
    usage_metadata: { input_tokens: 1, output_tokens: 2, total_tokens: 3 },
  });
  const { id, name, usage_metadata: usage } = message;
  expect(roundTrip(message)).toMatchObject({ id, name, usage_metadata: usage });
});

test("an error keeps its name, and a hole in an array becomes undefined", () => {
  expect(roundTrip(new RangeError("no"))).toMatchObject({ name: "RangeError", message: "no" });
  const holed: unknown[] = [1];
  holed[2] = 3;
  expect(roundTrip(holed)).toEqual([1, undefined, 3]);
});

test("an object that names a constructor is data, on the way in and from a row of anybody", async () => {
  expect(roundTrip({ input: POISON })).toEqual({ input: POISON });
  expect(roundTrip(new HumanMessage({ content: "x", additional_kwargs: { POISON } }))).toMatchObject({
    additional_kwargs: { POISON },
  });
  expect(load("json", Buffer.from(JSON.stringify([POISON])))).toEqual([POISON]);
});

test("rows of the stock serialiser are read, and it reads ours", async () => {
  const stock = new JsonPlusSerializer();
  const value = {
    messages: [
      new HumanMessage({ content: "hi", additional_kwargs: { user: { lc: 1 } } }),
      new AIMessage("yo"),
    ],
    tags: new Set(["a"]),
    gone: undefined,
  };
  expect(load(...(await stock.dumpsTyped(value)))).toEqual(value);
  const theirs = await stock.loadsTyped(...dump({ messages: value.messages.slice(1), tags: value.tags }));
  expect(theirs).toEqual({ messages: [new AIMessage("yo")], tags: value.tags });
});

test("a send keeps its node and arguments", () => {
  expect(roundTrip(new Send("next", { a: 1n }))).toEqual({ node: "next", args: { a: 1n } });
});

test("a cycle and a typed array are refused with their place", () => {
  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  expect(() => dump(cycle)).toThrow(ValueUnserialisable);
  expect(() => dump({ a: [new Float32Array(2)] })).toThrow(/state\.a\[0\] holds a Float32Array/);
});

test("damaged bytes and unknown types are named as such", () => {
  expect(() => load("json", Buffer.from("{"))).toThrow(ValueUnreadable);
  expect(() => load("msgpack", Buffer.from(""))).toThrow(/msgpack/);
});
