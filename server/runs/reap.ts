// Ends the runs of processes that are gone, so that their threads can be used again.
// Level-triggered: it looks again for as long as the server lives, and misses nothing it slept through.
import { sleep } from "../clock.ts";
import { messageOf } from "../errors.ts";
import { deleteInstances, lockDeadInstances } from "../storage/instances.ts";
import { failRuns, listOrphanRuns } from "../storage/runs.ts";
import type { RunError } from "../storage/runs.ts";
import type { Engine } from "./engine.ts";

const EVERY_MS = 2000;
const LOST: RunError = {
  error: "InstanceLost",
  message:
    "The server that executed this run stopped before it ended, or lost its database. The thread kept its last checkpoint: " +
    "go on from there with input null, or send a new message.",
};

export function startReaper(engine: Engine): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const loop = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await reap(engine).catch((error: unknown) =>
        engine.log.warn("reaper.failed", { reason: messageOf(error) }),
      );
      await sleep(EVERY_MS, stopping.signal);
    }
  };
  const looping = loop();
  return {
    stop: async () => {
      stopping.abort();
      await looping;
    },
  };
}

/** Ends the runs of dead instances, and those of this one that it no longer executes. */
async function reap(engine: Engine): Promise<void> {
  const lost = await engine.database.transaction(async (transaction) => {
    const dead = await lockDeadInstances(transaction);
    const found = await listOrphanRuns(transaction, [...dead, engine.workerId]);
    // Asked after the rows were read: a run is announced here before its row exists.
    const live = new Set(engine.live.ids());
    const orphans = found.filter((runId) => !live.has(runId));
    const ended = orphans.length > 0 ? await failRuns(transaction, orphans, LOST) : [];
    await deleteInstances(transaction, dead);
    return ended;
  });
  for (const runId of lost) engine.log.warn("run.lost", { run_id: runId });
  engine.live.wake(lost);
}
