// Makes, changes and copies threads. Each is one transaction: a thread with supersteps or copied checkpoints is there
// with all of them and the state that follows from them, or not at all.
import { CopySourceMissing, InputInvalid, ThreadExists, ThreadNotFound } from "../errors.ts";
import type { Fields } from "../fields.ts";
import { isThreadVisible } from "../storage/auth-filter.ts";
import type { AuthFilter } from "../storage/auth-filter.ts";
import { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import type { Queryable } from "../storage/database.ts";
import { setThreadTtl } from "../storage/expiry.ts";
import type { ThreadTtl } from "../storage/expiry.ts";
import { copyThreadRows } from "../storage/thread-copy.ts";
import type { CopiedThread } from "../storage/thread-copy.ts";
import { findThread, insertThread, patchThreadMetadata, updateThreadState } from "../storage/threads.ts";
import type { ThreadRow, WholeThread } from "../storage/threads.ts";
import type { Engine } from "./engine.ts";
import { graphForState } from "./graph-of.ts";
import type { Graph, Superstep } from "./graph/graph.ts";
import { keeping } from "./guards.ts";
import { configOf, refuseUpdate, storeState } from "./state.ts";
import type { ThreadState } from "./state-shape.ts";
import { getWholeThread } from "./thread-view.ts";
import type { Shown, Shows } from "./thread-view.ts";
import { guardThreadText } from "./vault.ts";

export interface NewThread {
  readonly threadId: string;
  readonly metadata: Fields;
  readonly ttl: ThreadTtl | null;
  /** Values that nodes of the graph in metadata.graph_id would have written, one superstep after the other. */
  readonly supersteps: readonly Superstep[];
  /** Who makes it. */
  readonly by?: string | undefined;
}

/**
 * @param mayExist answer the thread that has the id already
 * @param filter if the caller may see it
 * @throws ThreadExists, InputInvalid for supersteps that the graph does not take
 */
export async function createThread(
  engine: Engine,
  thread: NewThread,
  mayExist: boolean,
  filter?: AuthFilter,
): Promise<ThreadRow & Shown> {
  const { threadId, metadata, ttl, supersteps } = thread;
  const graph = supersteps.length > 0 ? graphOf(engine, metadata) : undefined;
  const insert = (on: Queryable): Promise<ThreadRow | undefined> => insertThread(on, threadId, metadata, ttl);
  const made = graph
    ? await engine.database.transaction(async (transaction) => {
        const row = await insert(transaction);
        if (row) await write(engine, transaction, graph, thread);
        return row;
      })
    : await insert(engine.database);
  if (!made && !mayExist) throw new ThreadExists();
  if (!made && filter && !(await isThreadVisible(engine.database, threadId, filter)))
    throw new ThreadExists();
  return made && !graph ? { ...made, values: {}, interrupts: {} } : getWholeThread(engine, threadId);
}

async function write(
  engine: Engine,
  transaction: Queryable,
  graph: Graph,
  { threadId, metadata, supersteps, by: identity }: NewThread,
): Promise<void> {
  const about = { graph_id: metadata["graph_id"], thread_id: threadId };
  const key = await transaction.seals.ofLocked(transaction, threadId);
  const { guard, keep } = guardThreadText(engine, about.graph_id, { threadId, key, identity }, transaction);
  const redact = keeping(engine, guard, about);
  const config = configOf(new Checkpoints(transaction, { redact, keep }), threadId, undefined);
  await graph.bulkUpdateState(config, supersteps).catch(refuseUpdate);
  await storeState(transaction, graph, threadId);
}

/** Merges metadata and sets how long the thread is kept; what is undefined stays. @throws ThreadNotFound */
export async function changeThread(
  engine: Engine,
  threadId: string,
  change: { metadata: Fields | undefined; ttl: ThreadTtl | undefined },
): Promise<void> {
  await engine.database.transaction(async (transaction) => {
    const isThere = await patchThreadMetadata(transaction, threadId, change.metadata ?? {});
    if (!isThere) throw new ThreadNotFound(threadId);
    if (change.ttl) await setThreadTtl(transaction, threadId, change.ttl);
  });
}

/**
 * A new thread with all checkpoints of another, and none of its runs. Of a thread on which a run is live it gets what is
 * committed: the copy stands at the run's last checkpoint, from which a new run can go on.
 * @param by which threads may be copied, and what becomes of the metadata; undefined: all, and nothing
 * @throws CopySourceMissing
 */
export async function copyThread(
  engine: Engine,
  threadId: string,
  { copyId, by }: { copyId: string; by: CopiedBy | undefined },
): Promise<Shows<WholeThread>> {
  const source = by && (await findThread(engine.database, threadId));
  const isHidden = by?.filter && !(await isThreadVisible(engine.database, threadId, by.filter));
  if (by && (!source || isHidden)) throw new CopySourceMissing(threadId);
  const metadata = source && (await by?.stamp(source.metadata));
  await engine.database.transaction(async (transaction) => {
    const copied = await copyThreadRows(transaction, threadId, copyId, metadata);
    if (!copied) throw new CopySourceMissing(threadId);
    await settle(engine, transaction, copyId, copied);
  });
  return getWholeThread(engine, copyId);
}

interface CopiedBy {
  readonly filter: AuthFilter | undefined;
  readonly stamp: (metadata: Fields) => Promise<Fields>;
}

/** The copy's state and status: those of the other thread while both are known, else read from the checkpoints. */
async function settle(
  engine: Engine,
  transaction: Queryable,
  copyId: string,
  { status, metadata, state, has_checkpoints: hasCheckpoints }: CopiedThread,
): Promise<void> {
  if (!hasCheckpoints) return;
  if (state !== null && (status === "idle" || status === "interrupted")) {
    // Stored by state.ts, in this shape.
    const text = JSON.stringify(moved(JSON.parse(state) as ThreadState, copyId));
    await updateThreadState(transaction, copyId, status, text);
    return;
  }
  // The error of a failed run stays with that run: its copy can go on from where it failed.
  const graph = await graphForState(engine, metadata["graph_id"], copyId, transaction);
  if (graph) await storeState(transaction, graph, copyId, status === "idle" ? "cancelled" : "by state");
}

/** The same state on another thread. What users keep in values is theirs, also where it looks like an id. */
function moved(state: ThreadState, threadId: string): ThreadState {
  const place = (value: unknown): Fields | null =>
    typeof value === "object" && value !== null ? { ...value, thread_id: threadId } : null;
  const { metadata, tasks, checkpoint, parent_checkpoint: parent } = state;
  const hasThread = typeof metadata === "object" && metadata !== null && "thread_id" in metadata;
  return {
    ...state,
    metadata: hasThread ? place(metadata) : metadata,
    tasks: tasks.map((task) => Object.assign({}, task, { checkpoint: place(task["checkpoint"]) })),
    checkpoint: place(checkpoint),
    parent_checkpoint: place(parent),
  };
}

function graphOf(engine: Engine, metadata: Fields): Graph {
  const graphId = metadata["graph_id"];
  const graph = typeof graphId === "string" ? engine.graphs.get(graphId) : undefined;
  if (graph) return graph;
  const served = [...engine.graphs.keys()].join(", ");
  throw new InputInvalid(
    `supersteps are written through a graph: name one of this server (${served}) in metadata.graph_id.`,
  );
}
