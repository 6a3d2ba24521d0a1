// Our saver as the contract suites want it: they write to threads nobody created, so each write makes its row.
import type { RunnableConfig } from "@langchain/core/runnables";
import type {
  ChannelVersions,
  Checkpoint,
  CheckpointMetadata,
  PendingWrite,
} from "@langchain/langgraph-checkpoint";
import { Checkpoints } from "../../server/storage/checkpoints/checkpoints.ts";
import type { PointWrite } from "../../server/storage/checkpoints/form.ts";
import type { Database } from "../../server/storage/database.ts";

/** The first checkpoint of a thread, with nothing in it. */
export const pointOf = (threadId: string, more: Partial<PointWrite> = {}): PointWrite => ({
  threadId,
  namespace: "",
  checkpointId: "1",
  parentId: undefined,
  checkpoint: "{}",
  metadata: "{}",
  values: [],
  isInput: false,
  ...more,
});

export async function createThreadRow(database: Database, threadId: string): Promise<void> {
  await database.query("insert into holdfast.threads (thread_id) values ($1) on conflict do nothing", [
    threadId,
  ]);
}

/** The threads that a server would have created before a graph writes to them. */
export class CheckpointsOfAnyThread extends Checkpoints {
  readonly #database: Database;
  constructor(database: Database) {
    super(database);
    this.#database = database;
  }
  override async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    versions: ChannelVersions,
  ): Promise<RunnableConfig> {
    await createThreadRow(this.#database, config.configurable?.["thread_id"]);
    return super.put(config, checkpoint, metadata, versions);
  }
  override async putWrites(
    config: RunnableConfig,
    writes: PendingWrite[],
    taskId: string,
    taskPath?: string,
  ): Promise<void> {
    await createThreadRow(this.#database, config.configurable?.["thread_id"]);
    return super.putWrites(config, writes, taskId, taskPath);
  }
}
