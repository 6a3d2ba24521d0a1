// Laws that only this suite can judge, because it knows the graph and counts the calls of the model.
import type { Facts, Law } from "../server/commands/chaos/laws.ts";
import { PASSAGES, WHOLE_LOG } from "./graph.ts";
import { promptOf } from "./model.ts";
import type { CountingModel } from "./model.ts";

export const crashLaws = (model: CountingModel): readonly Law[] => [
  { title: "each node's result is in the state once for each run", broken: repeated },
  { title: "the last state that a client saw is whole", broken: torn },
  { title: "an attempt asks the model once at most", broken: (facts) => overbilled(facts, model) },
];

function repeated({ told, runs }: Facts): string[] {
  const byThread = Map.groupBy(runs, ({ thread_id: threadId }) => threadId);
  const values = new Map(told.map((one) => [one.threadId, one.values]));
  return [...byThread].flatMap(([threadId, rows]) => {
    if (rows.some(({ state }) => state !== "success")) return [];
    const log = values.get(threadId)?.["log"];
    const whole = JSON.stringify(rows.flatMap(() => WHOLE_LOG));
    return JSON.stringify(log) === whole ? [] : [`thread ${threadId} holds ${JSON.stringify(log)}`];
  });
}

function torn({ told, runs }: Facts): string[] {
  const succeeded = new Set(runs.filter(({ state }) => state === "success").map(({ run_id: id }) => id));
  return told
    .filter(({ runId, sight }) => sight.values !== undefined && succeeded.has(runId ?? ""))
    .filter(({ sight }) => JSON.stringify(sight.values?.["passages"]) !== JSON.stringify(PASSAGES))
    .map(({ threadId, sight }) => `thread ${threadId}: the client saw ${JSON.stringify(sight.values)}`);
}

function overbilled({ runs }: Facts, model: CountingModel): string[] {
  return [...Map.groupBy(runs, ({ thread_id: threadId }) => threadId)].flatMap(([threadId, rows]) => {
    const calls = model.callsWith(promptOf(threadId));
    const attempts = rows.reduce((sum, { attempt }) => sum + attempt, 0);
    const wins = rows.filter(({ state }) => state === "success").length;
    if (calls > attempts) return [`thread ${threadId}: ${calls} calls in ${attempts} attempts`];
    return calls < wins ? [`thread ${threadId}: ${calls} calls for ${wins} answers`] : [];
  });
}
