// The faults that need nothing but the cluster and its database. Each waits for its moment, strikes, and says which runs
// it struck.
import { sleep } from "../../clock.ts";
import type { Asking } from "./ask.ts";
import { databaseNow, listStruck, terminateBackends } from "./audit.ts";
import type { Instance } from "./cluster.ts";
import type { Stage, Strike } from "./round.ts";

export type Fault = (stage: Stage, askings: readonly Asking[]) => Promise<Strike>;

/** When a fault strikes. */
export type Moment = (stage: Stage, askings: readonly Asking[]) => Promise<void>;

/** A random while, at most `ms`, after every run was accepted or refused. */
export const afterAll =
  (ms: number): Moment =>
  async ({ random }, askings) => {
    await Promise.all(askings.map(({ accepted }) => accepted));
    await sleep(random.between(0, ms));
  };

/** A random while, at most `ms`, after the first run was accepted: for runs that are over soon. */
export const afterFirst =
  (ms: number): Moment =>
  async ({ random }, askings) => {
    await Promise.race(askings.map(({ accepted }) => accepted));
    await sleep(random.between(0, ms));
  };

/** Some of the instances, never all of them. */
export function victims({ cluster, random }: Stage): Instance[] {
  const all = [...cluster.instances];
  const count = random.between(1, Math.max(1, all.length - 1));
  return Array.from({ length: count }, () => all.splice(random.between(0, all.length - 1), 1)).flat();
}

export const idsOf = (instances: readonly Instance[]): string[] => instances.map(({ workerId }) => workerId);

/** kill -9. The rows still name the dead as owners: nobody takes their runs over at once. */
export const kill9 =
  (moment: Moment): Fault =>
  async (stage, askings) => {
    const { cluster, database } = stage;
    await moment(stage, askings);
    const dying = victims(stage);
    const at = await databaseNow(database);
    for (const instance of dying) instance.signal("SIGKILL");
    const struck = await listStruck(database, idsOf(dying), at);
    const repaired = Promise.all(dying.map((instance) => cluster.replace(instance)));
    return { struck, kind: "crash", repaired };
  };

/** SIGSTOP for so long that others take the runs over; then the sleepers wake and go on where they stood. */
export const zombie =
  (moment: Moment, stoppedMs: number): Fault =>
  async (stage, askings) => {
    const { database } = stage;
    await moment(stage, askings);
    const sleeping = victims(stage);
    const at = await databaseNow(database);
    for (const instance of sleeping) instance.signal("SIGSTOP");
    const struck = await listStruck(database, idsOf(sleeping), at);
    await sleep(stoppedMs);
    for (const instance of sleeping) instance.signal("SIGCONT");
    return { struck, kind: "crash", repaired: Promise.resolve() };
  };

/** Breaks connections off in the database: one at a time, the one that listens, all at once. */
export const backend =
  (moment: Moment, times: number): Fault =>
  async (stage, askings) => {
    const { cluster, database, random } = stage;
    await moment(stage, askings);
    const at = await databaseNow(database);
    const struck = await listStruck(database, idsOf(cluster.instances), at);
    for (let count = 0; count < times; count += 1) {
      const { name } = random.pick(cluster.instances);
      await terminateBackends(database, name, random.pick(["one", "one", "listening", "all"]));
      await sleep(random.between(0, 100));
    }
    return { struck, kind: "crash", repaired: Promise.resolve() };
  };

/** The database dies and recovers; sometimes servers die with it, and nobody is left who remembers the last events. */
export const databaseCrash =
  (moment: Moment, crash: () => Promise<void>): Fault =>
  async (stage, askings) => {
    const { cluster, database, random } = stage;
    await moment(stage, askings);
    const struck = await listStruck(database, idsOf(cluster.instances), await databaseNow(database));
    const dying = random.chance(0.5) ? victims(stage) : [];
    for (const instance of dying) instance.signal("SIGKILL");
    await crash();
    const repaired = Promise.all(dying.map((instance) => cluster.replace(instance)));
    return { struck, kind: "crash", repaired };
  };

/** Nothing but the passing of time; every run is a trial of whatever was done to the cluster before. */
export const calm: Fault = async (stage, askings) => {
  const { cluster, database } = stage;
  await afterAll(0)(stage, askings);
  const struck = await listStruck(database, idsOf(cluster.instances), await databaseNow(database));
  return { struck, kind: "crash", repaired: Promise.resolve() };
};
