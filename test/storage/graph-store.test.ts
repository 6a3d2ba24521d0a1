// LangGraph's view of the store: batches are whole, reads see what was there before, and a lost lease writes nothing.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { InputPoisoned, LeaseLost, StoreNamespaceInvalid, ValueUnserialisable } from "../../server/errors.ts";
import { openPrivacy } from "../../server/privacy/guard.ts";
import type { Owner } from "../../server/storage/fence.ts";
import { GraphStore } from "../../server/storage/store/graph-store.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { runsOf } from "../support/runs.ts";
import type { Runs } from "../support/runs.ts";

let scratch: TestDatabase;
let runs: Runs;
beforeAll(async () => {
  scratch = await testDatabase();
  runs = await runsOf(scratch.database);
});
afterAll(() => scratch.close());

/** The store of a run, and what its driver was told. */
async function storeOfRun(change: Partial<Owner> = {}): Promise<{ store: GraphStore; told: LeaseLost[] }> {
  const told: LeaseLost[] = [];
  const store = new GraphStore(scratch.database, {
    owner: { ...(await runs.newRun()), ...change },
    onLost: (error) => void told.push(error),
  });
  return { store, told };
}

test("a batch answers each operation in its place, with what was there before it", async () => {
  const { store } = await storeOfRun();
  const namespace = [randomUUID(), "deep"];
  await store.put(namespace, "a", { n: 1 });
  const [got, put, found, missing, spaces]: unknown[] = await store.batch([
    { namespace, key: "a" },
    { namespace, key: "a", value: { n: 2 } },
    { namespacePrefix: namespace.slice(0, 1), filter: { n: { $gte: 1 } } },
    { namespace, key: "b" },
    { matchConditions: [{ matchType: "prefix", path: namespace }], limit: 10, offset: 0 },
  ]);
  const createdAt: unknown = expect.any(Date);
  expect(got).toMatchObject({ namespace, key: "a", value: { n: 1 }, createdAt, updatedAt: createdAt });
  expect(put).toBeUndefined();
  expect(found).toMatchObject([{ key: "a", value: { n: 1 } }]);
  expect(missing).toBeNull();
  expect(spaces).toEqual([namespace]);
  expect(await store.get(namespace, "a")).toMatchObject({ value: { n: 2 } });
});

test("what a search looks for is found as it was kept", async () => {
  const guard = openPrivacy({ mode: "redact", graphs: {}, rules: [], names: false }).of();
  const store = new GraphStore(scratch.database, { owner: await runs.newRun(), guard });
  const namespace = [randomUUID()];
  await store.put(namespace, "ada", { mail: "ada@example.org" });
  await store.put(namespace, "bob", { phone: 4_155_550_132 });
  const found = async (filter: Record<string, unknown>): Promise<string[]> =>
    (await store.search(namespace, { filter })).map(({ key }) => key);
  expect((await store.get(namespace, "ada"))?.value).toEqual({ mail: "[REDACTED_EMAIL]" });
  expect(await found({ mail: "ada@example.org" })).toEqual(["ada"]);
  expect(await found({ mail: { $eq: "ada@example.org" } })).toEqual(["ada"]);
  expect(await found({ phone: { $eq: 4_155_550_132 } })).toEqual(["bob"]);
});

test("of two writes to one key in a batch the later counts, and a delete is a write", async () => {
  const { store } = await storeOfRun();
  const namespace = [randomUUID()];
  await store.batch([
    { namespace, key: "kept", value: { n: 1 } },
    { namespace, key: "kept", value: { n: 2 } },
    { namespace, key: "gone", value: { n: 1 } },
    { namespace, key: "gone", value: null },
  ]);
  const items = await store.search(namespace);
  expect(items.map(({ key, value }) => [key, value])).toEqual([["kept", { n: 2 }]]);
});

test.each([
  ["of another attempt", { attempt: 2 }],
  ["of another worker", { workerId: randomUUID() }],
  ["that does not exist", { runId: randomUUID() }],
])("a run %s writes nothing, and its driver is told", async (_, change) => {
  const { store, told } = await storeOfRun(change);
  const namespace = [randomUUID()];
  const writes = [
    { namespace, key: "a", value: { n: 1 } },
    { namespace, key: "b", value: { n: 1 } },
  ];
  await expect(store.batch(writes)).rejects.toBeInstanceOf(LeaseLost);
  expect(told).toHaveLength(1);
  expect(await store.search(namespace)).toEqual([]);
});

test("a run that has ended writes nothing", async () => {
  const owner = await runs.newRun();
  const { store } = await storeOfRun(owner);
  const namespace = [randomUUID()];
  await store.put(namespace, "a", { n: 1 });
  await scratch.database.query("update holdfast.runs set state = 'success' where run_id = $1", [owner.runId]);
  await expect(store.delete(namespace, "a")).rejects.toBeInstanceOf(LeaseLost);
  expect(await store.get(namespace, "a")).toMatchObject({ value: { n: 1 } });
});

test("a write under way holds a takeover back until it is committed", async () => {
  const owner = await runs.newRun();
  const takeOver = "update holdfast.runs set attempt = attempt + 1 where run_id = $1";
  const order: string[] = [];
  let taking: Promise<unknown> = Promise.resolve();
  await scratch.database.transaction(async (transaction) => {
    const store = new GraphStore(transaction, {
      owner,
    });
    await store.put([randomUUID()], "a", { n: 1 });
    taking = scratch.database.query(takeOver, [owner.runId]).then(() => order.push("taken over"));
    await scratch.database.query("select pg_sleep(0.1)");
    order.push("written");
  });
  await taking;
  expect(order).toEqual(["written", "taken over"]);
});

const cycle: Record<string, unknown> = {};
cycle["self"] = cycle;

test.each([
  ["a function", { f: () => 1 }],
  ["a BigInt", { n: 1n }],
  ["itself", cycle],
  ["NaN", { n: Number.NaN }],
  ["a Set", { tags: new Set(["a"]) }],
])("a value that holds %s is refused, and so is its whole batch", async (_, value) => {
  const { store } = await storeOfRun();
  const namespace = [randomUUID()];
  const batch = store.batch([
    { namespace, key: "good", value: { n: 1 } },
    { namespace, key: "bad", value },
  ]);
  await expect(batch).rejects.toBeInstanceOf(ValueUnserialisable);
  expect(await store.search(namespace)).toEqual([]);
});

test("a text, an array and a function are no items", async () => {
  const { store } = await storeOfRun();
  for (const value of ["text", ["a"], () => 1]) {
    const put = store.batch([
      { namespace: ["n"], key: "k", value: value as unknown as Record<string, unknown> },
    ]);
    await expect(put).rejects.toBeInstanceOf(ValueUnserialisable);
  }
});

test("a date is kept as its text, and a field that is undefined is not there", async () => {
  const { store } = await storeOfRun();
  const namespace = [randomUUID()];
  await store.put(namespace, "a", { at: new Date(0), nothing: undefined });
  expect((await store.get(namespace, "a"))?.value).toEqual({ at: "1970-01-01T00:00:00.000Z" });
});

test.each([
  ["a NUL in a value", { namespace: ["n"], key: "k", value: { text: "a\0b" } }],
  ["half a pair in a field's name", { namespace: ["n"], key: "k", value: { "\ud800": 1 } }],
  ["a NUL in a key", { namespace: ["n"], key: "\0", value: { n: 1 } }],
  ["half a pair in a label", { namespace: ["\udc00"], key: "k", value: { n: 1 } }],
  ["a key that is only read", { namespace: ["n"], key: "\0" }],
])("%s is refused", async (_, operation) => {
  const { store } = await storeOfRun();
  await expect(store.batch([operation])).rejects.toBeInstanceOf(InputPoisoned);
});

test("labels that LangGraph would let pass in a batch are refused too", async () => {
  const { store } = await storeOfRun();
  for (const namespace of [["a.b"], ["a", ""]])
    await expect(store.batch([{ namespace, key: "k" }])).rejects.toBeInstanceOf(StoreNamespaceInvalid);
});
