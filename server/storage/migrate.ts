// Brings the schema to what this server needs: migrations/NNNN_topic.sql, forward only, once each.
// Any number of processes may start at once: one lock, and a version row in the transaction of its file.
// A schema that was altered, is foreign, or is newer and breaking is refused and not touched.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { sleep, uptime } from "../clock.ts";
import { AppError, ConfigInvalid, DatabaseUnavailable, messageOf, SchemaUnknown } from "../errors.ts";
import type { Database, Queryable } from "./database.ts";
import { codeOf } from "./postgres.ts";

/** Give migrate() a Database with this `statementTimeoutMs`: a migration may outlast any request. */
export const migrationTimeoutMs = 600_000;

const OLDEST_POSTGRES = 15;
const FILE = /^(\d{4})_[a-z0-9_]+\.sql$/;
const LOCK_NOT_AVAILABLE = "55P03";
const MAY_NOT_WRITE = new Set(["42501", "25006"]);
const POLL_MS = 25;

interface Migration {
  readonly version: number;
  /** The file's name without its ending. */
  readonly name: string;
  readonly text: string;
  readonly checksum: string;
  readonly breaking: boolean;
  readonly transactional: boolean;
}

interface MigrationRow {
  version: number;
  name: string;
  checksum: string;
  breaking: boolean;
}

interface Survey {
  postgres: number;
  encoding: string;
  known: boolean;
  tables: number;
}

const surveySchema = `/* surveySchema */
select current_setting('server_version_num')::int / 10000 as postgres,
  current_setting('server_encoding') as encoding,
  to_regclass('holdfast.migrations') is not null as known,
  (select count(*)::int from pg_catalog.pg_class
    where relnamespace = to_regnamespace('holdfast') and relkind in ('r', 'p', 'v', 'm', 'f')) as tables`;

const listMigrations = `/* listMigrations */
select version, name, checksum, breaking from holdfast.migrations order by version`;

// The key is "holdfast" in ASCII; the lock ends with its transaction, so it holds behind poolers too.
const lockMigrations = `/* lockMigrations */ select pg_try_advisory_xact_lock(7525352680829580148) as locked`;

const createMigrations = `/* createMigrations */
do $$ begin
  create schema if not exists holdfast;
  create table if not exists holdfast.migrations (
    version integer primary key,
    name text not null,
    checksum text not null,
    breaking boolean not null,
    applied_at timestamptz not null default now()
  );
end $$`;

const insertMigration = `/* insertMigration */
insert into holdfast.migrations (version, name, checksum, breaking)
values ($1, $2, $3, $4)
on conflict (version) do nothing returning version`;

const showServer = `/* showServer */
select current_setting('server_version') as version, current_setting('transaction_read_only') = 'on' as "isReadOnly"`;

const showRights = `/* showRights */
select has_table_privilege('holdfast.runs', 'select') and has_table_privilege('holdfast.runs', 'insert') as may`;

const keepLockWhileIdle = `/* keepLockWhileIdle */ set local idle_in_transaction_session_timeout = 0`;

/**
 * Applies every pending migration.
 * @returns the names applied by this call, and the name of the newest one in the database
 * @throws SchemaUnknown when the schema must not be touched or a migration failed (it was rolled back);
 *   ConfigInvalid when the user may not change it; DatabaseUnavailable when Postgres or the lock cannot be had
 */
export async function migrate(
  database: Database,
  options: { directory?: string } = {},
): Promise<{ applied: string[]; version: string }> {
  const files = readMigrations(options.directory ?? migrationsDirectory());
  const pending = pendingOf(files, await readRows(database));
  const applied: string[] = [];
  try {
    if (pending.length > 0) await locked(database, (transaction) => transaction.query(createMigrations));
    for (const file of pending) {
      if (await apply(database, file)) applied.push(file.name);
    }
  } catch (error) {
    throw explain(error);
  }
  // Another process may have applied files of its own meanwhile.
  const rows = await readRows(database);
  pendingOf(files, rows);
  return { applied, version: newestOf(rows) };
}

/** What migrate() would apply, without a change. Throws as migrate() does when the schema must not be touched. */
export async function checkSchema(
  database: Database,
  options: { directory?: string } = {},
): Promise<{ pending: string[]; current: string }> {
  const files = readMigrations(options.directory ?? migrationsDirectory());
  const rows = await readRows(database);
  return { pending: pendingOf(files, rows).map(({ name }) => name), current: newestOf(rows) };
}

/** What answers, and whether it would take writes at all. */
export async function findServer(on: Queryable): Promise<{ version: string; isReadOnly: boolean }> {
  const [row] = await on.query<{ version: string; isReadOnly: boolean }>(showServer);
  return row ?? { version: "unknown", isReadOnly: false };
}

/** Whether the user may read and write the tables of a schema that is there. */
export async function mayWrite(on: Queryable): Promise<boolean> {
  const [row] = await on.query<{ may: boolean }>(showRights);
  return row?.may ?? false;
}

async function apply(database: Database, file: Migration): Promise<boolean> {
  return locked(database, async (transaction) => {
    if (!file.transactional) return applyOutside(database, transaction, file);
    if (!(await insertRow(transaction, file))) return false;
    await runFile(file, () => transaction.query(file.text));
    return true;
  });
}

/** A concurrent index build cannot stand in a transaction; another connection runs it while this one holds the lock. */
async function applyOutside(database: Database, transaction: Queryable, file: Migration): Promise<boolean> {
  const rows = await transaction.query<MigrationRow>(listMigrations);
  if (rows.some(({ version }) => version === file.version)) return false;
  await transaction.query(keepLockWhileIdle);
  const session = await database.session();
  try {
    for (const statement of statementsOf(file.text)) {
      await runFile(file, () => session.query(statement));
    }
  } finally {
    await session.close();
  }
  return insertRow(transaction, file);
}

async function insertRow(transaction: Queryable, file: Migration): Promise<boolean> {
  const values = [file.version, file.name, file.checksum, file.breaking];
  return (await transaction.query(insertMigration, values)).length > 0;
}

async function runFile(file: Migration, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const isLocked = codeOf(error) === LOCK_NOT_AVAILABLE;
    if (!isLocked && (error instanceof AppError || MAY_NOT_WRITE.has(codeOf(error) ?? ""))) throw error;
    const reason = messageOf(isLocked && error instanceof AppError ? error.cause : error);
    const text = `Migration ${file.name} failed and was not recorded: ${reason}. Mend the cause and start again.`;
    if (isLocked) throw new DatabaseUnavailable(text, { cause: error });
    throw new SchemaUnknown(text, { cause: error });
  }
}

/**
 * Runs `work` in a transaction that holds the lock. It asks again and again instead of waiting in the
 * database: a waiting statement keeps a snapshot, and a concurrent index build would wait for it for ever.
 */
async function locked<T>(database: Database, work: (transaction: Queryable) => Promise<T>): Promise<T> {
  const until = uptime() + migrationTimeoutMs;
  while (uptime() < until) {
    const result = await database.transaction(async (transaction) => {
      const [row] = await transaction.query<{ locked: boolean }>(lockMigrations);
      return row?.locked ? { value: await work(transaction) } : undefined;
    });
    if (result) return result.value;
    await sleep(POLL_MS);
  }
  throw new DatabaseUnavailable(
    "Another process has been migrating the schema for 10 minutes. Look for its long-running statement.",
  );
}

async function readRows(database: Database): Promise<MigrationRow[]> {
  const [survey] = await database.query<Survey>(surveySchema);
  const version = survey?.postgres ?? 0;
  if (version < OLDEST_POSTGRES) {
    throw new SchemaUnknown(`PostgreSQL ${version} is too old: use version ${OLDEST_POSTGRES} or newer.`);
  }
  if (survey?.encoding !== "UTF8") {
    throw new SchemaUnknown(
      `The database is encoded in ${survey?.encoding}, and Holdfast keeps texts in UTF8. Point DATABASE_URL at one that is: create database holdfast encoding 'UTF8' template template0.`,
    );
  }
  if (survey.known) return database.query<MigrationRow>(listMigrations);
  if (survey.tables === 0) return [];
  throw new SchemaUnknown(
    "The schema holdfast of this database holds tables that Holdfast did not make. Point DATABASE_URL at another database.",
  );
}

/** The files that are not in the database; throws when what is there is not what these files say. */
function pendingOf(files: readonly Migration[], rows: readonly MigrationRow[]): Migration[] {
  for (const row of rows) {
    const file = files.find(({ version }) => version === row.version);
    if (!file && row.breaking) {
      throw new SchemaUnknown(
        `The database was migrated to ${row.name}, which this server is too old for. Upgrade this server.`,
      );
    }
    if (file && file.checksum !== row.checksum) {
      throw new SchemaUnknown(
        `Migration ${file.name} differs from ${row.name}, which this database ran. Restore the released file, or use the database's own Holdfast version.`,
      );
    }
  }
  return files.filter((file) => rows.every(({ version }) => version !== file.version));
}

function newestOf(rows: readonly MigrationRow[]): string {
  return rows.at(-1)?.name ?? "none";
}

function readMigrations(directory: string): Migration[] {
  const names = readdirSync(directory)
    .filter((name) => FILE.test(name))
    .toSorted();
  const files = names.map((name) => parse(name, readFileSync(join(directory, name), "utf8")));
  const twice = files.find(({ version }, index) => files[index + 1]?.version === version);
  if (twice) throw new SchemaUnknown(`Two migrations have the number of ${twice.name}. Renumber one.`);
  return files;
}

function parse(fileName: string, raw: string): Migration {
  // A checkout may have turned the line ends; that is no change of the file.
  const text = raw.replaceAll("\r\n", "\n");
  const name = fileName.replace(/\.sql$/, "");
  const breaking = /^-- breaking: (yes|no)\n/.exec(text)?.[1];
  if (!breaking)
    throw new SchemaUnknown(`${fileName} must begin with "-- breaking: yes" or "-- breaking: no".`);
  return {
    version: Number(name.slice(0, 4)),
    name,
    text,
    checksum: createHash("sha256").update(text).digest("hex"),
    breaking: breaking === "yes",
    transactional: !/^-- transaction: no$/m.test(text),
  };
}

/** The statements of a `-- transaction: no` file: each ends with a semicolon at the end of a line. */
function statementsOf(text: string): string[] {
  const code = text.replaceAll(/^\s*--.*$/gm, "");
  return code
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter((statement) => statement !== "");
}

/** The folder stands beside server/ in a clone and beside dist/ in the package. */
function migrationsDirectory(): string {
  const start = import.meta.dirname;
  let folder = start;
  while (!existsSync(join(folder, "migrations"))) {
    if (dirname(folder) === folder)
      throw new SchemaUnknown(`No migrations folder above ${start}. Install again.`);
    folder = dirname(folder);
  }
  return join(folder, "migrations");
}

function explain(error: unknown): unknown {
  if (!MAY_NOT_WRITE.has(codeOf(error) ?? "")) return error;
  return new ConfigInvalid(
    `The user of DATABASE_URL may not change the schema (${messageOf(error)}). Let a user who may run "holdfast migrate", or grant it create on the database.`,
    { cause: error },
  );
}
