// Many hands on few threads: runs are created with every strategy, cancelled, rolled back, deleted and followed at the
// same time. Which of them wins is nobody's business; that the threads stay whole is.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { countUnfinished } from "../server/commands/chaos/audit.ts";
import type { RunFact } from "../server/commands/chaos/audit.ts";
import { judge, LAWS } from "../server/commands/chaos/laws.ts";
import type { Facts, Law } from "../server/commands/chaos/laws.ts";
import type { Random } from "../server/commands/chaos/random.ts";
import { collect } from "../server/commands/chaos/round.ts";
import type { Stage } from "../server/commands/chaos/round.ts";
import type { Message } from "../server/commands/chaos/sight.ts";
import { framesOf } from "../server/commands/chaos/stream.ts";
import { messageOf } from "../server/errors.ts";
import type { Outcome, Violation } from "./report.ts";
import { onStage } from "./suite.ts";
import type { Suite } from "./suite.ts";

const THREADS = 6;
const HANDS = 4;
const END_MS = 60_000;
const POLL_MS = 50;
const EXPECTED = new Set([200, 202, 204, 404, 409, 422]);

interface Table {
  readonly threadId: string;
  /** Runs that were accepted, with what they asked. */
  readonly accepted: { runId: string; prompt: string }[];
  readonly violations: Violation[];
}

export function playDouble(suite: Suite, goal: number): Promise<Outcome> {
  return onStage(suite, { fault: "double" }, async (stage) => {
    const tables = Array.from({ length: THREADS }, (): Table => {
      return { threadId: randomUUID(), accepted: [], violations: [] };
    });
    const each = Math.ceil(goal / (THREADS * HANDS));
    const hands = tables.flatMap((table) =>
      Array.from({ length: HANDS }, () => operate(stage, table, stage.random.fork(), each)),
    );
    await Promise.all(hands);
    suite.say(`double: ${each * THREADS * HANDS} operations done`);
    const violations = [...tables.flatMap((table) => table.violations), ...(await judgeAll(stage, tables))];
    for (const { law, what } of violations.slice(0, 10)) suite.say(`  BROKEN ${law}: ${what}`);
    return { trials: each * THREADS * HANDS, violations, takeovers: [], handovers: [] };
  });
}

async function operate(stage: Stage, table: Table, random: Random, count: number): Promise<void> {
  for (let left = count; left > 0; left -= 1) {
    const base = `${stage.cluster.address(random)}/threads/${table.threadId}`;
    try {
      const operation = random.pick(OPERATIONS);
      const status = await operation(base, table, random);
      if (!EXPECTED.has(status))
        table.violations.push({
          law: "an operation is answered as documented",
          what: `${operation.name}: ${status}`,
        });
    } catch (error) {
      table.violations.push({ law: "an operation is answered", what: messageOf(error) });
    }
    await delay(random.between(0, 30));
  }
}

type Operation = (base: string, table: Table, random: Random) => Promise<number>;

async function create(base: string, table: Table, random: Random): Promise<number> {
  const prompt = `What do you say to ${randomUUID()}?`;
  const model = `fake-slow-${random.between(2, 12)}tok-${random.between(2, 10)}ms`;
  const response = await post(`${base}/runs`, {
    assistant_id: "crash",
    input: { messages: [{ role: "user", content: prompt }] },
    config: { configurable: { model } },
    multitask_strategy: random.pick(["reject", "enqueue", "interrupt", "rollback"]),
    if_not_exists: "create",
    stream_mode: ["messages-tuple"],
  });
  const body = (await response.json().catch(() => ({}))) as { run_id?: string };
  if (response.ok) table.accepted.push({ runId: body.run_id ?? "none", prompt });
  return response.status;
}

async function cancel(base: string, table: Table, random: Random): Promise<number> {
  const query = `action=${random.pick(["interrupt", "rollback"])}&wait=${random.pick(["0", "1"])}`;
  return statusOf(post(`${base}/runs/${someRun(table, random)}/cancel?${query}`, {}));
}

const remove: Operation = (base, table, random) =>
  statusOf(fetch(`${base}/runs/${someRun(table, random)}`, { method: "DELETE" }));

async function watch(base: string, table: Table, random: Random): Promise<number> {
  const response = await fetch(`${base}/runs/${someRun(table, random)}/stream`);
  if (!response.ok) return statusOf(Promise.resolve(response));
  let last = -1;
  try {
    for await (const { id = -1 } of framesOf(response)) {
      if (id !== last + 1) table.violations.push({ law: "events are dense", what: `${id} after ${last}` });
      last = id;
    }
  } catch {
    // Broken off, as when the run is deleted: its client asks again and learns so.
  }
  return response.status;
}

const look: Operation = (base) => statusOf(fetch(`${base}/state`));

// Weighted by repetition: most of the time somebody wants something new.
const OPERATIONS: readonly Operation[] = [
  create,
  create,
  create,
  create,
  cancel,
  cancel,
  remove,
  watch,
  look,
];

/** One of the latest runs, which may be pending, running or over. */
function someRun({ accepted }: Table, random: Random): string {
  return accepted.length === 0 ? randomUUID() : random.pick(accepted.slice(-6)).runId;
}

const post = (url: string, body: object): Promise<Response> =>
  fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

async function statusOf(response: Promise<Response>): Promise<number> {
  const { status, body } = await response;
  await body?.cancel();
  return status;
}

async function judgeAll(
  { cluster, database, random }: Stage,
  tables: readonly Table[],
): Promise<Violation[]> {
  const threadIds = tables.map(({ threadId }) => threadId);
  for (const until = Date.now() + END_MS; Date.now() < until; await delay(POLL_MS))
    if ((await countUnfinished(database, threadIds)) === 0) break;
  const facts = await collect({ cluster, database, mayJump: false }, [], threadIds);
  const laws = [...LAWS.filter(({ title }) => title !== "a run that was accepted exists, once"), IN_ORDER];
  const found = judge(facts, laws).flatMap(({ title, broken }) =>
    broken.map((what) => ({ law: title, what })),
  );
  for (const table of tables) {
    const base = `${cluster.address(random)}/threads/${table.threadId}`;
    const { status } = (await (await fetch(base)).json()) as { status: string };
    if (status === "busy")
      found.push({ law: "a thread without live runs is not busy", what: table.threadId });
    const { values } = (await (await fetch(`${base}/state`)).json()) as {
      values: { messages?: Message[] } | null;
    };
    found.push(...judgeMessages(table, facts, values?.messages ?? []));
  }
  return found;
}

/** Successful runs are in the state once, runs that were rolled back or deleted before they began are not. */
function judgeMessages(table: Table, { runs, moves }: Facts, messages: readonly Message[]): Violation[] {
  const rows = new Map(runs.map((run): [string, RunFact] => [run.run_id, run]));
  const gone = Map.groupBy(
    moves.filter(({ state }) => state === null),
    ({ run_id: runId }) => runId,
  );
  const law = "the state holds what successful runs left, and nothing of runs that were rolled back";
  return table.accepted.flatMap(({ runId, prompt }) => {
    const count = messages.filter(({ content }) => content === prompt).length;
    const row = rows.get(runId);
    if (!row && !gone.has(runId)) return [{ law: "a run that was accepted has a row", what: runId }];
    const wasRunning = gone.get(runId)?.some(({ was }) => was === "running");
    if (row?.state === "success" && count !== 1)
      return [{ law, what: `run ${runId} succeeded: ${count} times` }];
    if (!row && wasRunning && count > 0)
      return [{ law, what: `run ${runId} was rolled back: ${count} times` }];
    return count > 1 ? [{ law, what: `run ${runId}: ${count} times` }] : [];
  });
}

const IN_ORDER: Law = {
  title: "runs of a thread begin in the order in which they were accepted",
  broken: ({ moves }) => {
    const found: string[] = [];
    for (const [threadId, rows] of Map.groupBy(moves, ({ thread_id: id }) => id)) {
      const born = new Map(rows.filter(({ was }) => was === null).map(({ run_id: runId, n }) => [runId, n]));
      const begun = rows.filter(({ state, attempt }) => state === "running" && attempt === 1);
      const order = [...new Map(begun.map(({ run_id: runId }) => [runId, born.get(runId) ?? 0])).values()];
      if (order.some((n, index) => n < (order[index - 1] ?? 0)))
        found.push(`thread ${threadId}: ${order.join(", ")}`);
    }
    return found;
  },
};
