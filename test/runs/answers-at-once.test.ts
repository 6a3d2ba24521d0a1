// Answers that come at the same moment, from people who have looked at the same question on two servers.
import { expect, test } from "vitest";
import { logOf, newThread, usePair } from "../fixtures/pair.ts";
import { command, startRun } from "../support/protocol.ts";
import type { Place } from "../support/protocol.ts";
import { until } from "../support/until.ts";

const pair = usePair();

const places = (): Place[] => [pair.here, pair.there].map(({ url }) => ({ url, fetch }));

async function questionOf(threadId: string): Promise<string> {
  const { tasks } = await pair.here.client.threads.getState(threadId);
  const id = tasks[0]?.interrupts[0]?.id;
  if (id === undefined) throw new Error("Nothing is asked.");
  return id;
}

/** Keeps the thread from being changed until all of `asks` have looked at it, and lets them come in their order. */
async function atOnce<T>(threadId: string, asks: readonly (() => Promise<T>)[]): Promise<T[]> {
  const { database } = pair.scratch;
  const waiting = async (): Promise<number> => {
    const sql = `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
    return (await database.query(sql)).length;
  };
  const answers: Promise<T>[] = [];
  await database.transaction(async (transaction) => {
    await transaction.query("select from holdfast.threads where thread_id = $1 for update", [threadId]);
    for (const ask of asks) {
      answers.push(ask());
      await until(async () => (await waiting()) === answers.length, "it to wait for the thread");
    }
  });
  return Promise.all(answers);
}

const isQuiet = (threadId: string): Promise<void> =>
  until(
    async () => (await pair.here.client.threads.get(threadId)).status !== "busy",
    "the thread to come to rest",
  );

const REFUSED = { type: "error", error: "no_such_interrupt" };

test.each([{}, { strict_resume: true }])(
  "of two answers to one question one counts, and none goes to the next question (%o)",
  async (more) => {
    const { client } = pair.here;
    const threadId = await newThread(pair.here);
    await client.runs.wait(threadId, "asksAgain", { input: {} });
    const question = await questionOf(threadId);
    const asks = places().map((place, index) => () => {
      const params = { interrupt_id: question, response: `answer ${index}`, ...more };
      return command(place, threadId, "input.respond", params, index);
    });
    expect(await atOnce(threadId, asks)).toMatchObject([{ type: "success" }, REFUSED]);
    await isQuiet(threadId);
    const { tasks } = await client.threads.getState(threadId);
    expect(tasks[0]?.interrupts[0]?.value).toBe("second?");
    await client.runs.wait(threadId, "asksAgain", { command: { resume: "last" } });
    expect(await logOf(pair.here, threadId)).toEqual(["answer 0", "last"]);
  },
);

test("an answer is refused whose question a change of the state has taken away", async () => {
  const { client } = pair.here;
  const threadId = await newThread(pair.here);
  await client.runs.wait(threadId, "asksAgain", { input: {} });
  const [place = expect.fail("no server")] = places();
  const answer = { interrupt_id: await questionOf(threadId), response: "late" };
  const change = { values: { log: ["changed"] }, asNode: "ask" };
  const [, refused] = await atOnce<unknown>(threadId, [
    () => client.threads.updateState(threadId, change),
    () => command(place, threadId, "input.respond", answer),
  ]);
  expect(refused).toMatchObject(REFUSED);
  expect(await client.runs.list(threadId)).toHaveLength(1);
});

test("of two inputs while a question is open one is the answer, and the other is not lost", async () => {
  const { client } = pair.here;
  const threadId = await newThread(pair.here);
  await client.runs.wait(threadId, "asksThenWaits", { input: {} });
  const asks = places().map(
    (place, index) => () => startRun(place, threadId, "asksThenWaits", { log: [`input ${index}`] }),
  );
  expect(await atOnce(threadId, asks)).toMatchObject([{ type: "success" }, { type: "success" }]);
  await isQuiet(threadId);
  expect(await logOf(pair.here, threadId)).toEqual(["answer:[object Object]", "input 1"]);
  await questionOf(threadId);
});
