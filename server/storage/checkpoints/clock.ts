// Ids of checkpoints begin with the time at which they were made, by the clock of the server that made them, and the
// newest checkpoint is the one with the greatest id. What a server whose clock is behind wrote would never be found: it
// waits until its clock has come to the newest checkpoint. That a clock was set back in the midst of a run shows in the
// next checkpoint: it is refused, and the run is given back to whoever waits so.
import { now, sleep } from "../../clock.ts";
import { ClockBehind } from "../../errors.ts";
import type { Queryable } from "../database.ts";

/** Clocks that are kept by NTP differ by milliseconds. Nobody would wait for one that is not. */
export const MOST_BEHIND_MS = 10_000;

const findNewestIdRow = `/* findNewestId */
select checkpoint_id from public.checkpoints
 where thread_id = $1 and checkpoint_ns = $2 order by checkpoint_id desc limit 1`;

/** The id of the newest checkpoint; undefined when there is none. */
export async function findNewestId(
  on: Queryable,
  { threadId, namespace }: { threadId: string; namespace: string },
): Promise<string | undefined> {
  const [row] = await on.query<{ checkpoint_id: string }>(findNewestIdRow, [threadId, namespace]);
  return row?.checkpoint_id;
}

/** The clock was set back while this server was writing to a thread. Who reads again there can go on. */
export class ClockSetBack extends ClockBehind {}

/** Sees to it that what is written to a thread counts as newer than what was read there. */
export class Order {
  readonly #signal: AbortSignal | undefined;
  /** The newest checkpoint of the thread's own graph, when it was read. */
  #newestId: string | undefined;

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** Resolves when ids that are made here are greater than this one; early when the signal aborts. @throws ClockBehind */
  async comeAfter(newestId: string | undefined, { namespace }: { namespace: string }): Promise<void> {
    if (namespace === "") this.#newestId = newestId;
    const ms = timeOf(newestId ?? "") - now();
    if (ms > MOST_BEHIND_MS)
      throw new ClockBehind(
        `The clock of this server is ${Math.round(ms / 1000)} s behind the one that the thread was written by last. Set the clocks of all servers by NTP.`,
      );
    // Within one millisecond, ids of two servers come in any order.
    if (ms >= 0) await sleep(ms + 1, this.#signal);
  }

  /** What is wrong with an id that was made now, and yet counts as older than its parent or what was read. */
  wrongOf(
    id: string,
    { namespace, parentId }: { namespace: string; parentId: string | undefined },
  ): ClockSetBack | undefined {
    const isOlder = isBefore(id, parentId) || (namespace === "" && isBefore(id, this.#newestId));
    return isOlder
      ? new ClockSetBack("The clock of this server was set back meanwhile. Try again.")
      : undefined;
  }
}

const isBefore = (id: string, other: string | undefined): boolean =>
  other !== undefined && VERSION_6.test(other) && VERSION_6.test(id) && id < other;

// A version 6 UUID holds tenths of microseconds since 15 October 1582, the high digits first.
const VERSION_6 = /^([0-9a-f]{8})-([0-9a-f]{4})-6([0-9a-f]{3})-/;
const BEFORE_1970_MS = 12_219_292_800_000;

/** When a checkpoint was made, in milliseconds since 1970; 0 for an id that tells no time. */
export function timeOf(id: string): number {
  const [, high, middle, low] = VERSION_6.exec(id) ?? [];
  return high === undefined ? 0 : Number(BigInt(`0x${high}${middle}${low}`) / 10_000n) - BEFORE_1970_MS;
}
