// Reads the log for all who follow runs, and finds the next run for all who follow threads.
import { listBegun } from "../../storage/begun.ts";
import type { BegunRow } from "../../storage/begun.ts";
import type { Queryable } from "../../storage/database.ts";
import { findSegment, listSegments, openSegments } from "../../storage/events.ts";
import type { SegmentRow } from "../../storage/events.ts";
import { listNextWatched } from "../../storage/watched.ts";
import type { NextWatched } from "../../storage/watched.ts";
import { Gather } from "./gather.ts";

/** What one question gets at most; a single segment may have more bytes. */
const PAGE = { limit: 32, bytes: 1024 * 1024 };
const MOST_READS = 32;
const MOST_LOOKS = 500;

/** Runs of a thread from this ordinal on. */
interface Ahead {
  readonly threadId: string;
  readonly ordinal: number;
}

export class EventReader {
  /** What cannot be read fails who asked for it, and nobody else. */
  readonly #segments: Gather<{ runId: string; after: number }, PromiseSettledResult<SegmentRow[]>>;
  readonly #places: Gather<{ runId: string; seq: number }, PromiseSettledResult<SegmentRow | undefined>>;
  readonly #watched: Gather<Ahead, NextWatched | undefined>;
  readonly #begun: Gather<Ahead, BegunRow[]>;

  constructor(database: Queryable) {
    this.#segments = new Gather(MOST_READS, async (questions) => {
      const rows = Map.groupBy(await listSegments(database, questions, PAGE), ({ n }) => n);
      const opened = questions.map(({ runId }, index) =>
        openSegments(database, runId, rows.get(index + 1) ?? []),
      );
      return Promise.allSettled(opened);
    });
    this.#places = new Gather(MOST_READS, (questions) =>
      Promise.allSettled(questions.map(({ runId, seq }) => findSegment(database, runId, seq))),
    );
    this.#watched = new Gather<Ahead, NextWatched | undefined>(MOST_LOOKS, async (questions) => {
      const rows = new Map((await listNextWatched(database, questions)).map((row) => [row.n, row]));
      return questions.map((_, index) => rows.get(index + 1));
    });
    this.#begun = new Gather(MOST_LOOKS, async (questions) => {
      const rows = Map.groupBy(await listBegun(database, questions), ({ n }) => n);
      return questions.map((_, index) => rows.get(index + 1) ?? []);
    });
  }

  /** Some segments with events after number `after`; the last one says whether there may be more. One row without a segment when there is none. */
  async read(runId: string, after: number): Promise<SegmentRow[]> {
    return valueOf(await this.#segments.ask(`${runId} ${after}`, { runId, after }));
  }

  /** The segment that holds an event. */
  async find(runId: string, seq: number): Promise<SegmentRow | undefined> {
    return valueOf(await this.#places.ask(`${runId} ${seq}`, { runId, seq }));
  }

  /** The thread's runs with this ordinal or a later one, some of them; none when there is no such thread. */
  begunRuns(threadId: string, ordinal: number): Promise<BegunRow[]> {
    return this.#begun.ask(`${ordinal} ${threadId}`, { threadId, ordinal });
  }

  /** The thread with its first watched run with this ordinal or a later one; undefined when there is no such thread. */
  nextRun(threadId: string, ordinal: number): Promise<NextWatched | undefined> {
    return this.#watched.ask(`${ordinal} ${threadId}`, { threadId, ordinal });
  }
}

function valueOf<Value>(answer: PromiseSettledResult<Value>): Value {
  if (answer.status === "rejected") throw answer.reason;
  return answer.value;
}
