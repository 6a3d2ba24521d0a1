// Executes a run that this process owns. Whatever happens in the graph, the run reaches one end, or goes back to the
// queue for another process to go on with.
import { RunControl } from "@langchain/langgraph";
import { sleep, unlessAborted, uptime } from "../clock.ts";
import { ClockBehind, DatabaseUnavailable, GraphUnloadable, LeaseLost, messageOf } from "../errors.ts";
import type { AppError } from "../errors.ts";
import { faultPoint } from "../faults.ts";
import { asFields } from "../fields.ts";
import { refusalBehind } from "../models/gateway/context.ts";
import { persistently } from "../persist.ts";
import { ClockSetBack } from "../storage/checkpoints/clock.ts";
import { settleAnswers } from "../storage/checkpoints/writes.ts";
import { findLastEvent } from "../storage/events.ts";
import type { Owner } from "../storage/fence.ts";
import { STOPPED, holdInside } from "./breakpoints.ts";
import { checkpointerOf, chunksOf } from "./drive.ts";
import type { Drive } from "./drive.ts";
import { endRun } from "./end.ts";
import type { Engine } from "./engine.ts";
import { configOfRun, graphOfRun } from "./graph-of.ts";
import { giveNodeCache } from "./graph/node-cache.ts";
import { nameNodes } from "./graph/node-names.ts";
import { metadataOf } from "./log/lines.ts";
import type { Entry } from "./log/lines.ts";
import type { Recording } from "./log/record.ts";
import { chargedTo } from "./model-calls.ts";
import { requireNodes } from "./nodes-there.ts";
import { HandOver, RunCancelled, RunTimedOut, outcomeOf } from "./outcome.ts";
import type { Outcome } from "./outcome.ts";
import { goesOnUnanswered, tell } from "./protocol/tell.ts";
import { reached } from "./reached.ts";
import type { AcceptedRun } from "./request.ts";
import { rewind } from "./rewind.ts";
import type { TakenUp } from "./rewind.ts";
import { requireCheckpoint } from "./state.ts";
import { Projection, isHidden, isInterrupt } from "./stream/modes.ts";
import { guardThreadText } from "./vault.ts";

// After a crash of the database its last moments may be missing from the log: numbers go on far beyond any
// that a client can have seen.
const CRASH_GAP = 1_000_000;

/**
 * Starts the run and returns as soon as its events can be followed. Its id must be expected by `engine.live`.
 * @param isBegun its first event was written when it was accepted
 */
export async function execute(engine: Engine, run: AcceptedRun, isBegun = false): Promise<void> {
  const first = run.attempt === 1 ? 0 : await nextEvent(engine, run);
  const controller = new AbortController();
  const control = new RunControl();
  const owner: Owner = {
    runId: run.run_id,
    threadId: run.thread_id,
    workerId: engine.workerId,
    attempt: run.attempt,
    key: run.key,
  };
  const begin = metadataOf(run.run_id, run.attempt);
  const onLost = (error: AppError): void => controller.abort(error);
  const recording = engine.recorder.open(owner, first, onLost, isBegun ? [begin] : []);
  if (!isBegun) void recording.append(begin);
  const told = run.is_watched ? tell(engine, run) : undefined;
  const text = guardThreadText(engine, run.graph_id, {
    threadId: run.thread_id,
    key: run.key,
    identity: run.auth?.user.identity,
  });
  const done = chargedTo({ engine, run, owner, recording, controller }, (calls) =>
    drive({ engine, run, owner, calls, controller, control, recording, told, text, masked: 0 }),
  );
  const requestDrain = (): void => control.requestDrain("The server stops.");
  const { runId, attempt } = owner;
  engine.live.add({ runId, attempt, controller, tail: recording.tail, requestDrain, done });
  void done.finally(() => engine.freed());
}

async function nextEvent(engine: Engine, run: AcceptedRun): Promise<number> {
  const { last, attempt } = await persistently(() => findLastEvent(engine.database, run.run_id));
  return last + 1 + (attempt < run.boot_attempt ? CRASH_GAP : 0);
}

async function drive(held: Drive): Promise<void> {
  const { engine, run, controller, recording } = held;
  const startedAt = uptime();
  try {
    faultPoint("run.claimed");
    const outcome = await runToEnd(held);
    controller.abort(); // nothing of this run may go on after its end
    await endRun(engine, held, outcome);
    const facts = {
      run_id: run.run_id,
      graph_id: run.graph_id,
      attempt: run.attempt,
      ms: uptime() - startedAt,
    };
    const masked = held.masked > 0 ? { masked: held.masked } : {};
    engine.log.info("run.finished", {
      ...facts,
      ...masked,
      status: outcome.state,
      code: outcome.error?.error,
    });
  } catch (error) {
    controller.abort();
    recording.close("lost");
    if (!(error instanceof LeaseLost) && isPassing(engine, error))
      engine.live.resting.add(held.owner, run.handovers);
    engine.log[isPassing(engine, error) ? "warn" : "error"]("run.abandoned", {
      run_id: run.run_id,
      reason: messageOf(error),
    });
  } finally {
    engine.checkpoints.close(held.owner);
  }
}

async function runToEnd(held: Drive): Promise<Outcome> {
  const { engine, run, controller, recording } = held;
  const { signal } = controller;
  if (run.left_ms !== null) void stopIn(run.left_ms, controller);
  const { guard, keep } = held.text;
  const projection = new Projection(run.kwargs.stream_mode, run.kwargs.stream_subgraphs);
  try {
    await tellBegin(held);
    if (run.cancel) throw new RunCancelled(run.cancel);
    if (run.attempt - run.handovers > engine.limits.maxAttempts) {
      return outcomeOf(new MaxAttemptsExceeded(`Run ${run.run_id} exceeded max attempts`), guard);
    }
    const served = engine.graphs.get(run.graph_id);
    if (!served) throw new GraphUnloadable(`Graph ${run.graph_id} is not served here.`);
    // Code of the project: it may hang, and knows no signal.
    const graph = await unlessAborted(graphOfRun(served, run), signal);
    nameNodes(graph);
    await unlessAborted(giveNodeCache(graph), signal);
    const checkpointer = checkpointerOf(held, graph);
    const told = await held.told?.projection;
    told?.use(graph.streamTransformers ?? []);
    const takenUp: TakenUp =
      run.attempt > 1
        ? await rewind(engine, run, { graph, checkpointer, recording, projection, told: held.told })
        : { resumes: false };
    if (!takenUp.isStopped) await requireNodes(run, { graph, checkpointer }, takenUp);
    if (takenUp.stops) holdInside(checkpointer, takenUp.stops, run.run_id);
    if (run.attempt === 1 && goesOnUnanswered(run))
      await persistently(() => settleAnswers(engine.database, { ...run, workerId: engine.workerId }));
    // Calls cost money: none is made again for a database that takes no writes yet.
    if (run.attempt > 1) await recording.flushed();
    // It was there when the run was accepted, but an earlier run may have been rolled back, or the thread pruned.
    if (!takenUp.resumes)
      await requireCheckpoint(checkpointer, run.thread_id, asFields(configOfRun(run)["configurable"]));
    let isInterrupted = false;
    let values: unknown;
    for await (const chunks of takenUp.isStopped
      ? [STOPPED]
      : chunksOf(held, { graph, checkpointer, ...takenUp }))
      for (const chunk of chunks) {
        const keeping = keep();
        if (keeping) await keeping;
        isInterrupted ||= isInterrupt(chunk);
        if (chunk.mode === "values" && chunk.namespace.length === 0) values = chunk.payload;
        if (isHidden(chunk)) continue;
        const room = record(recording, projection.entriesOf(chunk));
        if (room) await room;
        const more = told && record(recording, told.entriesOf(chunk));
        if (more) await more;
      }
    if (signal.aborted) throw signal.reason;
    await record(recording, await projection.end({ status: isInterrupted ? "interrupted" : "completed" }));
    return await reached(graph, checkpointer, run.thread_id, { isInterrupted, values });
  } catch (error) {
    const reason: unknown = signal.aborted ? signal.reason : refusalBehind(error);
    if (reason instanceof ClockBehind) await engine.clock.look(engine.database);
    if (isPassing(engine, reason)) throw reason;
    const isDrain = held.control.drainRequested && isDrained(reason);
    // Who takes it, here or elsewhere, waits until his clock is right for what is there.
    const isHandedOver = isDrain || reason instanceof ClockSetBack;
    const outcome = outcomeOf(isHandedOver ? new HandOver() : reason, guard);
    await keep();
    const status = outcome.error ? "failed" : "interrupted";
    if (outcome.state !== "handed over")
      await record(recording, await projection.end({ status, error: outcome.error }));
    return outcome;
  }
}

/** This process cannot go on with the run, and another attempt can. */
const isPassing = ({ clock }: Engine, reason: unknown): boolean =>
  reason instanceof LeaseLost ||
  reason instanceof DatabaseUnavailable ||
  // Where our clock is right, waiting or another server would not help: the thread was written by one that was ahead.
  (reason instanceof ClockBehind && !(reason instanceof ClockSetBack) && clock.isBehind);

/** An attempt's first events. */
async function tellBegin({ engine, run, recording, told }: Drive): Promise<void> {
  // Who follows the thread waits for its next run. A takeover begins behind what clients take back.
  if (!told || run.attempt > 1) {
    engine.hints.begins(run.thread_id);
    return;
  }
  await record(recording, await told.begin());
  engine.hints.events([run.run_id, run.thread_id]);
}

/** A promise means: wait for it before the next entries. */
function record(recording: Recording, entries: readonly Entry[]): Promise<void> | undefined {
  let room: Promise<void> | undefined;
  for (const entry of entries) room = recording.append(entry) ?? room;
  return room;
}

class MaxAttemptsExceeded extends Error {
  override readonly name = "MaxAttemptsExceeded";
}

const isDrained = (error: unknown): boolean => error instanceof Error && error.name === "GraphDrained";

async function stopIn(ms: number, controller: AbortController): Promise<void> {
  await sleep(Math.max(0, ms), controller.signal);
  controller.abort(new RunTimedOut());
}
