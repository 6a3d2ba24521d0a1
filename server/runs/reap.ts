// Hands the runs of processes that are gone back to the queue. Level-triggered: each heartbeat that sees a suspect
// looks again, for as long as the server lives.
import { faultPoint } from "../faults.ts";
import { deleteInstances, lockDeadInstances } from "../storage/instances.ts";
import { requeueRuns } from "../storage/queue.ts";
import { announceReady } from "./end.ts";
import type { Engine } from "./engine.ts";

export async function reap(engine: Engine): Promise<void> {
  const { dead, requeued } = await engine.database.transaction(async (transaction) => {
    const found = await lockDeadInstances(transaction, engine.workerId);
    await deleteInstances(transaction, found);
    faultPoint("reaper.requeueing");
    return { dead: found, requeued: await requeueRuns(transaction, found) };
  });
  for (const workerId of dead) engine.log.warn("instance.dead", { worker_id: workerId });
  for (const runId of requeued) engine.log.warn("run.requeued", { run_id: runId });
  if (requeued.length > 0) announceReady(engine);
}
