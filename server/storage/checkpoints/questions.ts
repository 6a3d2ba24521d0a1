// Questions that stand on checkpoints. A run that answers one of several asks the others once more: written again, they
// would be its own, and go with it when it is rolled back.
import type { Value } from "./form.ts";
import type { CheckpointRow } from "./rows.ts";

export class Questions {
  readonly #standing = new Map<string, Uint8Array>();

  /** Takes note of those among the rows that were read. */
  note(rows: readonly CheckpointRow[]): void {
    for (const { kind, channel, checkpoint_ns, checkpoint_id, task_id, blob } of rows)
      if (kind === "write" && channel === "__interrupt__")
        this.#standing.set(`${checkpoint_ns} ${checkpoint_id} ${task_id}`, blob);
  }

  /** Whether what the task writes is the question that stands there already. */
  has(at: { namespace: string; checkpointId: string; taskId: string; writes: readonly Value[] }): boolean {
    const standing = this.#standing.get(`${at.namespace} ${at.checkpointId} ${at.taskId}`);
    if (!standing) return false;
    return at.writes.every(
      ({ channel, bytes }) => channel === "__interrupt__" && Buffer.compare(bytes, standing) === 0,
    );
  }
}
