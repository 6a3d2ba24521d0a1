// Finding threads through the official client: filters, order, pages, and what of each thread is answered.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import type { Thread } from "@langchain/langgraph-sdk";
import { post } from "../fixtures/pair.ts";
import { useServer } from "../support/server.ts";

const held = useServer();
const SORTS = ["thread_id", "status", "created_at", "updated_at", "state_updated_at"] as const;

const ask = (content: string, topic: string) => ({ input: { messages: [{ role: "user", content }], topic } });
const idsOf = (threads: readonly Thread[]): string[] => threads.map(({ thread_id: id }) => id);

/** Threads that only this test knows, by a tag in their metadata. */
async function makeThreads(count: number): Promise<{ tag: string; ids: string[] }> {
  const tag = randomUUID();
  const made = Array.from({ length: count }, () => held.server.client.threads.create({ metadata: { tag } }));
  return { tag, ids: idsOf(await Promise.all(made)) };
}

test("pages visit every thread exactly once, also when all were created in the same moment", async () => {
  const { tag, ids } = await makeThreads(23);
  const same = "update holdfast.threads set created_at = now(), updated_at = now(), state_updated_at = now()";
  await held.scratch.database.query(`${same} where metadata ->> 'tag' = $1`, [tag]);
  for (const sortBy of SORTS) {
    for (const sortOrder of ["asc", "desc"] as const) {
      const seen: string[] = [];
      for (let offset = 0; offset < ids.length; offset += 4) {
        const query = { metadata: { tag }, limit: 4, offset, sortBy, sortOrder };
        seen.push(...idsOf(await held.server.client.threads.search(query)));
      }
      expect(seen.toSorted(), `${sortBy} ${sortOrder}`).toEqual(ids.toSorted());
    }
  }
});

test("the headers of a page say how many threads there are, and where the next page begins if there is one", async () => {
  const { tag } = await makeThreads(7);
  const page = async (limit: number, offset: number): Promise<(string | null)[]> => {
    const { headers } = await post(held.server, "/threads/search", { metadata: { tag }, limit, offset });
    return [headers.get("x-pagination-total"), headers.get("x-pagination-next")];
  };
  expect(await page(2, 0)).toEqual(["7", "2"]);
  expect(await page(5, 2)).toEqual(["7", null]);
  expect(await page(5, 4)).toEqual(["7", null]);
  expect(await page(7, 0)).toEqual(["7", null]);
  expect(await page(5, 9)).toEqual(["7", null]);
});

test("threads come newest first, or in the order that is asked for", async () => {
  const { client } = held.server;
  const { tag, ids } = await makeThreads(1);
  for (let more = 0; more < 3; more += 1) {
    ids.push((await client.threads.create({ metadata: { tag } })).thread_id);
  }
  const [first = "", second = ""] = ids;
  expect(idsOf(await client.threads.search({ metadata: { tag } }))).toEqual(ids.toReversed());
  await client.threads.update(second, { metadata: { seen: true } });
  const changed = await client.threads.search({ metadata: { tag }, sortBy: "updated_at" });
  expect(changed[0]?.thread_id).toBe(second);
  await client.runs.wait(first, "asking", { input: {} });
  const written = await client.threads.search({ metadata: { tag }, sortBy: "state_updated_at", limit: 1 });
  expect(idsOf(written)).toEqual([first]);
  const byStatus = await client.threads.search({ metadata: { tag }, sortBy: "status", sortOrder: "asc" });
  expect(byStatus.map(({ status }) => status)).toEqual(["idle", "idle", "idle", "interrupted"]);
});

test("a thread is found by its values, its ids and its status", async () => {
  const { client } = held.server;
  const { tag, ids } = await makeThreads(3);
  const [tea = "", asking = ""] = ids;
  await client.runs.wait(tea, "topical", ask("hello", `tea ${tag}`));
  await client.runs.wait(asking, "asking", { input: { count: 3 } });
  const values = { topic: `tea ${tag}+`, messages: [{ type: "human", content: "hello" }] };
  expect(idsOf(await client.threads.search({ values }))).toEqual([tea]);
  expect(await client.threads.count({ values })).toBe(1);
  expect(await client.threads.count({ values: { ...values, topic: "coffee" } })).toBe(0);
  expect(idsOf(await client.threads.search({ metadata: { tag }, status: "interrupted" }))).toEqual([asking]);
  expect(idsOf(await client.threads.search({ ids: [tea, randomUUID()] }))).toEqual([tea]);
  expect(await client.threads.search({ ids: [] })).toEqual([]);
});

test("a thread that is found is the thread that is read, with its values and open questions", async () => {
  const { client } = held.server;
  const { tag, ids } = await makeThreads(4);
  const [told = "", asking = "", failed = ""] = ids;
  await client.runs.wait(told, "topical", ask("hello", "tea"));
  await client.runs.wait(asking, "asking", { input: {} });
  await client.runs.wait(failed, "failing", { input: { count: 7 }, raiseError: false });
  const found = await client.threads.search({ metadata: { tag } });
  for (const thread of found) expect(thread).toEqual(await client.threads.get(thread.thread_id));
  const [one, two, three] = [told, asking, failed].map((id) => found.find((row) => row.thread_id === id));
  expect(one).toMatchObject({ status: "idle", values: { topic: "tea+" }, interrupts: {} });
  expect(Object.values(two?.interrupts ?? {})).toMatchObject([[{ value: { question: "go on?" } }]]);
  expect(three).toMatchObject({ status: "error", values: { count: 7 }, error: { error: "RangeError" } });
});

test("a thread made for one run only is never found", async () => {
  const { client } = held.server;
  const mark = randomUUID();
  const run = await client.runs.create(null, "topical", { ...ask("hello", mark), metadata: { mark } });
  await client.runs.join(run.thread_id, run.run_id);
  expect(await client.threads.search({ ids: [run.thread_id] })).toEqual([]);
  expect(await client.threads.count({ values: { topic: `${mark}+` } })).toBe(0);
});

test("select answers only the keys it names", async () => {
  const { tag } = await makeThreads(1);
  const [thread] = await held.server.client.threads.search({
    metadata: { tag },
    select: ["thread_id", "metadata"],
  });
  expect(Object.keys(thread ?? {}).toSorted()).toEqual(["metadata", "thread_id"]);
});

test("extract answers what stands at each path, and null where nothing does", async () => {
  const { client } = held.server;
  const { tag, ids } = await makeThreads(1);
  await client.runs.wait(ids[0] ?? "", "topical", ask("hello", "tea"));
  const extract = {
    last: "values.messages[-1].content",
    first: "values.messages[0].type",
    tag: "metadata.tag",
    beyond: "values.messages[9].content",
    inherited: "values.constructor",
  };
  const [thread] = await client.threads.search({ metadata: { tag }, select: ["thread_id"], extract });
  expect(thread).toEqual({
    thread_id: ids[0],
    extracted: { last: "about tea: hello", first: "human", tag, beyond: null, inherited: null },
  });
  const [plain] = await client.threads.search({ metadata: { tag } });
  expect(plain).not.toHaveProperty("extracted");
});

test.each([
  [{ sort_by: "mood" }, "sort_by"],
  [{ sort_order: "up" }, "sort_order"],
  [{ offset: -1 }, "offset"],
  [{ limit: 0 }, "limit"],
  [{ limit: 1001 }, "limit"],
  [{ status: "asleep" }, "status"],
  [{ ids: ["mine"] }, "ids"],
  [{ metadata: "u1" }, "metadata"],
  [{ extract: { a: "values.messages[last]" } }, "extract"],
  [{ extract: { a: "values..topic" } }, "extract"],
  [{ extract: { a: "secrets.key" } }, "extract"],
  [{ extract: Object.fromEntries(Array.from({ length: 11 }, (_, n) => [n, "values.a"])) }, "extract"],
])("a search with %j is 400 and names the field", async (body, field) => {
  const response = await post(held.server, "/threads/search", body);
  expect(response.status).toBe(400);
  const { error } = (await response.json()) as { error: { issues: { path: string[] }[] } };
  expect(error.issues.map(({ path }) => path[0])).toEqual([field]);
});

test("a filter that PostgreSQL cannot hold is 422", async () => {
  expect((await post(held.server, "/threads/search", { metadata: { a: "\0" } })).status).toBe(422);
  expect((await post(held.server, "/threads/count", { values: { a: "\ud800" } })).status).toBe(422);
});
