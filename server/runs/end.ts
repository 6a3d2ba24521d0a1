// How a run leaves this process: ended, rolled back, or handed over. Last events, state, thread and call-back are
// written in one fenced statement: a process that dies here leaves either all of it or a run that another one ends.
import { now } from "../clock.ts";
import { AppError, LeaseLost, messageOf } from "../errors.ts";
import { faultPoint } from "../faults.ts";
import { uuidv7 } from "../ids.ts";
import { persistently } from "../persist.ts";
import { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import type { CheckpointWrite } from "../storage/checkpoints/form.ts";
import { deleteRunEvents, findLastEvent } from "../storage/events.ts";
import type { Owner } from "../storage/fence.ts";
import { deleteCheckpointsOfRun, deleteOwnRun, finishRun } from "../storage/finish.ts";
import type { RunEnd } from "../storage/finish.ts";
import { lockThreads, promoteRuns, releaseRuns } from "../storage/queue.ts";
import { findRunFacts } from "../storage/runs.ts";
import type { OwnedRunRow, RunRow } from "../storage/runs.ts";
import type { Engine } from "./engine.ts";
import { graphForState, graphOfThread } from "./graph-of.ts";
import { wholeLine } from "./log/lines.ts";
import type { Recording } from "./log/record.ts";
import { outcomeOf } from "./outcome.ts";
import type { Outcome } from "./outcome.ts";
import type { Told } from "./protocol/tell.ts";
import type { AcceptedRun } from "./request.ts";
import { newestState, settlingAfter, storeState } from "./state.ts";
import { toWireJson } from "./stream/wire-json.ts";

// How long an end is worth another try while the database is away; then the run goes back to the queue.
const FINISH_MS = 30_000;

interface Held {
  readonly run: AcceptedRun;
  readonly owner: Owner;
  readonly recording: Recording;
  readonly told: Told | undefined;
}

/** Writes the outcome. @throws LeaseLost when the run is not ours any more: then nothing was written */
export async function endRun(engine: Engine, held: Held, outcome: Outcome): Promise<void> {
  const { run, recording } = held;
  faultPoint("run.ending");
  let hasWaiting = false;
  if (outcome.state === "handed over") await handOver(engine, held);
  else if (outcome.state === "rolled back") await rollBack(engine, held);
  else hasWaiting = await finish(engine, held, { ...outcome, state: outcome.state });
  // Before anybody hears of the end: until then the thread counts as busy, also if what waited is gone.
  if (hasWaiting) await promote(engine, held.owner.threadId);
  faultPoint("run.ended");
  recording.close(outcome.state === "handed over" ? "lost" : "over");
  engine.hints.events([run.run_id]);
}

type Final = Outcome & { state: RunEnd["state"] };

/** True: other runs of the thread wait. */
async function finish(engine: Engine, held: Held, reached: Final): Promise<boolean> {
  const { run, owner, recording, told } = held;
  const { points, outcome } = await lastPoints(engine, held, reached);
  for (const entry of (await told?.end(outcome)) ?? []) await recording.append(entry);
  if (outcome.error) await recording.append({ event: "error", data: toWireJson(outcome.error) });
  const rest = await recording.rest();
  const newest = engine.checkpoints.newestOf(owner);
  const webhook = run.webhook
    ? { id: uuidv7(), payload: callBack(run, outcome, await stateOf(engine, run, outcome)) }
    : undefined;
  const write = (): ReturnType<typeof finishRun> =>
    engine.notes.along((notes) => {
      const end: RunEnd = { ...outcome, ...rest, points, newest, webhook, notes };
      return persistently(() => finishRun(engine.database, owner, end), { forMs: FINISH_MS });
    });
  let ended = await write();
  if (!ended) {
    const row = await persistently(() => findRunFacts(engine.database, owner.runId), { forMs: FINISH_MS });
    const isOurs = row?.attempt === owner.attempt;
    if (isOurs && row.state === "running" && row.cancel === "rollback") {
      await rollBack(engine, held); // asked for when the graph was at its end already
      return false;
    }
    if (isOurs && row.state === "running") {
      await recording.repair();
      ended = await write();
    } else if (isOurs && row.state === outcome.state) {
      ended = { hasWaiting: true }; // our own statement ended it, although its answer was lost: perhaps some wait
    }
  }
  if (!ended) throw new LeaseLost(`Run ${owner.runId} was ended, deleted or taken over by somebody else.`);
  if (webhook) engine.hints.due("webhooks");
  return ended.hasWaiting;
}

/**
 * Ends a run that was claimed and cannot be read: what was asked of it was altered, or its key is gone. Without its key
 * nothing can be sealed, and so nothing is said of why but in the log.
 */
export async function endUnreadable(engine: Engine, run: OwnedRunRow, reason: AppError): Promise<void> {
  const { run_id: runId, thread_id: threadId, attempt, key, data_key_id: keyId } = run;
  engine.log.error("run.unreadable", { run_id: runId, code: reason.code, reason: reason.message });
  const { last } = await findLastEvent(engine.database, runId);
  const error = { error: reason.name, message: reason.message };
  const isSayable = key !== undefined || keyId === null;
  const line = wholeLine({ event: "error", data: JSON.stringify(error) });
  const ended = await finishRun(
    engine.database,
    { runId, threadId, workerId: engine.workerId, attempt, key },
    {
      state: "error",
      error: isSayable ? error : null,
      threadStatus: "error",
      threadState: null,
      rest: isSayable ? { seq: last + 1, last: last + 1, body: line } : undefined,
      points: [],
      segments: 17,
      after: undefined,
      webhook: run.webhook
        ? { id: uuidv7(), payload: bodyOf({ ...run, kwargs: {} }, "error", { error }) }
        : undefined,
      notes: [],
    },
  );
  if (ended && run.webhook) engine.hints.due("webhooks");
  if (ended?.hasWaiting) await promote(engine, threadId);
  engine.hints.events([runId]);
}

/** The checkpoints that go with the end. A value that PostgreSQL has refused makes it another end. */
async function lastPoints(
  engine: Engine,
  { owner, run }: Held,
  outcome: Final,
): Promise<{ points: CheckpointWrite[]; outcome: Final }> {
  try {
    return { points: await engine.checkpoints.rest(owner), outcome };
  } catch (error) {
    if (error instanceof AppError) throw error; // not ours any more, or the database is away
    return { points: [], outcome: { ...outcomeOf(error, engine.privacy.of(run.graph_id)), state: "error" } };
  }
}

/** Makes the thread's next run ready. If this process dies before, or cannot, a heartbeat finds it waiting. */
async function promote(engine: Engine, threadId: string): Promise<void> {
  faultPoint("run.promoting");
  try {
    const promoted = await engine.database.transaction(async (transaction) => {
      await lockThreads(transaction, [threadId]);
      return promoteRuns(transaction, [threadId]);
    });
    if (promoted.length > 0) announceReady(engine);
  } catch (error) {
    engine.log.warn("thread.unpromoted", { thread_id: threadId, reason: messageOf(error) });
  }
}

/** Some run is ready: this process looks, and others are told. */
export function announceReady(engine: Engine): void {
  engine.poke();
  engine.hints.raise({ kind: "ready" });
}

async function rollBack(engine: Engine, { owner, run }: Held): Promise<void> {
  const { runId, threadId } = owner;
  const isOurs = await persistently(
    () =>
      engine.database.transaction(async (transaction) => {
        await lockThreads(transaction, [threadId]);
        const deleted = await deleteOwnRun(transaction, owner);
        if (!deleted) return false;
        await deleteRunEvents(transaction, [runId]);
        await deleteCheckpointsOfRun(transaction, { threadId, runId, ...deleted });
        const graph = await graphForState(engine, run.graph_id, threadId, transaction);
        await storeState(transaction, graph, threadId, settlingAfter(deleted));
        await promoteRuns(transaction, [threadId]);
        return true;
      }),
    { forMs: FINISH_MS },
  );
  if (!isOurs) throw new LeaseLost(`Run ${runId} was ended, deleted or taken over by somebody else.`);
  announceReady(engine);
}

async function handOver(engine: Engine, { owner, recording }: Held): Promise<void> {
  await engine.checkpoints.settled(owner);
  await recording.flushed();
  const { workerId, runId, attempt } = owner;
  await persistently(() => releaseRuns(engine.database, workerId, [{ runId, attempt }], false));
  engine.hints.raise({ kind: "ready" });
}

/** The thread's state for the call-back: a run that did not go to its end left the one of its last checkpoint. */
async function stateOf(engine: Engine, run: AcceptedRun, { threadState }: Outcome): Promise<unknown> {
  if (threadState) return JSON.parse(threadState);
  const graph = await graphOfThread(engine, run.graph_id, run.thread_id).catch(() => undefined);
  if (!graph) return undefined;
  try {
    return await persistently(() => newestState(graph, new Checkpoints(engine.database), run.thread_id));
  } catch (error) {
    if (error instanceof AppError && error.retryable) throw error;
    return undefined; // a state that nobody can read is no reason not to call back
  }
}

function callBack(run: AcceptedRun, outcome: Outcome, state: unknown): string {
  const values: unknown = outcome.values ?? Object(state).values;
  const more = {
    ...(values === undefined ? {} : { values }),
    ...(outcome.error ? { error: outcome.error } : {}),
  };
  return bodyOf(run, outcome.state, more);
}

/** The body of the call-back of a run that ended before it began. */
export const callBackOfPending = (run: RunRow): string => bodyOf(run, "interrupted", {});

function bodyOf(
  run: Omit<RunRow, "kwargs"> & { readonly kwargs: unknown },
  status: string,
  more: object,
): string {
  const { run_id, thread_id, assistant_id, metadata, kwargs, created_at, started_at, multitask } = run;
  return toWireJson({
    run_id,
    thread_id,
    assistant_id,
    metadata,
    kwargs,
    created_at,
    multitask_strategy: multitask,
    status,
    run_started_at: started_at,
    run_ended_at: new Date(now()),
    ...more,
  });
}
