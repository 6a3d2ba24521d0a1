// Who links the audit log: servers, each second, one at a time, through a database that comes and goes.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { verifyChain } from "../../server/commands/audit.ts";
import { startAuditChain } from "../../server/runs/audit.ts";
import type { AuditChainOptions } from "../../server/runs/audit.ts";
import { findAuditHead, hasUnlinked, insertAudit } from "../../server/storage/audit.ts";
import type { Database } from "../../server/storage/database.ts";
import { emptyAudit, entryOf } from "../support/audit.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
let database: Database;
const logged: [string, object][] = [];
const note = (event: string, facts: object = {}): void => void logged.push([event, facts]);
const log: AuditChainOptions["log"] = { debug: note, info: note, warn: note, error: note };
const started: { stop(): Promise<void> }[] = [];

beforeAll(async () => {
  scratch = await testDatabase();
  ({ database } = scratch);
});
afterAll(() => scratch.close());
beforeEach(async () => {
  logged.length = 0;
  await emptyAudit(database);
});
afterEach(async () => {
  await Promise.all(started.splice(0).map((one) => one.stop()));
});

function start(over: Partial<AuditChainOptions> = {}): void {
  started.push(startAuditChain({ database, log, everyMs: 10, ...over }));
}

const headOf = async (): Promise<string | undefined> => (await findAuditHead(database))?.hash.toString("hex");
const isAllLinked = async (): Promise<boolean> => !(await hasUnlinked(database));

test("what is written is soon linked, by any number of servers, more than one batch too", async () => {
  for (let server = 0; server < 3; server += 1) start();
  await database.transaction(async (transaction) => {
    for (let n = 0; n < 1200; n += 1) await insertAudit(transaction, entryOf({ object: `o${n}` }));
  });
  await until(isAllLinked, "the links");
  expect(await verifyChain(database)).toMatchObject({ ok: true, entries: 1200, unlinked: 0 });
  expect(logged.filter(([event]) => event !== "audit.linked")).toEqual([]);
});

test("the head is told when it has moved, and not again while it stays", async () => {
  await insertAudit(database, entryOf());
  start({ tellEveryMs: 50 });
  await until(() => logged.length === 1, "the first head");
  expect(logged).toEqual([["audit.linked", { head: await headOf(), seq: 1 }]]);
  await insertAudit(database, entryOf());
  await until(() => logged.length > 1, "the second head");
  expect(logged.at(-1)).toEqual(["audit.linked", { head: await headOf(), seq: 2 }]);
  expect(logged).toHaveLength(2);
});

test("a database that is away is told of once, and what waits is linked when it is back", async () => {
  let [isAway, asked] = [true, 0];
  const flaky: Database = {
    ...database,
    query: (text, values) => {
      asked += 1;
      return isAway ? Promise.reject(new Error("away")) : database.query(text, values);
    },
  };
  await insertAudit(database, entryOf());
  start({ database: flaky });
  await until(() => asked >= 5, "five looks");
  expect(logged).toEqual([["audit.unlinked", { reason: "away" }]]);
  isAway = false;
  await until(isAllLinked, "the link");
});

test("a linker that is stopped stops at once", async () => {
  start({ everyMs: 60_000 });
  const at = Date.now();
  await started.splice(0)[0]?.stop();
  expect(Date.now() - at).toBeLessThan(2000);
});
