// Reads the log for all who follow runs: one statement is under way at a time and answers everybody who has asked
// meanwhile, so that a thousand followers cost a handful of statements. Who asks the same gets the same answer.
import { turn } from "../clock.ts";
import type { Queryable } from "../storage/database.ts";
import { findSegment, listSegments } from "../storage/events.ts";
import type { SegmentRow } from "../storage/events.ts";

/** Segments that one question gets at most. */
export const PAGE = 32;
// With rows of 64 KB an answer stays below 70 MB.
const MOST = 32;

interface Question {
  readonly runId: string;
  readonly after: number;
  readonly answer: PromiseWithResolvers<SegmentRow[]>;
}

export class EventReader {
  readonly #database: Queryable;
  #questions = new Map<string, Question>();
  #isReading = false;

  constructor(database: Queryable) {
    this.#database = database;
  }

  /** Up to `PAGE` segments with events after number `after`; one row without a segment when there is none. */
  read(runId: string, after: number): Promise<SegmentRow[]> {
    const key = `${runId} ${after}`;
    const asked = this.#questions.get(key) ?? { runId, after, answer: Promise.withResolvers<SegmentRow[]>() };
    this.#questions.set(key, asked);
    if (!this.#isReading) void this.#read();
    return asked.answer.promise;
  }

  /** The segment that holds an event. */
  find(runId: string, seq: number): Promise<SegmentRow | undefined> {
    return findSegment(this.#database, runId, seq);
  }

  async #read(): Promise<void> {
    this.#isReading = true;
    await turn();
    while (this.#questions.size > 0) {
      const asked = [...this.#questions].slice(0, MOST);
      for (const [key] of asked) this.#questions.delete(key);
      const questions = asked.map(([, question]) => question);
      try {
        const rows = Map.groupBy(await listSegments(this.#database, questions, PAGE), ({ n }) => n);
        for (const [index, { answer }] of questions.entries()) answer.resolve(rows.get(index + 1) ?? []);
      } catch (error) {
        for (const { answer } of questions) answer.reject(error);
      }
    }
    this.#isReading = false;
  }
}
