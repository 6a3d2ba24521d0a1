// Accepts several runs at once, each on a new thread: all of them or none.
import { AssistantChanged, CheckpointNotFound } from "../errors.ts";
import { faultPoint } from "../faults.ts";
import { uuidv7 } from "../ids.ts";
import { insertRun } from "../storage/runs.ts";
import type { NewRun, OwnedRunRow, RunRow } from "../storage/runs.ts";
import { withAssistants } from "./assistants.ts";
import { begin } from "./create.ts";
import type { Engine } from "./engine.ts";
import { newRun } from "./new-run.ts";
import type { RunBy, RunRequest } from "./request.ts";

export interface AskedRun {
  readonly runId: string;
  readonly request: RunRequest;
  /** Undefined if nobody was asked who he is. */
  readonly by: RunBy | undefined;
}

/**
 * Accepts runs without a thread, in the order in which they are asked for. Workers take them, as many at a time as they
 * have slots for: begun here at once they would keep everybody else waiting. Nothing was written when it throws.
 * @throws AssistantNotFound, GraphNotFound, AssistantChanged when one never was the same for long enough;
 * CheckpointNotFound for a run that is to begin from a checkpoint, which a new thread has none of
 */
export async function createRuns(engine: Engine, asked: readonly AskedRun[]): Promise<RunRow[]> {
  for (const { request } of asked) {
    const from = request.checkpoint_id ?? request.checkpoint?.["checkpoint_id"];
    if (typeof from === "string") throw new CheckpointNotFound(from);
  }
  return withAssistants(engine, async (assistantFor) => {
    const runs: NewRun[] = [];
    for (const { request, ...options } of asked) {
      const assistant = await assistantFor(request.assistant_id);
      const threadId = uuidv7();
      const threadKey = engine.database.seals.newOfThread(threadId);
      const run = newRun(engine, {
        threadId,
        assistant,
        request,
        options: { ...options, isStateless: true },
        asked: {},
        threadKey,
        before: { config: {} },
      });
      runs.push(run.state === "running" ? { ...run, state: "ready", workerId: null } : run);
    }
    const rows = await insert(engine, runs);
    await begin(engine, rows);
    return rows;
  });
}

function insert(engine: Engine, runs: readonly NewRun[]): Promise<OwnedRunRow[]> {
  faultPoint("run.accepting");
  return engine.database.transaction(async (transaction) => {
    const rows: OwnedRunRow[] = [];
    for (const run of runs) {
      const row = await insertRun(transaction, run);
      // Their threads are new, as their ids are: nothing else can be in the way.
      if (row === undefined || row === "taken") throw new AssistantChanged();
      rows.push(row);
    }
    return rows;
  });
}
