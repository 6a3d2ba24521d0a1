// The routes of the store, through the official client where it has a method for it.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { useServer } from "../support/server.ts";

const held = useServer();
const store = () => held.server.client.store;

const send = (method: string, path: string, body?: unknown): Promise<Response> =>
  fetch(held.server.url + path, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
const seen = async (response: Promise<Response>): Promise<unknown[]> => {
  const answer = await response;
  return [answer.status, answer.headers.get("x-holdfast-code"), await answer.text()];
};
const status = async (response: Promise<Response>): Promise<number> => (await response).status;
const rows = (namespace: string): Promise<unknown[]> =>
  held.scratch.database.query("select 1 from holdfast.store_items where namespace[1] = $1", [namespace]);

test("an item that was put is read as it was, with its times", async () => {
  const user = randomUUID();
  const value = { likes: ["tea", { kind: "green" }], n: 1.5, none: null, "": "ü😀" };
  expect(await store().putItem([user, "facts"], "food: one.two/three", value)).toBeUndefined();
  const item = await store().getItem([user, "facts"], "food: one.two/three");
  expect(item).toMatchObject({ namespace: [user, "facts"], key: "food: one.two/three", value });
  expect(item?.createdAt).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  expect(item?.updatedAt).toBe(item?.createdAt);
  await store().putItem([user, "facts"], "food: one.two/three", { replaced: true });
  const newer = await store().getItem([user, "facts"], "food: one.two/three");
  expect(newer?.value).toEqual({ replaced: true });
  expect(newer?.createdAt).toBe(item?.createdAt);
  expect(Date.parse(newer?.updatedAt ?? "")).toBeGreaterThan(Date.parse(item?.updatedAt ?? ""));
});

test("a deleted item is missing, and deleting it again is no error", async () => {
  const user = randomUUID();
  await store().putItem([user], "one", { n: 1 });
  await store().putItem([user], "two", { n: 2 });
  expect(await store().deleteItem([user], "one")).toBeUndefined();
  await store().deleteItem([user], "one");
  expect(await store().getItem([user], "one")).toBeNull();
  expect(await store().getItem([user], "two")).toMatchObject({ value: { n: 2 } });
});

test("a search filters, pages and gives whole items", async () => {
  const user = randomUUID();
  for (let size = 0; size < 12; size += 1)
    await store().putItem([user], `item ${String(size).padStart(2, "0")}`, {
      size,
      kind: size % 2 ? "odd" : "even",
    });
  const sizes = async (options: object): Promise<unknown[]> =>
    (await store().searchItems([user], options)).items.map(({ value }) => value["size"]);
  expect(await sizes({})).toHaveLength(10);
  expect(await sizes({ filter: { kind: "odd", size: { $gt: 1, $lte: 9 } } })).toEqual([3, 5, 7, 9]);
  expect(await sizes({ filter: { kind: { $ne: "odd" } }, limit: 2, offset: 1 })).toEqual([2, 4]);
  expect(await sizes({ filter: { kind: { $nin: ["odd"] }, size: { $in: [3, 4, 10, "4"] } } })).toEqual([
    4, 10,
  ]);
  const { items } = await store().searchItems([user], { filter: { size: 7 } });
  expect(items).toMatchObject([{ namespace: [user], key: "item 07", value: { size: 7, kind: "odd" } }]);
  expect(items[0]?.createdAt).toMatch(/Z$/);
});

test("namespaces are listed by prefix, suffix and depth", async () => {
  const root = randomUUID();
  for (const namespace of [
    ["a", "notes"],
    ["b", "notes"],
    ["b", "facts"],
    ["b", "facts", "old"],
  ])
    await store().putItem([root, ...namespace], "k", {});
  const listed = async (options: object): Promise<string[]> =>
    (await store().listNamespaces({ prefix: [root], ...options })).namespaces.map((one) =>
      one.slice(1).join(),
    );
  expect(await listed({})).toEqual(["a,notes", "b,facts", "b,facts,old", "b,notes"]);
  expect(await listed({ suffix: ["notes"] })).toEqual(["a,notes", "b,notes"]);
  expect(await listed({ maxDepth: 2 })).toEqual(["a", "b"]);
  expect(await listed({ prefix: [root, "*", "facts"] })).toEqual(["b,facts", "b,facts,old"]);
  expect(await listed({ limit: 2, offset: 1 })).toEqual(["b,facts", "b,facts,old"]);
});

test("an item with a time to live is gone when it is over, and reading it begins its time anew", async () => {
  const user = randomUUID();
  const sooner =
    "update holdfast.store_items set expires_at = expires_at - interval '30 min' where namespace[1] = $1";
  const minutesLeft = async (): Promise<number> => {
    const sql =
      "select round(extract(epoch from expires_at - now()) / 60)::int as left from holdfast.store_items where namespace[1] = $1";
    return (await held.scratch.database.query<{ left: number }>(sql, [user]))[0]?.left ?? 0;
  };
  await store().putItem([user], "k", {}, { ttl: 60 });
  await held.scratch.database.query(sooner, [user]);
  await store().getItem([user], "k", { refreshTtl: false });
  await store().searchItems([user], { refreshTtl: false });
  expect(await minutesLeft()).toBe(30);
  await store().getItem([user], "k");
  expect(await minutesLeft()).toBe(60);
  await held.scratch.database.query(sooner, [user]);
  await store().searchItems([user]);
  expect(await minutesLeft()).toBe(60);
  for (let half = 0; half < 2; half += 1) await held.scratch.database.query(sooner, [user]);
  expect(await store().getItem([user], "k")).toBeNull();
});

test("an empty namespace is 400, a label that is empty or holds a dot is 422", async () => {
  const put = (namespace: unknown): Promise<unknown[]> =>
    seen(send("PUT", "/store/items", { namespace, key: "k", value: {} }));
  expect(await put([])).toEqual([400, "input_invalid", expect.stringContaining("namespace is empty")]);
  for (const label of ["", "a.b", "."])
    expect(await put(["ok", label])).toEqual([
      422,
      "store_namespace_invalid",
      expect.stringContaining("dot"),
    ]);
  expect(await status(send("GET", "/store/items?key=k"))).toBe(400);
  expect(await status(send("GET", "/store/items?namespace=a..b&key=k"))).toBe(422);
  expect(await status(send("DELETE", "/store/items", { namespace: [], key: "k" }))).toBe(400);
  expect(await status(send("POST", "/store/items/search", { namespace_prefix: ["a."] }))).toBe(422);
  expect(await status(send("POST", "/store/namespaces", { suffix: [""] }))).toBe(422);
  expect(await rows("ok")).toEqual([]);
});

test("what PostgreSQL cannot hold is refused wherever it stands", async () => {
  const poisoned = [422, "poisoned_input", expect.stringContaining("NUL")];
  const user = randomUUID();
  const item = { namespace: [user], key: "k", value: {} };
  for (const bad of [
    { value: { a: ["x\0"] } },
    { value: { "\ud800": 1 } },
    { key: "\udc00" },
    { namespace: ["\0"] },
  ])
    expect(await seen(send("PUT", "/store/items", { ...item, ...bad }))).toEqual(poisoned);
  expect(await seen(send("GET", "/store/items?namespace=a&key=%00"))).toEqual(poisoned);
  expect(await seen(send("DELETE", "/store/items", { namespace: ["a"], key: "\0" }))).toEqual(poisoned);
  expect(await seen(send("POST", "/store/items/search", { filter: { a: "\0" } }))).toEqual(poisoned);
  expect(await seen(send("POST", "/store/namespaces", { prefix: ["\0"] }))).toEqual(poisoned);
  expect(await rows(user)).toEqual([]);
});

test("wrong types are 400 with the path of each, and unknown keys are ignored", async () => {
  const [code, , text] = await seen(
    send("PUT", "/store/items", { namespace: "a", key: 1, value: [], ttl: -1 }),
  );
  expect(code).toBe(400);
  const paths = JSON.parse(String(text)).error.issues.map(({ path }: { path: string[] }) => path[0]);
  expect(paths).toEqual(["namespace", "key", "value", "ttl"]);
  const [bad, , why] = await seen(send("POST", "/store/items/search", { filter: { n: { $near: 1 } } }));
  expect([bad, why]).toEqual([400, expect.stringContaining("$gte")]);
  const extra = { namespace: [randomUUID()], key: "k", value: {}, ttl: null, index: ["a"], more: 1 };
  expect(await seen(send("PUT", "/store/items", extra))).toEqual([204, null, ""]);
});

test("a search by meaning is refused with what to do instead", async () => {
  expect(await seen(send("POST", "/store/items/search", { query: "tea" }))).toEqual([
    422,
    "store_search_unavailable",
    expect.stringContaining("`filter`"),
  ]);
  expect(await status(send("POST", "/store/items/search", { query: null, limit: 1 }))).toBe(200);
});
