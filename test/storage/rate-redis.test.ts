// Limits that are counted in Redis: exact over all servers, and never a reason to wait, whatever becomes of Redis.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { openCounters } from "../../server/storage/open-counters.ts";
import type { Counter, CounterStore } from "../../server/storage/rate-limits.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startRedis } from "../support/redis.ts";
import type { TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

const log = openLog("error");
let scratch: TestDatabase;
let redis: TestRedis;
const stores: CounterStore[] = [];
let name = 0;
beforeAll(async () => {
  scratch = await testDatabase();
  redis = await startRedis();
});
beforeEach(async () => {
  name += 1;
  await redis.set("on");
});
afterAll(async () => {
  await Promise.all(stores.map((store) => store.close()));
  await redis.stop();
  await scratch.close();
});

async function open(most: number, cacheFail: "open" | "closed" = "open"): Promise<Counter> {
  const config = { limitStore: "redis", cacheUrl: redis.url, cacheFail } as const;
  const store = await openCounters(config, scratch.database, log);
  stores.push(store);
  return store.counter({ name: `test-${process.pid}-${name}`, most });
}

const inPostgres = async (): Promise<number> =>
  (
    await scratch.database.query("select 1 from holdfast.rate_limits where key like $1", [
      `%test-${process.pid}-${name}%`,
    ])
  ).length;

test("two servers let exactly as many through as may be, each caller for himself, and PostgreSQL knows nothing", async () => {
  const [here, there] = [await open(17), await open(17)];
  const asked = Array.from({ length: 60 }, (_, index) => (index % 2 ? here : there).take("ada", 1));
  expect((await Promise.all(asked)).filter(({ isAllowed }) => isAllowed)).toHaveLength(17);
  expect(await here.take("bob", 17)).toMatchObject({ isAllowed: true, remaining: 0 });
  expect(await here.emptyForMs("ada")).toBeGreaterThan(0);
  expect(await inPostgres()).toBe(0);
});

test.each(["cut", "silent"] as const)(
  "while Redis is %s PostgreSQL counts, and then Redis again",
  async (state) => {
    const counter = await open(5);
    await counter.take("ada", 1);
    await redis.set(state);
    const asked = await Promise.all(Array.from({ length: 9 }, () => counter.take("ada", 1)));
    expect(asked.filter(({ isAllowed }) => isAllowed)).toHaveLength(5);
    expect(await inPostgres()).toBe(1);
    await redis.set("on");
    await until(
      async () => (await counter.take("eve", 1)).remaining === 4 && (await counter.take("ada", 1)).isAllowed,
      "Redis",
    );
  },
);

test("where nothing may pass uncounted, requests are refused while Redis is away", async () => {
  const counter = await open(5, "closed");
  await redis.set("cut");
  await expect(counter.take("ada", 1)).rejects.toMatchObject({
    code: "limits_unavailable",
    status: 503,
    retryable: true,
  });
  await redis.set("on");
  await until(
    async () =>
      counter.take("ada", 1).then(
        () => true,
        () => false,
      ),
    "Redis",
  );
});

test("Redis without an address is refused at the start", async () => {
  const config = { limitStore: "redis", cacheUrl: undefined, cacheFail: "open" } as const;
  await expect(openCounters(config, scratch.database, log)).rejects.toThrow("HOLDFAST_CACHE_URL");
});
