// One database of its own for each test file: a clone of the migrated template, dropped at the end.
import { randomBytes } from "node:crypto";
import { Client, escapeIdentifier, escapeLiteral } from "pg";
import { inject } from "vitest";
import type { Database } from "../../server/storage/database.ts";
import { openPostgres } from "../../server/storage/postgres.ts";
import type { PostgresOptions } from "../../server/storage/postgres.ts";
import { sealsOf, suiteKeys } from "./keys.ts";

// A machine that does something else may start a backend late, and that is no failure of what is tested.
const CONNECT_MS = 15_000;

export interface TestDatabase {
  readonly url: string;
  readonly database: Database;
  /** Closes every connection and drops the database. */
  close(): Promise<void>;
}

/** A migrated database, sealed if there are keys. Call it in beforeAll, and its close() in afterAll. */
export async function testDatabase(keys = suiteKeys): Promise<TestDatabase> {
  return createDatabase(inject("templateDatabase"), keys);
}

/** A database without our tables. */
export async function emptyDatabase(): Promise<TestDatabase> {
  return createDatabase("template0");
}

/** Opens another pool, as a second process would. */
export function openTestPool(url: string, options: Partial<PostgresOptions> = {}): Database {
  return openPostgres({
    url,
    poolSize: 10,
    connectTimeoutMs: CONNECT_MS,
    statementTimeoutMs: 15_000,
    preparedStatements: true,
    seals: sealsOf(suiteKeys),
    ...options,
  });
}

async function createDatabase(template: string, keys = suiteKeys): Promise<TestDatabase> {
  const name = `${inject("databasePrefix")}_${randomBytes(4).toString("hex")}`;
  const [quoted, from] = [escapeIdentifier(name), escapeIdentifier(template)];
  await administer(`create database ${quoted} template ${from}`);
  const url = new URL(inject("serverUrl"));
  url.pathname = `/${name}`;
  const database = openTestPool(url.href, { seals: sealsOf(keys) });
  return {
    url: url.href,
    database,
    close: async () => {
      await database.close();
      await left(name);
      await administer(`drop database if exists ${quoted} with (force)`);
    },
  };
}

/** Pools say that they have ended before their connections have: one that is thrown out then would be an error of theirs. */
const left = (name: string): Promise<void> =>
  administer(`do $$begin
    for n in 1..40 loop
      exit when not exists (select from pg_stat_get_activity(null) a join pg_database d on d.oid = a.datid where d.datname = ${escapeLiteral(name)});
      perform pg_sleep(0.025), pg_stat_clear_snapshot();
    end loop; end$$`);

async function administer(statement: string): Promise<void> {
  const client = new Client({ connectionString: inject("serverUrl"), connectionTimeoutMillis: CONNECT_MS });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
