// Finds the next run of a thread for all who follow threads: one statement is under way at a time and answers everybody
// who has asked meanwhile.
import { turn } from "../../clock.ts";
import type { Queryable } from "../../storage/database.ts";
import { listNextWatched } from "../../storage/watched.ts";
import type { WatchedRun } from "../../storage/watched.ts";

const MOST = 500;

interface Question {
  readonly threadId: string;
  readonly ordinal: number;
  readonly answer: PromiseWithResolvers<WatchedRun | undefined>;
}

export class RunsAhead {
  readonly #database: Queryable;
  #questions = new Map<string, Question>();
  #isReading = false;

  constructor(database: Queryable) {
    this.#database = database;
  }

  /** The thread's first run with this ordinal or a later one; undefined when none has begun yet. */
  from(threadId: string, ordinal: number): Promise<WatchedRun | undefined> {
    const key = `${ordinal} ${threadId}`;
    const answer = Promise.withResolvers<WatchedRun | undefined>();
    const asked = this.#questions.get(key) ?? { threadId, ordinal, answer };
    this.#questions.set(key, asked);
    if (!this.#isReading) void this.#read();
    return asked.answer.promise;
  }

  async #read(): Promise<void> {
    this.#isReading = true;
    await turn();
    while (this.#questions.size > 0) {
      const asked = [...this.#questions].slice(0, MOST);
      for (const [key] of asked) this.#questions.delete(key);
      const questions = asked.map(([, question]) => question);
      try {
        const rows = new Map((await listNextWatched(this.#database, questions)).map((row) => [row.n, row]));
        for (const [index, { answer }] of questions.entries()) answer.resolve(rows.get(index + 1));
      } catch (error) {
        for (const { answer } of questions) answer.reject(error);
      }
    }
    this.#isReading = false;
  }
}
