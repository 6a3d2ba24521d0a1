// The time of a thread's events. It never runs back, although the clocks of instances differ: official clients drop what
// is older than the checkpoint they began with.
import { now } from "../../clock.ts";
import type { Queryable } from "../../storage/database.ts";
import { findClock } from "../../storage/watched.ts";

/**
 * A clock that goes on from the thread's newest checkpoint and its newest event.
 * @param ordinal of the run whose events it is for
 */
export async function openClock(on: Queryable, threadId: string, ordinal: number): Promise<() => number> {
  const { checkpointTs, body } = await findClock(on, threadId, ordinal);
  const made = checkpointTs === null ? 0 : Date.parse(checkpointTs);
  const told = Number(
    body
      ?.split("\n")
      .findLast((line) => line.startsWith("@"))
      ?.slice(1)
      .split("\t", 1)[0] ?? 0,
  );
  return clockFrom(Math.max(Number.isFinite(made) ? made : 0, told));
}

/** A clock that shows `floor` or later, and never less than it has shown. */
export function clockFrom(floor: number): () => number {
  let last = floor;
  return () => {
    last = Math.max(last, now());
    return last;
  };
}
