// The state of a thread: read, listed and changed through its graph and our checkpointer.
// A change holds the thread's row, so that no run can start in the middle of it.
import type { RunnableConfig } from "@langchain/core/runnables";
import { START } from "@langchain/langgraph";
import type { CheckpointListOptions } from "@langchain/langgraph-checkpoint";
import {
  AppError,
  CheckpointNotFound,
  DataKeyUnusable,
  InputInvalid,
  SealedValueInvalid,
  ThreadBusy,
  ThreadNotFound,
  ThreadWithoutGraph,
  UpdateRefused,
  ValueUnreadable,
} from "../errors.ts";
import type { Fields } from "../fields.ts";
import { GraphNotServed, StateUnreadable } from "../graph-errors.ts";
import { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import { deleteThreads } from "../storage/checkpoints/prune.ts";
import type { Queryable } from "../storage/database.ts";
import { codeOf } from "../storage/postgres.ts";
import { GraphStore } from "../storage/store/graph-store.ts";
import {
  findAtWork,
  findThread,
  findThreadState,
  lockThread,
  updateThreadState,
} from "../storage/threads.ts";
import type { ThreadRow } from "../storage/threads.ts";
import type { Engine } from "./engine.ts";
import { graphAt, graphOfThread } from "./graph-of.ts";
import type { Graph } from "./graph/graph.ts";
import { keeping } from "./guards.ts";
import { EMPTY, checkpointOf, isOpen, stateOf } from "./state-shape.ts";
import type { ThreadState } from "./state-shape.ts";
import { guardThreadText } from "./vault.ts";

export interface HistoryQuery {
  readonly limit: number;
  readonly before?: string | undefined;
  readonly metadata?: Fields | undefined;
  readonly checkpoint?: Fields | undefined;
}

export async function getThread(engine: Engine, threadId: string): Promise<ThreadRow> {
  const thread = await findThread(engine.database, threadId);
  if (!thread || isGone(thread)) throw new ThreadNotFound(threadId);
  return thread;
}

/** A temporary thread is not shown once its run is over, although the run still is. */
export const isGone = ({
  is_temporary: isTemporary,
  status,
}: Pick<ThreadRow, "is_temporary" | "status">): boolean => isTemporary && status !== "busy";

/**
 * The newest state as JSON text: stored at the end of each run, computed while one is live.
 * @param showsGone also of a temporary thread whose run is over
 * @throws ThreadNotFound, GraphNotServed, StateUnreadable
 */
export async function getStateText(engine: Engine, threadId: string, showsGone = false): Promise<string> {
  const thread = await findThreadState(engine.database, threadId);
  if (!thread || (isGone(thread) && !showsGone)) throw new ThreadNotFound(threadId);
  return thread.state ?? JSON.stringify(await readNewest(engine, threadId, thread, { subgraphs: false }));
}

/**
 * The state at a checkpoint, or the newest; empty while the thread has never been run.
 * @throws ThreadNotFound, CheckpointNotFound, GraphNotServed, StateUnreadable
 */
export async function getState(
  engine: Engine,
  threadId: string,
  at: { checkpoint?: Fields | undefined; subgraphs: boolean },
): Promise<ThreadState> {
  const { checkpoint_id: id, checkpoint_ns: ns } = at.checkpoint ?? {};
  const read = id || ns ? readState : readNewest;
  return read(engine, threadId, await getThread(engine, threadId), at);
}

/**
 * A run that has stored nothing yet is what comes next. The official hooks follow no thread whose state says that
 * nothing is left to do: a page opened before the first superstep would never show the answer.
 */
async function readNewest(
  engine: Engine,
  threadId: string,
  thread: Pick<ThreadRow, "metadata" | "status">,
  at: { subgraphs: boolean },
): Promise<ThreadState> {
  // Asked first: a run that ends in between is one that the state has.
  const atWork = thread.status === "busy" ? await findAtWork(engine.database, threadId) : undefined;
  const state = await readState(engine, threadId, thread, at);
  if (!atWork || isOpen(state)) return state;
  const isTheirs = Object(state.metadata).run_id === atWork.live;
  return (isTheirs || atWork.live === null) && !atWork.has_waiting ? state : { ...state, next: [START] };
}

async function readState(
  engine: Engine,
  threadId: string,
  thread: Pick<ThreadRow, "metadata">,
  at: { checkpoint?: Fields | undefined; subgraphs: boolean },
): Promise<ThreadState> {
  const graph = await graphOf(engine, threadId, thread);
  if (!graph) return EMPTY;
  const config = configOf(new Checkpoints(engine.database), threadId, at.checkpoint);
  const inner = (await graphAt(graph, at.checkpoint)) ?? graph;
  const snapshot = await inner.getState(config, { subgraphs: at.subgraphs }).catch((error: unknown) => {
    if (isOfGraph(error)) engine.log.warn("state.unreadable", { thread_id: threadId, reason: error.message });
    return unreadable(error);
  });
  const asked = at.checkpoint?.["checkpoint_id"];
  if (typeof asked === "string" && snapshot.createdAt === undefined) throw new CheckpointNotFound(asked);
  return stateOf(snapshot);
}

/**
 * States of a thread, newest first; none while it has never been run. One that its graph cannot read is left out: it
 * must not hide those from which the thread can go on.
 * @throws ThreadNotFound, GraphNotServed
 */
export async function listHistory(
  engine: Engine,
  threadId: string,
  query: HistoryQuery,
): Promise<ThreadState[]> {
  const graph = await graphOf(engine, threadId, await getThread(engine, threadId));
  if (!graph) return [];
  const checkpointer = new Checkpoints(engine.database);
  const config = configOf(checkpointer, threadId, query.checkpoint);
  const inner = (await graphAt(graph, query.checkpoint)) ?? graph;
  const filter = query.metadata ? { filter: query.metadata } : {};
  const states: ThreadState[] = [];
  let before = query.before ? { configurable: { checkpoint_id: query.before } } : undefined;
  const page = (limit: number): CheckpointListOptions => ({
    limit,
    ...filter,
    ...(before ? { before } : {}),
  });
  for (;;) {
    try {
      for await (const snapshot of inner.getStateHistory(config, page(query.limit - states.length))) {
        states.push(stateOf(snapshot));
        before = { configurable: { checkpoint_id: String(snapshot.config.configurable?.["checkpoint_id"]) } };
      }
      return states;
    } catch (error) {
      if (!isOfGraph(error)) throw error;
      engine.log.warn("state.unreadable", { thread_id: threadId, reason: error.message });
      const [broken] = await Array.fromAsync(checkpointer.list(config, page(1)));
      if (!broken) return states;
      before = { configurable: { checkpoint_id: broken.checkpoint.id } };
    }
  }
}

/**
 * Writes values to a thread as if a node had, from its newest checkpoint or from an older one, which forks.
 * @returns the new checkpoint
 * @throws ThreadNotFound, ThreadWithoutGraph, GraphNotServed, ThreadBusy while a run is live
 */
export async function updateState(
  engine: Engine,
  threadId: string,
  update: {
    readonly values: unknown;
    readonly asNode?: string | undefined;
    readonly checkpoint?: Fields | undefined;
    /** Who changes it. */
    readonly by?: string | undefined;
  },
): Promise<Fields> {
  return engine.database.transaction(async (transaction) => {
    const locked = await lockThread(transaction, threadId);
    if (!locked || locked.is_gone) throw new ThreadNotFound(threadId);
    if (locked.is_busy) throw ThreadBusy.forUpdate();
    const graph = await graphOf(engine, threadId, locked, transaction);
    if (!graph) throw new ThreadWithoutGraph(threadId);
    // All of it on one connection: the change and the thread's status are committed together.
    const graphId = locked.metadata["graph_id"];
    const key = await transaction.seals.ofLocked(transaction, threadId);
    const text = guardThreadText(engine, graphId, { threadId, key, identity: update.by }, transaction);
    const redact = keeping(engine, text.guard, { graph_id: graphId, thread_id: threadId });
    const checkpointer = new Checkpoints(transaction, { redact, keep: text.keep, goesOn: {} });
    await requireCheckpoint(checkpointer, threadId, update.checkpoint);
    // The edges that decide what comes next may look into the store.
    const store = new GraphStore(transaction, {
      guard: engine.privacy.of(graphId),
      embedder: engine.embedder,
      ttl: engine.storeTtl,
    });
    const config = { ...configOf(checkpointer, threadId, update.checkpoint), store };
    const inner = await graphAt(graph, update.checkpoint);
    if (!inner) throw new InputInvalid("checkpoint.checkpoint_ns names no graph that stands in this one.");
    const made = await inner.updateState(config, update.values, update.asNode).catch(refuseUpdate);
    await storeState(transaction, graph, threadId);
    return checkpointOf(made) ?? {};
  });
}

/**
 * What a thread's status follows from: its state; a cancel, after which it waits for no answer although the state asks;
 * what it was before a run that leaves no trace.
 */
type Settling = "by state" | "cancelled" | "as before";

/** After a rollback. @param hadEnded the status may be what a first try of the same run has left */
export const settlingAfter = ({ hadEnded }: { hadEnded: boolean }): Settling =>
  hadEnded ? "by state" : "as before";

/**
 * Writes down what the thread's newest state is now, and its status. Lock the thread first.
 * @param graph undefined: nobody can tell here, and whoever reads the state works it out
 */
export async function storeState(
  transaction: Queryable,
  graph: Graph | undefined,
  threadId: string,
  settling: Settling = "by state",
): Promise<void> {
  const unless = (status: "idle" | "interrupted"): typeof status | undefined =>
    settling === "as before" ? undefined : status;
  if (!graph) return updateThreadState(transaction, threadId, unless("idle"), null);
  try {
    const newest = await newestState(graph, new Checkpoints(transaction), threadId);
    const status = unless(isOpen(newest) && settling === "by state" ? "interrupted" : "idle");
    await updateThreadState(transaction, threadId, status, JSON.stringify(newest));
  } catch (error) {
    // A state that cannot be read must not keep a run from being cancelled.
    if (!isUnreadable(error)) throw error;
    await updateThreadState(transaction, threadId, unless("idle"), null);
  }
}

/** The newest state of a thread, read through its graph. @throws StateUnreadable, ValueUnreadable */
export async function newestState(
  graph: Graph,
  checkpointer: Checkpoints,
  threadId: string,
): Promise<ThreadState> {
  const config = configOf(checkpointer, threadId, undefined);
  return stateOf(await graph.getState(config).catch((error: unknown) => unreadable(error)));
}

/** Whether a state cannot be read: it is damaged, its key is gone, or its graph does not take it. */
export const isUnreadable = (error: unknown): boolean =>
  [ValueUnreadable, StateUnreadable, SealedValueInvalid, DataKeyUnusable].some((one) => error instanceof one);

/** What a graph's own code throws while a state is read is no failure of this server. */
function unreadable(error: unknown): never {
  if (!isOfGraph(error)) throw error;
  throw new StateUnreadable(error);
}

/** What the database says, and what has a code already, is not the graph's. */
export const isOfGraph = (error: unknown): error is Error =>
  error instanceof Error && !(error instanceof AppError) && codeOf(error) === undefined;

/**
 * Deletes a thread with its runs and checkpoints.
 * @throws ThreadNotFound, ThreadBusy while a run is live
 */
export async function deleteThread(engine: Engine, threadId: string): Promise<void> {
  await engine.database.transaction(async (transaction) => {
    const locked = await lockThread(transaction, threadId);
    if (!locked) throw new ThreadNotFound(threadId);
    if (locked.is_busy) throw ThreadBusy.forUpdate();
    await deleteThreads(transaction, [threadId]);
  });
}

async function graphOf(
  engine: Engine,
  threadId: string,
  thread: { metadata: Fields },
  on: Queryable = engine.database,
): Promise<Graph | undefined> {
  const graphId = thread.metadata["graph_id"];
  if (typeof graphId !== "string") return undefined;
  const graph = await graphOfThread(engine, graphId, threadId, on);
  if (graph || engine.graphs.has(graphId)) return graph;
  throw new GraphNotServed(graphId);
}

/**
 * Makes sure that a checkpoint a client names exists: from one that does not, LangGraph would start empty.
 * @throws CheckpointNotFound
 */
export async function requireCheckpoint(
  checkpointer: Checkpoints,
  threadId: string,
  checkpoint: Fields | undefined,
): Promise<void> {
  const asked = checkpoint?.["checkpoint_id"];
  if (typeof asked !== "string" || asked === "") return;
  const key = { checkpoint_ns: "", ...checkpoint, thread_id: threadId };
  if (!(await checkpointer.getTuple({ configurable: key }))) throw new CheckpointNotFound(asked);
}

/**
 * What LangGraph refuses (an unknown node, values of a wrong form), and what reducers and edges of the graph throw, is
 * the client's to mend. What the database says is not: its errors have a code.
 */
export function refuseUpdate(error: unknown): never {
  if (!isOfGraph(error)) throw error;
  if (error.name === "InvalidUpdateError") throw new InputInvalid(error.message);
  throw new UpdateRefused(error);
}

export function configOf(
  checkpointer: Checkpoints,
  threadId: string,
  checkpoint: Fields | undefined,
): RunnableConfig {
  const base = { checkpoint_ns: "", ...checkpoint, thread_id: threadId };
  return { configurable: { ...base, __pregel_checkpointer: checkpointer } };
}
