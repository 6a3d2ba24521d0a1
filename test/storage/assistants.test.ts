// Statements of assistants: they use indexes, and a run is not accepted from a row that is not true any more.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { findAssistant, insertAssistant, listAssistantRows } from "../../server/storage/assistants.ts";
import { lockThreadsOfRows } from "../../server/storage/checkpoints/prune.ts";
import { claimRows } from "../../server/storage/queue.ts";
import { insertRun } from "../../server/storage/runs.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let db: TestDatabase;

beforeAll(async () => {
  db = await testDatabase();
});
afterAll(() => db.close());

async function planOf(statement: string, values: unknown[]): Promise<string> {
  const lines = await db.database.query<Record<string, string>>(`explain ${statement}`, values);
  return lines.map((line) => line["QUERY PLAN"]).join("\n");
}

test("searching, deleting threads and claiming runs read no whole table", async () => {
  const { database } = db;
  await database.query(
    `insert into holdfast.assistants (assistant_id, graph_id, name, metadata, created_at)
     select gen_random_uuid(), 'graph' || n % 100, 'name ' || n, jsonb_build_object('team', n % 1000), now() - n * interval '1 s'
       from generate_series(1, 20000) n`,
  );
  await database.query(
    `insert into holdfast.threads (thread_id, metadata)
     select gen_random_uuid(), jsonb_build_object('assistant_id', 'a' || n % 1000) from generate_series(1, 20000) n`,
  );
  await database.query(
    `insert into holdfast.runs (run_id, thread_id, assistant_id, state, metadata, kwargs)
     select gen_random_uuid(), thread_id, gen_random_uuid(), case when random() < 0.1 then 'ready' else 'success' end,
       '{"graph_id": "g"}', '{}' from holdfast.threads`,
  );
  for (const table of ["assistants", "threads", "runs"]) await database.query(`analyze holdfast.${table}`);

  for (const sortBy of ["assistant_id", "graph_id", "name", "created_at", "updated_at"]) {
    for (const sortOrder of ["asc", "desc"]) {
      const plan = await planOf(listAssistantRows, [null, null, null, null, null, sortBy, sortOrder, 10, 20]);
      expect(plan, `${sortBy} ${sortOrder}`).toMatch(/Index.* on assistants/);
      expect(plan, `${sortBy} ${sortOrder}`).not.toMatch(/Seq Scan on|Sort Key/);
    }
  }
  const filters: [string | null, string | null, string | null, string][] = [
    ['{"team": 7}', null, null, "assistants_metadata"],
    [null, "graph7", null, "assistants_by_"],
    [null, null, "name", "assistants_by_creation"],
  ];
  for (const [metadata, graphId, name, index] of filters) {
    const plan = await planOf(listAssistantRows, [
      metadata,
      graphId,
      name,
      null,
      null,
      "created_at",
      "desc",
      10,
      0,
    ]);
    expect(plan).toContain(index);
    expect(plan).not.toContain("Seq Scan on");
  }
  expect(await planOf(lockThreadsOfRows, ["a7", 50, null])).toContain("threads_by_metadata");
  const claiming = await planOf(claimRows, [randomUUID(), 16, ["g"], 60_000]);
  expect(claiming).toContain("Index Scan using runs_ready");
  expect(claiming).not.toContain("Sort Key");
});

test("a run is accepted only from the newest row of its assistant", async () => {
  const { database } = db;
  const assistantId = randomUUID();
  const nothing = { description: null, config: {}, context: {}, metadata: {} };
  await insertAssistant(database, assistantId, { ...nothing, graph_id: "g", name: "g" });
  const old = (await findAssistant(database, assistantId))?.revision;
  const accept = async (
    threadId: string,
    revision: string | undefined,
    creates: "no" | "thread",
  ): Promise<boolean> => {
    const run = await insertRun(database, {
      runId: randomUUID(),
      threadId,
      assistantId,
      assistantRevision: revision,
      workerId: null,
      state: "ready",
      multitask: "reject",
      metadata: {},
      kwargs: {},
      threadMetadata: { touched: true },
      timeoutMs: 60_000,
      creates,
    });
    return run !== undefined && run !== "taken";
  };
  expect(await accept(randomUUID(), old, "thread")).toBe(true);

  const threadId = randomUUID();
  await database.query("insert into holdfast.threads (thread_id) values ($1)", [threadId]);
  const another = "update holdfast.assistants set revision = gen_random_uuid() where assistant_id = $1";
  for (const change of [another, "delete from holdfast.assistants where assistant_id = $1"]) {
    await database.query(change, [assistantId]);
    expect(await accept(threadId, old, "no")).toBe(false);
    expect(await accept(threadId, old, "thread")).toBe(false);
    const missing = randomUUID();
    expect(await accept(missing, old, "thread")).toBe(false);
    expect(
      await database.query("select thread_id, metadata from holdfast.threads where thread_id = any ($1)", [
        [threadId, missing],
      ]),
    ).toEqual([{ thread_id: threadId, metadata: {} }]);
  }
});
