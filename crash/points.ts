// kill -9 at every named fault point. The names are read from the sources, so that none is forgotten.
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { databaseNow, listStruck } from "../server/commands/chaos/audit.ts";
import type { Struck } from "../server/commands/chaos/audit.ts";
import type { Instance } from "../server/commands/chaos/cluster.ts";
import type { Fault } from "../server/commands/chaos/faults.ts";
import type { Random } from "../server/commands/chaos/random.ts";
import type { Stage } from "../server/commands/chaos/round.ts";
import { missing, PROVOKED, provoke, startReceiver } from "./provoke.ts";
import type { Outcome, Violation } from "./report.ts";
import { play } from "./suite.ts";
import type { Suite } from "./suite.ts";

const SERVER = fileURLToPath(new URL("../server", import.meta.url));

/** Every name that is passed to faultPoint() in the server. */
export function pointNames(folder: string = SERVER): string[] {
  const sources = globSync("**/*.ts", { cwd: folder }).map((file) =>
    readFileSync(join(folder, file), "utf8"),
  );
  const names = sources.flatMap((text) =>
    [...text.matchAll(/\bfaultPoint\("([^"]+)"\)/g)].map(([, name = ""]) => name),
  );
  return [...new Set(names)].toSorted();
}

// How often a point is passed before it strikes: with every batch, once in each run, or rarely.
function passOf(name: string, random: Random): number {
  if (/^(events|checkpoints)\./.test(name)) return random.between(1, 25);
  return name.startsWith("run.") ? random.between(1, 8) : 1;
}

interface Armed {
  readonly name: string;
  readonly instance: Instance;
  rounds: number;
}

/**
 * Has instances in the cluster that die at points. Where one died, or did not for `patience` rounds, the next one is
 * armed. A round in which no point was reached strikes nothing.
 * @param options.next names the point for the next instance; undefined when there is none left
 * @param options.onDeath told at which point one died
 */
function deathAt(options: {
  next: () => string | undefined;
  width: number;
  patience: number;
  onDeath: (name: string) => void;
}): Fault {
  let armed: Armed[] = [];
  const arm = async ({ cluster, random }: Stage): Promise<void> => {
    const names = Array.from({ length: options.width - armed.length }, options.next);
    const fresh = names.map(async (name): Promise<Armed | undefined> => {
      if (name === undefined) return undefined;
      const setting = { HOLDFAST_FAULT: `${name}:${passOf(name, random)}` };
      // It may pass the point while it starts, and die of it; then nobody has asked it anything.
      const instance = await cluster.start(setting).catch(() => undefined);
      return instance && { name, instance, rounds: 0 };
    });
    armed.push(...(await Promise.all(fresh)).filter((one) => one !== undefined));
    const [first] = armed;
    if (first) cluster.favour(first.instance);
  };
  return async (stage, askings) => {
    const { cluster, database, random } = stage;
    await provoke(stage);
    const bystanders = cluster.instances.filter((one) => !armed.some(({ instance }) => instance === one));
    const dead = armed.some(({ name }) => name.startsWith("reaper.")) ? random.pick(bystanders) : undefined;
    dead?.signal("SIGKILL");
    const over = Promise.all(askings.map(({ done }) => done));
    const struck: Struck[] = [];
    let deaths = 0;
    const waiting = armed.map(async (one) => {
      await Promise.race([one.instance.exited, over]);
      one.rounds += 1;
      if (!one.instance.hasExited) return;
      struck.push(...(await listStruck(database, [one.instance.workerId], await databaseNow(database))));
      options.onDeath(one.name);
      deaths += 1;
    });
    await Promise.all(waiting);
    for (const { instance, rounds } of armed) if (rounds >= options.patience) instance.signal("SIGKILL");
    const done = armed.filter(({ instance, rounds }) => instance.hasExited || rounds >= options.patience);
    armed = armed.filter((one) => !done.includes(one));
    const closing = done.map(({ instance }) => instance.exited.then(() => instance.proxy.close()));
    const replaced = dead ? cluster.replace(dead) : undefined;
    return { struck, deaths, kind: "crash", repaired: Promise.all([...closing, replaced, arm(stage)]) };
  };
}

const PATIENCE = 30;
const SHORT_POINTS = 6;
const SHORT_WIDTH = 3;

/** Long form: each point until it has struck often enough. Short form: some points once, several at a time. */
export async function playPoints(suite: Suite, goal: number): Promise<Outcome[]> {
  const names = suite.points ?? pointNames();
  suite.say(`fault points: ${names.join(", ")}`);
  if (suite.isShort) return [await playOnce(suite, shuffled(names, suite.random).slice(0, SHORT_POINTS))];
  const outcomes: Outcome[] = [];
  for (const name of names) outcomes.push(await playOne(suite, name, goal));
  return outcomes;
}

async function playOnce(suite: Suite, names: readonly string[]): Promise<Outcome> {
  const left = [...names];
  const reached: string[] = [];
  const onDeath = (name: string): number => reached.push(name);
  const fault = deathAt({ next: () => left.shift(), width: SHORT_WIDTH, patience: 1, onDeath });
  const rounds = Math.ceil(names.length / SHORT_WIDTH) + 1;
  const outcome = await playWithCallBacks(suite, { fault: "points", goal: 1, rounds, isWhole: true }, fault);
  suite.say(`points: reached ${reached.join(", ")} of ${names.join(", ")}`);
  return outcome;
}

function playOne(suite: Suite, name: string, goal: number): Promise<Outcome> {
  const fault = deathAt({ next: () => name, width: 1, patience: PATIENCE, onDeath: () => undefined });
  return playWithCallBacks(suite, { fault: `point ${name}`, goal, rounds: goal + PATIENCE }, fault);
}

async function playWithCallBacks(
  suite: Suite,
  options: { fault: string; goal: number; rounds: number; isWhole?: boolean },
  fault: Fault,
): Promise<Outcome> {
  const receiver = await startReceiver();
  const atEnd = async (runIds: readonly string[]): Promise<Violation[]> => {
    const lost = await missing(receiver, runIds);
    return lost.map((runId) => ({ law: "every call-back arrives", what: `that of run ${runId}` }));
  };
  try {
    const more = { runsPerThread: 2, webhook: receiver.url, environment: PROVOKED, atEnd };
    return await play(suite, { ...options, ...more, next: () => fault });
  } finally {
    await receiver.stop();
  }
}

function shuffled<T>(list: readonly T[], random: Random): T[] {
  return list
    .map((item) => ({ item, at: random.next() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item);
}
