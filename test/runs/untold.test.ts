// What a run's log tells legacy clients, as who follows its thread by protocol v2 is told it.
import { expect, test } from "vitest";
import { dataOf } from "../../server/runs/log/lines.ts";
import type { Entry, Numbered } from "../../server/runs/log/lines.ts";
import { asProtocol, isToldValues, madeAt } from "../../server/runs/protocol/untold.ts";

const checkpoint = "1f0e6a6e-1d5a-6000-8000-000000000000";
const told = (entry: Entry): Numbered => ({ seq: 7, entry });
const valuesOf = (data: string): unknown => {
  const event = told({ event: "values", data, checkpoint });
  if (!isToldValues(event)) return expect.fail("it tells values");
  const shown = asProtocol(event);
  if (!shown) return "nothing";
  expect([shown.seq, shown.entry.at]).toEqual([7, madeAt(event)]);
  return JSON.parse(dataOf(shown.entry));
};

test("only the values of the graph's own checkpoints are told", () => {
  const whole = { event: "values", data: "{}", checkpoint };
  expect(isToldValues(told(whole))).toBe(true);
  expect(isToldValues(told({ ...whole, event: "values|inner:1" }))).toBe(false);
  expect(isToldValues(told({ event: "values", data: "{}" }))).toBe(false);
  expect(isToldValues(told({ ...whole, at: 1 }))).toBe(false);
});

test.each([
  ["an object", '{"log":["a"]}', { log: ["a"] }],
  ["an object beside a question", '{"log":["a"],"__interrupt__":[{"id":"1"}]}', { log: ["a"] }],
  ["nothing at all", "{}", {}],
  ["a text, as entrypoints return it", '"done"', "done"],
  ["a list", "[1,null]", [1, null]],
  ["null", "null", null],
])("values may be %s", (_, data, values) => {
  expect(valuesOf(data)).toEqual({ data: values });
});

test("a question alone is no values", () => {
  expect(valuesOf('{"__interrupt__":[{"id":"1","value":"sure?"}]}')).toBe("nothing");
});
