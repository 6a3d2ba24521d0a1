// Accepts a run: the assistant, what it was asked, and the row, which claims the thread for it or waits in its queue.
// Nothing is executed before the row is committed. A caller that sees a refusal knows that nothing was accepted; if the
// answer was lost on its way, an idempotency key makes it safe to ask again.
import { QuestionsChanged } from "../access-errors.ts";
import { AssistantChanged, QueueFull, RunNotFound, ThreadBusy, ThreadNotFound } from "../errors.ts";
import { faultPoint } from "../faults.ts";
import type { Fields } from "../fields.ts";
import type { AssistantRow } from "../storage/assistants.ts";
import { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import { holdCron } from "../storage/crons.ts";
import type { CronAsRead } from "../storage/crons.ts";
import type { Queryable } from "../storage/database.ts";
import { cancelPending, requestCancel } from "../storage/finish.ts";
import type { ThreadKey } from "../storage/keys/seals.ts";
import { promoteRuns } from "../storage/queue.ts";
import { isPending } from "../storage/run-states.ts";
import type { RunState } from "../storage/run-states.ts";
import {
  countUnfinished,
  findRun,
  findRunByKey,
  findRunFacts,
  insertRun,
  listRuns,
  listUnfinished,
} from "../storage/runs.ts";
import type { NewRun, OwnedRunRow, RunFacts, RunRow } from "../storage/runs.ts";
import { findThreadConfig, lockThread } from "../storage/threads.ts";
import type { LockedThread, ThreadConfig } from "../storage/threads.ts";
import { withAssistant } from "./assistants.ts";
import { stopRuns } from "./cancel.ts";
import { announceReady, callBackOfPending } from "./end.ts";
import type { Engine } from "./engine.ts";
import { execute } from "./execute.ts";
import { graphForState } from "./graph-of.ts";
import { lastingConfig } from "./input.ts";
import { newRun } from "./new-run.ts";
import { acceptedOf } from "./request.ts";
import type { CreateOptions, RunKwargs, RunRequest } from "./request.ts";
import { getThread, requireCheckpoint, settlingAfter, storeState } from "./state.ts";

/** The cron that asks for a run was deleted, changed or moved on since it was read. */
export class CronMoved extends Error {
  override readonly name = "CronMoved";
}

/**
 * Accepts a run on a thread, and begins it here if the thread is idle and this process has a free slot.
 * @returns the run's row; with an idempotency key that was used before, the row of the first run
 * @throws AssistantNotFound, GraphNotFound, ThreadNotFound (unless `if_not_exists` is "create"), CheckpointNotFound,
 * QueueFull, AssistantChanged when it never was the same for long enough, ThreadBusy while another run is pending or
 * running and the strategy is "reject", CronMoved
 */
export async function createRun(
  engine: Engine,
  threadId: string,
  request: RunRequest,
  options: CreateOptions = {},
): Promise<RunRow> {
  return withAssistant(engine, request.assistant_id, (assistant) =>
    createRunOf(engine, assistant, threadId, request, options),
  );
}

async function createRunOf(
  engine: Engine,
  assistant: AssistantRow,
  threadId: string,
  request: RunRequest,
  options: CreateOptions,
): Promise<RunRow> {
  const asked = {
    ...request.checkpoint,
    ...(request.checkpoint_id ? { checkpoint_id: request.checkpoint_id } : {}),
  };
  await requireCheckpoint(new Checkpoints(engine.database), threadId, asked);
  const threadKey = await keyOf(engine, threadId, options);
  const before = options.isStateless
    ? { config: {} }
    : await configBefore(engine.database, threadId, request.config ?? {});
  const run = newRun(engine, { threadId, assistant, request, options, asked, threadKey, before });
  engine.live.expect(run.runId);
  try {
    return await accept(engine, run, request, options);
  } finally {
    engine.live.forget(run.runId);
    engine.freed(); // a run that waits may have been passed by for it, be it this one
  }
}

/** The key of the run's thread; nobody else knows of a thread that is made for the run. */
function keyOf(
  { database }: Engine,
  threadId: string,
  { isStateless = false }: CreateOptions,
): Promise<ThreadKey | undefined> | ThreadKey | undefined {
  return isStateless ? database.seals.newOfThread(threadId) : database.seals.ofThread(database, threadId);
}

/** What a thread's runs are configured with so far. Nothing is read for a run that brings nothing: it changes nothing. */
async function configBefore(on: Queryable, threadId: string, brought: Fields): Promise<ThreadConfig> {
  return lastingConfig({}, brought) === undefined ? { config: {} } : findThreadConfig(on, threadId);
}

async function accept(
  engine: Engine,
  run: NewRun,
  request: RunRequest,
  { idemKey, cron }: CreateOptions,
): Promise<RunRow> {
  const first = await earlier(engine.database, idemKey);
  if (first) return first;
  faultPoint("run.accepting");
  let row = cron ? await insertForCron(engine, run, cron) : await insertRun(engine.database, run);
  if (row === undefined || row === "taken") {
    const queued = await queue(engine, run, request, cron);
    if ("earlier" in queued) return queued.earlier;
    row = queued.row;
  }
  await begin(engine, [row]);
  return row;
}

/**
 * A cron is held until its run is there, so that whoever deletes or changes it knows that no run comes afterwards. A
 * thread that is there is locked first, which may take a while: such a run is left to queue().
 */
async function insertForCron(
  engine: Engine,
  run: NewRun,
  cron: CronAsRead,
): Promise<OwnedRunRow | "taken" | undefined> {
  if (run.creates === "no") return undefined;
  return engine.database.transaction(async (transaction) => {
    await requireHeld(transaction, cron);
    return insertRun(transaction, run);
  });
}

/** @throws CronMoved */
async function requireHeld(transaction: Queryable, cron: CronAsRead): Promise<void> {
  if (!(await holdCron(transaction, cron)))
    throw new CronMoved(`Cron ${cron.cron_id} is not what it was when it was read.`);
}

/** Begins what was accepted, as far as it is ours or may begin elsewhere. */
export async function begin(engine: Engine, rows: readonly OwnedRunRow[]): Promise<void> {
  faultPoint("run.accepted");
  for (const row of rows) if (row.state === "running") await execute(engine, acceptedOf(row), true);
  if (rows.some(({ state }) => state === "ready")) announceReady(engine);
}

/** The thread is missing, or other runs are there: under its lock the strategy decides. */
async function queue(
  engine: Engine,
  run: NewRun,
  request: RunRequest,
  cron: CronAsRead | undefined,
): Promise<{ row: OwnedRunRow } | { earlier: RunRow }> {
  const { threadId } = run;
  const strategy = request.multitask_strategy;
  const queued = await engine.database.transaction(async (transaction) => {
    // Two requests with one key meet here: the second one finds the run of the first before it decides anything.
    const thread = await lockThread(transaction, threadId, run.filter);
    const isThere = thread !== undefined;
    const key = isThere ? await transaction.seals.ofLocked(transaction, threadId) : undefined;
    if (key?.id !== run.threadKey?.key.id) engine.database.seals.forgetThread(threadId);
    if (thread?.is_visible === false) throw new ThreadNotFound(threadId);
    const first = await earlier(transaction, run.idemKey);
    if (first) return { earlier: first };
    if (cron) await requireHeld(transaction, cron);
    if (run.answersStateOf && !isAt(thread, run.answersStateOf)) throw new QuestionsChanged();
    // A run that makes its thread found none, and made none: the assistant is another, or the thread just went.
    if (!isThere && run.creates !== "no") throw new AssistantChanged();
    // The thread of a stateless run goes with what is put on it, soon after that run.
    if (!isThere || thread.is_gone) throw new ThreadNotFound(threadId);
    // Tokens are made under the thread's key: with another one they are made anew.
    if (key?.id !== run.threadKey?.key.id && run.vault && run.vault.length > 0) throw new AssistantChanged();
    const isStopping = strategy === "interrupt" || strategy === "rollback";
    const stopped = isStopping
      ? await stopOthers(engine, transaction, {
          threadId,
          action: strategy,
          graphId: thread?.metadata["graph_id"],
        })
      : [];
    const others = await countUnfinished(transaction, threadId);
    if (strategy === "reject" && others.all > 0) throw ThreadBusy.forRun();
    if (others.pending >= engine.limits.maxQueuedRuns) {
      throw new QueueFull(threadId, engine.limits.maxQueuedRuns);
    }
    const waits = others.is_live || others.is_waiting;
    const state = run.state === "delayed" ? "delayed" : waits ? "blocked" : run.state;
    const workerId = state === "running" ? run.workerId : null;
    // Runs that came meanwhile have left theirs.
    const { config } = run.kwargs as RunKwargs;
    const before = await configBefore(transaction, threadId, config);
    const inserted = await insertRun(transaction, {
      ...run,
      threadConfig: lastingConfig(before.config, config),
      configBefore: before.stored,
      threadKey: key && { key, row: undefined },
      state,
      workerId,
      creates: "no",
      isDecided: true,
    });
    // Under the thread's lock nobody else can have come between: only the assistant can have changed.
    if (inserted === undefined) throw new AssistantChanged();
    if (inserted === "taken") throw ThreadBusy.forRun();
    // Runs that waited without a live one, such as after a crash, go first.
    const promoted = waits && !others.is_live ? await promoteRuns(transaction, [threadId]) : [];
    const stops = isStopping ? { runIds: stopped, action: strategy } : undefined;
    return { row: inserted, stops, hasPromoted: promoted.length > 0 };
  });
  if ("row" in queued) {
    if (queued.stops) stopRuns(engine, queued.stops.runIds, queued.stops.action);
    if (queued.hasPromoted) announceReady(engine);
  }
  return queued;
}

/** Ends what waits on the thread and asks what runs there to stop. Returns the latter. */
async function stopOthers(
  engine: Engine,
  transaction: Queryable,
  { threadId, action, graphId }: { threadId: string; action: "interrupt" | "rollback"; graphId: unknown },
): Promise<string[]> {
  const others = await listUnfinished(transaction, threadId);
  const idsOf = (wanted: (state: RunState) => boolean): string[] =>
    others.filter(({ state }) => wanted(state)).map(({ run_id: id }) => id);
  const running = idsOf((state) => state === "running");
  const how = { action, reason: "another run came", bodyOf: callBackOfPending };
  // Whoever comes now may be gone before it begins: then this is what the thread is at.
  const taken = await cancelPending(transaction, idsOf(isPending), how);
  if (taken) {
    const graph = await graphForState(engine, graphId, threadId, transaction);
    await storeState(transaction, graph, threadId, settlingAfter(taken));
  }
  await requestCancel(transaction, running, action, "another run came");
  return running;
}

/** Whether no run is there, and the state is the one that was made then. */
const isAt = (thread: LockedThread | undefined, madeAt: Date): boolean =>
  thread?.is_busy === false && thread.state_updated_at.getTime() === madeAt.getTime();

const earlier = async (on: Queryable, idemKey: string | undefined): Promise<RunRow | undefined> =>
  idemKey === undefined ? undefined : findRunByKey(on, idemKey);

/** A run, of this thread if one is named. @throws RunNotFound also when the run belongs to another thread */
export const getRun = (engine: Engine, threadId: string | undefined, runId: string): Promise<RunRow> =>
  ofThread(findRun(engine.database, runId), threadId);

/** The same without what was asked of it, which may be unreadable. @throws RunNotFound */
export const getRunFacts = (engine: Engine, threadId: string | undefined, runId: string): Promise<RunFacts> =>
  ofThread(findRunFacts(engine.database, runId), threadId);

async function ofThread<Run extends { readonly thread_id: string }>(
  found: Promise<Run | undefined>,
  threadId: string | undefined,
): Promise<Run> {
  const run = await found;
  if (!run || (threadId !== undefined && run.thread_id !== threadId)) throw new RunNotFound();
  return run;
}

/** Runs of a thread, oldest first. @throws ThreadNotFound */
export async function listRunsOf(
  engine: Engine,
  threadId: string,
  query: { status?: string | undefined; metadata?: Fields | undefined; limit: number; offset: number },
): Promise<RunRow[]> {
  await getThread(engine, threadId);
  const { status, ...rest } = query;
  const pending: readonly RunState[] = ["delayed", "blocked", "ready"];
  // Checked at the door: the names of states, and "pending" for all that wait.
  const states = status === undefined ? undefined : status === "pending" ? pending : [status as RunState];
  return listRuns(engine.database, threadId, { metadata: undefined, ...rest, states });
}
