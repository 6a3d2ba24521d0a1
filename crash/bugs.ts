// Bugs that this suite must see, or it is blind: each is planted in a copy of the server and played until a law is
// broken. First everything is played on a copy without a bug: there, nothing may be broken.
import { ask } from "../server/commands/chaos/ask.ts";
import { afterAll, calm, databaseCrash, kill9, zombie } from "../server/commands/chaos/faults.ts";
import type { Fault } from "../server/commands/chaos/faults.ts";
import { openScratch, ownServer } from "../server/commands/chaos/scratch.ts";
import { messageOf } from "../server/errors.ts";
import { askOverProtocol, askWhereFollowed } from "./protocol.ts";
import { race } from "./races.ts";
import type { Violation } from "./report.ts";
import { rolling } from "./rolling.ts";
import { copySources } from "./sources.ts";
import type { Replacement, Sources } from "./sources.ts";
import { play } from "./suite.ts";
import type { Play, Suite } from "./suite.ts";
import { killMidCommit } from "./tcp.ts";

interface Bug {
  readonly name: string;
  readonly replacements: readonly Replacement[];
  /** In which of the scenes it shows. */
  readonly scenes: readonly (keyof typeof SCENES)[];
}

type Scene = (suite: Suite, sources: Sources) => Promise<readonly Violation[]>;

// Long enough to be all in one superstep when the instance dies, so that only events are under way.
const LONG = { tokens: 120, ms: 25 };
const GENERATING_MS = 1200;

const playing =
  (fault: Fault, options: Partial<Play> = {}): Scene =>
  async (suite, { cli }) => {
    const { rounds = 3, ...more } = options;
    const all = { fault: "  scene", goal: Infinity, rounds, stopsEarly: true, next: () => fault, ...more };
    return (await play({ ...suite, cli }, all)).violations;
  };

const SCENES = {
  races: async ({ server }: Suite, sources: Sources) => {
    const scratch = await openScratch(server);
    return race(sources, scratch).finally(() => scratch.close());
  },
  "kill -9": playing(kill9(afterAll(1200)), { rounds: 6 }),
  "kill -9 while events are committed": playing(killMidCommit("events", { afterMs: GENERATING_MS }), {
    answer: () => LONG,
  }),
  "kill -9 some time into a commit of events": playing(
    killMidCommit("events", { afterMs: GENERATING_MS, lingerMs: 400 }),
    {
      answer: () => LONG,
    },
  ),
  "kill -9 while a checkpoint is committed": playing(killMidCommit("checkpoint")),
  queue: playing(calm, { runsPerThread: 4, patienceMs: 15_000, rounds: 2 }),
  "rolling update": playing(rolling, { answer: () => ({ tokens: 50, ms: 100 }), rounds: 2 }),
  "crash of the database": async (suite: Suite, sources: Sources) => {
    const server = await ownServer();
    const options = { mayJump: true, rounds: 12 };
    try {
      return await playing(
        databaseCrash(afterAll(1200), () => server.crash()),
        options,
      )({ ...suite, server }, sources);
    } finally {
      await server.stop();
    }
  },
  zombie: playing(zombie(afterAll(500), 17_000), { answer: () => LONG, rounds: 2 }),
  // Half of the time somewhere else, and nothing but hints to live on: the poll that makes up for lost ones is gone.
  hints: playing(calm, { cutChance: 0.1, patienceMs: 10_000, speakers: [ask] }),
  "followers of threads": playing(calm, { cutChance: 0.1, speakers: [askOverProtocol], rounds: 2 }),
  "legacy clients on followed threads": playing(calm, {
    cutChance: 0.1,
    speakers: [askWhereFollowed],
    rounds: 1,
  }),
  "followers of threads under kill -9": playing(kill9(afterAll(1200)), {
    speakers: [askOverProtocol],
    rounds: 4,
  }),
} satisfies Record<string, Scene>;

const withoutPoll: Replacement = {
  file: "runs/hints.ts",
  from: "const POLL_MS = 500;",
  to: "const POLL_MS = 500_000;",
};

const EVENTS_LOCK = " for share) r),\nput as (";
const POINTS_OWN = '${isOwn("o", { attempt: "f.attempt", worker: "$5" })}';
const POINTS_LOCK = `${POINTS_OWN} for share) r`;

export const BUGS: readonly Bug[] = [
  {
    name: "events without FOR SHARE",
    replacements: [{ file: "storage/events.ts", from: EVENTS_LOCK, to: ") r),\nput as (" }],
    scenes: ["races", "kill -9 while events are committed"],
  },
  {
    name: "events with FOR KEY SHARE",
    replacements: [{ file: "storage/events.ts", from: EVENTS_LOCK, to: " for key share) r),\nput as (" }],
    scenes: ["races", "kill -9 while events are committed"],
  },
  {
    name: "checkpoints without FOR SHARE",
    replacements: [{ file: "storage/checkpoints/writes.ts", from: POINTS_LOCK, to: `${POINTS_OWN}) r` }],
    scenes: ["races", "kill -9 while a checkpoint is committed"],
  },
  {
    name: "checkpoints with FOR KEY SHARE",
    replacements: [
      {
        file: "storage/checkpoints/writes.ts",
        from: POINTS_LOCK,
        to: `${POINTS_OWN} for key share) r`,
      },
    ],
    scenes: ["races", "kill -9 while a checkpoint is committed"],
  },
  {
    name: "the end of a run does not ask for the attempt",
    replacements: [
      {
        file: "storage/finish.ts",
        from: '${isOwn("u", { worker: "$6", attempt: "$7" })}',
        to: "u.worker_id = $6 and u.state = 'running'",
      },
    ],
    scenes: ["races"],
  },
  {
    name: "the last checkpoint does not come with the end of its run",
    replacements: [
      {
        file: "storage/checkpoints/batch.ts",
        from: "return waiting.map(({ write }) => write);",
        to: "return waiting.map(({ write }) => write).slice(1, 1);",
      },
    ],
    scenes: ["queue"],
  },
  {
    name: "a hint that is raised while one is under way is forgotten",
    replacements: [
      withoutPoll,
      {
        file: "runs/hints.ts",
        from: "    for (const runId of ids) this.#dirty.add(runId);\n",
        to: "    if (this.#isSending) return;\n    for (const runId of ids) this.#dirty.add(runId);\n",
      },
    ],
    scenes: ["hints"],
  },
  {
    name: "a takeover takes nothing back",
    replacements: [
      {
        file: "runs/rewind.ts",
        from: "if (isLost(id, tasks)) await remove(id, event);",
        to: "if (isLost(id, tasks) && id === event) await remove(id, event);",
      },
    ],
    scenes: ["kill -9"],
  },
  {
    name: "events are shown before they are committed",
    replacements: [
      {
        file: "runs/log/record.ts",
        from: "        tail.push(entry);\n        this.#add(",
        to: "        tail.push(entry);\n        tail.commit(open.next);\n        this.#add(",
      },
    ],
    scenes: ["kill -9 some time into a commit of events"],
  },
  {
    name: "a claim does not count",
    replacements: [
      { file: "storage/queue.ts", from: "attempt = u.attempt + 1,", to: "attempt = u.attempt," },
    ],
    scenes: ["kill -9"],
  },
  {
    name: "two blocked runs are promoted at once",
    replacements: [
      { file: "storage/queue.ts", from: "select distinct on (r.thread_id) r.run_id", to: "select r.run_id" },
    ],
    scenes: ["queue"],
  },
  {
    name: "who was taken for dead may still write checkpoints",
    replacements: [
      {
        file: "storage/checkpoints/writes.ts",
        from: POINTS_OWN,
        to: "$5::uuid is not null",
      },
    ],
    scenes: ["zombie"],
  },
  {
    name: "a stream ends in order when its run goes to another server",
    replacements: [
      {
        file: "runs/follow.ts",
        from: '    if (!tail || tail.fate === "lost") tail =',
        to: '    if (tail?.fate === "lost") return;\n    if (!tail) tail =',
      },
    ],
    scenes: ["rolling update"],
  },
  {
    name: "what a crash of the database took is not written again",
    replacements: [
      {
        file: "runs/log/event-log.ts",
        from: "if (again.length > 0) await",
        to: "if (again.length < 0) await",
      },
    ],
    scenes: ["crash of the database"],
  },
  {
    name: "who follows a thread and comes back begins its run again",
    replacements: [
      {
        file: "runs/protocol/follow-thread.ts",
        from: "Math.max(position, run.told_from - 1)",
        to: "Math.min(position, run.told_from - 1)",
      },
    ],
    scenes: ["followers of threads"],
  },
  {
    name: "legacy events are numbered with those that only followers of threads see",
    replacements: [
      {
        file: "runs/follow.ts",
        from: "shown.push({ seq: event.seq - this.#hidden, entry: event.entry });",
        to: "shown.push({ seq: event.seq, entry: event.entry });",
      },
    ],
    scenes: ["legacy clients on followed threads"],
  },
  {
    name: "a takeover tells followers of threads of no new attempt",
    replacements: [
      {
        file: "runs/rewind.ts",
        from: "(await toFollowers?.begin()) ?? []",
        to: "[]",
      },
      {
        file: "runs/rewind.ts",
        from: "protocol?.withdraw(newest.seen.values, half) ?? []",
        to: "[]",
      },
    ],
    scenes: ["followers of threads under kill -9"],
  },
];

/** Plays all bugs, or those whose names hold `filter`. @returns what was not seen, or was seen where nothing is */
export async function playBugs(suite: Suite, filter = ""): Promise<string[]> {
  const bugs = BUGS.filter(({ name }) => name.includes(filter));
  const wrong: string[] = [];
  const report: string[] = [];
  const scenes = [...new Set(bugs.flatMap((bug) => bug.scenes))];
  for (const scene of scenes) {
    const violations = await see(suite, scene, scene === "hints" ? [withoutPoll] : []);
    report.push(
      `| none | ${scene} | ${violations.length === 0 ? "nothing, as it must be" : describe(violations)} |`,
    );
    if (violations.length > 0) wrong.push(`${scene}, without a bug: ${describe(violations)}`);
  }
  for (const { name, replacements, scenes: shown } of bugs) {
    for (const scene of shown) {
      const violations = await see(suite, scene, replacements);
      report.push(`| ${name} | ${scene} | ${violations.length > 0 ? describe(violations) : "NOT SEEN"} |`);
      if (violations.length === 0) wrong.push(`${name}: not seen by ${scene}`);
    }
  }
  suite.say(`\n| bug | scene | seen as |\n|---|---|---|\n${report.join("\n")}\n`);
  return wrong;
}

/** A bug that cannot be planted any more, because the server has changed, is not seen either. */
async function see(
  suite: Suite,
  scene: keyof typeof SCENES,
  replacements: readonly Replacement[],
): Promise<readonly Violation[]> {
  suite.say(`${scene}, ${replacements.length > 0 ? "changed" : "unchanged"} sources`);
  try {
    const sources = await copySources(replacements);
    return await SCENES[scene](suite, sources).finally(() => sources.remove());
  } catch (error) {
    suite.say(messageOf(error));
    if (replacements.length > 0) return [];
    throw error;
  }
}

const describe = (violations: readonly Violation[]): string =>
  [...new Set(violations.map(({ law }) => law))].join("; ");
