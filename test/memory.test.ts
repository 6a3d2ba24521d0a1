// A process that grew gives its memory back when it has nothing to do.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const MEGABYTE = 1024 * 1024;
// What is held is dropped when the process becomes quiet: only a collection finds it out. V8 gives the pages of one back
// some ten seconds later.
const memory = JSON.stringify(new URL("../server/memory.ts", import.meta.url).href);
const grow = `
  const { tendMemory } = await import(${memory});
  const stop = tendMemory({ everyMs: 200 });
  const rss = () => process.memoryUsage.rss();
  let held = Array.from({ length: 1_500_000 }, (_, index) => ({ index, text: "x" + index }));
  const busyUntil = Date.now() + 700;
  while (Date.now() < busyUntil) await new Promise((resolve) => setImmediate(resolve));
  const busy = rss();
  held = undefined;
  const quietUntil = Date.now() + 45_000;
  while (rss() > busy / 2 && Date.now() < quietUntil) await new Promise((resolve) => setTimeout(resolve, 100));
  stop();
  console.log(JSON.stringify({ busy, quiet: rss() }));`;

// V8 as the command is started. What is loaded takes 40 MB, as in a server; what comes then takes 70 more.
const started = [
  "--max-semi-space-size=32",
  "--heap-growing-percent=50",
  "--expose-gc",
  "--input-type=module",
  "-e",
];
const burst = (begin: string): string => `
  const { PerformanceObserver, constants } = await import("node:perf_hooks");
  const { tendMemory } = await import(${memory});
  const objects = (count) => Array.from({ length: count }, (_, index) => ({ index, text: "x" + index }));
  const loaded = objects(550_000);
  ${begin}
  let collected = 0;
  const count = (entries) => entries.filter(({ detail }) => detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR).length;
  new PerformanceObserver((list) => (collected += count(list.getEntries()))).observe({ entryTypes: ["gc"] });
  const held = [];
  for (let batch = 0; batch < 40; batch += 1) {
    held.push(objects(25_000));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  console.log(JSON.stringify({ collected, held: held.length + loaded.length }));
  process.exit();`;

test.each([
  ["finds room without a collection", "tendMemory();", 0, 0],
  ["would not find it by itself", "gc();", 1, 99],
])("what comes all at once after a quiet time %s", async (_, begin, least, most) => {
  const { stdout } = await promisify(execFile)(process.execPath, [...started, burst(begin)]);
  const { collected } = JSON.parse(stdout) as { collected: number };
  expect(collected).toBeGreaterThanOrEqual(least);
  expect(collected).toBeLessThanOrEqual(most);
});

test("what was needed under load goes when the process is quiet", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", grow]);
  const { busy, quiet } = JSON.parse(stdout) as { busy: number; quiet: number };
  expect(busy / MEGABYTE).toBeGreaterThan(100);
  expect(quiet).toBeLessThan(busy / 2);
}, 60_000);
