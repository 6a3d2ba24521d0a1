// A cache gives back what was put there, to nobody else and not for longer, and gives nothing rather than something wrong.
import { createClient, RESP_TYPES } from "@redis/client";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { sweep } from "../../server/runs/sweep.ts";
import type { Caches } from "../../server/storage/caches/caches.ts";
import { sealExisting } from "../../server/storage/keys/seal-existing.ts";
import { shredThread } from "../../server/storage/keys/shred.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { openTestCaches } from "../support/caches.ts";
import { createThreadRow } from "../support/checkpoints.ts";
import { openTestPool, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { found } from "../support/found.ts";
import { TEST_KEYS, sealsOf } from "../support/keys.ts";
import { startRedis } from "../support/redis.ts";
import type { TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

const TEXT = "zq7marker of an answer";
const HOUR_MS = 3_600_000;
let scratch: TestDatabase;
let sealed: TestDatabase;
let redis: TestRedis;
beforeAll(async () => {
  [scratch, sealed, redis] = await Promise.all([testDatabase(), testDatabase(TEST_KEYS), startRedis()]);
});
afterAll(() => Promise.all([scratch.close(), sealed.close(), redis.stop()]));

type Where = "postgres" | "redis";
type Options = Parameters<typeof openTestCaches>[2];

async function open(where: Where, { database } = scratch, options: Options = {}) {
  const made = await openTestCaches(database, where === "redis" ? redis.url : undefined, options);
  onTestFinished(() => made.caches.close());
  return made;
}

async function put(caches: Caches, name: string, text = TEXT, ttlMs = HOUR_MS): Promise<string> {
  const key = found(await caches.keyOf(name), "cache");
  await caches.put("responses", [{ key, value: Buffer.from(text), ttlMs }]);
  return key;
}

const textAt = async (caches: Caches, key: string): Promise<string | undefined> =>
  (await caches.get("responses", [key])).get(key)?.value.toString();

/** What is stored under a key, as it is stored. */
async function storedAt(where: Where, key: string, { database } = scratch): Promise<Buffer> {
  if (where === "postgres") {
    const [row] = await database.query<{ value: Buffer }>(
      "select value from holdfast.cache_entries where key = $1",
      [key],
    );
    return found(row?.value, "such row");
  }
  const mapping = { [RESP_TYPES.BLOB_STRING]: Buffer };
  const value = await plainRedis((client) => client.withTypeMapping(mapping).get(redisKey(key)));
  return Buffer.from(found(value, "such key"));
}

async function change(where: Where, key: string, value: Buffer, { database } = scratch): Promise<void> {
  if (where === "postgres")
    await database.query("update holdfast.cache_entries set value = $2 where key = $1", [key, value]);
  else await plainRedis((client) => client.set(redisKey(key), value));
}

const redisKey = (key: string): string => `holdfast:default:responses:${key}`;

async function plainRedis<T>(work: (client: ReturnType<typeof createClient>) => Promise<T>): Promise<T> {
  const client: ReturnType<typeof createClient> = createClient({ url: redis.url });
  await client.connect();
  return work(client).finally(() => client.destroy());
}

describe.each<Where>(["postgres", "redis"])("in %s", (where) => {
  test("what was put is found, under its key and kind alone, and by every process", async () => {
    const [{ caches }, { caches: other }] = [await open(where), await open(where)];
    const key = await put(caches, "one");
    expect(await textAt(other, key)).toBe(TEXT);
    expect((await caches.get("nodes", [key])).size).toBe(0);
    expect(await textAt(caches, (await caches.keyOf("another")) ?? "")).toBeUndefined();
    expect(caches.stats.responses).toMatchObject({ hits: 0, misses: 1, stored: 1 });
    expect(other.stats.responses).toMatchObject({ hits: 1, misses: 0, stored: 0 });
  });

  test("another tenant never finds it, nor its key", async () => {
    const [{ caches }, { caches: other }] = [
      await open(where),
      await open(where, scratch, { scope: { tenantId: "other" } }),
    ];
    const key = await put(caches, "ours");
    expect(await other.keyOf("ours")).not.toBe(key);
    expect(await textAt(other, key)).toBeUndefined();
  });

  test("an entry whose time is over is none", async () => {
    const { caches } = await open(where);
    const key = await put(caches, "brief", TEXT, 1);
    await until(async () => (await textAt(caches, key)) === undefined, "the end of an entry");
    expect(caches.stats.responses.stored).toBe(1);
  });

  test("what is cleared is gone, and the rest is there", async () => {
    const { caches } = await open(where);
    const entries = ["a1", "a2", "b1"].map((key) => ({ key, value: Buffer.from(key), ttlMs: HOUR_MS }));
    await caches.put("nodes", entries);
    await caches.clear("nodes", "a");
    expect([...(await caches.get("nodes", ["a1", "a2", "b1"])).keys()]).toEqual(["b1"]);
  });

  test("what is too large is not kept", async () => {
    const { caches } = await open(where);
    const key = await put(caches, "large", "x".repeat(1_000_001));
    expect(await textAt(caches, key)).toBeUndefined();
  });

  test("with keys nothing can be read where it is kept, and what was changed there is a miss", async () => {
    const { caches, logged } = await open(where, sealed);
    const [key, other] = [await put(caches, "secret"), await put(caches, "moved")];
    const stored = await storedAt(where, key, sealed);
    expect(stored.includes(TEXT)).toBe(false);
    await change(where, other, stored, sealed);
    const altered = Buffer.from(stored);
    altered.writeUInt8(altered.readUInt8(altered.length - 1) ^ 1, altered.length - 1);
    await change(where, key, altered, sealed);
    expect([await textAt(caches, key), logged]).toEqual([undefined, ["cache.unreadable"]]);
    expect(await textAt(caches, other)).toBeUndefined();
    await put(caches, "secret");
    expect(await textAt(caches, key)).toBe(TEXT);
  });

  test("what was kept without keys is a miss with them, and the other way round", async () => {
    const plain = openTestPool(sealed.url, { seals: sealsOf(undefined) });
    onTestFinished(() => plain.close());
    const [{ caches }, { caches: without }] = [
      await open(where, sealed),
      await open(where, { ...sealed, database: plain }),
    ];
    const [closed, bare] = [await put(caches, "closed"), await put(without, "bare")];
    expect(await textAt(without, closed)).toBeUndefined();
    expect(await textAt(caches, bare)).toBeUndefined();
  });

  test("shredding anything makes all that is cached unreadable", async () => {
    const { caches } = await open(where, sealed);
    const key = await put(caches, "said on a thread");
    await createThreadRow(sealed.database, "shredded");
    await shredThread(sealed.database, "shredded");
    const elsewhere = openTestPool(sealed.url, { seals: sealsOf(TEST_KEYS) });
    onTestFinished(() => elsewhere.close());
    const { caches: other } = await open(where, { ...sealed, database: elsewhere });
    expect(await textAt(other, key)).toBeUndefined();
  });
});

test("sealing a database takes away what was kept there unsealed", async () => {
  const plain = await testDatabase(undefined);
  onTestFinished(() => plain.close());
  const { caches } = await open("postgres", plain);
  await put(caches, "unsealed");
  const keyed = openTestPool(plain.url, { seals: sealsOf(TEST_KEYS) });
  onTestFinished(() => keyed.close());
  await sealExisting(keyed, () => {});
  expect(await keyed.query("select key from holdfast.cache_entries")).toEqual([]);
});

test("the sweep takes away what is over, and nothing else", async () => {
  const { caches } = await open("postgres");
  const [brief, long] = [await put(caches, "swept", TEXT, 1), await put(caches, "kept")];
  const keys = async (): Promise<unknown[]> =>
    scratch.database.query("select key from holdfast.cache_entries where key = any ($1)", [[brief, long]]);
  await until(async () => {
    await sweep({ database: scratch.database, log: openLog("error") });
    return (await keys()).length === 1;
  }, "the sweep");
  expect(await keys()).toEqual([{ key: long }]);
});

test("an entry that is used begins its time anew, once a day", async () => {
  const { caches } = await open("postgres");
  const key = await put(caches, "used");
  const ends = async (): Promise<unknown> =>
    (await scratch.database.query("select expires_at from holdfast.cache_entries where key = $1", [key]))[0];
  const before = await ends();
  await caches.get("responses", [key], { renewMs: HOUR_MS });
  expect(await ends()).toEqual(before);
  const stamp = Buffer.alloc(9);
  stamp.writeDoubleBE(Date.now() - 2 * 24 * HOUR_MS, 1);
  await change("postgres", key, stamp);
  await scratch.database.query("update holdfast.cache_entries set used_at = now() - interval '2 days'");
  await caches.get("responses", [key], { renewMs: 2 * HOUR_MS });
  expect(await ends()).not.toEqual(before);
});

describe("a Redis that is", () => {
  test.each(["cut", "silent"] as const)(
    "%s costs a bounded wait and no work, and is found again",
    async (state) => {
      const { caches, logged } = await open("redis");
      const key = await put(caches, state);
      await redis.set(state);
      onTestFinished(() => redis.set("on"));
      for (let n = 0; n < 5; n += 1) expect(await textAt(caches, key)).toBeUndefined();
      await until(async () => (await caches.keyOf(state)) !== undefined, "the store to be asked again");
      expect(await textAt(caches, key)).toBeUndefined();
      await caches.put("responses", [{ key, value: Buffer.from(TEXT), ttlMs: HOUR_MS }]);
      expect(logged).toEqual(["cache.unavailable"]);
      await redis.set("on");
      await until(async () => (await textAt(caches, key)) === TEXT, "Redis to be found again");
      expect(logged).toEqual(["cache.unavailable", "cache.available"]);
    },
  );

  test("away refuses what would be looked up if the operator wants it so", async () => {
    const { caches } = await open("redis", scratch, { fail: "closed" });
    const key = await put(caches, "closed to all");
    await redis.set("cut");
    onTestFinished(() => redis.set("on"));
    for (let n = 0; n < 2; n += 1)
      await expect(textAt(caches, key)).rejects.toMatchObject({ code: "cache_unavailable", retryable: true });
    await expect(
      caches.put("responses", [{ key, value: Buffer.from(TEXT), ttlMs: 1 }]),
    ).resolves.toBeUndefined();
  });

  test("full gives what it has, and says once that it takes nothing", async () => {
    const { caches, logged } = await open("redis", scratch, { fail: "closed" });
    const key = await put(caches, "kept before");
    await plainRedis((client) => client.configSet("maxmemory", "1"));
    onTestFinished(async () => void (await plainRedis((client) => client.configSet("maxmemory", "0"))));
    for (let n = 0; n < 3; n += 1) {
      await put(caches, `too much ${n}`);
      expect(await textAt(caches, key)).toBe(TEXT);
    }
    expect(logged).toEqual(["cache.unwritable"]);
  });

  test("not there at the start is found later", async () => {
    const { caches: before } = await open("redis");
    const key = await put(before, "later");
    await redis.set("cut");
    const { caches } = await open("redis");
    await redis.set("on");
    await until(async () => (await textAt(caches, key)) === TEXT, "Redis to be found");
    expect(caches.stats.responses.hits).toBe(1);
  });
});
