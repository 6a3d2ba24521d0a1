// Runs whose time has come, when there are many of them.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { promoteWaiting } from "../../server/runs/worker.ts";
import { insertRun } from "../../server/storage/runs.ts";
import { createThreadRow } from "../support/checkpoints.ts";
import { ASSISTANT, engineOf } from "../fixtures/queue-engine.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

async function leaveDue(): Promise<void> {
  const threadId = randomUUID();
  await createThreadRow(scratch.database, threadId);
  await insertRun(scratch.database, {
    runId: randomUUID(),
    threadId,
    assistantId: ASSISTANT.assistant_id,
    workerId: null,
    state: "delayed",
    afterSeconds: -1,
    multitask: "reject",
    metadata: {},
    kwargs: {},
    threadMetadata: {},
    timeoutMs: 60_000,
  });
}

test("a few hundred runs whose time has come are all made ready by one heartbeat", async () => {
  await Promise.all(Array.from({ length: 250 }, leaveDue));
  await promoteWaiting(engineOf(scratch.database, randomUUID()));
  const sql = "select state, count(*) as count from holdfast.runs group by state";
  expect(await scratch.database.query(sql)).toEqual([{ state: "ready", count: 250 }]);
});
