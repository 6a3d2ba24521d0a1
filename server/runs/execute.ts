// Drives a graph for a run that this process owns. Whatever happens in the graph, the run reaches one end,
// or goes back to the queue for another process to go on with.
import { RunControl } from "@langchain/langgraph";
import { now, sleep, unlessAborted } from "../clock.ts";
import { DatabaseUnavailable, GraphUnloadable, LeaseLost, messageOf } from "../errors.ts";
import type { AppError } from "../errors.ts";
import { faultPoint } from "../faults.ts";
import { asFields } from "../fields.ts";
import { refusalBehind } from "../models/gateway/context.ts";
import type { CallContext } from "../models/gateway/context.ts";
import { PATIENCE_MS, persistently } from "../persist.ts";
import { SERVICES } from "../services.ts";
import { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import { findLastEvent } from "../storage/events.ts";
import type { Owner } from "../storage/fence.ts";
import { GraphStore } from "../storage/store/graph-store.ts";
import { STOPPED } from "./breakpoints.ts";
import { endRun } from "./end.ts";
import type { Engine } from "./engine.ts";
import { configOfRun, graphOfRun } from "./graph-of.ts";
import type { Graph, StreamedEvent } from "./graph/graph.ts";
import { streamOf } from "./graph/graph-stream.ts";
import type { Chunk } from "./graph/graph-stream.ts";
import { giveNodeCache, signalFor } from "./graph/node-cache.ts";
import { nameNodes } from "./graph/node-names.ts";
import { keeping as keepingOf } from "./guards.ts";
import { breakpointsOf, commandOf, contextOf, recursionOf } from "./input.ts";
import { metadataOf } from "./log/lines.ts";
import type { Entry } from "./log/lines.ts";
import type { Recording } from "./log/record.ts";
import { chargedTo, servicesFor } from "./model-calls.ts";
import { HandOver, RunCancelled, RunTimedOut, outcomeOf } from "./outcome.ts";
import type { Outcome } from "./outcome.ts";
import { tell } from "./protocol/tell.ts";
import type { Told } from "./protocol/tell.ts";
import { reached } from "./reached.ts";
import type { AcceptedRun } from "./request.ts";
import { Reveal } from "./reveal.ts";
import { rewind } from "./rewind.ts";
import type { TakenUp } from "./rewind.ts";
import { requireCheckpoint } from "./state.ts";
import { ModelEnd, ModelEnds } from "./stream/model-ends.ts";
import {
  HIDDEN,
  Projection,
  graphModes,
  isHidden,
  isInterrupt,
  tellsOfGraphs,
  tellsTasks,
  tellsValues,
} from "./stream/modes.ts";
import { Arrivals, readAhead } from "./stream/read-ahead.ts";
import { ChunkRedactor } from "./stream/redaction.ts";
import { takeBackAnswer, takeBackUpdate } from "./take-back.ts";
import { toolsFor } from "./tools.ts";
import { guardThreadText } from "./vault.ts";
import type { ThreadGuard } from "./vault.ts";

// After a crash of the database its last moments may be missing from the log: numbers go on far beyond any
// that a client can have seen.
const CRASH_GAP = 1_000_000;

/** A run, who drives it, and what it is driven with. */
interface Drive {
  readonly engine: Engine;
  readonly run: AcceptedRun;
  readonly owner: Owner;
  /** Its calls to models. */
  readonly calls: CallContext;
  readonly controller: AbortController;
  readonly control: RunControl;
  readonly recording: Recording;
  /** The run's events for protocol v2, if anybody follows its thread so. */
  readonly told: Told | undefined;
  /** What is said on the thread may be kept as this guard has it. */
  readonly text: ThreadGuard;
  /** How many values of nodes were taken out of what is kept. */
  masked: number;
}

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
  const startedAt = now();
  try {
    faultPoint("run.claimed");
    const outcome = await runToEnd(held);
    controller.abort(); // nothing of this run may go on after its end
    await endRun(engine, held, outcome);
    const facts = { run_id: run.run_id, graph_id: run.graph_id, attempt: run.attempt, ms: now() - startedAt };
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
    if (error instanceof DatabaseUnavailable) engine.live.resting.add(held.owner, run.handovers);
    engine.log[isPassing(error) ? "warn" : "error"]("run.abandoned", {
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
    if (isPassing(reason)) throw reason;
    const outcome = outcomeOf(
      held.control.drainRequested && isDrained(reason) ? new HandOver() : reason,
      guard,
    );
    await keep();
    const status = outcome.error ? "failed" : "interrupted";
    if (outcome.state !== "handed over")
      await record(recording, await projection.end({ status, error: outcome.error }));
    return outcome;
  }
}

/** This process cannot go on with the run, and another attempt can. */
const isPassing = (reason: unknown): boolean =>
  reason instanceof LeaseLost || reason instanceof DatabaseUnavailable;

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

function checkpointerOf(held: Drive, graph: Graph): Checkpoints {
  const { engine, run, owner, controller, text } = held;
  const about = { graph_id: run.graph_id, thread_id: run.thread_id, run_id: run.run_id };
  return new Checkpoints(engine.database, {
    onLost: (error) => controller.abort(error),
    patienceMs: PATIENCE_MS,
    put: async (write, urgency) => {
      await text.keep();
      return engine.checkpoints.put(owner, write, urgency);
    },
    mayTrail: run.kwargs.durability === "async",
    settled: () => engine.checkpoints.settled(owner),
    triggers: graph.triggerToNodes,
    redact: keepingOf(engine, text.guard, about, () => (held.masked += 1)),
    metadata: run.metadata,
    isNew: !run.has_checkpoints,
    goesOn: controller,
  });
}

function storeOf({ engine, run, owner, controller }: Drive): GraphStore {
  return new GraphStore(engine.database, {
    owner,
    guard: engine.privacy.of(run.graph_id),
    embedder: engine.embedder,
    ttl: engine.storeTtl,
    onLost: (error) => controller.abort(error),
    patienceMs: PATIENCE_MS,
    signal: controller.signal,
  });
}

interface Given extends TakenUp {
  readonly graph: Graph;
  readonly checkpointer: Checkpoints;
}

/** A graph's chunks as they may be told. */
async function* chunksOf(held: Drive, given: Given): AsyncGenerator<readonly Chunk[]> {
  const { run_id: runId, kwargs, is_watched: isWatched } = held.run;
  const input = inputOf(kwargs, given);
  const { signal, leave, end } = signalFor(held.controller.signal, held.calls);
  const arrivals = new Arrivals<unknown>();
  const ends = new ModelEnds((over) => arrivals.push(over));
  const options = { ...optionsOf(held, given, ends), signal };
  const redactor = new ChunkRedactor(held.text.guard, {
    tellsTasks: tellsTasks(kwargs.stream_mode, isWatched),
    tellsValues: tellsValues(kwargs.stream_mode, isWatched),
    callOf: (piece) => ends.callOf(piece),
  });
  const withSubgraphs = hasSubgraphs(held.run);
  const told = (raw: unknown): readonly Chunk[] =>
    raw instanceof ModelEnd ? redactor.over(raw.last) : redactor.take(decodeChunk(raw, withSubgraphs));
  try {
    if (kwargs.stream_mode.includes("events")) {
      for await (const events of readAhead(
        given.graph.streamEvents(input, { ...options, version: "v2" }),
        arrivals,
      ))
        for (const raw of events) {
          const event = raw as StreamedEvent | ModelEnd;
          if (event instanceof ModelEnd) yield redactor.over(event.last);
          else if (isOwnChunk(event, runId)) yield told(event.data.chunk);
          else if (!event.tags?.includes(HIDDEN))
            yield redactor.take({ namespace: [], mode: "events", payload: event });
        }
    } else
      for await (const raws of readAhead(await streamOf(given.graph, input, options, leave), arrivals))
        yield raws.flatMap(told);
    yield redactor.end();
  } catch (error) {
    if (!held.controller.signal.aborted && !given.resumes) await takeBackUpdate(held, given);
    await takeBackAnswer(held, error);
    throw error;
  } finally {
    end();
  }
}

function inputOf({ command, input }: AcceptedRun["kwargs"], { resumes, answers = {} }: Given): unknown {
  if (resumes) return Object.keys(answers).length > 0 ? commandOf({ resume: answers }) : null;
  return command ? commandOf(command) : input;
}

const hasSubgraphs = (run: AcceptedRun): boolean =>
  run.kwargs.stream_subgraphs || tellsOfGraphs(run.kwargs.stream_mode) || tellsCheckpoints(run);

// LangGraph's own events would show that something else was asked for as well.
const tellsCheckpoints = ({ is_watched: isWatched, kwargs: { stream_mode: asked } }: AcceptedRun): boolean =>
  isWatched || (asked.includes("values") && !asked.includes("events"));

/** Whether an event shows a piece of the graph's own stream, which is told as the mode that it is of. */
const isOwnChunk = (event: StreamedEvent, runId: string): boolean =>
  event.event === "on_chain_stream" && event.run_id === runId && Array.isArray(event.data.chunk);

function decodeChunk(raw: unknown, hasNamespace: boolean): Chunk {
  // LangGraph yields [namespace, mode, payload] with subgraphs, else [mode, payload].
  const parts = hasNamespace
    ? (raw as [string[], string, unknown])
    : ([[], ...(raw as [string, unknown])] as const);
  return { namespace: parts[0], mode: parts[1], payload: parts[2] };
}

/** Options left unset must be absent: `undefined` would override the graph's own. */
function optionsOf(held: Drive, given: Given, ends: ModelEnds): object {
  const { engine, run, controller, control } = held;
  const { kwargs } = run;
  const { guard } = held.text;
  const reveal = new Reveal(engine.database, {
    identity: undefined,
    permissions: [],
    threadId: run.thread_id,
  });
  const merged = configOfRun(run);
  const { configurable, metadata, recursion_limit: _limit, max_concurrency: _most, ...rest } = merged;
  const place = asFields(configurable);
  // From a named checkpoint LangGraph would begin a new branch again.
  if (given.resumes)
    for (const key of ["checkpoint_id", "checkpoint_ns", "checkpoint_map"]) delete place[key];
  const modes = graphModes(kwargs.stream_mode, run.is_watched, guard.mode !== "off");
  const isHeldBack = guard.mode !== "off" && modes.includes("messages");
  const callbacks = [...(held.told?.callbacks ?? []), ...(isHeldBack ? [ends] : [])];
  const identity = { run_id: run.run_id, thread_id: run.thread_id, run_attempt: run.attempt };
  return {
    ...rest,
    ...recursionOf(merged),
    ...contextOf(given.graph, kwargs.context),
    ...breakpointsOf(kwargs),
    configurable: {
      ...place,
      __pregel_checkpointer: given.checkpointer,
      [SERVICES]: {
        ...engine.services,
        ...servicesFor(engine, held.calls),
        redact: (text: string) => guard.text(text),
        reveal: (text: string) => reveal.text(text),
        tools: toolsFor(engine, run, controller.signal),
      },
    },
    metadata: { ...asFields(metadata), ...run.metadata, ...identity },
    store: storeOf(held),
    runId: run.run_id,
    streamMode: modes,
    subgraphs: hasSubgraphs(run),
    // An empty list would have LangChain make a manager for it.
    ...(callbacks.length > 0 ? { callbacks } : {}),
    // With a version and subgraphs LangGraph tells of each checkpoint before its values.
    ...(tellsCheckpoints(run) ? { version: "v2" } : {}),
    // How far the graph may be ahead of the disk is the checkpointer's to say: by itself LangGraph waits for nothing.
    durability: kwargs.durability === "exit" ? "exit" : "sync",
    control,
  };
}
