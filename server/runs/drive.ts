// What a graph is driven with for a run that this process owns, and what it tells meanwhile.
import type { RunControl } from "@langchain/langgraph";
import { asFields } from "../fields.ts";
import type { CallContext } from "../models/gateway/context.ts";
import { PATIENCE_MS } from "../persist.ts";
import { SERVICES } from "../services.ts";
import { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import type { Owner } from "../storage/fence.ts";
import { GraphStore } from "../storage/store/graph-store.ts";
import type { Engine } from "./engine.ts";
import { configOfRun } from "./graph-of.ts";
import type { Graph, StreamedEvent } from "./graph/graph.ts";
import { streamOf } from "./graph/graph-stream.ts";
import type { Chunk } from "./graph/graph-stream.ts";
import { signalFor } from "./graph/node-cache.ts";
import { keeping as keepingOf } from "./guards.ts";
import { breakpointsOf, commandOf, contextOf, recursionOf } from "./input.ts";
import type { Recording } from "./log/record.ts";
import { servicesFor } from "./model-calls.ts";
import type { Told } from "./protocol/tell.ts";
import type { AcceptedRun } from "./request.ts";
import { Reveal } from "./reveal.ts";
import type { TakenUp } from "./rewind.ts";
import { ModelEnd, ModelEnds } from "./stream/model-ends.ts";
import { HIDDEN, graphModes, tellsOfGraphs, tellsTasks, tellsValues } from "./stream/modes.ts";
import { Arrivals, readAhead } from "./stream/read-ahead.ts";
import { ChunkRedactor } from "./stream/redaction.ts";
import { takeBackAnswer, takeBackUpdate } from "./take-back.ts";
import { toolsFor } from "./tools.ts";
import type { ThreadGuard } from "./vault.ts";

/** A run, who drives it, and what it is driven with. */
export interface Drive {
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

export function checkpointerOf(held: Drive, graph: Graph): Checkpoints {
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
export async function* chunksOf(held: Drive, given: Given): AsyncGenerator<readonly Chunk[]> {
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
