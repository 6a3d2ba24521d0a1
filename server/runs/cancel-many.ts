// Cancels what a client selects: runs of a thread by id, or all runs in a state.
import { RunNotFound } from "../errors.ts";
import { isThreadVisible } from "../storage/auth-filter.ts";
import type { AuthFilter } from "../storage/auth-filter.ts";
import type { RunState } from "../storage/run-states.ts";
import { findRunFacts, listRunIds } from "../storage/runs.ts";
import type { RunPlace } from "../storage/runs.ts";
import { cancelRuns } from "./cancel.ts";
import type { CancelAction } from "./cancel.ts";
import type { Engine } from "./engine.ts";

const PAGE = 1000;

const STATES: Record<"pending" | "running" | "all", readonly RunState[]> = {
  pending: ["delayed", "blocked", "ready"],
  running: ["running"],
  all: ["delayed", "blocked", "ready", "running"],
};

export interface CancelSelection {
  readonly thread_id?: string | null | undefined;
  readonly run_ids?: readonly string[] | null | undefined;
  readonly status?: "pending" | "running" | "all" | null | undefined;
}

/**
 * Those that end by themselves meanwhile, or go, are no error.
 * @param filter threads that the caller may change; runs of others do not exist for him
 * @throws RunNotFound for an id that is no run of the thread
 */
export async function cancelMany(
  engine: Engine,
  selection: CancelSelection,
  action: CancelAction,
  filter?: AuthFilter,
): Promise<void> {
  const { thread_id: threadId, run_ids: runIds, status } = selection;
  if (runIds) {
    const places = await Promise.all(
      runIds.map((runId) => placeOf(engine, runId, threadId ?? undefined, filter)),
    );
    return cancelAll(engine, places, action);
  }
  for (let after: RunPlace | undefined; ;) {
    const page = { after, limit: PAGE };
    const places = await listRunIds(
      engine.database,
      STATES[status ?? "all"],
      threadId ?? undefined,
      filter,
      page,
    );
    await cancelAll(engine, places, action);
    after = places.at(-1);
    if (places.length < PAGE) return;
  }
}

/** Thread by thread: each of a long queue by itself would wait for the thread's lock again and again. */
async function cancelAll(
  engine: Engine,
  places: readonly Pick<RunPlace, "runId" | "threadId">[],
  action: CancelAction,
): Promise<void> {
  for (const [threadId, runs] of Map.groupBy(places, (place) => place.threadId))
    await cancelRuns(engine, { threadId, runIds: runs.map(({ runId }) => runId) }, action);
}

async function placeOf(
  engine: Engine,
  runId: string,
  threadId: string | undefined,
  filter: AuthFilter | undefined,
): Promise<{ threadId: string; runId: string }> {
  const run = await findRunFacts(engine.database, runId);
  if (!run || (threadId !== undefined && run.thread_id !== threadId)) throw new RunNotFound();
  if (filter && !(await isThreadVisible(engine.database, run.thread_id, filter))) throw new RunNotFound();
  return { threadId: run.thread_id, runId };
}
