// Rows of runs that a test drives by hand, without a server.
import { randomUUID } from "node:crypto";
import { upsertSystemAssistants } from "../../server/storage/assistants.ts";
import type { Database } from "../../server/storage/database.ts";
import type { Owner } from "../../server/storage/fence.ts";
import type { finishRun } from "../../server/storage/finish.ts";
import { insertRun } from "../../server/storage/runs.ts";
import { createThreadRow } from "./checkpoints.ts";

const asked = {
  state: "running",
  multitask: "reject",
  metadata: {},
  kwargs: {},
  threadMetadata: {},
  timeoutMs: 60_000,
} as const;

/** The end of a run that leaves nothing behind. */
export const succeeded: Parameters<typeof finishRun>[2] = {
  state: "success",
  error: null,
  threadStatus: "idle",
  threadState: null,
  rest: undefined,
  points: [],
  notes: [],
  segments: 1,
  after: undefined,
  webhook: undefined,
};

export interface Runs {
  readonly workerId: string;
  /** A running run on a thread of its own. */
  readonly newRun: () => Promise<Owner>;
  /** A running run on this thread; undefined when the thread is busy. */
  readonly runOn: (threadId: string) => Promise<Owner | undefined>;
}

/** Makes runs that one worker owns. */
export async function runsOf(database: Database): Promise<Runs> {
  const [assistantId, workerId] = [randomUUID(), randomUUID()];
  await upsertSystemAssistants(database, [{ assistantId, graphId: `any-${assistantId}` }]);
  const runOn = async (threadId: string): Promise<Owner | undefined> => {
    const runId = randomUUID();
    const row = await insertRun(database, { ...asked, assistantId, workerId, runId, threadId });
    return row === undefined || row === "taken" ? undefined : { runId, threadId, workerId, attempt: 1 };
  };
  const newRun = async (): Promise<Owner> => {
    const threadId = randomUUID();
    await createThreadRow(database, threadId);
    const owner = await runOn(threadId);
    if (!owner) throw new Error("A new thread is idle.");
    return owner;
  };
  return { workerId, newRun, runOn };
}
