// Ids sort by time, differ from each other, and name a graph's assistant alike everywhere.
import { expect, test } from "vitest";
import { assistantIdOf, isUuid, uuidv7 } from "../server/ids.ts";

test("ids of one process never collide and are version 7", () => {
  const ids = Array.from({ length: 10_000 }, uuidv7);
  expect(new Set(ids).size).toBe(ids.length);
  for (const id of ids)
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("an id holds the time it was made, so ids sort by time", () => {
  const before = Date.now();
  const stamp = Number.parseInt(uuidv7().replaceAll("-", "").slice(0, 12), 16);
  expect(stamp).toBeGreaterThanOrEqual(before);
  expect(stamp).toBeLessThanOrEqual(Date.now());
});

test("a graph's assistant has the id that the official servers give it", () => {
  // The id of the graph "agent" in the examples of LangGraph's own documentation.
  expect(assistantIdOf("agent")).toBe("fe096781-5601-53d2-b2f6-0d3403f7e9ca");
  expect(assistantIdOf("agent")).not.toBe(assistantIdOf("agent2"));
});

test.each([
  ["fe096781-5601-53d2-b2f6-0d3403f7e9ca", true],
  ["FE096781-5601-53D2-B2F6-0D3403F7E9CA", true],
  ["fe096781560153d2b2f60d3403f7e9ca", false],
  ["agent", false],
  ["", false],
])("%s is a UUID: %s", (text, expected) => {
  expect(isUuid(text)).toBe(expected);
});
