// Rows of checkpoints as LangGraph reads them.
import { compareWritesSortKeys, writesSortKey } from "@langchain/langgraph-checkpoint";
import type {
  Checkpoint,
  CheckpointMetadata,
  CheckpointPendingWrite,
  CheckpointTuple,
} from "@langchain/langgraph-checkpoint";
import type { RunnableConfig } from "@langchain/core/runnables";
import { InputInvalid } from "../../errors.ts";
import { load } from "../../privacy/serde.ts";
import type { CheckpointKey } from "./form.ts";
import type { CheckpointRow } from "./rows.ts";

/** Newest first, whatever order the rows come in. */
export function tuplesOf(rows: readonly CheckpointRow[]): CheckpointTuple[] {
  const blobs = new Map<string, CheckpointRow>();
  const writes = new Map<string, CheckpointRow[]>();
  for (const row of rows) {
    if (row.kind === "blob") blobs.set(blobKey(row, row.channel, row.version), row);
    if (row.kind === "write") {
      const key = writeKey(row);
      const list = writes.get(key);
      if (list) list.push(row);
      else writes.set(key, [row]);
    }
  }
  return rows
    .filter(({ kind }) => kind === "checkpoint")
    .toSorted(newestFirst)
    .map((row) => tupleOf(row, blobs, writes.get(writeKey(row)) ?? []));
}

function tupleOf(
  row: CheckpointRow,
  blobs: ReadonlyMap<string, CheckpointRow>,
  writes: CheckpointRow[],
): CheckpointTuple {
  // The rows of this kind hold the checkpoint as put() stored it, without its values.
  const checkpoint = row.checkpoint as unknown as Checkpoint;
  const versions = checkpoint.channel_versions ?? {};
  const values: Record<string, unknown> = {};
  for (const [channel, version] of Object.entries(versions)) {
    const blob = blobs.get(blobKey(row, channel, String(version)));
    if (blob) values[channel] = load(blob.type, blob.blob);
  }
  const key = {
    threadId: row.thread_id,
    namespace: row.checkpoint_ns,
    checkpointId: row.checkpoint_id ?? "",
  };
  return {
    config: configOf(key),
    checkpoint: {
      ...checkpoint,
      channel_versions: versions,
      versions_seen: checkpoint.versions_seen ?? {},
      channel_values: values,
    },
    metadata: row.metadata as CheckpointMetadata, // stored by put(), in this shape
    ...(row.parent_checkpoint_id
      ? { parentConfig: configOf({ ...key, checkpointId: row.parent_checkpoint_id }) }
      : {}),
    pendingWrites: writes
      .toSorted(liveOrder)
      .map((one): CheckpointPendingWrite => [one.task_id, one.channel, load(one.type, one.blob)]),
  };
}

export function keyOf(config: RunnableConfig): {
  threadId: string;
  namespace: string;
  checkpointId: string | undefined;
} {
  const { thread_id: threadId, checkpoint_ns: namespace, checkpoint_id: id } = config.configurable ?? {};
  if (typeof threadId !== "string")
    throw new InputInvalid("A checkpoint needs configurable.thread_id, a string.");
  return { threadId, namespace: namespace ?? "", checkpointId: id || undefined };
}

export const configOf = (key: CheckpointKey): RunnableConfig => ({
  configurable: { thread_id: key.threadId, checkpoint_ns: key.namespace, checkpoint_id: key.checkpointId },
});

const blobKey = (row: CheckpointRow, channel: string, version: string): string =>
  JSON.stringify([row.thread_id, row.checkpoint_ns, channel, version]);
const writeKey = (row: CheckpointRow): string =>
  JSON.stringify([row.thread_id, row.checkpoint_ns, row.checkpoint_id]);
const orderKey = (row: CheckpointRow): string => `${row.checkpoint_id} ${row.thread_id} ${row.checkpoint_ns}`;
const newestFirst = (a: CheckpointRow, b: CheckpointRow): number => (orderKey(a) < orderKey(b) ? 1 : -1);
const liveOrder = (a: CheckpointRow, b: CheckpointRow): number =>
  compareWritesSortKeys(
    writesSortKey(a.task_path, a.task_id, a.idx),
    writesSortKey(b.task_path, b.task_id, b.idx),
  );
