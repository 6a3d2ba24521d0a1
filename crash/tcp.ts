// The line between a server and its database breaks: cut, cut between a statement and its answer, silent for a while.
import { setTimeout as delay } from "node:timers/promises";
import { databaseNow, isStalled, listStruck, stallCommits } from "../server/commands/chaos/audit.ts";
import type { Instance } from "../server/commands/chaos/cluster.ts";
import { afterAll, idsOf, victims } from "../server/commands/chaos/faults.ts";
import type { Fault } from "../server/commands/chaos/faults.ts";
import type { Random } from "../server/commands/chaos/random.ts";

const WITHIN_MS = 800;
// Names of prepared statements travel with every use of them. What is cut off after one of these was executed, and
// its sender cannot know.
const STATEMENTS = [
  "insertSegments",
  "putCheckpoints",
  "finishRun",
  "insertRun",
  "claimRuns",
  "beat",
  "commit",
];
const TRAP_MS = 1500;
const CUT_GAP_MS = 150;

/** Some lines are cut, some of them several times, some exactly before an answer. */
export const cuts: Fault = async (stage, askings) => {
  const { database, random } = stage;
  await afterAll(WITHIN_MS)(stage, askings);
  const hit = victims(stage);
  const struck = await listStruck(database, idsOf(hit), await databaseNow(database));
  await Promise.all(
    hit.map((instance) => (random.chance(0.5) ? cutAtRandom : cutAtAnswer)(instance, random.fork())),
  );
  return { struck, kind: "crash", repaired: Promise.resolve() };
};

async function cutAtRandom({ proxy }: Instance, random: Random): Promise<void> {
  for (let times = random.between(1, 5); times > 0; times -= 1) {
    proxy.cut();
    await delay(random.between(0, CUT_GAP_MS));
  }
}

async function cutAtAnswer({ proxy }: Instance, random: Random): Promise<void> {
  for (let times = random.between(1, 3); times > 0; times -= 1) {
    await Promise.race([proxy.cutBeforeAnswer([random.pick(STATEMENTS)]), delay(TRAP_MS)]);
    proxy.disarm();
  }
}

/** The line is dead for `ms`, and nobody is told; then what was sent arrives, or the line turns out to be cut. */
export const halfOpen =
  (ms: number): Fault =>
  async (stage, askings) => {
    const { database, random } = stage;
    await afterAll(WITHIN_MS)(stage, askings);
    const hit = victims(stage);
    const struck = await listStruck(database, idsOf(hit), await databaseNow(database));
    for (const { proxy } of hit) proxy.freeze();
    await delay(ms);
    for (const { proxy } of hit) {
      if (random.chance(0.5)) proxy.cut();
      proxy.thaw();
    }
    return { struck, kind: "crash", repaired: Promise.resolve() };
  };

// Longer than it takes others to find out that a process died, and to take its runs over.
const STALL_SECONDS = 5;
const STALLED_WITHIN_MS = 1500;

/**
 * kill -9 while the database is slow to commit: a statement of the dead process is still under way when others take
 * its runs over. The fence has to make one of the two wait for the other.
 * @param options.afterMs how long after the runs were accepted
 * @param options.lingerMs how long the process goes on beside the slow commit
 * @param options.isNoticed whether the database learns that the process is gone before its commit is done
 */
export const killMidCommit =
  (what: "events" | "checkpoint", { afterMs = 0, lingerMs = 0, isNoticed = false } = {}): Fault =>
  async (stage, askings) => {
    const { cluster, database, random } = stage;
    await afterAll(0)(stage, askings);
    await delay(afterMs);
    const dying = random.pick(cluster.instances);
    await stallCommits(database, dying.name, { what, seconds: STALL_SECONDS, isNoticed });
    const until = Date.now() + STALLED_WITHIN_MS;
    while (Date.now() < until && !(await isStalled(database, dying.name))) await delay(10);
    await delay(lingerMs);
    const at = await databaseNow(database);
    dying.signal("SIGKILL");
    const struck = await listStruck(database, [dying.workerId], at);
    return { struck, kind: "crash", repaired: cluster.replace(dying) };
  };
