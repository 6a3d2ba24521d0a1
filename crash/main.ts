// npm run crash -- [--fault name[,name]] [--trials n] [--seed n] [--short] [--keep] [--plain] [--bugs [--bug text]]
// Breaks a real cluster in every way we know and judges what clients saw and what the database holds.
// Exit codes: 0 nothing was violated (with --bugs: every bug was caught), 1 otherwise, 2 wrong usage.
import process from "node:process";
import { parseArgs } from "node:util";
import { newKeyLine } from "../server/privacy/key-ring.ts";
import { seeded } from "../server/commands/chaos/random.ts";
import { givenServer, ownServer } from "../server/commands/chaos/scratch.ts";
import { messageOf } from "../server/errors.ts";
import { codeOf } from "../server/storage/postgres.ts";
import { playBugs } from "./bugs.ts";
import { FAULTS } from "./faults.ts";
import { startCountingModel } from "./model.ts";
import { pointNames } from "./points.ts";
import { tableOf } from "./report.ts";
import type { Outcome } from "./report.ts";
import { copySources } from "./sources.ts";
import type { Suite } from "./suite.ts";

const say = (text: string): void => console.log(text);

// Much of a fault is waiting. The short form plays others meanwhile; the times it measures need not be exact.
const LANES = 3;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      fault: { type: "string" },
      trials: { type: "string" },
      seed: { type: "string" },
      short: { type: "boolean", default: false },
      bugs: { type: "boolean", default: false },
      bug: { type: "string", default: "" },
      keep: { type: "boolean", default: false },
      plain: { type: "boolean", default: false },
    },
  });
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
  const asked = values.fault?.split(",") ?? Object.keys(FAULTS);
  // `point:<name>` is one of the fault points, `points` all of them.
  const points = asked.filter((name) => name.startsWith("point:")).map((name) => name.slice("point:".length));
  const names = [...new Set(asked.map((name) => (name.startsWith("point:") ? "points" : name)))];
  const unknown = [
    ...names.filter((name) => !FAULTS[name]),
    ...points.filter((name) => !pointNames().includes(name)),
  ];
  const trials = values.trials === undefined ? undefined : Number(values.trials);
  if (unknown.length > 0 || !Number.isInteger(seed) || !Number.isInteger(trials ?? 0)) {
    say(`Unknown: ${unknown.join(", ")}. Faults: ${Object.keys(FAULTS).join(", ")}, point:<name>.`);
    return 2;
  }
  say(`seed ${seed}`);
  const given = process.env["DATABASE_URL"];
  const server = given ? givenServer(given) : await ownServer();
  const model = await startCountingModel();
  const sources = await copySources();
  const suite: Suite = {
    random: seeded(seed),
    isShort: values.short,
    model,
    server,
    cli: sources.cli,
    say,
    keepsBroken: values.keep,
    keys: values.plain ? undefined : newKeyLine("crash"),
    ...(points.length > 0 ? { points } : {}),
  };
  const outcomes: Outcome[] = [];
  try {
    if (values.bugs) {
      const wrong = await playBugs(suite, values.bug);
      for (const text of wrong) say(`WRONG ${text}`);
      return wrong.length > 0 ? 1 : 0;
    }
    const plays = names.flatMap((name) => {
      const plan = FAULTS[name];
      if (!plan) return [];
      const goal = trials ?? (values.short ? plan.short : plan.goal);
      // Which fault comes to its choices first must not matter.
      const own = { ...suite, random: suite.random.fork() };
      return [() => plan.play(own, goal).catch((error) => [failed(name, error)])];
    });
    outcomes.push(...(await inLanes(plays, values.short ? LANES : 1)));
  } finally {
    await sources.remove();
    await model.stop();
    await server.stop();
  }
  say(`\n${tableOf(outcomes)}\n\nseed ${seed}: npm run crash -- --seed ${seed} repeats these choices`);
  return outcomes.some(({ violations }) => violations.length > 0) ? 1 : 0;
}

/** Plays all of them, so many at once; the outcomes in the order of the plays. */
async function inLanes(plays: readonly (() => Promise<Outcome[]>)[], lanes: number): Promise<Outcome[]> {
  const outcomes: Outcome[][] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let at = next++; at < plays.length; at = next++) outcomes[at] = (await plays[at]?.()) ?? [];
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return outcomes.flat();
}

/** A fault that could not be played proves nothing, and says so; the others are played all the same. */
function failed(fault: string, error: unknown): Outcome {
  say(`${fault}: ${messageOf(error)}`);
  const violations = [{ law: "the suite can play it", what: messageOf(error) }];
  return { fault, trials: 0, violations, takeovers: [], handovers: [], seconds: 0 };
}

const isUsage = (error: unknown): boolean => codeOf(error)?.startsWith("ERR_PARSE_ARGS") ?? false;

try {
  process.exitCode = await main();
} catch (error) {
  say(messageOf(error));
  process.exitCode = isUsage(error) ? 2 : 1;
}
