// A rolling update under load.
import { databaseNow, listStruck } from "../server/commands/chaos/audit.ts";
import type { Struck } from "../server/commands/chaos/audit.ts";
import { afterAll } from "../server/commands/chaos/faults.ts";
import type { Fault } from "../server/commands/chaos/faults.ts";

const WITHIN_MS = 1000;

/** Each server in turn is asked to stop and replaced, while the runs of all of them go on. */
export const rolling: Fault = async (stage, askings) => {
  const { cluster, database } = stage;
  await afterAll(WITHIN_MS)(stage, askings);
  const struck: Struck[] = [];
  for (const leaving of cluster.instances) {
    const at = await databaseNow(database);
    leaving.signal("SIGTERM");
    struck.push(...(await listStruck(database, [leaving.workerId], at)));
    await cluster.replace(leaving);
  }
  return { struck, kind: "handover", repaired: Promise.resolve() };
};
