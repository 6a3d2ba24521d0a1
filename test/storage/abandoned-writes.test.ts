// What a dead process had under way in the database: it ends with its line, and holds up nobody's runs but its own.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startProxy } from "../../server/commands/chaos/proxy.ts";
import { DatabaseUnavailable } from "../../server/errors.ts";
import { requeueRuns } from "../../server/storage/queue.ts";
import { openTestPool, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { runsOf } from "../support/runs.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;

beforeAll(async () => void (scratch = await testDatabase()));
afterAll(() => scratch.close());

test("a run that a write of the dead still holds is given back when it ended, the others at once", async () => {
  const { newRun, workerId } = await runsOf(scratch.database);
  const [held, free] = [(await newRun()).runId, (await newRun()).runId];
  await scratch.database.transaction(async (transaction) => {
    await transaction.query("select from holdfast.runs where run_id = $1 for share", [held]);
    expect(await requeueRuns(scratch.database, [workerId])).toEqual([free]);
  });
  expect(await requeueRuns(scratch.database, [])).toEqual([held]);
});

test.each(["the pool", "a session"])("a statement of %s ends when its line does", async (kind) => {
  const proxy = await startProxy(scratch.url);
  const name = `abandoned-${randomUUID()}`;
  const pool = openTestPool(proxy.url(name));
  const on = kind === "the pool" ? pool : await pool.session();
  const backends = (): Promise<unknown[]> =>
    scratch.database.query("select from pg_stat_activity where application_name = $1", [name]);
  const slow = on.query("select pg_sleep(60)").catch((error: unknown) => error);
  await until(async () => (await backends()).length > 0, "the statement to begin");
  proxy.cut();
  expect(await slow).toBeInstanceOf(DatabaseUnavailable);
  await until(async () => (await backends()).length === 0, "the backend to go");
  await pool.close();
  await proxy.close();
});
