// What balancers are told while the database takes no writes, and when it does again.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../server/storage/database.ts";
import { openTestPool } from "../support/database.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer();
let admin: Database;
beforeAll(() => {
  // Writes whatever is set for the database.
  admin = openTestPool(`${held.scratch.url}?options=-c%20default_transaction_read_only=off`, { poolSize: 1 });
});
afterAll(() => admin.close());

const name = (): string => new URL(held.scratch.url).pathname.slice(1);
const probe = async (path: string): Promise<{ status: number; said: unknown }> => {
  const answer = await fetch(held.server.url + path);
  return { status: answer.status, said: await answer.json() };
};

test("a server whose database is read-only is not ready, lives, and is ready again by itself", async () => {
  expect(await probe("/ready")).toEqual({ status: 200, said: { ok: true } });
  await admin.query(`alter database ${name()} set default_transaction_read_only = on`);
  await admin.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
  );
  await until(async () => (await probe("/ready")).status === 503, "the server not to be ready");
  expect(await probe("/ready")).toEqual({
    status: 503,
    said: { ok: false, reason: "PostgreSQL takes no writes" },
  });
  expect((await probe("/live")).status).toBe(200);
  expect((await fetch(`${held.server.url}/assistants/search`, { method: "POST", body: "{}" })).status).toBe(
    200,
  );
  // Its connections of before stay read-only: they are not to be kept.
  await admin.query(`alter database ${name()} reset default_transaction_read_only`);
  await until(async () => (await probe("/ready")).status === 200, "the server to be ready");
  await held.server.client.threads.create();
});
