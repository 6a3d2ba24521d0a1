// How long threads and items are kept that say nothing of it: `checkpointer.ttl` and `store.ttl` of langgraph.json.
import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readGraphsFile } from "../../server/runs/graph/graphs.ts";
import { startTestServer, useServer } from "../support/server.ts";

const HOLDFAST_CONFIG = "test/fixtures/kept.langgraph.json";
const held = useServer({ HOLDFAST_CONFIG });

const threads = (ids: string[]): Promise<unknown[]> =>
  held.scratch.database.query(
    `select t.ttl_minutes, t.ttl_strategy, t.expires_at is not null as is_set
       from unnest($1::text[]) with ordinality as asked (thread_id, n) join holdfast.threads t using (thread_id) order by n`,
    [ids],
  );
const minutesLeft = async (user: string): Promise<number[]> => {
  const rows = await held.scratch.database.query<{ left: number }>(
    `select round(extract(epoch from expires_at - now()) / 60)::int as left
       from holdfast.store_items where $1 = any (namespace) order by key`,
    [user],
  );
  return rows.map(({ left }) => left);
};
const later = (user: string): Promise<unknown> =>
  held.scratch.database.query(
    "update holdfast.store_items set expires_at = expires_at - interval '10 min' where $1 = any (namespace)",
    [user],
  );

test("threads are kept as langgraph.json says, however they came to be, unless they say so themselves", async () => {
  const { client } = held.server;
  const { thread_id: made } = await client.threads.create();
  const { thread_id: own } = await client.threads.create({ ttl: 3 });
  const implied = randomUUID();
  await client.runs.wait(implied, "keeping", { input: {}, ifNotExists: "create" });
  expect(await threads([made, own, implied])).toEqual([
    { ttl_minutes: 7, ttl_strategy: "keep_latest", is_set: true },
    { ttl_minutes: 3, ttl_strategy: "delete", is_set: true },
    { ttl_minutes: 7, ttl_strategy: "keep_latest", is_set: true },
  ]);
});

test("HOLDFAST_THREAD_TTL_MINUTES goes before the file", async () => {
  const server = await startTestServer(held.scratch.url, {
    HOLDFAST_CONFIG,
    HOLDFAST_THREAD_TTL_MINUTES: "90",
  });
  const { thread_id: made } = await server.client.threads.create();
  await server.stop();
  expect(await threads([made])).toEqual([{ ttl_minutes: 90, ttl_strategy: "delete", is_set: true }]);
});

test("items that clients and graphs write are kept so long, and reading begins nothing anew", async () => {
  const { client } = held.server;
  const user = randomUUID();
  await client.store.putItem([user], "a", {});
  await client.store.putItem([user], "b", {}, { ttl: 60 });
  const { thread_id: threadId } = await client.threads.create();
  const note = (text: string) => client.runs.wait(threadId, "remembering", { input: { user, note: text } });
  await note("z");
  expect(await minutesLeft(user)).toEqual([30, 60, 30]);
  await later(user);
  await client.store.getItem([user], "a");
  await client.store.searchItems([user]);
  expect(await note("")).toMatchObject({ seen: ["z"] });
  expect(await minutesLeft(user)).toEqual([20, 50, 20]);
  await client.store.getItem([user], "a", { refreshTtl: true });
  expect(await minutesLeft(user)).toEqual([30, 50, 20]);
});

test.each([
  ["checkpointer", { ttl: { default_ttl: 0 } }, "checkpointer.ttl.default_ttl"],
  ["checkpointer", { ttl: { default_ttl: 1, strategy: "forget" } }, "checkpointer.ttl.strategy"],
  ["store", { ttl: { default_ttl: "1 day" } }, "store.ttl.default_ttl"],
  ["store", { ttl: { refresh_on_read: "no" } }, "store.ttl.refresh_on_read"],
])("a wrong %s %o is named by its place in the file", async (name, section, place) => {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-kept-"));
  const file = join(folder, "langgraph.json");
  await writeFile(file, JSON.stringify({ graphs: { one: "./one.ts:one" }, [name]: section }));
  await expect(readGraphsFile(file)).rejects.toThrow(place);
  await rm(folder, { recursive: true });
});
