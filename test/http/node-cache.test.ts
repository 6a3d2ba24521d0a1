// Nodes with a cachePolicy are executed once for the same key, on whatever server and thread, and only where what they
// write may be kept.
import { afterAll, beforeAll, expect, test } from "vitest";
import { TEST_KEYS } from "../support/keys.ts";
import { startTestServer, useServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";

const settings = { HOLDFAST_CONFIG: "test/fixtures/cached.langgraph.json", HOLDFAST_KEYS: TEST_KEYS };
const held = useServer(settings);
let second: TestServer;
beforeAll(async () => {
  second = await startTestServer(held.scratch.url, settings);
});
afterAll(() => second.stop());

async function work(question: string, graph = "working", at = held.server): Promise<string> {
  const values = await at.client.runs.wait(null, graph, { input: { question } });
  return (values as { result: string }).result;
}

test("a node is executed once for the same key, on all servers", async () => {
  const result = await work("once");
  expect(await work("once")).toBe(result);
  expect(await work("once", "working", second)).toBe(result);
  expect(await work("twice")).not.toBe(result);
  const [row] = await held.scratch.database.query<{ value: Buffer }>(
    "select value from holdfast.cache_entries where kind = 'nodes'",
  );
  expect(row?.value.includes(result)).toBe(false);
});

test("another graph's node of the same name has results of its own", async () => {
  expect(await work("shared", "other")).not.toBe(await work("shared"));
});

const askDesks = (): Promise<unknown> =>
  held.server.client.runs.wait(null, "desks", { input: { question: "desk" } });

test("nodes of one name in two graphs of one graph have results of their own, which are kept", async () => {
  const first = await askDesks();
  expect(first).toMatchObject({
    first: expect.stringMatching(/^legal: desk/),
    result: expect.stringMatching(/^finance: desk/),
  });
  expect(await askDesks()).toEqual(first);
});

test("what the graph's guard would change is not kept", async () => {
  expect(await work("mail")).not.toBe(await work("mail"));
});

test("of a graph with channels that are never to be stored nothing is kept", async () => {
  expect(await work("held", "holding")).not.toBe(await work("held", "holding"));
});

test("a changed entry is a miss, and the run ends well", async () => {
  const result = await work("changed");
  await held.scratch.database.query(
    "update holdfast.cache_entries set value = set_byte(value, 40, get_byte(value, 40) # 1)",
  );
  expect(await work("changed")).toMatch(/^changed /);
  expect(await work("changed")).not.toBe(result);
});
