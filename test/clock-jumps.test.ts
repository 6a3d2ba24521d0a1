// The clock on the wall is set, an hour forward or back, while something lasts or is waited for: it takes as long as before.
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, test, vi } from "vitest";
import { uptime } from "../server/clock.ts";
import { DatabaseUnavailable } from "../server/errors.ts";
import { Flights } from "../server/models/caching/flights.ts";
import { Breaker } from "../server/models/resilience/breaker.ts";
import { Bucket } from "../server/models/resilience/bucket.ts";
import { policyOf } from "../server/models/resilience/policy.ts";
import { Watch } from "../server/models/resilience/watch.ts";
import { persistently } from "../server/persist.ts";
import { Resting } from "../server/runs/resting.ts";
import { Totals } from "../server/runs/totals.ts";
import { takeOne } from "../server/tools/rate.ts";

const HOUR_MS = 3_600_000;

function set(ms: number): void {
  const real = Date.now.bind(Date);
  vi.spyOn(Date, "now").mockImplementation(() => real() + ms);
}
afterEach(() => {
  vi.restoreAllMocks();
});

const withinASecond = <T>(work: Promise<T>): Promise<T | "too late"> =>
  Promise.race([work, delay(1000, "too late" as const)]);

describe.each([HOUR_MS, -HOUR_MS])("set by %i ms", (ms) => {
  test("a call that is answered is not cut, and one that is silent is", async () => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const watch = new Watch(uptime() + 60_000, resolve);
    watch.enter("between_tokens_ms", 60);
    set(ms);
    for (let token = 0; token < 5; token += 1) {
      await delay(20);
      watch.heard();
      watch.wait();
    }
    expect(await Promise.race([promise, delay(0, "answered")])).toBe("answered");
    expect(await withinASecond(promise)).toContain("sent nothing for 60 ms");
    watch.stop();
  });

  test("a bucket fills, and a pause ends, when it would have", async () => {
    const bucket = new Bucket({ requests: 600 });
    for (let taken = 0; taken < 600; taken += 1) await bucket.take(1, 1000);
    bucket.pause(50);
    set(ms);
    expect(await bucket.take(1, 10)).toBe(false);
    expect(await withinASecond(bucket.take(1, 900))).toBe(true);
  });

  test("a breaker opens for as long as it says", async () => {
    const breaker = new Breaker(policyOf(60_000), () => undefined);
    breaker.isolate(80);
    set(ms);
    expect(breaker.shut).toContain("breaker open until");
    await delay(100);
    expect(breaker.shut).toBeUndefined();
  });

  test("who waits for an equal call waits no longer and no shorter", async () => {
    const flights = new Flights<string>();
    const lead = await flights.join("key", 200);
    set(ms);
    const second = flights.join("key", 200);
    await delay(50);
    if (lead !== "alone" && "land" in lead) lead.land({ value: "landed" });
    expect(await withinASecond(second)).toEqual({ value: "landed" });
  });

  test("an absence of the database is borne as long as before, and ends", async () => {
    let asked = 0;
    const work = persistently(
      () => {
        asked += 1;
        if (asked === 1) set(ms);
        return asked < 3 ? Promise.reject(new DatabaseUnavailable("away")) : Promise.resolve("back");
      },
      { forMs: 5000 },
    );
    expect(await work).toBe("back");
    vi.restoreAllMocks();
    const away = persistently(() => Promise.reject(new DatabaseUnavailable("away")), { forMs: 300 });
    set(ms);
    await expect(withinASecond(away)).rejects.toThrow("away");
  });

  test("a run that rests comes back when it is due", async () => {
    const resting = new Resting();
    const attempt = { runId: "run", attempt: 1 };
    resting.add(attempt, 0);
    set(ms);
    expect(resting.isDue(attempt)).toBe(false);
    await delay(1050);
    expect(resting.isDue(attempt)).toBe(true);
  });

  test("what is remembered for a while is remembered as long", async () => {
    const totals = new Totals({ cheapMs: 1, times: 3 });
    let counted = 0;
    const count = async (): Promise<number> => {
      await delay(20);
      return (counted += 1);
    };
    await totals.of("all", count);
    set(ms);
    expect(await totals.of("all", count)).toBe(1);
    await delay(120);
    expect(await totals.of("all", count)).toBe(2);
  });

  test("a tool may be called as often in a minute as before", async () => {
    const tool = { name: `tool ${ms}`, perMinute: 1 } as Parameters<typeof takeOne>[0];
    expect(await takeOne(tool, undefined)).toBe(0);
    set(ms);
    const waitMs = await takeOne(tool, undefined);
    expect(waitMs).toBeGreaterThan(50_000);
    expect(waitMs).toBeLessThanOrEqual(60_000);
  });
});
