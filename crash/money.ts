// Thousands of runs at once under budgets that are too small for all of them, while servers are killed. What the provider
// billed is known call by call, so the books can be held against it.
import { setTimeout as delay } from "node:timers/promises";
import type { Random } from "../server/commands/chaos/random.ts";
import type { Stage } from "../server/commands/chaos/round.ts";
import { uuidv7 } from "../server/ids.ts";
import { createBudget } from "../server/runs/budgets.ts";
import type { Database } from "../server/storage/database.ts";
import { judgeBooks, QUESTION } from "./books.ts";
import type { Outcome } from "./report.ts";
import { onStage } from "./suite.ts";
import type { Suite } from "./suite.ts";

const HANDS = 24;
const RUNS_PER_THREAD = 8;
const KILL_EVERY_MS = 2500;
const END_MS = 120_000;
const POLL_MS = 200;
const PAUSE_MS = 200;
/** How many of the runs are cancelled. */
const CANCELLED = 0.15;
/** Tokens of an answer; a call is reserved with this and its prompt, in bytes. */
const ANSWER = 4;
const CAP = 16;
/** About what one call costs in the end, so that a budget of n of them lets about n pass. */
const COST = 90;
const OPERATOR = { actorKind: "command" } as const;

export function playMoney(suite: Suite, goal: number): Promise<Outcome> {
  const threads = Array.from({ length: Math.ceil(goal / RUNS_PER_THREAD) }, () => uuidv7());
  return onStage(
    suite,
    {
      fault: "money",
      environment: {
        HOLDFAST_MAX_OUTPUT_TOKENS: String(CAP),
        HOLDFAST_MODELS: new URL("models.json", import.meta.url).pathname,
        // Killed again and again, a run must still end by what it asked for.
        HOLDFAST_MAX_ATTEMPTS: "100",
        HOLDFAST_MAX_QUEUED_RUNS: String(RUNS_PER_THREAD),
      },
      prepare: ({ database }) => setLimits(database, goal),
    },
    async (stage) => {
      const over = new AbortController();
      const killing = killWhile(stage, KILL_EVERY_MS, over.signal);
      const runs = threads.flatMap((threadId) => Array.from({ length: RUNS_PER_THREAD }, () => threadId));
      const asked = runs.slice(0, goal);
      const queue = [...asked];
      const hand = async (random: Random): Promise<void> => {
        for (let threadId = queue.pop(); threadId; threadId = queue.pop())
          await start(stage, random, threadId);
      };
      await Promise.all(Array.from({ length: HANDS }, () => hand(stage.random.fork())));
      const isOver = await untilOver(stage.database);
      over.abort();
      const kills = await killing;
      const violations = [
        ...(isOver ? [] : [{ law: "every run ends", what: `some run after ${END_MS} ms` }]),
        ...(await judgeBooks(stage.database, suite.model.billed)),
      ];
      const states = await countStates(stage.database);
      suite.say(`money: ${asked.length} runs, ${kills} kills, ${states}`);
      for (const { law, what } of violations.slice(0, 10)) suite.say(`  BROKEN ${law}: ${what}`);
      return { trials: asked.length, violations, takeovers: [], handovers: [] };
    },
  );
}

/** Two for all and one for each thread: some run out early, one in tokens and one in money about half-way. */
async function setLimits(database: Database, goal: number): Promise<void> {
  const calls = Math.ceil(goal / 2);
  await createBudget(
    database,
    { scope: "tenant", unit: "tokens", period: "total", max: calls * COST },
    OPERATOR,
  );
  await createBudget(
    database,
    { scope: "tenant", unit: "usd", period: "total", max: (calls * COST * 4) / 1_000_000 },
    OPERATOR,
  );
  await createBudget(database, { scope: "thread", unit: "tokens", period: "total", max: 8 * COST }, OPERATOR);
}

/** Sends until some server has accepted it. */
async function start({ cluster }: Stage, random: Random, threadId: string): Promise<void> {
  const body = JSON.stringify({
    assistant_id: "crash",
    input: { messages: [{ role: "user", content: `${QUESTION} ${uuidv7()}` }] },
    config: { configurable: { model: `fake-slow-${ANSWER}tok-20ms` } },
    multitask_strategy: "enqueue",
    if_not_exists: "create",
  });
  const headers = { "content-type": "application/json", "idempotency-key": uuidv7() };
  for (;;) {
    const url = `${cluster.address(random)}/threads/${threadId}/runs`;
    const { status, text } = await answerOf(fetch(url, { method: "POST", headers, body }));
    if (status === 200)
      return random.chance(CANCELLED) ? cancel(`${url}/${runIdIn(text)}`, random) : undefined;
    if (status !== undefined && status < 500 && status !== 429)
      throw new Error(`A run was refused: ${status}.`);
    await delay(random.between(0, PAUSE_MS));
  }
}

/** Some time into the run, which may be over by then. */
async function cancel(url: string, random: Random): Promise<void> {
  await delay(random.between(0, PAUSE_MS));
  await answerOf(fetch(`${url}/cancel?wait=0`, { method: "POST" }));
}

const runIdIn = (text: string): string => (JSON.parse(text) as { run_id: string }).run_id;

/** Without a status, the server was killed before it answered. */
async function answerOf(answer: Promise<Response>): Promise<{ status?: number; text: string }> {
  try {
    const response = await answer;
    return { status: response.status, text: await response.text() };
  } catch {
    return { text: "" };
  }
}

/** kill -9, one server after the other, until it is over. @returns how many */
export async function killWhile(
  { cluster, random }: Stage,
  everyMs: number,
  signal: AbortSignal,
): Promise<number> {
  let kills = 0;
  for (;;) {
    await delay(everyMs, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return kills;
    const victim = random.pick(cluster.instances);
    victim.signal("SIGKILL");
    kills += 1;
    await cluster.replace(victim);
  }
}

async function untilOver(database: Database): Promise<boolean> {
  const open = `select (select count(*)::int from holdfast.runs where state in ('delayed', 'blocked', 'ready', 'running')) +
    (select count(*)::int from holdfast.model_calls where state in ('held', 'sent')) as n`;
  for (const until = Date.now() + END_MS; Date.now() < until; await delay(POLL_MS))
    if ((await database.query<{ n: number }>(open))[0]?.n === 0) return true;
  return false;
}

async function countStates(database: Database): Promise<string> {
  const count = `select state || coalesce(' of ' || (error ->> 'code'), '') as name, count(*)::int as n from holdfast.runs group by 1
    union all select 'calls ' || state, count(*)::int from holdfast.model_calls group by 1 order by 1`;
  const rows = await database.query<{ name: string; n: number }>(count);
  return rows.map(({ name, n }) => `${n} ${name}`).join(", ");
}
