// holdfast audit: every way to change the log past its triggers is found, or documented as one that cannot be.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { verifyChain } from "../../server/commands/audit.ts";
import { uuidv7 } from "../../server/ids.ts";
import { hashOf } from "../../server/privacy/chain.ts";
import type { ChainedEntry } from "../../server/privacy/chain.ts";
import { findAuditHead, insertAudit, listAuditChain, linkAudit } from "../../server/storage/audit.ts";
import type { Database } from "../../server/storage/database.ts";
import { addLinked, emptyAudit, entryOf, tamper } from "../support/audit.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holdfast } from "../support/holdfast.ts";

let scratch: TestDatabase;
let database: Database;
let ids: string[] = [];
beforeAll(async () => {
  scratch = await testDatabase();
  ({ database } = scratch);
});
afterAll(() => scratch.close());
beforeEach(async () => {
  await emptyAudit(database);
  await database.query("delete from holdfast.instances");
  ids = await addLinked(database, 5);
});

const headOf = async (): Promise<string> => (await findAuditHead(database))?.hash.toString("hex") ?? "";
const found = async (head?: string): Promise<unknown[]> =>
  (await verifyChain(database, head)).problems.map(({ seq, problem }) => [seq, problem.split(":")[0]]);

const rename = (from = "", to = ""): string =>
  `update holdfast.audit_entries set entry_id = '${to}' where entry_id = '${from}'`;
const renumber = (from: number, to: number | bigint): string =>
  `update holdfast.audit_links set seq = ${to} where seq = ${from}`;
const sixthAsThird = [
  "update holdfast.audit_links set seq = seq + 100 where seq >= 3",
  "update holdfast.audit_links set seq = seq - 99 where seq between 103 and 105",
  renumber(106, 3),
];

test("a chain that nobody touched is fine, and its head is in it", async () => {
  const head = await headOf();
  expect(await verifyChain(database, head)).toEqual({
    ok: true,
    entries: 5,
    unlinked: 0,
    head,
    found: 0,
    problems: [],
  });
});

test("an empty log is fine", async () => {
  await emptyAudit(database);
  expect(await verifyChain(database)).toMatchObject({ ok: true, entries: 0, head: null });
});

test.each([
  "at = at + interval '1 microsecond'",
  "at = '2026-01-01 BC'",
  "at = 'infinity'",
  "tenant_id = 'other'",
  "actor_kind = 'server'",
  "actor_hash = 'ab'",
  "action = 'keys.shredded'",
  "object = 'o4'",
  "outcome = 'failed'",
  `detail = '{"n": 3.0}'`,
  `detail = '{"n": 3, "m": null}'`,
])("an entry with %s is found", async (change) => {
  await tamper(database, `update holdfast.audit_entries set ${change} where entry_id = '${ids[2]}'`);
  expect(await found()).toEqual([[3, "edited"]]);
});

test("a change of a number that JavaScript would not see is found", async () => {
  const big = "9007199254740993";
  await tamper(
    database,
    `update holdfast.audit_entries set detail = '{"n": ${big}}' where entry_id = '${ids[4]}'`,
    "delete from holdfast.audit_links where seq = 5",
    `insert into holdfast.audit_unlinked values ('${ids[4]}')`,
  );
  await database.transaction(linkAudit);
  expect(await found()).toEqual([]);
  await tamper(
    database,
    `update holdfast.audit_entries set detail = '{"n": 9007199254740992}' where entry_id = '${ids[4]}'`,
  );
  expect(await found()).toEqual([[5, "edited"]]);
});

test("an entry that was taken away is found, whatever went with it", async () => {
  await tamper(database, `delete from holdfast.audit_entries where entry_id = '${ids[2]}'`);
  expect(await found()).toEqual([[3, "missing"]]);
  await tamper(database, "delete from holdfast.audit_links where seq = 3");
  expect(await found()).toEqual([[4, "missing"]]);
  await tamper(database, "update holdfast.audit_links set seq = seq - 1 where seq > 3");
  expect(await found()).toEqual([[3, "broken"]]);
});

test("a beginning that was taken away is found, also when the rest was numbered anew", async () => {
  await tamper(
    database,
    "delete from holdfast.audit_links where seq <= 2",
    `delete from holdfast.audit_entries where entry_id in ('${ids[0]}', '${ids[1]}')`,
  );
  expect(await found()).toEqual([[3, "missing"]]);
  await tamper(
    database,
    "update holdfast.audit_links set seq = seq + 1000",
    "update holdfast.audit_links set seq = seq - 1002",
  );
  expect(await found()).toEqual([[1, "broken"]]);
  await tamper(database, "update holdfast.audit_links set prev_hash = null where seq = 1");
  expect(await found()).toEqual([[1, "edited"]]);
});

test("two entries that changed places are found, with their links or without", async () => {
  const spare = uuidv7();
  const swap = [rename(ids[1], spare), rename(ids[3], ids[1]), rename(spare, ids[3])];
  await tamper(database, ...swap);
  expect(await found()).toEqual([
    [2, "edited"],
    [4, "edited"],
  ]);
  await tamper(database, ...swap);
  expect(await found()).toEqual([]);
  await tamper(database, renumber(2, 9), renumber(4, 2), renumber(9, 4));
  expect(await found()).toEqual([2, 3, 4, 5].map((seq) => [seq, "reordered"]));
  const [first] = (await verifyChain(database)).problems;
  expect(first).toEqual({ seq: 2, problem: "reordered: it was linked after what is now 3" });
});

test("a cut end is found only by who knows a head from before", async () => {
  const head = await headOf();
  await tamper(
    database,
    "delete from holdfast.audit_links where seq > 3",
    `delete from holdfast.audit_entries where entry_id in ('${ids[3]}', '${ids[4]}')`,
  );
  expect(await found()).toEqual([]);
  expect(await found(await headOf())).toEqual([]);
  expect(await found(head)).toEqual([[null, "cut"]]);
  await addLinked(database, 2);
  expect(await found(head)).toEqual([[null, "cut"]]);
});

test("a cut end of which the entries were left is found", async () => {
  await tamper(database, "delete from holdfast.audit_links where seq > 3");
  expect(await verifyChain(database)).toMatchObject({
    ok: false,
    entries: 3,
    unlinked: 2,
    problems: [{ seq: null, problem: "unlinked: 2 entries have no link and do not wait for one" }],
  });
  await tamper(database, "update holdfast.audit_links set seq = 9000 where seq = 3");
  expect(await found()).toContainEqual([9000, "missing"]);
});

test("a chain that was written anew is found only by who knows a head from before", async () => {
  const head = await headOf();
  await tamper(
    database,
    `update holdfast.audit_entries set object = 'other' where entry_id = '${ids[0]}'`,
    "truncate holdfast.audit_links",
    "insert into holdfast.audit_unlinked select entry_id from holdfast.audit_entries",
  );
  await database.transaction(linkAudit);
  expect(await verifyChain(database)).toMatchObject({ ok: true, entries: 5 });
  expect(await found(head)).toEqual([[null, "cut"]]);
});

test("an entry with a forged hash is found, at the end and in between", async () => {
  await tamper(
    database,
    `with forged as (
       insert into holdfast.audit_entries (entry_id, tenant_id, actor_kind, action, object, outcome)
       values ('${uuidv7()}', 'default', 'server', 'keys.rotated', 'k9', 'done') returning entry_id)
     insert into holdfast.audit_links (seq, entry_id, prev_hash, hash)
     select 6, entry_id, (select hash from holdfast.audit_links where seq = 5), sha256('forged') from forged`,
  );
  expect(await found()).toEqual([[6, "edited"]]);
  await tamper(database, ...sixthAsThird);
  expect(await found()).toEqual([
    [3, "reordered"],
    [3, "edited"],
    [4, "reordered"],
  ]);
});

test("an entry that was put in between is found, also when its hash is right", async () => {
  await addLinked(database, 1);
  const links = await listAuditChain(database, 0, 10);
  const prev = links[1]?.hash ?? null;
  const right = hashOf(prev, links[5]?.entry as ChainedEntry).toString("hex");
  await tamper(
    database,
    "alter table holdfast.audit_links drop constraint audit_links_prev_hash_key",
    `update holdfast.audit_links set hash = '\\x${right}', prev_hash = '\\x${prev?.toString("hex")}' where seq = 6`,
    ...sixthAsThird,
  );
  expect(await found()).toEqual([[4, "reordered"]]);
});

test("an entry that nobody was to see is found at numbers that do not exist", async () => {
  await tamper(database, "alter table holdfast.audit_links drop constraint audit_links_seq", renumber(1, -7));
  expect(await found()).toEqual([
    [-7, "inserted"],
    [2, "missing"],
  ]);
  await tamper(database, renumber(-7, 1), renumber(5, 9223372036854775806n));
  expect(await found()).toEqual([[2 ** 63, "missing"]]);
});

test("what waits for its link is a problem once a server should have linked it", async () => {
  await insertAudit(database, entryOf());
  expect(await verifyChain(database)).toMatchObject({ ok: true, unlinked: 1 });
  await tamper(
    database,
    "update holdfast.audit_entries set at = at - interval '2 min' where entry_id in (select entry_id from holdfast.audit_unlinked)",
  );
  expect(await verifyChain(database)).toMatchObject({ ok: true, unlinked: 1 });
  await database.query("insert into holdfast.instances (worker_id) values ($1)", [uuidv7()]);
  expect(await verifyChain(database)).toMatchObject({ ok: true, unlinked: 1 });
  await database.query("update holdfast.instances set started_at = now() - interval '2 min'");
  expect(await verifyChain(database)).toMatchObject({
    ok: false,
    problems: [
      { seq: null, problem: "unlinked: 1 entries wait for longer than a minute, while a server runs" },
    ],
  });
});

test("the command says what it found and exits with it", async () => {
  const env = { DATABASE_URL: scratch.url };
  const head = await headOf();
  const fine = await holdfast(["audit", "verify", "--head", head.toUpperCase()], env);
  expect(fine).toMatchObject({ code: 0, out: `5 entries, head ${head}\n` });
  expect(await holdfast(["audit", "verify", "--head", "abc"], env)).toMatchObject({
    code: 2,
    out: expect.stringContaining("64 hexadecimal digits"),
  });
  await tamper(database, "update holdfast.audit_entries set object = 'x'");
  const told = await holdfast(["audit", "verify"], env);
  expect(told).toMatchObject({ code: 3, out: expect.stringMatching(/^1: edited: .*\n2: edited: /) });
  expect(told.out).toMatch(new RegExp(`\n5 entries, head ${head}\n$`));
  const json = await holdfast(["audit", "verify", "--json", "--head", "0".repeat(64)], env);
  expect(json.code).toBe(3);
  expect(JSON.parse(json.out)).toMatchObject({ ok: false, entries: 5, unlinked: 0, head, found: 6 });
});

test("the command tells twenty problems and counts the others", async () => {
  await addLinked(database, 20);
  await tamper(database, "update holdfast.audit_entries set object = 'x'");
  const { out } = await holdfast(["audit", "verify"], { DATABASE_URL: scratch.url });
  const lines = out.trim().split("\n");
  expect([lines.length, lines[20]]).toEqual([22, "… and 5 more"]);
});

test("the command lists entries, newest first", async () => {
  const env = { DATABASE_URL: scratch.url };
  const last = await insertAudit(database, entryOf({ actorKind: "caller", actorHash: "ab", object: "t1" }));
  const { out } = await holdfast(["audit", "list", "--limit", "2"], env);
  expect(out).toMatch(
    /^\S+Z keys\.rotated t1 done by caller ab, not linked yet\n\S+Z keys\.rotated o5 done by command, linked as 5 \{"n":5\}\n$/,
  );
  const rows = JSON.parse((await holdfast(["audit", "list", "--json"], env)).out);
  expect(rows.map(({ entry_id: id }: { entry_id: string }) => id)).toEqual([last, ...ids.toReversed()]);
});
