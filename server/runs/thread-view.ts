// Threads as clients see them: with the values and open questions of their newest state. Those are stored when a run
// ends well; what is missing is computed through the thread's graph, if this server has it.
import { createHash } from "node:crypto";
import { ThreadNotFound } from "../errors.ts";
import { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import { countThreads, listThreads } from "../storage/thread-search.ts";
import type { ThreadFilter, ThreadPage } from "../storage/thread-search.ts";
import { findWholeThread } from "../storage/threads.ts";
import type { StatefulThread, WholeThread } from "../storage/threads.ts";
import type { Engine } from "./engine.ts";
import { graphForState } from "./graph-of.ts";
import { isGone, isUnreadable, newestState } from "./state.ts";
import { askingTasks } from "./state-shape.ts";
import type { ThreadState } from "./state-shape.ts";

// Each computed state reads a thread's checkpoints; a page of many must not take all connections.
const AT_A_TIME = 4;

/** The newest state of a thread, as far as the thread itself shows it. */
export interface Shown {
  readonly values: unknown;
  /** By the task that asks. */
  readonly interrupts: Readonly<Record<string, unknown>>;
}

export type Shows<Thread> = Omit<Thread, "state" | "has_checkpoints"> & Shown;

/** @throws ThreadNotFound */
export async function getWholeThread(engine: Engine, threadId: string): Promise<Shows<WholeThread>> {
  const thread = await findWholeThread(engine.database, threadId);
  if (!thread || isGone(thread)) throw new ThreadNotFound(threadId);
  return show(engine, thread);
}

/**
 * A page of threads, whether more come after it, and how many there are on all pages. A busy thread shows its state from
 * before the live run.
 */
export async function searchThreads(
  engine: Engine,
  page: ThreadPage,
): Promise<{ threads: Shows<StatefulThread>[]; hasMore: boolean; total: number }> {
  const found = await listThreads(engine.database, { ...page, limit: page.limit + 1 });
  const rows = found.slice(0, page.limit);
  const hasMore = found.length > page.limit;
  const threads: Shows<StatefulThread>[] = [];
  for (let from = 0; from < rows.length; from += AT_A_TIME) {
    const few = rows.slice(from, from + AT_A_TIME);
    threads.push(...(await Promise.all(few.map((row) => show(engine, row, page.withState)))));
  }
  // A page behind the last one says nothing of how many there are.
  const isLast = !hasMore && (rows.length > 0 || page.offset === 0);
  const least = page.offset + rows.length;
  const total = isLast ? least : Math.max(hasMore ? least + 1 : 0, await totalOf(engine, page));
  return { threads, hasMore, total };
}

function totalOf(engine: Engine, { metadata, values, ids, status, auth }: ThreadFilter): Promise<number> {
  const filter = { metadata, values, ids, status, auth };
  // A filter may be as large as a request; what is remembered of it is not.
  const key = createHash("sha256").update(JSON.stringify(filter)).digest("base64");
  return engine.totals.of(key, () => countThreads(engine.database, filter));
}

/** How many threads a search would find. */
export const countFound = (engine: Engine, filter: ThreadFilter): Promise<number> =>
  countThreads(engine.database, filter);

async function show<Thread extends StatefulThread>(
  engine: Engine,
  thread: Thread,
  withState = true,
): Promise<Shows<Thread>> {
  const { state, has_checkpoints: hasCheckpoints, ...rest } = thread;
  const isComputed = withState && state === null && hasCheckpoints;
  const newest = isComputed ? await computed(engine, thread) : parsed(state);
  return { ...rest, ...shownOf(newest) };
}

async function computed(engine: Engine, thread: StatefulThread): Promise<ThreadState | undefined> {
  // A thread whose graph is not served here any more, or cannot be made, is still a thread.
  const graph = await graphForState(engine, thread.metadata["graph_id"], thread.thread_id);
  if (!graph) return undefined;
  try {
    return await newestState(graph, new Checkpoints(engine.database), thread.thread_id);
  } catch (error) {
    if (isUnreadable(error)) return undefined; // one damaged state must not hide the other threads
    throw error;
  }
}

// Stored by state.ts, in this shape.
const parsed = (state: string | null): ThreadState | undefined =>
  state === null ? undefined : (JSON.parse(state) as ThreadState);

function shownOf(state: ThreadState | undefined): Shown {
  const asking = state ? askingTasks(state) : [];
  return {
    values: state?.values ?? {},
    interrupts: Object.fromEntries(asking.map((task) => [task["id"], task["interrupts"]])),
  };
}
