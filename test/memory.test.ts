// A process that grew gives its memory back when it has nothing to do.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const MEGABYTE = 1024 * 1024;
// What is held is dropped when the process becomes quiet: only a collection finds it out. V8 gives the pages of one back
// some ten seconds later.
const grow = `
  const { tendMemory } = await import(${JSON.stringify(new URL("../server/memory.ts", import.meta.url).href)});
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

test("what was needed under load goes when the process is quiet", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", grow]);
  const { busy, quiet } = JSON.parse(stdout) as { busy: number; quiet: number };
  expect(busy / MEGABYTE).toBeGreaterThan(100);
  expect(quiet).toBeLessThan(busy / 2);
}, 60_000);
