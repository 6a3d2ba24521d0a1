// The counters of limits: what they allow, when a minute ends, and what is left in the database.
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { sweep } from "../../server/runs/sweep.ts";
import { openCounter } from "../../server/storage/rate-limits.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { openTestPool, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());
afterEach(() => {
  vi.restoreAllMocks();
});

const rows = (): Promise<{ key: string; points: number }[]> =>
  scratch.database.query("select key, points from holdfast.rate_limits order by key");

test("all processes together allow exactly the limit, whoever asks at the same time", async () => {
  const pools = [openTestPool(scratch.url), openTestPool(scratch.url), openTestPool(scratch.url)];
  const asked = pools.flatMap((pool) => {
    const counter = openCounter(pool, { name: "exact", most: 37 });
    return Array.from({ length: 70 }, () => counter.take("one", 1));
  });
  const allowed = (await Promise.all(asked)).filter(({ isAllowed }) => isAllowed);
  await Promise.all(pools.map((pool) => pool.close()));
  expect(allowed).toHaveLength(37);
});

test("after its time everything is there again", async () => {
  const counter = openCounter(scratch.database, { name: "short", most: 2, seconds: 1 });
  for (let turn = 0; turn < 3; turn += 1) await counter.take("one", 1);
  expect(await counter.emptyForMs("one")).toBeGreaterThan(0);
  await until(async () => (await counter.take("one", 1)).isAllowed, "the end of the time");
  expect(await counter.take("one", 1)).toMatchObject({ isAllowed: true, remaining: 0 });
  expect(await counter.take("one", 1)).toMatchObject({ isAllowed: false, remaining: 0 });
});

test("several are taken together or not at all, and what does not fit takes nothing", async () => {
  const counter = openCounter(scratch.database, { name: "several", most: 5 });
  expect(await counter.take("one", 3)).toMatchObject({ isAllowed: true, remaining: 2 });
  expect(await counter.take("one", 3)).toMatchObject({ isAllowed: false, remaining: 2 });
  expect(await counter.take("one", 2)).toMatchObject({ isAllowed: true, remaining: 0 });
});

test("of several that come at the same moment, those that do not fit take nothing either", async () => {
  const options = { name: "at-once", most: 5 };
  const [a, b] = [openCounter(scratch.database, options), openCounter(scratch.database, options)];
  for (const who of ["one", "two", "three", "four", "five"]) {
    const all = await Promise.all([a, b, a, b].map((counter) => counter.take(who, 4)));
    expect(all.filter(({ isAllowed }) => isAllowed)).toHaveLength(1);
    for (const counter of [a, b]) expect(await counter.emptyForMs(who)).toBe(0);
    expect(await b.take(who, 1)).toMatchObject({ isAllowed: true, remaining: 0 });
    expect(await a.take(who, 1)).toMatchObject({ isAllowed: false, remaining: 0 });
  }
});

test("who has nothing left costs no statement", async () => {
  const counter = openCounter(scratch.database, { name: "blocked", most: 1 });
  for (let turn = 0; turn < 10; turn += 1) await counter.take("one", 1);
  const counted = (await rows()).filter(({ key }) => key.startsWith("blocked:"));
  expect(counted).toEqual([{ key: expect.any(String), points: 1 }]);
});

test("no name and no address stands in the database", async () => {
  const counter = openCounter(scratch.database, { name: "named", most: 5 });
  await counter.take("identity alice@example.org", 1);
  await counter.take("address 203.0.113.7", 1);
  expect(JSON.stringify(await rows())).not.toMatch(/alice|203\.0/);
});

test("minutes that are long over are swept away, those that run are not", async () => {
  const counter = openCounter(scratch.database, { name: "swept", most: 5 });
  for (const who of ["old", "young"]) await counter.take(who, 1);
  await scratch.database.query(
    `update holdfast.rate_limits set expire = 1 where key = (
       select max(key) from holdfast.rate_limits where key like 'swept:%')`,
  );
  await sweep({ database: scratch.database, log: openLog("error") });
  expect((await rows()).filter(({ key }) => key.startsWith("swept:"))).toHaveLength(1);
});

const HOUR_MS = 3_600_000;
const real = Date.now.bind(Date);
/** As a server whose clock is ahead by so much, or behind. */
const ahead = (ms: number): void => void vi.spyOn(Date, "now").mockImplementation(() => real() + ms);

test.each([HOUR_MS, -HOUR_MS])("servers whose clocks differ by %i ms count the same minute", async (ms) => {
  const options = { name: `apart ${ms}`, most: 3 };
  const [right, wrong] = [openCounter(scratch.database, options), openCounter(scratch.database, options)];
  ahead(ms);
  expect(await wrong.take("one", 1)).toMatchObject({ isAllowed: true, remaining: 2 });
  vi.restoreAllMocks();
  expect(await right.take("one", 1)).toMatchObject({ isAllowed: true, remaining: 1 });
  ahead(ms);
  expect(await wrong.take("one", 1)).toMatchObject({ isAllowed: true, remaining: 0 });
  vi.restoreAllMocks();
  const { isAllowed, endsInMs } = await right.take("one", 1);
  expect(isAllowed).toBe(false);
  expect(endsInMs).toBeGreaterThan(50_000);
  expect(endsInMs).toBeLessThanOrEqual(60_000);
  expect(await right.take("one", 2)).toMatchObject({ isAllowed: false, remaining: 0 });
});

test("whoever is refused from memory comes again after his minute, although the clock is set back meanwhile", async () => {
  const counter = openCounter(scratch.database, { name: "set back", most: 1, seconds: 1 });
  for (let turn = 0; turn < 2; turn += 1) await counter.take("one", 1);
  ahead(-HOUR_MS);
  await until(async () => (await counter.take("one", 1)).isAllowed, "the end of the time", 5000);
  expect(await counter.emptyForMs("one")).toBeLessThanOrEqual(1000);
});

test("a minute that ends in an hour, because the clock of the database was set back, is over", async () => {
  const options = { name: "future", most: 2 };
  const [counter, other] = [openCounter(scratch.database, options), openCounter(scratch.database, options)];
  for (let turn = 0; turn < 2; turn += 1) await counter.take("one", 1);
  await scratch.database.query(
    "update holdfast.rate_limits set expire = expire + 3600000 where key like 'future:%'",
  );
  expect(await other.take("one", 2)).toMatchObject({ isAllowed: true, remaining: 0 });
});
