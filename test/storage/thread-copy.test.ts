// A copy reads the rows of one thread, however many there are of others.
import { afterAll, beforeAll, expect, test } from "vitest";
import { COPY_THREAD, copyThreadRows } from "../../server/storage/thread-copy.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
  const fill = [
    "insert into holdfast.threads (thread_id) select concat('t', n) from generate_series(1, 2000) as n",
    `insert into public.checkpoints (thread_id, checkpoint_id, checkpoint)
     select concat('t', n % 2000 + 1), concat('c', n), '{"v": 4}' from generate_series(1, 20000) as n`,
    `insert into public.checkpoint_blobs (thread_id, channel, version, type, blob)
     select concat('t', n % 2000 + 1), 'a', n, 'json', '1' from generate_series(1, 20000) as n`,
    `insert into public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, type, blob)
     select concat('t', n % 2000 + 1), concat('c', n), 'task', 0, 'a', 'json', '1' from generate_series(1, 20000) as n`,
    "analyze holdfast.threads, public.checkpoints, public.checkpoint_blobs, public.checkpoint_writes",
  ];
  for (const statement of fill) await scratch.database.query(statement);
});
afterAll(() => scratch.close());

test("no copy reads a whole table", async () => {
  const lines = await scratch.database.query<Record<string, string>>(`explain ${COPY_THREAD}`, [
    "t7",
    "copy",
    null,
    null,
    null,
    null,
    null,
  ]);
  const plan = lines.map((line) => line["QUERY PLAN"]).join("\n");
  expect(plan).toContain("Index");
  expect(plan).not.toMatch(/Seq Scan on (threads|checkpoint)/);
});

test("a copy has every row of its source and no other", async () => {
  expect(await copyThreadRows(scratch.database, "t7", "copy")).toMatchObject({ has_checkpoints: true });
  const count = `select (select count(*)::int from public.checkpoints where thread_id = $1) as points,
    (select count(*)::int from public.checkpoint_blobs where thread_id = $1) as blobs,
    (select count(*)::int from public.checkpoint_writes where thread_id = $1) as writes`;
  expect(await scratch.database.query(count, ["copy"])).toEqual([{ points: 10, blobs: 10, writes: 10 }]);
  expect(await copyThreadRows(scratch.database, "missing", "other")).toBeUndefined();
});
