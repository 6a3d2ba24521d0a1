// The read side of the event log: events after a cursor, then a hint, then events again, until the run is over.
// A run that this process executes is read from memory, any other from the log. Both show the same committed events,
// so a stream can begin at any event, on any instance, at any time.
import { RunNotFound } from "../errors.ts";
import { persistently } from "../persist.ts";
import { isOfRun } from "../storage/checkpoints/rows.ts";
import type { SegmentRow } from "../storage/events.ts";
import { isTerminal } from "../storage/run-states.ts";
import type { RunRow } from "../storage/runs.ts";
import type { Engine } from "./engine.ts";
import { LineReader } from "./log/line-reader.ts";
import type { Numbered } from "./log/lines.ts";
import type { Tail } from "./log/tail.ts";

type Source = Pick<Engine, "live" | "hints" | "reader">;

/**
 * The events of a run after `after` (-1: from the first), each once and in order, live until the run is over.
 * Yields what there is, at least one event at a time.
 * @throws RunNotFound when there is no such run; one that is rolled back meanwhile ends
 */
export async function* follow(
  source: Source,
  runId: string,
  options: { after: number; signal: AbortSignal },
): AsyncGenerator<Numbered[]> {
  const { signal } = options;
  const lines = new LineReader((seq) => persistently(() => source.reader.find(runId, seq), { signal }));
  let { after } = options;
  let hasSeen = false;
  let tail: Tail | undefined;
  using waiting = waitingUntil(signal);
  while (!signal.aborted) {
    if (!tail || tail.fate === "lost") tail = source.live.get(runId)?.tail;
    const events = tail?.fate === "lost" ? undefined : tail?.after(after);
    if (tail && events) {
      hasSeen = true;
      if (events.length > 0) {
        yield events;
        after = events.at(-1)?.seq ?? after;
      } else if (tail.fate === "over") return;
      else await waiting.next(tail);
      continue;
    }
    const hinted = source.hints.next(runId, signal);
    const read = await persistently(() => source.reader.read(runId, after), { signal });
    const [first] = read;
    if (!first?.state) {
      if (hasSeen) return;
      throw new RunNotFound();
    }
    hasSeen = true;
    try {
      for await (const fresh of eventsIn(lines, read, after)) {
        yield fresh;
        after = fresh.at(-1)?.seq ?? after;
      }
    } catch (error) {
      if (error instanceof RunNotFound) return; // gone since it was read
      throw error;
    }
    if (read.at(-1)?.is_more) continue;
    if (isTerminal(first.state)) return;
    await hinted;
  }
}

/** What a run's log holds by now, in batches, oldest first. @throws RunNotFound when it goes meanwhile */
export async function* readLog(reader: Engine["reader"], runId: string): AsyncGenerator<Numbered[]> {
  const lines = new LineReader((seq) => persistently(() => reader.find(runId, seq)));
  for (let after = -1; ;) {
    const read = await persistently(() => reader.read(runId, after));
    yield* eventsIn(lines, read, after);
    const last = read.at(-1);
    if (!last?.is_more) return;
    after = last.last;
  }
}

/** The events behind number `after` in rows of a log: rows that were read before may have become one with the next. */
async function* eventsIn(
  lines: LineReader,
  rows: readonly SegmentRow[],
  after: number,
): AsyncGenerator<Numbered[]> {
  for (const { seq, body } of rows) {
    if (seq === null) continue;
    for await (const portion of lines.read(seq, body)) {
      const fresh = portion.filter((event) => event.seq > after);
      if (fresh.length > 0) yield fresh;
    }
  }
}

/**
 * The same as legacy clients see it: without what is told by protocol v2 alone, and numbered as if that were not there.
 * @param run its row; once it is watched, numbers can only be counted from the beginning
 */
export async function* followLegacy(
  source: Source,
  run: Pick<RunRow, "run_id" | "is_watched">,
  { after, signal }: { after: number; signal: AbortSignal },
): AsyncGenerator<Numbered[]> {
  const numbers = new LegacyNumbers();
  const from = run.is_watched ? -1 : after;
  let isPlain = !run.is_watched;
  for await (const events of follow(source, run.run_id, { after: from, signal })) {
    isPlain &&= !events.some(isProtocol);
    const shown = isPlain ? events : numbers.of(events).filter(({ seq }) => seq > after);
    if (shown.length > 0) yield shown;
  }
}

/**
 * The number of the last event before a checkpoint, as legacy clients count: a stream that goes on behind it tells what
 * came after. -1 when the checkpoint is not one of the run's, or the run tells no values.
 */
export async function legacyBefore(
  { reader, database }: Pick<Engine, "reader" | "database">,
  run: Pick<RunRow, "run_id" | "thread_id">,
  checkpointId: string,
): Promise<number> {
  const numbers = new LegacyNumbers();
  let found: { readonly seq: number; readonly checkpoint: string } | undefined;
  for await (const events of readLog(reader, run.run_id)) {
    for (const { seq, entry } of numbers.of(events)) {
      const checkpoint = "checkpoint" in entry ? entry.checkpoint : undefined;
      // Ids of checkpoints grow. One whose superstep changed no values is not told of: the one before it is near.
      if (checkpoint !== undefined && checkpoint <= checkpointId) found = { seq, checkpoint };
    }
  }
  if (!found || (found.checkpoint !== checkpointId && !(await isOfRun(database, run, checkpointId))))
    return -1;
  return found.seq - 1;
}

/** Numbers the events of one run for legacy clients, from its first on. */
class LegacyNumbers {
  #hidden = 0;
  #last = -1;

  of(events: readonly Numbered[]): Numbered[] {
    const shown: Numbered[] = [];
    for (const event of events) {
      // Numbers jump where a crash of the database took events: some readers have seen them and others never will.
      // Counted anew from there, the numbers are the same for both.
      if (event.seq > this.#last + 1) this.#hidden = 0;
      this.#last = event.seq;
      if (isProtocol(event)) this.#hidden += 1;
      else shown.push({ seq: event.seq - this.#hidden, entry: event.entry });
    }
    return shown;
  }
}

const isProtocol = ({ entry }: Numbered): boolean => entry.at !== undefined;

/** Waits at a tail, again and again, with one listener for the whole time: there is one wait for nearly every token. */
function waitingUntil(signal: AbortSignal): Disposable & { next(tail: Tail): Promise<void> } {
  let wake: (() => void) | undefined;
  let at: Tail | undefined;
  const onAbort = (): void => {
    if (wake) at?.forget(wake);
    wake?.();
  };
  signal.addEventListener("abort", onAbort, { once: true });
  return {
    next: (tail) =>
      new Promise((resolve) => {
        at = tail;
        wake = resolve;
        if (signal.aborted) resolve();
        else tail.once(resolve);
      }),
    // A signal may outlive many runs, and would keep the tail of each.
    [Symbol.dispose]: () => {
      signal.removeEventListener("abort", onAbort);
      if (wake) at?.forget(wake);
    },
  };
}
