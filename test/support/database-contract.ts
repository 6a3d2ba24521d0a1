// What every Database must do, on whichever Postgres it is opened: answer, roll back, and turn every loss of the
// server into DatabaseUnavailable within a bounded time.
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DatabaseUnavailable } from "../../server/errors.ts";
import type { Database, Queryable } from "../../server/storage/database.ts";
import type { PostgresOptions } from "../../server/storage/postgres.ts";
import { UNIQUE_VIOLATION } from "../../server/storage/postgres.ts";
import { until } from "./until.ts";

const insert = (on: Queryable): Promise<unknown> => on.query("insert into notes values (7)");

/** Opens a pool on a scratch database of the Postgres under test; `options` win over the suite's own. */
export type OpenDatabase = (options?: Partial<PostgresOptions>) => Database;

export function testDatabaseContract(open: OpenDatabase): void {
  describe("a Database", () => {
    let database: Database;
    // Looks on, and kills, from outside.
    let other: Database;

    beforeAll(async () => {
      [database, other] = [open(), open()];
      await other.query("create table notes (id int primary key, body text)");
    });

    afterAll(() => Promise.all([database.close(), other.close()]));

    const kill = (pid: number): Promise<unknown> => other.query("select pg_terminate_backend($1)", [pid]);
    const allow = (may: boolean): Promise<unknown> =>
      other.query("update pg_database set datallowconn = $1 where datname = current_database()", [may]);
    const notes = (): Promise<unknown[]> => other.query("select id from notes order by id");

    test("a query returns its rows, with numbers as numbers", async () => {
      const rows = await database.query("select $1::bigint as big, $2::text as text, null as none", [7, "a"]);
      expect(rows).toEqual([{ big: 7, text: "a", none: null }]);
    });

    test("a tagged statement is prepared under its tag", async () => {
      const single = open({ poolSize: 1 });
      await single.query("/* findNothing */ select 1");
      const rows = await single.query("select name from pg_prepared_statements");
      await single.close();
      expect(rows).toEqual([{ name: "findNothing" }]);
    });

    test("with preparedStatements off nothing is prepared", async () => {
      const single = open({ poolSize: 1, preparedStatements: false });
      await single.query("/* findNothing */ select 1");
      const rows = await single.query("select name from pg_prepared_statements");
      await single.close();
      expect(rows).toEqual([]);
    });

    test("a transaction that ends is kept", async () => {
      await database.transaction((transaction) => transaction.query("insert into notes values (1)"));
      expect(await notes()).toContainEqual({ id: 1 });
    });

    test("a transaction that throws leaves nothing, and its error is the one thrown", async () => {
      const failure = new Error("changed my mind");
      const work = database.transaction(async (transaction) => {
        await transaction.query("insert into notes values (2)");
        throw failure;
      });
      await expect(work).rejects.toBe(failure);
      expect(await notes()).not.toContainEqual({ id: 2 });
    });

    test("a broken constraint keeps its SQLSTATE", async () => {
      await database.query("insert into notes values (3)");
      await expect(database.query("insert into notes values (3)")).rejects.toMatchObject({
        code: UNIQUE_VIOLATION,
      });
    });

    test("a value that cannot be sent is no absence of the database", async () => {
      const circle: Record<string, unknown> = {};
      circle["self"] = circle;
      const failed = await database.query("select $1::json", [circle]).catch((error: unknown) => error);
      expect(failed).toBeInstanceOf(TypeError);
      expect(await database.query("select 1 as one")).toEqual([{ one: 1 }]);
    });

    test("a server that takes no writes any more gives DatabaseUnavailable, and the next try another connection", async () => {
      const single = open({ poolSize: 1 });
      for (const write of [() => insert(single), () => single.transaction(insert)]) {
        await single.query("set default_transaction_read_only = on");
        await expect(write()).rejects.toThrow(DatabaseUnavailable);
        await write();
        await single.query("delete from notes where id = 7");
      }
      await single.close();
    });

    test("a database that takes no connections gives DatabaseUnavailable, and again takes some", async () => {
      const late = open();
      await allow(false);
      const refused = await late.query("select 1").catch((error: unknown) => error);
      await allow(true);
      expect(refused).toBeInstanceOf(DatabaseUnavailable);
      await late.query("select 1");
      await late.close();
    });

    test("a backend killed under a statement gives DatabaseUnavailable, and the next query works", async () => {
      const single = open({ poolSize: 1 });
      const pid = await pidOf(single);
      const lost = single.query("select pg_sleep(60)").catch((error: unknown) => error);
      await until(async () => {
        const rows = await other.query("select from pg_stat_activity where pid = $1 and state = 'active'", [
          pid,
        ]);
        return rows.length > 0;
      }, "the statement to run");
      await kill(pid);
      expect(await lost).toBeInstanceOf(DatabaseUnavailable);
      expect(await single.query("select 1 as one")).toEqual([{ one: 1 }]);
      await single.close();
    });

    test("a backend killed between two statements of a transaction gives DatabaseUnavailable", async () => {
      const work = database.transaction(async (transaction) => {
        await transaction.query("insert into notes values (4)");
        const pid = await pidOf(transaction);
        await kill(pid);
        await until(async () => {
          const rows = await other.query("select from pg_stat_activity where pid = $1", [pid]);
          return rows.length === 0;
        }, "the backend to end");
        await transaction.query("insert into notes values (5)");
      });
      await expect(work).rejects.toThrow(DatabaseUnavailable);
      expect(await notes()).not.toContainEqual({ id: 4 });
      expect(await database.query("select 1 as one")).toEqual([{ one: 1 }]);
    });

    test("a connection that dies while nobody uses it is not noticed by the next query", async () => {
      const single = open({ poolSize: 1 });
      await kill(await pidOf(single));
      await until(
        () =>
          single.query("select 1").then(
            () => true,
            (error: unknown) => !(error instanceof DatabaseUnavailable),
          ),
        "a query to work",
      );
      expect(await single.query("select 1 as one")).toEqual([{ one: 1 }]);
      await single.close();
    });

    test("a statement over its time gives DatabaseUnavailable", async () => {
      const hurried = open({ statementTimeoutMs: 100 });
      await expect(hurried.query("select pg_sleep(60)")).rejects.toThrow(DatabaseUnavailable);
      expect(await hurried.query("select 1 as one")).toEqual([{ one: 1 }]);
      await hurried.close();
    });

    test("a pool without a free connection gives DatabaseUnavailable within the connect timeout", async () => {
      const single = open({ poolSize: 1, connectTimeoutMs: 200 });
      await single.transaction(async () => {
        await expect(single.query("select 1")).rejects.toThrow(DatabaseUnavailable);
      });
      await single.close();
    });

    test("a server that refuses or never answers gives DatabaseUnavailable within the connect timeout", async () => {
      const silent = createServer().listen(0, "127.0.0.1");
      await new Promise((resolve) => silent.once("listening", resolve));
      // A listening TCP server has an address with a port.
      const { port } = silent.address() as AddressInfo;
      for (const url of ["postgresql://x@127.0.0.1:1/x", `postgresql://x@127.0.0.1:${port}/x`]) {
        const nowhere = open({ url, connectTimeoutMs: 300 });
        const started = performance.now();
        await expect(nowhere.query("select 1")).rejects.toThrow(DatabaseUnavailable);
        await expect(nowhere.transaction(() => Promise.resolve())).rejects.toThrow(DatabaseUnavailable);
        await expect(nowhere.session()).rejects.toThrow(DatabaseUnavailable);
        expect(performance.now() - started).toBeLessThan(3000);
        await nowhere.close();
      }
      silent.close();
    });

    test("a session tells when its backend is gone", async () => {
      const session = await database.session();
      await kill(await pidOf(session));
      await session.closed;
      await expect(session.query("select 1")).rejects.toThrow(DatabaseUnavailable);
    });

    test("a session whose server takes no writes any more is closed, so that its owner looks for another", async () => {
      for (const pipelines of [false, true]) {
        const session = await database.session({ pipelines });
        await session.query("set default_transaction_read_only = on");
        await expect(insert(session)).rejects.toThrow(DatabaseUnavailable);
        await session.closed;
      }
    });

    test("close() leaves no connection behind", async () => {
      const wide = open({ poolSize: 3 });
      const pids = await Promise.all([pidOf(wide), pidOf(wide), pidOf(wide)]);
      expect(new Set(pids).size).toBe(3);
      await wide.close();
      await until(async () => {
        const rows = await other.query("select from pg_stat_activity where pid = any ($1)", [pids]);
        return rows.length === 0;
      }, "every backend to end");
    });
  });
}

async function pidOf(queryable: Queryable): Promise<number> {
  const [row] = await queryable.query<{ pid: number }>("select pg_backend_pid() as pid");
  return row?.pid ?? 0;
}
