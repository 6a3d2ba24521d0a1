// The state of a thread as clients read it: made of what LangGraph says, or of what a run leaves at its end.
import type { RunnableConfig } from "@langchain/core/runnables";
import type { StateSnapshot } from "@langchain/langgraph";
import type { Fields } from "../fields.ts";
import type { LastPut } from "../storage/checkpoints/checkpoints.ts";
import { toWire, toWireJson } from "./stream/wire-json.ts";

/** A thread's state as clients read it. */
export interface ThreadState {
  readonly values: unknown;
  readonly next: readonly string[];
  readonly tasks: readonly Fields[];
  readonly interrupts: readonly unknown[];
  readonly metadata: unknown;
  readonly created_at: string | null;
  readonly checkpoint: Fields | null;
  readonly parent_checkpoint: Fields | null;
}

/** Of a thread that has never been run. */
export const EMPTY: ThreadState = {
  values: {},
  next: [],
  tasks: [],
  interrupts: [],
  metadata: {},
  created_at: null,
  checkpoint: null,
  parent_checkpoint: null,
};

/** Tasks that wait for an answer. One with a result was answered, although its questions are listed until all are. */
export const askingTasks = ({ tasks }: Pick<ThreadState, "tasks">): readonly Fields[] =>
  tasks.filter(
    ({ interrupts, result }) => Array.isArray(interrupts) && interrupts.length > 0 && result === null,
  );

/** Whether a state waits to be gone on with. LangGraph names no task that was answered once, although it asks again. */
export const isOpen = (state: ThreadState): boolean => state.next.length > 0 || askingTasks(state).length > 0;

/** What LangGraph read, as clients read it. */
export function stateOf(snapshot: StateSnapshot): ThreadState {
  const tasks = snapshot.tasks.map((task) => ({
    id: task.id,
    name: task.name,
    path: task.path ?? null,
    error: task.error === undefined || task.error === null ? null : errorText(task.error),
    interrupts: toWire(task.interrupts ?? []),
    checkpoint: isSnapshot(task.state) ? null : checkpointOf(task.state),
    state: isSnapshot(task.state) ? stateOf(task.state) : null,
    result: toWire(task.result ?? null),
  }));
  return {
    values: toWire(snapshot.values ?? {}),
    next: snapshot.next,
    tasks,
    interrupts: tasks.flatMap(({ interrupts }) => (Array.isArray(interrupts) ? interrupts : [])),
    metadata: toWire(snapshot.metadata ?? {}),
    created_at: snapshot.createdAt ?? null,
    checkpoint: snapshot.createdAt === undefined ? null : checkpointOf(snapshot.config),
    parent_checkpoint: checkpointOf(snapshot.parentConfig),
  };
}

/**
 * The state that a run leaves when it went to its end: its last values and its last checkpoint, without reading either.
 * @returns JSON text, the same as stateOf() gives; null when something of it is missing
 */
export function stateTextOf(threadId: string, last: LastPut | undefined, values: unknown): string | null {
  if (!last || values === undefined) return null;
  const place = { thread_id: threadId, checkpoint_ns: "" };
  const parent = last.parentId ? { ...place, checkpoint_id: last.parentId } : null;
  const rest: Omit<ThreadState, "values" | "metadata"> = {
    next: [],
    tasks: [],
    interrupts: [],
    created_at: last.createdAt,
    checkpoint: { ...place, checkpoint_id: last.id },
    parent_checkpoint: parent,
  };
  // LangGraph adds the thread to the metadata it reads.
  const metadata = `${last.metadata.slice(0, -1)},"thread_id":${JSON.stringify(threadId)}}`;
  return `{"values":${toWireJson(values)},"metadata":${metadata},${JSON.stringify(rest).slice(1)}`;
}

/** Which checkpoint a configuration names. */
export function checkpointOf(config: RunnableConfig | undefined): Fields | null {
  const { thread_id, checkpoint_id, checkpoint_ns, checkpoint_map } = config?.configurable ?? {};
  if (thread_id === undefined) return null;
  const map = checkpoint_map === undefined ? {} : { checkpoint_map };
  return {
    thread_id,
    checkpoint_ns: checkpoint_ns ?? "",
    ...(checkpoint_id ? { checkpoint_id } : {}),
    ...map,
  };
}

function isSnapshot(state: RunnableConfig | StateSnapshot | undefined): state is StateSnapshot {
  return state !== undefined && "values" in state;
}

/** A text, because the official clients' type says so; they make an error of the JSON in it. */
function errorText(error: unknown): string {
  return typeof error === "string" ? error : JSON.stringify(toWire(error));
}
