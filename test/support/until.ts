// Waits for a condition instead of for a time; a condition that never comes fails as an assertion.
import { setTimeout as delay } from "node:timers/promises";
import { expect } from "vitest";

export async function until(
  isTrue: () => Promise<boolean> | boolean,
  what: string,
  withinMs = 10_000,
): Promise<void> {
  // The clock on the wall may be set meanwhile.
  const end = performance.now() + withinMs;
  while (performance.now() < end) {
    if (await isTrue()) return;
    await delay(20);
  }
  expect.fail(`still waiting for: ${what}`);
}
