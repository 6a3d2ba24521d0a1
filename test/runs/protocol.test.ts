// The queue protocol against a model of it: whatever workers, their clients, their deaths and their returns do in
// whatever order, the database answers and holds exactly what the model says, and its laws hold after every step.
// PROTOCOL_SEED and PROTOCOL_SEQUENCES repeat or prolong a run.
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Session } from "../../server/storage/database.ts";
import { Model } from "../fixtures/queue-model.ts";
import type { Strategy } from "../fixtures/queue-model.ts";
import * as op from "../fixtures/queue-ops.ts";
import type { Held, Plan } from "../fixtures/queue-ops.ts";
import { World } from "../fixtures/queue-world.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

const [WORKERS, THREADS, MOST_RUNS] = [2, 2, 4];
const SEED = Number(process.env["PROTOCOL_SEED"] ?? Date.now() % 1_000_000);
const SEQUENCES = Number(process.env["PROTOCOL_SEQUENCES"] ?? 200);

/** A database of its own for each half of the work: statements of one run while the other is computed. */
interface Lane {
  readonly scratch: TestDatabase;
  readonly sessions: readonly Session[];
}
const lanes: Lane[] = [];

beforeAll(async () => {
  for (let lane = 0; lane < 2; lane += 1) {
    const scratch = await testDatabase();
    await scratch.database.query(
      "do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$",
    );
    const sessions = await Promise.all(Array.from({ length: 3 }, () => scratch.database.session()));
    lanes.push({ scratch, sessions });
  }
});
afterAll(async () => {
  for (const { scratch, sessions } of lanes) {
    await Promise.all(sessions.map((session) => session.close()));
    await scratch.close();
  }
});

/** How many sequences both halves have tried. Each comes to its end, also when the other fails: databases are used again. */
async function inLanes(half: (lane: Lane, place: number) => Promise<number>): Promise<number> {
  const settled = await Promise.allSettled(lanes.map(half));
  for (const one of settled) if (one.status === "rejected") throw one.reason;
  return settled.reduce((sum, one) => sum + (one.status === "fulfilled" ? one.value : 0), 0);
}

async function open(
  { scratch, sessions }: Lane,
  { workers, threads }: { workers: number; threads: number },
): Promise<{ held: Held; world: World }> {
  const world = await World.open(scratch.database, sessions.slice(0, workers), threads);
  return {
    held: { model: new Model(threads, workers, MOST_RUNS), last: await world.snapshot(), trace: [] },
    world,
  };
}

class Command implements fc.AsyncCommand<Held, World> {
  readonly #plan: Plan;
  constructor(plan: Plan) {
    this.#plan = plan;
  }
  check({ model }: Held): boolean {
    return this.#plan(model.clone()) !== undefined;
  }
  async run(held: Held, world: World): Promise<void> {
    await op.step(this.#plan, held, world);
  }
  toString(): string {
    return "…"; // what it was depends on what came before: the failure's message tells
  }
}

const worker = fc.nat(WORKERS - 1);
const thread = fc.nat(THREADS - 1);
const index = fc.nat(8);
const action = fc.constantFrom<"interrupt" | "rollback">("interrupt", "rollback");
const strategy = fc.constantFrom<Strategy>("reject", "enqueue", "enqueue", "interrupt", "rollback");
/** With how often each happens: what makes something to happen to comes more often. */
const plans: [number, fc.Arbitrary<Plan>][] = [
  [
    4,
    fc
      .tuple(thread, strategy, fc.nat(5), fc.option(fc.nat(1), { freq: 3, nil: undefined }))
      .map(([at, how, n, idem]) => op.create(at, how, n === 0, idem)),
  ],
  [1, fc.tuple(thread, worker).map(([at, by]) => op.createRunning(at, by))],
  [4, fc.tuple(worker, fc.constantFrom(1, 2)).map(([by, limit]) => op.claim(by, limit))],
  [1, worker.map(op.beat)],
  [2, worker.map(op.reap)],
  [
    2,
    fc
      .tuple(worker, fc.constantFrom<3 | 16>(3, 16), fc.boolean())
      .map(([by, age, isGone]) => op.silence(by, age, isGone)),
  ],
  [1, worker.map(op.comeBack)],
  [
    2,
    fc.tuple(index, fc.constantFrom(1, 3), fc.boolean()).map(([at, n, isTwice]) => op.flush(at, n, isTwice)),
  ],
  [1, worker.map(op.flushAll)],
  [1, fc.tuple(index, fc.constantFrom(0, 2)).map(([at, n]) => op.put(at, n))],
  [1, index.map(op.loseTail)],
  [1, fc.tuple(index, fc.constantFrom(...op.ENDS)).map(([at, state]) => op.finishAndDie(at, state))],
  [2, fc.tuple(index, fc.constantFrom(...op.WAYS)).map(([at, way]) => op.end(at, way))],
  [1, index.map(op.release)],
  [1, fc.constant(op.promoteWaiting)],
  [2, fc.tuple(index, action).map(([at, how]) => op.cancel(at, how))],
  [1, index.map(op.retry)],
  [1, index.map(op.remove)],
  [1, index.map(op.passTime)],
  [1, thread.map(op.deleteThread)],
  [1, thread.map(op.createThread)],
  [1, fc.constant(op.passTtl)],
  [1, fc.constant(op.sweep)],
];
const commands = fc.commands(
  plans.flatMap(([times, plan]) => Array.from({ length: times }, () => plan.map((one) => new Command(one)))),
  { maxCommands: 40, size: "max" },
);

test(
  `any ${SEQUENCES} sequences of what may happen keep the laws (seed ${SEED})`,
  { timeout: Math.max(120_000, SEQUENCES * 1000) },
  async () => {
    const numRuns = Math.ceil(SEQUENCES / 2);
    const tried = await inLanes(async (lane, place) => {
      const laws = fc.asyncProperty(commands, async (sequence) => {
        const { held, world } = await open(lane, { workers: WORKERS, threads: THREADS });
        await fc.asyncModelRun(() => ({ model: held, real: world }), sequence);
        await op.settle(held, world);
      });
      await fc.assert(laws, { seed: SEED + place, numRuns });
      return numRuns;
    });
    expect(tried).toBe(2 * numRuns);
  },
);

/** Every way to put these sequences into one, each in its own order. */
function* merges<Item>(sequences: readonly (readonly Item[])[]): Generator<Item[]> {
  if (sequences.every(({ length }) => length === 0)) yield [];
  for (const [place, [next, ...rest]] of sequences.entries()) {
    if (next === undefined) continue;
    for (const merge of merges(sequences.with(place, rest))) yield [next, ...merge];
  }
}

const work = (by: number): Plan[][] => [
  [op.claim(by, 1)],
  [op.latestOf(by, (at) => op.put(at, 2))],
  [op.latestOf(by, (at) => op.end(at, "success"))],
];
const dies = (by: number): Plan => op.silence(by, 3, true);

test(
  "every order of one run's life among two workers and a reaper keeps the laws",
  { timeout: 120_000 },
  async () => {
    const orders = [...merges([work(0), work(1), [[dies(0), op.reap(1)]]])];
    const tried = await inLanes(async (lane, place) => {
      const mine = orders.filter((_, at) => at % 2 === place);
      for (const order of mine) {
        const { held, world } = await open(lane, { workers: WORKERS, threads: 1 });
        for (const plan of [op.create(0, "reject", false), ...order.flat()]) await op.step(plan, held, world);
      }
      return mine.length;
    });
    expect(tried).toBe(140); // 7! / (3! 3! 1!)
  },
);

test.each<Strategy>(["interrupt", "rollback"])(
  "a thread is free again when the server dies at the end of a run that came for a waiting one (%s)",
  async (how) => {
    const { held, world } = await open(first(lanes), { workers: WORKERS, threads: 1 });
    const story = [op.create(0, "reject", true), op.create(0, how, false), op.claim(0, 1)];
    for (const plan of [...story, op.finishAndDie(0, "success")]) await op.step(plan, held, world);
    await op.settle(held, world);
    expect(held.last.threads).toEqual([{ status: "idle", hasWaiting: false, time: "counts" }]);
  },
);

test("the next run is ready at once although the answer to the end of the one before was lost", async () => {
  const { held, world } = await open(first(lanes), { workers: WORKERS, threads: 1 });
  const story = [op.createRunning(0, 0), op.create(0, "enqueue", false), op.finishAndDie(0, "success")];
  for (const plan of [...story, op.end(0, "success")]) await op.step(plan, held, world);
  expect(held.last.runs.map(({ state }) => state)).toEqual(["success", "ready"]);
});

test("the time of a thread goes on although its run is ended again", async () => {
  const { held, world } = await open(first(lanes), { workers: WORKERS, threads: 1 });
  const story = [op.createRunning(0, 0), op.finishAndDie(0, "success"), op.passTtl, op.end(0, "success")];
  for (const plan of story) await op.step(plan, held, world);
  expect(held.last.threads).toEqual([{ status: "idle", hasWaiting: false, time: "over" }]);
});

test("a server that has lost its session and still beats keeps its runs", async () => {
  const { held, world } = await open(first(lanes), { workers: WORKERS, threads: 1 });
  const story = [op.createRunning(0, 0), op.silence(0, 3, true), op.beat(0), op.reap(1)];
  for (const plan of story) await op.step(plan, held, world);
  expect(held.last.runs.map(({ state }) => state)).toEqual(["running"]);
});

test.each<[string, Plan[], Plan]>([
  [
    "waited for another",
    [op.createRunning(0, 0), op.create(0, "enqueue", false), op.end(0, "success")],
    op.cancel(1, "interrupt"),
  ],
  [
    "waited for another, and is taken back",
    [op.createRunning(0, 0), op.create(0, "enqueue", false), op.end(0, "success")],
    op.cancel(1, "rollback"),
  ],
  [
    "waited for another, whose server died as it ended",
    [op.createRunning(0, 0), op.create(0, "enqueue", false), op.finishAndDie(0, "success")],
    op.cancel(1, "interrupt"),
  ],
  [
    "waited for another that was taken back",
    [op.createRunning(0, 0), op.create(0, "enqueue", false), op.cancel(0, "rollback"), op.end(0, "success")],
    op.cancel(0, "interrupt"),
  ],
  [
    "was to be tried again",
    [op.createRunning(0, 0), op.end(0, "error"), op.retry(0)],
    op.cancel(0, "interrupt"),
  ],
])("the time of a thread begins anew when a run is cancelled that %s", async (_, story, cancel) => {
  const { held, world } = await open(first(lanes), { workers: WORKERS, threads: 1 });
  for (const plan of [...story, op.passTtl, cancel, op.sweep]) await op.step(plan, held, world);
  expect(held.last.threads).toEqual([{ status: "idle", hasWaiting: false, time: "counts" }]);
});

const WRITES: [string, Plan][] = [
  ["its events", op.flush(0, 2, false)],
  ["a checkpoint", op.put(0, 0)],
  ["a checkpoint with events", op.put(0, 2)],
  ["an end, and dies", op.finishAndDie(0, "success")],
  ["a release", op.release(0)],
  ...op.WAYS.map((way): [string, Plan] => [`an end: ${way}`, op.end(0, way)]),
];

test.each(WRITES)(
  "who has lost a run writes nothing more, were it to have it again: %s",
  async (_, write) => {
    for (const next of [0, 1]) {
      const { held, world } = await open(first(lanes), { workers: WORKERS, threads: 1 });
      const story = [op.createRunning(0, 0), op.put(0, 2), dies(0), op.reap(1), op.claim(next, 1)];
      for (const plan of story) await op.step(plan, held, world);
      const before = held.last;
      await op.step(write, held, world);
      expect(held.last).toEqual(before);
    }
  },
);

test("events that a crash of the database took come again before any that ride with a checkpoint or an end", async () => {
  for (const later of [op.put(0, 2), op.finishAndDie(0, "success"), op.flush(0, 1, false)]) {
    const { held, world } = await open(first(lanes), { workers: WORKERS, threads: 1 });
    const story = [op.createRunning(0, 0), op.flush(0, 2, false), op.flush(0, 1, false), op.loseTail(0)];
    for (const plan of [...story, later, op.put(0, 1), op.end(0, "success")])
      await op.step(plan, held, world);
    expect(held.last.runs.map(({ state }) => state)).toEqual(["success"]);
  }
});

const first = <Item>([item]: readonly Item[]): Item => item ?? expect.fail("there is none");

/** Worker 0 has run 1, with events; run 2 waits behind it. Worker 2 is there to reap. */
const busy: Plan[] = [op.createRunning(0, 0), op.flush(0, 2, false), op.create(0, "enqueue", false)];
/** Two runs on two threads are ready. */
const ready: Plan[] = [op.create(0, "reject", false), op.create(1, "reject", false)];
/** Run 1 has failed, its thread is idle. */
const failed: Plan[] = [op.createRunning(0, 0), op.end(0, "error")];
/** Run 1 has failed twice, and its events stand in rows of two attempts. */
const scattered: Plan[] = [...failed, op.retry(0), op.claim(0, 1), op.flush(1, 2, false), op.end(1, "error")];
const its = { end: op.end(0, "success"), flush: op.flush(0, 2, false), put: op.put(0, 1) };

const RACES: [string, Plan[], Plan, Plan][] = [
  ["an end, and its owner taken for dead", [...busy, dies(0)], its.end, op.reap(1)],
  ["events, and their owner taken for dead", [...busy, dies(0)], its.flush, op.reap(1)],
  ["a checkpoint, and its owner taken for dead", [...busy, dies(0)], its.put, op.reap(1)],
  ["a rollback, and its owner taken for dead", [...busy, dies(0)], op.end(0, "rolled back"), op.reap(1)],
  ["a hand-over, and its owner taken for dead", [...busy, dies(0)], op.end(0, "handed over"), op.reap(1)],
  ["two reapers", [...busy, dies(0)], op.reap(1), op.reap(2)],
  ["two ends", busy, its.end, op.end(0, "error")],
  ["an end, and a message that waits", busy, its.end, op.create(0, "enqueue", false)],
  [
    "an end, and a message that may not wait",
    [op.createRunning(0, 0)],
    its.end,
    op.create(0, "reject", false),
  ],
  ["an end, and a message in its place", busy, its.end, op.create(0, "interrupt", false)],
  ["an end, and a message that takes it back", busy, its.end, op.create(0, "rollback", false)],
  ["an end, and a message at once", [op.createRunning(0, 0)], its.end, op.createRunning(0, 1)],
  ["an end, and its own cancel", busy, its.end, op.cancel(0, "interrupt")],
  ["an end, and the cancel of the next", busy, its.end, op.cancel(1, "rollback")],
  ["an end, and who promotes", busy, its.end, op.promoteWaiting],
  [
    "two messages that wait",
    busy.slice(0, 2),
    op.create(0, "enqueue", false),
    op.create(0, "enqueue", false),
  ],
  ["two messages at once", [], op.createRunning(0, 0), op.createRunning(0, 1)],
  [
    "two messages, each in the other's place",
    busy.slice(0, 1),
    op.create(0, "interrupt", false),
    op.create(0, "rollback", false),
  ],
  ["two workers", ready, op.claim(0, 1), op.claim(1, 1)],
  ["two workers that take all they get", ready, op.claim(0, 2), op.claim(1, 2)],
  ["two who promote", [...busy, op.finishAndDie(0, "success")], op.promoteWaiting, op.promoteWaiting],
  [
    "one who promotes, and a message",
    [...busy, op.finishAndDie(0, "success")],
    op.promoteWaiting,
    op.create(0, "enqueue", false),
  ],
  ["a second try, and a message", failed, op.retry(0), op.create(0, "reject", false)],
  ["a second try, and a deletion", failed, op.retry(0), op.remove(0)],
  ["two second tries", failed, op.retry(0), op.retry(0)],
  ["two cancels", busy, op.cancel(1, "interrupt"), op.cancel(1, "rollback")],
  ["events, and a run given back", busy, its.flush, op.release(0)],
  ["a thread's deletion, and a message", [], op.deleteThread(0), op.create(0, "reject", false)],
  ["a thread's deletion, and a message at once", [], op.deleteThread(0), op.createRunning(0, 0)],
  ["a thread's deletion, and an end", busy.slice(0, 2), op.deleteThread(0), its.end],
  ["a thread's deletion, and a second try", failed, op.deleteThread(0), op.retry(0)],
  ["a thread's deletion, and the deletion of its run", failed, op.deleteThread(0), op.remove(0)],
  ["two deletions of a thread", failed, op.deleteThread(0), op.deleteThread(0)],
  ["a thread's deletion, and its creation", [], op.deleteThread(0), op.createThread(0)],
  ["two creations of a thread", [op.deleteThread(0)], op.createThread(0), op.createThread(0)],
  ["a sweep, and a message", [op.passTtl], op.sweep, op.create(0, "reject", false)],
  ["a sweep, and a second try", [...failed, op.passTtl], op.sweep, op.retry(0)],
  ["a sweep, and a third try", scattered, op.sweep, op.retry(0)],
  ["a sweep, and the deletion of what it puts together", scattered, op.sweep, op.remove(0)],
  ["two sweeps", [...scattered, op.passTtl], op.sweep, op.sweep],
  ["two messages that are one", [], op.create(0, "enqueue", false, 0), op.create(0, "enqueue", false, 0)],
  [
    "two messages on two threads that are one",
    [],
    op.create(0, "enqueue", false, 0),
    op.create(1, "enqueue", false, 0),
  ],
  [
    "two messages for one place",
    [op.createRunning(0, 0), op.create(0, "enqueue", false)],
    op.create(0, "enqueue", false),
    op.create(0, "enqueue", false),
  ],
];

/** What each of two workers passes by because the other is taking it: then both have some. */
const SHARED: Readonly<Record<string, readonly [Plan, Plan]>> = {
  "two workers that take all they get": [op.claim(0, 1), op.claim(1, 1)],
};

/** What somebody else holds while both begin, so that they meet. */
const HOLDS = {
  nothing: "/* holdNothing */ select 1",
  threads: "/* holdThreads */ select from holdfast.threads for no key update",
  runs: "/* holdRuns */ select from holdfast.runs for update",
};

async function holdRows(name: keyof typeof HOLDS): Promise<{ letGo: () => Promise<void>; gapMs: number }> {
  const [locked, over] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const holding = first(lanes).scratch.database.transaction(async (transaction) => {
    await transaction.query(HOLDS[name]);
    locked.resolve();
    await over.promise;
  });
  await locked.promise;
  const letGo = async (): Promise<void> => {
    over.resolve();
    await holding;
  };
  return { letGo, gapMs: name === "nothing" ? 0 : 5 };
}

/** Who takes what is free passes by what is locked. */
function holdsFor(title: string): (keyof typeof HOLDS)[] {
  if (title.includes("workers")) return ["nothing"];
  if (title.includes("sweep")) return ["nothing"];
  return title.includes("promote") ? ["nothing", "runs"] : ["nothing", "threads", "runs"];
}

test.each(RACES)("at the same time: %s", async (title, setup, one, other) => {
  for (const name of holdsFor(title)) {
    const shared = SHARED[title];
    for (const isTurned of [false, true]) {
      const pair = isTurned ? ([other, one] as const) : ([one, other] as const);
      const both = shared && isTurned ? ([shared[1], shared[0]] as const) : shared;
      const { held, world } = await open(first(lanes), { workers: 3, threads: THREADS });
      for (const plan of setup) await op.step(plan, held, world);
      const raced = await op.race(pair, held, world, () => holdRows(name), both);
      expect(raced).toBe("as if one had come first");
    }
  }
});

const takeover = op.inTurn(op.reap(1), op.claim(1, 1));
// A claim passes by what is locked, as the write under way may be doing with the run; it stays ready for the next one.
const passing = op.inTurn(op.reap(1), op.claim(1, 0));

test.each<[string, Plan]>([
  ["events", op.flush(0, 2, false)],
  ["a checkpoint", op.put(0, 0)],
  ["a checkpoint and its events", op.put(0, 2)],
])(
  "%s under way when their owner is taken for dead come before the takeover or not at all",
  async (_, write) => {
    for (let round = 0; round < 5; round += 1) {
      const { held, world } = await open(first(lanes), { workers: 2, threads: 1 });
      for (const plan of [op.createRunning(0, 0), dies(0)]) await op.step(plan, held, world);
      const hold = async () => ({ ...(await world.getInTheWay(first(held.model.claims))), gapMs: 10 });
      const raced = await op.race([write, takeover], held, world, hold, [write, passing]);
      expect(raced).toBe("as if one had come first");
    }
  },
);

test("nothing of all this was a deadlock, which a second try would have hidden", async () => {
  for (const { scratch } of lanes) {
    // A victim tells of it when its line closes, at the latest.
    const sql = "select deadlocks::int from pg_stat_database where datname = current_database()";
    expect(await scratch.database.query(sql)).toEqual([{ deadlocks: 0 }]);
  }
});
