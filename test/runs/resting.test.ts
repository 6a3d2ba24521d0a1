// Leaving runs and coming back to them: how long one waits for the database, and what a server that stops waits for.
import { randomUUID } from "node:crypto";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { drain } from "../../server/runs/drain.ts";
import type { Engine } from "../../server/runs/engine.ts";
import { LiveRuns } from "../../server/runs/live.ts";
import { Resting } from "../../server/runs/resting.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
afterEach(() => void vi.useRealTimers());

test("a run that the database stops again and again waits longer each time, half a minute at most", () => {
  const resting = new Resting();
  const waits = [0, 1, 2, 10].map((times) => {
    const attempt = { runId: randomUUID(), attempt: 1 };
    resting.add(attempt, times);
    let seconds = 0;
    for (; !resting.isDue(attempt); seconds += 1) vi.advanceTimersByTime(1000);
    return seconds;
  });
  expect(waits).toEqual([1, 2, 4, 30]);
});

test("a run that was taken away is not waited for when it comes back in another attempt", () => {
  const resting = new Resting();
  const [gone, kept] = [
    { runId: randomUUID(), attempt: 1 },
    { runId: randomUUID(), attempt: 1 },
  ];
  for (const attempt of [gone, kept]) resting.add(attempt, 0);
  resting.keep([kept, { ...gone, attempt: 2 }]);
  expect([resting.has(gone), resting.has(kept), resting.has({ ...gone, attempt: 2 })]).toEqual([
    false,
    true,
    false,
  ]);
});

test("a server that stops waits for what it is just claiming", async () => {
  const live = new LiveRuns();
  const runId = randomUUID();
  const left: string[] = [];
  const engine = {
    live,
    // The answer comes now, and what it begins goes on for a while.
    claimed: async () => {
      live.expect(runId);
      setTimeout(() => {
        left.push("the run");
        live.forget(runId);
      }, 250);
    },
    compare: () => Promise.resolve(),
  } as unknown as Engine;
  await drain(engine, 0);
  left.push("the server");
  expect(left).toEqual(["the run", "the server"]);
});
