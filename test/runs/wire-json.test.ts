// Values as clients see them: what JSON.stringify makes of them, with messages flat and with what JSON lacks as text.
import { AIMessage, AIMessageChunk, HumanMessage, ToolMessage } from "@langchain/core/messages";
import fc from "fast-check";
import { expect, test } from "vitest";
import { everyField, isMessage } from "../../server/privacy/envelopes.ts";
import { toWireJson } from "../../server/runs/stream/wire-json.ts";

/** The same by definition: JSON.stringify, asked at each value before its own toJSON() is. */
function byDefinition(value: unknown): string {
  return (
    JSON.stringify(value, function replace(this: unknown, key: string, made: unknown) {
      if (typeof made === "bigint") return String(made);
      const raw: unknown = Reflect.get(Object(this), key);
      if (typeof raw !== "object" || raw === null) return made;
      if (isMessage(raw)) return { ...everyField(raw), type: raw.type };
      if (raw instanceof Error) return { error: raw.name, message: raw.message };
      if (raw instanceof Map) return Object.fromEntries(raw);
      if (raw instanceof Set) return [...raw];
      return made;
    }) ?? "null"
  );
}

const message = fc
  .record({ content: fc.string(), id: fc.uuid() })
  .chain((fields) =>
    fc.constantFrom(
      new HumanMessage(fields),
      new AIMessage({ ...fields, additional_kwargs: { at: new Date(0), n: [1, undefined] } }),
      new AIMessageChunk({ ...fields, tool_call_chunks: [{ index: 0, name: "f", args: "{", id: "c" }] }),
      new ToolMessage({ ...fields, tool_call_id: "c", artifact: { deep: new Map([["k", 1n]]) } }),
    ),
  );
const { value } = fc.letrec((tie) => ({
  leaf: fc.oneof(
    fc.anything({
      maxDepth: 1,
      withBigInt: true,
      withDate: true,
      withMap: true,
      withSet: true,
      withTypedArray: true,
      withNullPrototype: true,
      withObjectString: true,
      withSparseArray: true,
    }),
    fc.date({ noInvalidDate: true }),
    fc.constant(() => 1),
    fc.constant(new TypeError("no")),
    fc.constant({ toJSON: () => ({ a: 1n, b: [new Set([1])] }) }),
    message,
  ),
  value: fc.oneof(
    { depthSize: "small" },
    tie("leaf"),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(fc.string(), tie("value"), { maxKeys: 4 }),
    fc.array(fc.tuple(fc.string(), tie("value")), { maxLength: 3 }).map((entries) => new Map(entries)),
    fc.array(tie("value"), { maxLength: 3 }).map((items) => new Set(items)),
  ),
}));

test("any value is the JSON that its definition says", () => {
  fc.assert(
    fc.property(value, (one) => {
      expect(toWireJson(one)).toBe(byDefinition(one));
    }),
    { numRuns: 2000 },
  );
});

test("a key named __proto__ is data", () => {
  const text = '{"__proto__":{"a":1},"b":2}';
  expect(toWireJson(JSON.parse(text))).toBe(text);
});
