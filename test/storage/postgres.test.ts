// The Database contract on the Postgres of the suite, and what is said of one that does not let us in.
import { spawnSync } from "node:child_process";
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { escapeIdentifier, escapeLiteral } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DatabaseUnavailable } from "../../server/errors.ts";
import { selfSigned } from "../../server/http/edge/certificate.ts";
import { emptyDatabase, openTestPool } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { testDatabaseContract } from "../support/database-contract.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;

beforeAll(async () => {
  scratch = await emptyDatabase();
});

afterAll(() => scratch.close());

testDatabaseContract((options = {}) => openTestPool(scratch.url, options));

test.each([false, true])("what is asked of a session at once warns of nothing: %s", (pipelines) => {
  // Node.js tells of what is deprecated once in a process.
  const script = `
    import { openPostgres } from "./server/storage/postgres.ts";
    const limits = { poolSize: 1, connectTimeoutMs: 15_000, statementTimeoutMs: 15_000 };
    const database = openPostgres({ url: process.argv[1], preparedStatements: true, ...limits });
    const session = await database.session({ pipelines: ${pipelines} });
    const rows = await Promise.all([1, 2, 3, 4].map((n) => session.query("select $1::int as n", [n])));
    console.log(JSON.stringify(rows.flat()));
    await session.close();
    await database.close();`;
  const args = ["--input-type=module", "-e", script, scratch.url];
  const { stdout, stderr } = spawnSync("node", args, { encoding: "utf8", timeout: 19_000 });
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toEqual([1, 2, 3, 4].map((n) => ({ n })));
});

test("what somebody has set for the role or the database changes nothing of what statements mean", async () => {
  const odd = await emptyDatabase();
  const oddities = {
    default_transaction_isolation: "serializable",
    lock_timeout: "50ms",
    standard_conforming_strings: "off",
    DateStyle: "German, DMY",
    IntervalStyle: "sql_standard",
    TimeZone: "Asia/Kathmandu",
    extra_float_digits: "-3",
    array_nulls: "off",
  };
  const name = escapeIdentifier(new URL(odd.url).pathname.slice(1));
  for (const [setting, value] of Object.entries(oddities))
    await odd.database.query(`alter database ${name} set ${setting} = ${escapeLiteral(value)}`);
  const settings = Object.keys(oddities).map((setting) => `current_setting('${setting}') as "${setting}"`);
  const usual = {
    default_transaction_isolation: "read committed",
    lock_timeout: "0",
    standard_conforming_strings: "on",
    DateStyle: expect.stringMatching(/^ISO/),
    IntervalStyle: "postgres",
    TimeZone: "UTC",
    extra_float_digits: "1",
    array_nulls: "on",
  };
  const database = openTestPool(odd.url);
  const session = await database.session();
  for (const on of [database, session])
    expect(await on.query(`select ${settings.join(", ")}`)).toEqual([usual]);
  await session.close();
  await database.close();
  // No pooler takes settings for a connection, but each transaction says what it needs.
  const pooled = openTestPool(odd.url, { pooler: true });
  const isolation = "select current_setting('transaction_isolation') as isolation";
  expect(await pooled.transaction((transaction) => transaction.query(isolation))).toEqual([
    { isolation: "read committed" },
  ]);
  await odd.database.query("create table taken ()");
  await odd.database.transaction(async (transaction) => {
    await transaction.query("lock table taken in access exclusive mode");
    await expect(pooled.query("select from taken")).rejects.toThrow(DatabaseUnavailable);
  });
  await pooled.close();
  await odd.close();
});

test("a user who is shut out for a while, as when a password is exchanged, is no failure for good", async () => {
  const name = `hf_locked_${crypto.randomUUID().slice(0, 8)}`;
  await scratch.database.query(`create role ${name} login password 'locked'`);
  const url = new URL(scratch.url);
  [url.username, url.password] = [name, "locked"];
  const shut = openTestPool(url.href, { poolSize: 1 });
  try {
    await shut.query("select 1");
    await scratch.database.query(`alter role ${name} nologin`);
    await scratch.database.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1",
      [name],
    );
    const refusal = (): Promise<unknown> => shut.query("select 1").catch((error: unknown) => error);
    await until(async () => /refused the connection/.test(String(await refusal())), "the refusal");
    expect(await refusal()).toMatchObject({ code: "database_unavailable", retryable: true });
    await scratch.database.query(`alter role ${name} login`);
    await shut.query("select 1");
  } finally {
    await shut.close();
    await scratch.database.query(`drop role ${name}`);
  }
});

const withCertificate = (socket: Socket): void => {
  socket.write("S");
  new TLSSocket(socket, { isServer: true, ...selfSigned("other.example") }).on("error", () => undefined);
};
const withoutTls = (socket: Socket): void => void socket.write("N");
/** What PgBouncer says to settings of a connection, in the form of PostgreSQL. */
const asPooler = (socket: Socket): void => {
  const fields = "SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: statement_timeout\0\0";
  const head = Buffer.from("E\0\0\0\0");
  head.writeUInt32BE(fields.length + 4, 1);
  socket.end(Buffer.concat([head, Buffer.from(fields)]));
};

test.each([
  ["?sslmode=verify-full", withCertificate, /could not be secured: .*certificate.* sslrootcert/],
  ["?sslmode=verify-full", withoutTls, /could not be secured: .*support SSL.* sslmode/],
  ["?sslmode=verify-full&sslrootcert=/nowhere.crt", withoutTls, /secured: .*nowhere.crt.* sslrootcert/],
  ["", asPooler, /leads to a pooler: .* HOLDFAST_POOLER=on/],
])("whoever connects with %j is told what to change", async (query, answer, sentence) => {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => answer(socket));
  });
  await new Promise<void>((listens) => server.listen(0, "127.0.0.1", listens));
  const { port } = server.address() as AddressInfo;
  const database = openTestPool(`postgresql://me@localhost:${port}/mine${query}`, {});
  const refused = database.query("/* one */ select 1", []).catch((error: unknown) => error);
  const error = (await refused) as DatabaseUnavailable;
  expect(error.inFull).toMatch(sentence);
  expect(error.message).toMatch(/^[A-Z][\w ]+\. Try again later\.$/);
  await database.close();
  server.close();
});
