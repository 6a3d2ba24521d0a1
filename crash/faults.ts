// Every fault by name: how often it must strike, and how it is played.
import { silenceNotify } from "../server/commands/chaos/audit.ts";
import { afterAll, backend, calm, databaseCrash, kill9, zombie } from "../server/commands/chaos/faults.ts";
import { ownServer } from "../server/commands/chaos/scratch.ts";
import { playDouble } from "./double.ts";
import { playLimits } from "./limits.ts";
import { playMoney } from "./money.ts";
import { playPoints } from "./points.ts";
import type { Outcome } from "./report.ts";
import { rolling } from "./rolling.ts";
import { dying, slow } from "./slow.ts";
import { play } from "./suite.ts";
import type { Play, Suite } from "./suite.ts";
import { cuts, halfOpen, killMidCommit } from "./tcp.ts";

export interface FaultPlan {
  /** Trials of the long form and of the short one. */
  readonly goal: number;
  readonly short: number;
  readonly play: (suite: Suite, goal: number) => Promise<Outcome[]>;
}

// Runs take about a second: a fault within this time meets them anywhere.
const WITHIN_MS = 1200;
// Others take the runs of a silent instance over after 15 s.
const SILENCE_MS = 20_000;
const SHORT_SILENCE_MS = 16_500;

const one = (options: (suite: Suite) => Omit<Play, "goal">): FaultPlan["play"] => {
  return async (suite, goal) => [await play(suite, { ...options(suite), goal })];
};

const every = (nth: number, rare: Play["next"], usual: Play["next"]): Play["next"] => {
  return (round) => (round % nth === nth - 1 ? rare(round) : usual(round));
};

export const FAULTS: Readonly<Record<string, FaultPlan>> = {
  kill9: {
    goal: 500,
    short: 12,
    play: one(({ random }) => ({
      fault: "kill9",
      next: every(
        4,
        () => killMidCommit(random.pick(["events", "checkpoint"]), { isNoticed: true }),
        () => kill9(afterAll(WITHIN_MS)),
      ),
    })),
  },
  stall: {
    goal: 50,
    short: 3,
    play: one(({ random }) => ({
      fault: "stall",
      next: () => killMidCommit(random.pick(["events", "checkpoint"])),
    })),
  },
  points: { goal: 50, short: 1, play: playPoints },
  zombie: {
    goal: 200,
    short: 10,
    play: one(({ isShort }) => ({
      fault: "zombie",
      clients: 60,
      answer: (random) => ({ tokens: random.between(40, 80), ms: 25 }),
      next: () => zombie(afterAll(500), isShort ? SHORT_SILENCE_MS : SILENCE_MS),
    })),
  },
  tcp: {
    goal: 200,
    short: 20,
    play: one(({ isShort, random }) => ({
      fault: "tcp",
      next: every(
        5,
        () => halfOpen(isShort ? 2500 : random.pick([1000, 3000, SILENCE_MS])),
        () => cuts,
      ),
    })),
  },
  backend: {
    goal: 200,
    short: 40,
    play: one(() => ({ fault: "backend", next: () => backend(afterAll(600), 8) })),
  },
  postgres: { goal: 50, short: 15, play: playPostgres },
  rolling: {
    goal: 50,
    short: 15,
    play: one(() => ({
      fault: "rolling",
      answer: (random) => ({ tokens: random.between(40, 60), ms: 100 }),
      next: () => rolling,
    })),
  },
  notify: {
    goal: 20,
    short: 20,
    play: one(() => ({
      fault: "notify",
      prepare: ({ database, name }) => silenceNotify(database, name),
      next: () => calm,
    })),
  },
  slow: {
    goal: 100,
    short: 4,
    play: one(({ isShort }) => ({
      fault: "slow",
      clients: isShort ? 6 : 10,
      speakers: [slow, dying],
      answer: (random) => ({ tokens: isShort ? 1000 : random.between(1000, 3000), ms: 0 }),
      next: () => calm,
    })),
  },
  money: { goal: 10_000, short: 400, play: async (suite, goal) => [await playMoney(suite, goal)] },
  limits: { goal: 10_000, short: 1500, play: async (suite, goal) => [await playLimits(suite, goal)] },
  double: { goal: 2000, short: 400, play: async (suite, goal) => [await playDouble(suite, goal)] },
};

/** The database is one of our own, because it is to die. */
async function playPostgres(suite: Suite, goal: number): Promise<Outcome[]> {
  const server = await ownServer();
  try {
    const outcome = await play(
      { ...suite, server },
      {
        fault: "postgres",
        goal,
        mayJump: true,
        next: () => databaseCrash(afterAll(WITHIN_MS), () => server.crash()),
      },
    );
    return [outcome];
  } finally {
    await server.stop();
  }
}
