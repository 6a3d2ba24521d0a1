// Who waits for the next run of a thread asks often: what that reads, in a table of hundreds of thousands of runs.
import { afterAll, beforeAll, expect, test } from "vitest";
import { findThreadPlace, listBegun, listBegunSql } from "../../server/storage/begun.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { explain } from "../support/explain.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
  const { database } = scratch;
  // Thread 0 has 5,000 runs, the last of which is live; the others have ten each, which are over. Runs of one thread lie
  // far apart. Those of thread 0 began in another order than they were made.
  await database.query(`
    insert into holdfast.threads (thread_id, begun, status)
    select 't' || n, case when n = 0 then 5000 else 10 end, case when n = 0 then 'busy' else 'idle' end
      from generate_series(0, 20000) as n`);
  await database.query(`
    insert into holdfast.runs (run_id, thread_id, assistant_id, state, kwargs, ordinal)
    select gen_random_uuid(), case when n % 41 = 0 then 't0' else 't' || 1 + n % 20000 end, gen_random_uuid(),
           case when n = 41 * 2500 then 'running' else 'success' end, '{}',
           case when n % 41 = 0 then case when n = 41 * 2500 then 5000 when n > 41 * 2500 then n / 41 - 1 else n / 41 end
             else 1 + n / 20500 end
      from generate_series(41, 205000) as n`);
  await database.query("vacuum analyze holdfast.runs, holdfast.threads");
});
afterAll(() => scratch.close());

const MODES = ["force_custom_plan", "force_generic_plan"] as const;

// The table is some 4,000 blocks, and the runs of the large thread lie in nearly all of them.
test.each([
  ["a thread where nothing has begun", [["t7"], [11]], 12],
  ["the live run", [["t0"], [5000]], 20],
  ["the runs of a small thread", [["t7"], [1]], 60],
] as const)("%s takes few blocks", async (_, values, most) => {
  for (const mode of MODES) {
    const { blocks, nodes } = await explain(scratch.database, listBegunSql, values, mode);
    expect(nodes.filter((node) => node["Node Type"] === "Seq Scan")).toEqual([]);
    expect(blocks).toBeLessThan(most);
  }
});

test("many who wait cost a look each", async () => {
  const threads = Array.from({ length: 500 }, (_, n) => `t${n + 1}`);
  const { blocks } = await explain(scratch.database, listBegunSql, [threads, threads.map(() => 11)]);
  expect(blocks).toBeLessThan(500 * 6);
});

test("runs come in the order in which they began, a hundred at a time", async () => {
  const { database } = scratch;
  const rows = await listBegun(database, [
    { threadId: "t0", ordinal: 2400 },
    { threadId: "t8", ordinal: 11 },
    { threadId: "nobody", ordinal: 1 },
    { threadId: "t0", ordinal: 5000 },
  ]);
  const first = rows.filter(({ n }) => n === 1).map(({ ordinal }) => ordinal);
  expect(first).toEqual(Array.from({ length: 100 }, (_, index) => 2400 + index));
  expect(rows.filter(({ n }) => n > 1)).toMatchObject([
    { n: 2, run_id: null },
    { n: 4, ordinal: 5000 },
  ]);
});

test("a thread's place is the number of runs that have begun, and the live one", async () => {
  const { database } = scratch;
  expect(await findThreadPlace(database, "t0")).toMatchObject({ begun: 5000, live: 5000 });
  expect(await findThreadPlace(database, "t7")).toMatchObject({ begun: 10, live: null });
  expect(await findThreadPlace(database, "nobody")).toBeUndefined();
});
