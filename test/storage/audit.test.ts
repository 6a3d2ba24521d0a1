// Entries of the audit log: there if and only if their transaction is, never changed, each linked once in one chain.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { verifyChain } from "../../server/commands/audit.ts";
import {
  hasUnlinked,
  insertAudit,
  listAudit,
  listAuditChain,
  linkAudit,
} from "../../server/storage/audit.ts";
import type { Link } from "../../server/privacy/chain.ts";
import type { Database } from "../../server/storage/database.ts";
import { addLinked, emptyAudit, entryOf } from "../support/audit.ts";
import { openTestPool, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
let database: Database;
beforeAll(async () => {
  scratch = await testDatabase();
  ({ database } = scratch);
});
afterAll(() => scratch.close());
beforeEach(() => emptyAudit(database));

const chain = (): Promise<Link[]> => listAuditChain(database, 0, 10_000);
const linked = async (): Promise<(string | undefined)[]> =>
  (await chain()).map(({ entry }) => entry?.entry_id);

test("an entry says who did what to which object, and comes back as it was written", async () => {
  const entry = entryOf({
    actorKind: "caller",
    actorHash: "ab12",
    outcome: "refused",
    detail: { threads: 3, kek_ids: ["a", "b"], is_last: true, none: null },
  });
  const id = await insertAudit(database, entry);
  const [row] = await listAudit(database, 10);
  expect(row).toEqual({
    entry_id: id,
    tenant_id: "default",
    at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/),
    actor_kind: "caller",
    actor_hash: "ab12",
    action: "keys.rotated",
    object: "k1",
    outcome: "refused",
    detail: entry.detail,
    seq: null,
  });
  await database.transaction(linkAudit);
  expect((await listAudit(database, 10))[0]?.seq).toBe(1);
});

test("what is rolled back leaves no entry and nothing to link", async () => {
  const failing = database.transaction(async (transaction) => {
    await insertAudit(transaction, entryOf());
    throw new Error("the action failed");
  });
  await expect(failing).rejects.toThrow("the action failed");
  expect(await listAudit(database, 10)).toEqual([]);
  expect(await hasUnlinked(database)).toBe(false);
});

test.each(["audit_entries", "audit_links"])("the database refuses to change %s", async (table) => {
  await addLinked(database, 2);
  const column = table === "audit_entries" ? "outcome" : "seq";
  const attempts = {
    UPDATE: `update holdfast.${table} set ${column} = ${column}`,
    DELETE: `delete from holdfast.${table}`,
    TRUNCATE: `truncate holdfast.${table} cascade`,
  };
  for (const [word, statement] of Object.entries(attempts))
    await expect(database.query(statement)).rejects.toThrow(
      `The audit log is append-only: ${word} of ${table} is refused.`,
    );
  expect(await chain()).toHaveLength(2);
});

test("the database itself lets no chain fork", async () => {
  await addLinked(database, 1);
  const late = await insertAudit(database, entryOf());
  for (const prev of ["null", "(select prev_hash from holdfast.audit_links)"])
    await expect(
      database.query(
        `insert into holdfast.audit_links (seq, entry_id, prev_hash, hash) values (2, '${late}', ${prev}, '\\x00')`,
      ),
    ).rejects.toThrow(/unique constraint "audit_links_prev_hash_key"/);
});

test("an entry whose transaction began earlier and ends later is linked after what overtook it", async () => {
  const slow = await database.session();
  await slow.query("begin");
  const early = await insertAudit(slow, entryOf({ object: "early" }));
  const late = await insertAudit(database, entryOf({ object: "late" }));
  expect(early < late).toBe(true);
  expect(await database.transaction(linkAudit)).toBe(1);
  expect(await database.transaction(linkAudit)).toBe(0);
  await slow.query("commit");
  await slow.close();
  expect(await database.transaction(linkAudit)).toBe(1);
  expect(await linked()).toEqual([late, early]);
  expect(await verifyChain(database)).toMatchObject({ ok: true, entries: 2, unlinked: 0 });
});

test("many linkers and writers on connections of their own make one chain without gap or fork", async () => {
  const pools = Array.from({ length: 4 }, () => openTestPool(scratch.url, { poolSize: 3 }));
  const written = Promise.all(
    pools.map(async (pool, writer) => {
      const ids: string[] = [];
      for (let n = 0; n < 200; n += 1)
        ids.push(
          await pool.transaction((transaction) =>
            insertAudit(transaction, entryOf({ object: `${writer}-${n}` })),
          ),
        );
      return ids;
    }),
  );
  const writing = new AbortController();
  const counts = pools.map(async (pool) => {
    let count = 0;
    while (!writing.signal.aborted || (await hasUnlinked(pool))) count += await pool.transaction(linkAudit);
    return count;
  });
  const ids = (await written).flat();
  writing.abort();
  const sums = await Promise.all(counts);
  expect(sums.reduce((sum, count) => sum + count, 0)).toBe(800);
  expect(new Set(await linked())).toEqual(new Set(ids));
  expect((await chain()).map(({ seq }) => seq)).toEqual(Array.from({ length: 800 }, (_, n) => n + 1));
  expect(await verifyChain(database)).toMatchObject({ ok: true, entries: 800, unlinked: 0 });
  await Promise.all(pools.map((pool) => pool.close()));
});

test("while one linker is at it another one does nothing, and waits for nothing", async () => {
  await insertAudit(database, entryOf());
  await database.transaction(async (transaction) => {
    expect(await linkAudit(transaction)).toBe(1);
    expect(await database.transaction(linkAudit)).toBe(0);
  });
  expect(await chain()).toHaveLength(1);
});

test("a linker that fails leaves what waits, and the next one links it", async () => {
  await insertAudit(database, entryOf());
  const failing = database.transaction(async (transaction) => {
    await linkAudit(transaction);
    throw new Error("the connection broke");
  });
  await expect(failing).rejects.toThrow("the connection broke");
  expect([await chain(), await hasUnlinked(database)]).toEqual([[], true]);
  expect(await database.transaction(linkAudit)).toBe(1);
});

test("the hash is the same whatever the settings of the session that reads", async () => {
  await addLinked(database, 3);
  const session = await database.session();
  await session.query("set timezone = 'Asia/Kathmandu'");
  await session.query("set datestyle = 'German'");
  await session.query("set extra_float_digits = -10");
  expect(await verifyChain(session)).toMatchObject({ ok: true, entries: 3 });
  await session.close();
});
