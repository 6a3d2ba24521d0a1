// Leaving in order: what can end, ends; what cannot is handed over at its next superstep, and at last in the middle of
// one, which then runs again elsewhere. A hand-over waits for no lease and counts as no failed attempt.
import { sleep } from "../clock.ts";
import { messageOf } from "../errors.ts";
import type { Engine } from "./engine.ts";
import { HandOver } from "./outcome.ts";

// How long a node may take to come to its end once the hand-over has begun.
const SUPERSTEP_MS = 10_000;
const LOOK_MS = 100;

/** Resolves when this process executes nothing any more. `engine.stopping` must be set: nothing new may begin. */
export async function drain(engine: Engine, drainMs: number): Promise<void> {
  const { live } = engine;
  await engine.claimed();
  await within(drainMs, live.settled());
  for (const run of live.all()) run.requestDrain();
  // Who gives runs no time at all gives supersteps none either.
  await within(Math.min(SUPERSTEP_MS, drainMs), live.settled());
  // Again and again: a run that was being accepted when this began is among them only later.
  while (live.size > 0) {
    live.abortAll(new HandOver("The server stops."));
    await within(LOOK_MS, live.settled());
  }
  // What rests here until the database takes writes again; left to a reaper, it would count as a failed attempt.
  await engine.compare().catch((error: unknown) => {
    engine.log.warn("duty.failed", { reason: messageOf(error) });
  });
}

async function within(ms: number, work: Promise<void>): Promise<void> {
  const isOver = new AbortController();
  await Promise.race([work, sleep(ms, isOver.signal)]).finally(() => isOver.abort());
}
