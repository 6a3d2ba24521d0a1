// How many events the log takes per core of PostgreSQL, with one reader behind.
import { randomUUID } from "node:crypto";
import { upsertSystemAssistants } from "../../server/storage/assistants.ts";
import { commitWithoutWaiting, insertSegments, listSegments } from "../../server/storage/events.ts";
import { insertRun } from "../../server/storage/runs.ts";
import type { ScratchDatabase } from "../scratch.ts";
import { usageOf } from "./processes.ts";
import type { Figures } from "./queue.ts";

const RUNS = 100;
const EVENTS_PER_SEGMENT = 4;

export async function eventLog(scratch: ScratchDatabase, flushes: number): Promise<Figures> {
  const { database } = scratch;
  const [assistantId, workerId] = [randomUUID(), randomUUID()];
  await upsertSystemAssistants(database, [{ assistantId, graphId: `bench-${assistantId}` }]);
  const runIds = Array.from({ length: RUNS }, () => randomUUID());
  for (const runId of runIds) {
    await insertRun(database, {
      runId,
      threadId: randomUUID(),
      assistantId,
      workerId,
      state: "running",
      multitask: "reject",
      metadata: {},
      kwargs: {},
      threadMetadata: {},
      timeoutMs: 60_000,
      creates: "thread",
    });
  }
  const [writer, reader] = [await database.session(), await database.session()];
  await commitWithoutWaiting(writer);
  const pids = await Promise.all(
    [writer, reader].map(async (session) => {
      const [row] = await session.query<{ pid: number }>("select pg_backend_pid() as pid");
      return row?.pid ?? 0;
    }),
  );
  const body = Array.from({ length: EVENTS_PER_SEGMENT }, () => 'd12\t" token"').join("\n");
  const cpu = (): number => pids.reduce((sum, pid) => sum + usageOf(pid).cpu, 0);
  const [cpuBefore, startedAt] = [cpu(), performance.now()];
  let reading: Promise<unknown> = Promise.resolve();
  for (let flush = 0; flush < flushes; flush += 1) {
    const seq = flush * EVENTS_PER_SEGMENT;
    const place = { attempt: 1, seq, last: seq + EVENTS_PER_SEGMENT - 1, body, isFirst: flush === 0 };
    await insertSegments(
      writer,
      workerId,
      runIds.map((runId) => ({ runId, ...place })),
    );
    await reading;
    reading = listSegments(
      reader,
      runIds.map((runId) => ({ runId, after: seq - 1 })),
      { limit: 100, bytes: 1024 * 1024 },
    );
  }
  await reading;
  const seconds = (performance.now() - startedAt) / 1000;
  const used = cpu() - cpuBefore;
  await Promise.all([writer.close(), reader.close()]);
  const events = flushes * RUNS * EVENTS_PER_SEGMENT;
  return {
    "event log, per PostgreSQL core (≥ 60k/s)": `${Math.round(events / used / 1000)}k events/s`,
    "event log, one writer": `${Math.round(events / seconds / 1000)}k events/s`,
  };
}
