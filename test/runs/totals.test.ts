// Totals of pages: exact while counting is cheap, and never a reason for slow pages.
import { setTimeout as delay } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { Totals } from "../../server/runs/totals.ts";
import { until } from "../support/until.ts";

/** Counts how often it was asked, and takes its time. */
function counter(ms: number): { asked: number; count: () => Promise<number> } {
  const made = {
    asked: 0,
    count: async () => {
      made.asked += 1;
      const total = made.asked;
      await delay(ms);
      return total;
    },
  };
  return made;
}

test("what is counted quickly is counted each time", async () => {
  const totals = new Totals({ cheapMs: 5000, times: 100 });
  const quick = counter(0);
  for (const total of [1, 2, 3]) expect(await totals.of("all", quick.count)).toBe(total);
});

test("a count that took long is remembered for a while, each by its name", async () => {
  const totals = new Totals({ cheapMs: 5, times: 20 });
  const slow = counter(30);
  expect(await totals.of("all", slow.count)).toBe(1);
  expect(await totals.of("all", slow.count)).toBe(1);
  expect(await totals.of("some", slow.count)).toBe(2);
  await until(async () => (await totals.of("all", slow.count)) > 2, "the total to be counted again");
});

test("who asks while it is being counted gets the same answer, and a count that failed is asked again", async () => {
  const totals = new Totals({ cheapMs: 5000, times: 1 });
  const slow = counter(20);
  expect(await Promise.all([totals.of("all", slow.count), totals.of("all", slow.count)])).toEqual([1, 1]);
  await expect(totals.of("all", () => Promise.reject(new Error("away")))).rejects.toThrow("away");
  expect(await totals.of("all", slow.count)).toBe(2);
});

test("a count that took for ever is remembered for no more than a minute", async () => {
  const totals = new Totals({ cheapMs: 5, times: 1_000_000 });
  const slow = counter(30);
  await totals.of("all", slow.count);
  const real = performance.now.bind(performance);
  const passed = vi.spyOn(performance, "now").mockImplementation(() => real() + 59_000);
  try {
    expect(await totals.of("all", slow.count)).toBe(1);
    passed.mockImplementation(() => real() + 61_000);
    expect(await totals.of("all", slow.count)).toBe(2);
  } finally {
    passed.mockRestore();
  }
});

test("of many counts that took long the oldest are forgotten, and only those", async () => {
  const totals = new Totals({ cheapMs: 5, times: 1_000_000 });
  const slow = counter(30);
  const names = Array.from({ length: 201 }, (_, at) => `search ${at}`);
  await Promise.all(names.map((name) => totals.of(name, slow.count)));
  const asked = slow.asked;
  await totals.of("search 1", slow.count);
  await totals.of("search 200", slow.count);
  expect(slow.asked).toBe(asked);
  await totals.of("search 0", slow.count);
  expect(slow.asked).toBe(asked + 1);
});
