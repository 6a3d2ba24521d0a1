// How long a run waits before it begins: claimed as it is accepted, or taken from the queue by another process.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { upsertSystemAssistants } from "../../server/storage/assistants.ts";
import { finishRun } from "../../server/storage/finish.ts";
import { insertRun } from "../../server/storage/runs.ts";
import type { ScratchDatabase } from "../scratch.ts";
import { quantile, startServer } from "./processes.ts";

export type Figures = Record<string, string>;
const ms = (value: number): string => `${value.toFixed(value < 10 ? 2 : 0)} ms`;

export async function claim(scratch: ScratchDatabase, count: number): Promise<Figures> {
  const { database } = scratch;
  const [assistantId, workerId] = [randomUUID(), randomUUID()];
  await upsertSystemAssistants(database, [{ assistantId, graphId: `bench-${assistantId}` }]);
  const took: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const [runId, threadId] = [randomUUID(), randomUUID()];
    const startedAt = performance.now();
    await insertRun(database, {
      runId,
      threadId,
      assistantId,
      workerId,
      state: "running",
      multitask: "reject",
      metadata: {},
      kwargs: { input: "x".repeat(500) },
      threadMetadata: {},
      timeoutMs: 60_000,
      creates: "thread",
    });
    took.push(performance.now() - startedAt);
    const owner = { runId, threadId, workerId, attempt: 1 };
    const end = { state: "success", error: null, threadStatus: "idle", threadState: null } as const;
    await finishRun(database, owner, {
      ...end,
      rest: undefined,
      points: [],
      segments: 0,
      after: undefined,
      webhook: undefined,
      notes: [],
    });
  }
  return {
    "claim on insert p50 (≤ 1 ms)": ms(quantile(took, 0.5)),
    "claim on insert p99 (≤ 5 ms)": ms(quantile(took, 0.99)),
  };
}

/** From the commit of a queued run to its claim by an idle worker in another process, by the database's clock. */
export async function queued(scratch: ScratchDatabase, modelUrl: string, count: number): Promise<Figures> {
  const door = await startServer(["serve", "--no-worker"], scratch.url, modelUrl);
  const worker = await startServer(["work"], scratch.url, modelUrl);
  const client = new Client({ apiUrl: door.url });
  const ids: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const { thread_id: threadId } = await client.threads.create();
    const run = await client.runs.create(threadId, "ticking", { input: { count: 0, everyMs: 1 } });
    ids.push(run.run_id);
    await client.runs.join(threadId, run.run_id);
  }
  const rows = await scratch.database.query<{ waited: number }>(
    `select extract(epoch from started_at - created_at)::float8 * 1000 as waited
       from holdfast.runs where run_id = any ($1::uuid[])`,
    [ids],
  );
  await Promise.all([door.stop(), worker.stop()]);
  const waited = rows.map((row) => row.waited);
  return {
    "queued to started p50 (≤ 3 ms)": ms(quantile(waited, 0.5)),
    "queued to started p99 (≤ 20 ms)": ms(quantile(waited, 0.99)),
  };
}
