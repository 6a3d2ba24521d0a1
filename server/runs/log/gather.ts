// Answers the questions of many callers together: one statement is under way at a time and answers everybody who has
// asked meanwhile, so that a thousand callers cost a handful of statements. Who asks the same gets the same answer.
import { turn } from "../../clock.ts";

interface Asked<Question, Answer> {
  readonly question: Question;
  readonly answer: PromiseWithResolvers<Answer>;
}

export class Gather<Question, Answer> {
  readonly #most: number;
  readonly #answer: (questions: readonly Question[]) => Promise<readonly Answer[]>;
  readonly #asked = new Map<string, Asked<Question, Answer>>();
  #isAnswering = false;

  /**
   * @param most questions that are answered at a time
   * @param answer gives one answer for each question, in their order
   */
  constructor(most: number, answer: (questions: readonly Question[]) => Promise<readonly Answer[]>) {
    this.#most = most;
    this.#answer = answer;
  }

  /** @param key the same for the same question */
  ask(key: string, question: Question): Promise<Answer> {
    const asked = this.#asked.get(key) ?? { question, answer: Promise.withResolvers<Answer>() };
    this.#asked.set(key, asked);
    if (!this.#isAnswering) void this.#work();
    return asked.answer.promise;
  }

  async #work(): Promise<void> {
    this.#isAnswering = true;
    await turn();
    while (this.#asked.size > 0) {
      const few = [...this.#asked].slice(0, this.#most);
      for (const [key] of few) this.#asked.delete(key);
      try {
        const answers = await this.#answer(few.map(([, { question }]) => question));
        // One answer for each question.
        for (const [index, [, { answer }]] of few.entries()) answer.resolve(answers[index] as Answer);
      } catch (error) {
        for (const [, { answer }] of few) answer.reject(error);
      }
    }
    this.#isAnswering = false;
  }
}
