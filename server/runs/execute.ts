// Drives a graph for an accepted run and decides how the run ends. Whatever happens in the graph, the run
// reaches one end: its last event is committed first, then its state, fenced on its owner.
import { Command } from "@langchain/langgraph";
import { now } from "../clock.ts";
import { GraphUnloadable, LeaseLost, messageOf } from "../errors.ts";
import { PATIENCE_MS, persistently } from "../persist.ts";
import { SERVICES } from "../services.ts";
import { Checkpoints } from "../storage/checkpoints.ts";
import { finishRun } from "../storage/runs.ts";
import type { RunError } from "../storage/runs.ts";
import { asFields } from "./create.ts";
import type { AcceptedRun, RunKwargs } from "./create.ts";
import type { Engine } from "./engine.ts";
import type { Graph, StreamedEvent } from "./graphs.ts";
import { eventOf, graphModes, isInterrupt } from "./modes.ts";
import type { Chunk } from "./modes.ts";
import type { Recording } from "./record.ts";
import type { RunState } from "./run.ts";
import { toWireJson } from "./wire-json.ts";

// How long the end of a run is worth another try while the database is away; then a reaper ends it.
const FINISH_MS = 30_000;

interface End {
  readonly state: RunState;
  readonly error: RunError | null;
  readonly threadStatus: "idle" | "interrupted" | "error";
}

/** Why a run was stopped from outside: by its client, or because the server stops. */
export class RunCancelled extends Error {
  override readonly name = "RunCancelled";
}

/** Starts the run and returns at once; follow its events to see it. */
export function execute(engine: Engine, run: AcceptedRun): void {
  const controller = new AbortController();
  const done = drive(engine, run, controller).catch((error: unknown) => {
    const level = error instanceof LeaseLost ? "warn" : "error";
    engine.log[level]("run.abandoned", { run_id: run.run_id, reason: messageOf(error) });
  });
  engine.live.add({ runId: run.run_id, controller, done });
}

async function drive(engine: Engine, run: AcceptedRun, controller: AbortController): Promise<void> {
  const startedAt = now();
  const recording = engine.recorder.open(run.run_id);
  try {
    const end = await runToEnd(engine, run, { controller, recording });
    if (end.error) await recording.append("error", toWireJson(end.error));
    // If the log is lost the run must not end as if it were whole: it stays for the reaper, which says so.
    await recording.flushed();
    await finish(engine, run, end);
    const facts = { run_id: run.run_id, graph_id: run.graph_id, ms: now() - startedAt };
    engine.log.info("run.finished", { ...facts, status: end.state, code: end.error?.error });
  } finally {
    recording.close();
  }
}

async function runToEnd(
  engine: Engine,
  run: AcceptedRun,
  held: { controller: AbortController; recording: Recording },
): Promise<End> {
  const { controller, recording } = held;
  let isInterrupted = false;
  try {
    const graph = engine.graphs.get(run.graph_id);
    if (!graph) throw new GraphUnloadable(`Graph ${run.graph_id} is not served here.`);
    await recording.append("metadata", toWireJson({ run_id: run.run_id, attempt: run.attempt }));
    const onLost = (error: LeaseLost): void => controller.abort(error);
    const checkpointer = new Checkpoints(engine.database, { onLost, patienceMs: PATIENCE_MS });
    for await (const chunk of chunksOf(engine, run, { graph, checkpointer, signal: controller.signal })) {
      isInterrupted ||= isInterrupt(chunk);
      const event = chunk.mode === "events" ? eventFrame(chunk, run) : eventOf(chunk, run.kwargs.stream_mode);
      if (event) await recording.append(event.event, event.data);
    }
    return { state: "success", error: null, threadStatus: isInterrupted ? "interrupted" : "idle" };
  } catch (error) {
    return endOf(controller.signal.aborted ? controller.signal.reason : error);
  } finally {
    controller.abort(); // nothing of this run may go on after its end
  }
}

function endOf(error: unknown): End {
  if (error instanceof RunCancelled) return { state: "interrupted", error: null, threadStatus: "idle" };
  const name = error instanceof Error ? error.name : "Error";
  return { state: "error", error: { error: name, message: messageOf(error) }, threadStatus: "error" };
}

async function finish(engine: Engine, run: AcceptedRun, end: End): Promise<void> {
  const owner = { runId: run.run_id, workerId: engine.workerId, attempt: run.attempt };
  const isOurs = await persistently(() => finishRun(engine.database, owner, end), { forMs: FINISH_MS });
  if (!isOurs) throw new LeaseLost(`Run ${run.run_id} was ended or deleted by somebody else.`);
}

interface Drive {
  readonly graph: Graph;
  readonly checkpointer: Checkpoints;
  readonly signal: AbortSignal;
}

async function* chunksOf(engine: Engine, run: AcceptedRun, held: Drive): AsyncGenerator<Chunk> {
  const { kwargs } = run;
  const input = kwargs.command ? commandOf(kwargs.command) : kwargs.input;
  const options = optionsOf(engine, run, held);
  const decode = (raw: unknown): Chunk => decodeChunk(raw, kwargs.stream_subgraphs);
  if (!kwargs.stream_mode.includes("events")) {
    for await (const raw of await held.graph.stream(input, options)) yield decode(raw);
    return;
  }
  for await (const event of held.graph.streamEvents(input, { ...options, version: "v2" })) {
    if (isOwnChunk(event, run.run_id)) yield decode(event.data.chunk);
    yield { namespace: [], mode: "events", payload: event };
  }
}

const isOwnChunk = (event: StreamedEvent, runId: string): boolean =>
  event.event === "on_chain_stream" && event.run_id === runId && Array.isArray(event.data.chunk);

function eventFrame(chunk: Chunk, run: AcceptedRun): { event: string; data: string } | undefined {
  return run.kwargs.stream_mode.includes("events")
    ? { event: "events", data: toWireJson(chunk.payload) }
    : undefined;
}

function decodeChunk(raw: unknown, hasNamespace: boolean): Chunk {
  // LangGraph yields [namespace, mode, payload] with subgraphs, else [mode, payload].
  const parts = hasNamespace
    ? (raw as [string[], string, unknown])
    : ([[], ...(raw as [string, unknown])] as const);
  return { namespace: parts[0], mode: parts[1], payload: parts[2] };
}

/** Options left unset must be absent: `undefined` would override the graph's own. */
function optionsOf(engine: Engine, run: AcceptedRun, held: Drive): object {
  const { kwargs } = run;
  const {
    configurable,
    metadata,
    recursion_limit: limit,
    max_concurrency: concurrency,
    ...rest
  } = kwargs.config;
  const identity = { run_id: run.run_id, thread_id: run.thread_id, run_attempt: run.attempt };
  return {
    ...rest,
    ...(limit === undefined ? {} : { recursionLimit: limit }),
    ...(concurrency === undefined ? {} : { maxConcurrency: concurrency }),
    ...(Object.keys(kwargs.context).length > 0 ? { context: kwargs.context } : {}),
    ...breakpoints(kwargs),
    configurable: {
      ...asFields(configurable),
      __pregel_checkpointer: held.checkpointer,
      [SERVICES]: engine.services,
    },
    metadata: { ...asFields(metadata), ...run.metadata, ...identity },
    runId: run.run_id,
    streamMode: graphModes(kwargs.stream_mode),
    subgraphs: kwargs.stream_subgraphs,
    durability: kwargs.durability,
    signal: held.signal,
  };
}

function breakpoints({ interrupt_before: before, interrupt_after: after }: RunKwargs): object {
  return {
    ...(before === null ? {} : { interruptBefore: before }),
    ...(after === null ? {} : { interruptAfter: after }),
  };
}

function commandOf({ resume, update, goto }: Record<string, unknown>): Command {
  const parts = { resume, update, goto };
  const given = Object.entries(parts).filter(([, value]) => value !== undefined && value !== null);
  return new Command(Object.fromEntries(given));
}
