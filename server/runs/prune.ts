// Prunes threads on request: deletes them, or takes everything from them that their newest state does not need.
import { ThreadBusy } from "../errors.ts";
import { deleteThreads, keepLatest, lockPrunable } from "../storage/checkpoints/prune.ts";
import type { Engine } from "./engine.ts";

/**
 * Prunes those of the threads that exist, one after the other. If a run is live on any of them nothing is changed; one
 * that begins meanwhile keeps its own thread and those after it as they are.
 * @returns how many were pruned
 * @throws ThreadBusy
 */
export async function pruneThreads(
  engine: Engine,
  threadIds: readonly string[],
  strategy: "delete" | "keep_latest",
): Promise<number> {
  const wanted = [...new Set(threadIds)];
  const { found, live } = await engine.database.transaction((one) => lockPrunable(one, wanted));
  if (live.length > 0) throw ThreadBusy.forUpdate();
  let pruned = 0;
  for (const threadId of found) {
    const isThere = await engine.database.transaction(async (transaction) => {
      const locked = await lockPrunable(transaction, [threadId]);
      if (locked.live.length > 0) throw ThreadBusy.forUpdate();
      if (locked.found.length === 0) return false;
      if (strategy === "delete") await deleteThreads(transaction, [threadId]);
      else await keepLatest(transaction, threadId);
      return true;
    });
    if (isThere) pruned += 1;
  }
  return pruned;
}
