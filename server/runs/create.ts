// Accepts a run: the assistant, the merged configuration, and the row, which claims the thread for it.
// Nothing is executed here; a caller that sees an error knows that nothing was accepted.
import { AssistantNotFound, RunNotFound, ThreadBusy, ThreadNotFound } from "../errors.ts";
import { uuidv7 } from "../ids.ts";
import type { AssistantRow } from "../storage/assistants.ts";
import { Checkpoints } from "../storage/checkpoints.ts";
import { findRun, insertRun } from "../storage/runs.ts";
import type { RunRow } from "../storage/runs.ts";
import { findThread, insertThread } from "../storage/threads.ts";
import type { Engine } from "./engine.ts";
import { requireCheckpoint } from "./state.ts";

type Fields = Record<string, unknown>;

/** What a client asks for; the same fields, under the same names, as the body of runs/stream. */
export interface RunRequest {
  readonly assistant_id: string;
  readonly input?: unknown;
  readonly command?: Fields | null | undefined;
  readonly config?: Fields | null | undefined;
  readonly context?: Fields | null | undefined;
  readonly metadata?: Fields | null | undefined;
  readonly stream_mode: readonly string[];
  readonly stream_subgraphs: boolean;
  readonly interrupt_before?: "*" | readonly string[] | null | undefined;
  readonly interrupt_after?: "*" | readonly string[] | null | undefined;
  readonly checkpoint?: Fields | null | undefined;
  readonly checkpoint_id?: string | null | undefined;
  readonly multitask_strategy: string;
  readonly if_not_exists: "create" | "reject";
  readonly durability: "sync" | "async" | "exit";
}

/** What a run keeps of its request: enough to execute it, on any instance. */
export interface RunKwargs {
  readonly input: unknown;
  readonly command: Fields | null;
  readonly config: Fields;
  readonly context: Fields;
  readonly stream_mode: readonly string[];
  readonly stream_subgraphs: boolean;
  readonly interrupt_before: "*" | readonly string[] | null;
  readonly interrupt_after: "*" | readonly string[] | null;
  readonly durability: "sync" | "async" | "exit";
}

export type AcceptedRun = Omit<RunRow, "kwargs"> & { readonly kwargs: RunKwargs; readonly graph_id: string };

/**
 * Accepts a run on a thread.
 * @throws AssistantNotFound, ThreadNotFound (unless `if_not_exists` is "create"), ThreadBusy while another run is live
 */
export async function createRun(engine: Engine, threadId: string, request: RunRequest): Promise<AcceptedRun> {
  const assistant = findAssistant(engine, request.assistant_id);
  if (!assistant) {
    throw new AssistantNotFound(
      `No assistant found for "${request.assistant_id}". Make sure the assistant ID is for a valid assistant or a valid graph ID.`,
    );
  }
  const runId = uuidv7();
  const kept = { graph_id: assistant.graph_id, assistant_id: assistant.assistant_id };
  const metadata = { ...assistant.metadata, ...request.metadata, ...kept };
  const found = await findThread(engine.database, threadId);
  if (!found && request.if_not_exists === "reject") throw new ThreadNotFound(threadId);
  const { checkpoint, checkpoint_id: checkpointId } = request;
  const asked = { ...checkpoint, ...(checkpointId ? { checkpoint_id: checkpointId } : {}) };
  await requireCheckpoint(new Checkpoints(engine.database), threadId, asked);
  // Last, so that a request that is refused leaves no thread behind.
  const thread = found ?? (await insertThread(engine.database, threadId, {}));
  const kwargs = kwargsOf(request, {
    config: mergeConfigs([assistant.config, thread?.config ?? {}, request.config ?? {}]),
    context: { ...assistant.context, ...request.context },
    identity: { ...asked, ...kept, run_id: runId, thread_id: threadId },
  });
  engine.live.expect(runId);
  const row = await insertRun(engine.database, {
    runId,
    threadId,
    assistantId: assistant.assistant_id,
    workerId: engine.workerId,
    multitask: request.multitask_strategy,
    metadata,
    kwargs,
    threadMetadata: kept,
  }).catch((error: unknown) => {
    engine.live.forget(runId);
    throw error;
  });
  if (row === "busy" || row === "missing") {
    engine.live.forget(runId);
    throw row === "busy" ? ThreadBusy.forRun() : new ThreadNotFound(threadId);
  }
  return { ...row, kwargs, graph_id: assistant.graph_id };
}

/** A run of a thread. @throws RunNotFound also when the run belongs to another thread */
export async function getRun(engine: Engine, threadId: string, runId: string): Promise<RunRow> {
  const run = await findRun(engine.database, runId);
  if (run?.thread_id !== threadId) throw new RunNotFound();
  return run;
}

/** An assistant by its id or by the id of its graph. */
export function findAssistant(engine: Engine, id: string): AssistantRow | undefined {
  return engine.assistants.find((one) => one.assistant_id === id || one.graph_id === id);
}

function kwargsOf(
  request: RunRequest,
  merged: { config: Fields; context: Fields; identity: Fields },
): RunKwargs {
  const configurable = { ...asFields(merged.config["configurable"]), ...merged.identity };
  return {
    input: request.input ?? null,
    command: request.command ?? null,
    config: { ...merged.config, configurable },
    context: merged.context,
    stream_mode: request.stream_mode,
    stream_subgraphs: request.stream_subgraphs,
    interrupt_before: request.interrupt_before ?? null,
    interrupt_after: request.interrupt_after ?? null,
    durability: request.durability,
  };
}

/** Later ones win; `configurable` is merged key by key. */
function mergeConfigs(configs: readonly Fields[]): Fields {
  const configurable = Object.assign({}, ...configs.map((config) => asFields(config["configurable"])));
  return Object.assign({}, ...configs, { configurable });
}

/** An object's own fields; none of anything else. */
export const asFields = (value: unknown): Fields =>
  typeof value === "object" && value !== null ? { ...value } : {};
