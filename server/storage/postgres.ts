// Database over a pg pool. Every wait is bounded: connecting, waiting for a free connection, each statement.
import { Client, DatabaseError, Pool, types } from "pg";
import type { ClientBase } from "pg";
import { AppError, DatabaseUnavailable, messageOf } from "../errors.ts";
import type { Database, Queryable, Session } from "./database.ts";
import { Seals } from "./keys/seals.ts";

export interface PostgresOptions {
  readonly url: string;
  /** Address for sessions; must not be a transaction pooler. */
  readonly directUrl?: string | undefined;
  readonly poolSize: number;
  readonly connectTimeoutMs: number;
  readonly statementTimeoutMs: number;
  readonly preparedStatements: boolean;
  /** `url` is a transaction pooler, which takes no settings for a connection. */
  readonly pooler?: boolean;
  /** Without them nothing is sealed. */
  readonly seals?: Seals;
}

export const UNIQUE_VIOLATION = "23505";

// Numbers of our own tables stay far below 2^53.
types.setTypeParser(types.builtins.INT8, Number);

// A new connection knows no prepared statement; firewalls that forget idle connections do so after minutes.
const IDLE_MS = 120_000;

const TAG = /^\/\* (\w+) \*\//;
/**
 * Connection trouble, shutdown, no connection, memory or disk to be had, too slow; and a deadlock, a conflict or a lock
 * that was not to be had: the next try may do.
 */
const GONE = /^(08|57P0|53[0-3]|580|57014|40P01|40001|55P03|25P0[34])/;
const DISK_FULL = "53100";
/** No primary any more: another server is, which a new connection finds. */
const READ_ONLY = "25006";
/** Wrong user or password, no such database. */
const REFUSED = /^(28|3D)/;
/** Of a certificate that is not taken, or a file of one that cannot be read; and pg itself, where the server has none. */
const UNTRUSTED = /CERT|TLS|SSL|UNABLE_TO|ENOENT open|EACCES open/;
/** A pooler that was not named as one, of whom `limits` asked. */
const POOLER = /^unsupported startup parameter/;
/** Whoever waits for a lock looks at what the one before left; a role may say otherwise, also behind a pooler. */
const BEGIN = "begin isolation level read committed";
/** What statements here count on, whatever somebody has set for the role, the database or the server. */
const OWN_SETTINGS = [
  "default_transaction_isolation = 'read committed'",
  "lock_timeout = 0", // the time of a statement is its bound
  "standard_conforming_strings = on",
  "datestyle = 'ISO'",
  "intervalstyle = 'postgres'",
  "timezone = 'UTC'",
  "extra_float_digits = 1",
  "array_nulls = on",
];
const TAKE_OWN_SETTINGS = OWN_SETTINGS.map((setting) => `set ${setting}`).join("; ");
const names = new Map<string, string | undefined>();

export function openPostgres(options: PostgresOptions): Database {
  const limits = {
    statement_timeout: options.statementTimeoutMs,
    idle_in_transaction_session_timeout: options.statementTimeoutMs,
  };
  const connection = (url: string, isPooler = false): object => ({
    connectionString: url,
    application_name: "holdfast",
    connectionTimeoutMillis: options.connectTimeoutMs,
    query_timeout: options.statementTimeoutMs + 5000,
    keepAlive: true,
    ...(isPooler ? {} : limits),
  });
  const pool = new Pool({
    ...connection(options.url, options.pooler),
    max: options.poolSize,
    idleTimeoutMillis: IDLE_MS,
    ...(options.pooler ? {} : { onConnect: prepareLine }),
  });
  // The pool does not listen while a connection is lent: a server that ends it just then would end this process too.
  pool.on("connect", (client) => client.on("error", () => undefined));
  pool.on("error", () => {
    // An idle connection died; the pool drops it and the next query opens another.
  });
  const isNamed = options.preparedStatements && !options.pooler;
  const { seals = new Seals() } = options;
  const on = (client: Pool | ClientBase): Queryable => ({
    seals,
    query: <Row>(text: string, values: readonly unknown[] = []) =>
      run<Row>(client, isNamed ? nameOf(text) : undefined, text, values),
  });

  return {
    ...on(pool),
    transaction: (work) => transact(pool, on, work),
    session: ({ pipelines } = { pipelines: false }) => {
      const isPooler = options.pooler && !options.directUrl;
      const given = connection(options.directUrl ?? options.url, isPooler);
      const onSession = (client: ClientBase): Queryable => (pipelines ? on(client) : inTurn(on(client)));
      return openSession(new Client({ ...given, pipeline: pipelines }), { on: onSession, isPooler });
    },
    close: () => pool.end(),
  };
}

async function run<Row>(
  client: Pool | ClientBase,
  name: string | undefined,
  text: string,
  values: readonly unknown[],
): Promise<Row[]> {
  try {
    const result = await client.query({ text, values: [...values], ...(name ? { name } : {}) });
    // The caller names the columns of its own statement; tests run every statement for real.
    return result.rows as Row[];
  } catch (error) {
    throw translate(error);
  }
}

async function transact<T>(
  pool: Pool,
  on: (client: ClientBase) => Queryable,
  work: (transaction: Queryable) => Promise<T>,
): Promise<T> {
  const client = await pool.connect().catch((error: unknown) => {
    throw translate(error);
  });
  let broken: Error | undefined;
  // A backend that dies between two statements has no query to tell; unheard, the event would end the process.
  const onLost = (error: Error): void => {
    broken = error;
  };
  client.on("error", onLost);
  try {
    await run(client, undefined, BEGIN, []);
    const result = await work(inTurn(on(client)));
    await run(client, undefined, "commit", []);
    return result;
  } catch (error) {
    const lose = (failure: unknown): void => {
      broken = failure instanceof Error ? failure : new Error(String(failure));
    };
    await client.query("rollback").catch(lose);
    if (codeOf(error) === READ_ONLY) lose(error);
    throw error;
  } finally {
    client.release(broken);
    client.removeListener("error", onLost);
  }
}

/** One statement after the other: what is asked at once, such as by LangGraph or beside a heartbeat, waits its turn. */
function inTurn(queryable: Queryable): Queryable {
  let last: Promise<unknown> = Promise.resolve();
  return {
    seals: queryable.seals,
    query: <Row>(text: string, values?: readonly unknown[]) => {
      const next = last.then(() => queryable.query<Row>(text, values));
      last = next.catch(() => undefined); // its caller has the error
      return next;
    },
  };
}

/**
 * A backend does not look at its line while it executes. If its process is killed meanwhile, its locks would stay for
 * as long as the statement takes, and so would the runs that others are to take over.
 */
async function prepareLine(client: ClientBase): Promise<void> {
  await client.query(TAKE_OWN_SETTINGS);
  // PostgreSQL refuses it where the system cannot tell, such as Windows.
  await client.query("set client_connection_check_interval = '1s'").catch(() => undefined);
}

async function openSession(
  client: Client,
  { on, isPooler = false }: { on: (client: ClientBase) => Queryable; isPooler: boolean | undefined },
): Promise<Session> {
  const closed = new Promise<void>((resolve) => {
    client.once("end", () => resolve());
    client.on("error", () => resolve());
  });
  try {
    await client.connect();
    if (!isPooler) await prepareLine(client);
  } catch (error) {
    throw translate(error);
  }
  const onNotification = (heard: (payload: string) => void): void => {
    client.on("notification", ({ payload = "" }) => heard(payload));
  };
  return {
    ...closingWhenReadOnly(on(client), () => client.end()),
    closed,
    onNotification,
    close: () => client.end(),
  };
}

/** Such a session would stay for ever with a server that is no primary any more. */
function closingWhenReadOnly(session: Queryable, close: () => Promise<void>): Queryable {
  const query: Queryable["query"] = (text, values) =>
    session.query<never>(text, values).catch((error: unknown) => {
      if (codeOf(error) === READ_ONLY) void close().catch(() => undefined); // it is closed either way
      throw error;
    });
  return { seals: session.seals, query };
}

function nameOf(text: string): string | undefined {
  if (!names.has(text)) names.set(text, TAG.exec(text)?.[1]);
  return names.get(text);
}

/**
 * Postgres errors with an SQLSTATE of our own concern stay as they are, as do values that cannot be sent: trying again
 * helps neither. Lost connections become one error.
 */
function translate(error: unknown): unknown {
  if (error instanceof AppError || error instanceof TypeError || error instanceof RangeError) return error;
  if (error instanceof DatabaseError && REFUSED.test(error.code ?? ""))
    // It may have let us in before: that a password is exchanged, or a user locked, ends no run.
    return unavailable(error, "PostgreSQL refused the connection", "Check DATABASE_URL.");
  if (error instanceof DatabaseError && POOLER.test(error.message))
    return unavailable(
      error,
      "DATABASE_URL leads to a pooler",
      "Set HOLDFAST_POOLER=on and DATABASE_DIRECT_URL.",
    );
  if (error instanceof DatabaseError && error.code === READ_ONLY)
    return unavailable(
      error,
      "PostgreSQL takes no writes",
      "DATABASE_URL must lead to the primary, as a user who may write.",
    );
  if (error instanceof DatabaseError && error.code === DISK_FULL)
    return unavailable(error, "PostgreSQL has no room to write", "Make room on its disk.");
  if (error instanceof DatabaseError && !isGone(error)) return error;
  if (isUntrusted(error))
    return unavailable(
      error,
      "The connection to PostgreSQL could not be secured",
      "Check sslmode and sslrootcert of DATABASE_URL.",
    );
  return unavailable(error, "PostgreSQL did not answer", "Check that it runs.");
}

/** Clients can only wait. What PostgreSQL says, and what to do about it, is for operators. */
function unavailable(error: unknown, what: string, cure: string): DatabaseUnavailable {
  const inFull = `${what}: ${messageOf(error) || codeOf(error)}. ${cure}`;
  return new DatabaseUnavailable(`${what}. Try again later.`, { cause: error, inFull });
}

function isUntrusted(error: unknown): boolean {
  const syscall = error instanceof Error && "syscall" in error ? error.syscall : "";
  return UNTRUSTED.test(`${codeOf(error) ?? messageOf(error)} ${String(syscall)}`);
}

/** After a FATAL there is no connection any more, whatever the reason was. */
const isGone = ({ code = "", severity }: DatabaseError): boolean => severity === "FATAL" || GONE.test(code);

/** Whether a write was refused since the server is no primary, or takes none. */
export const isReadOnly = (error: unknown): boolean => codeOf(error) === READ_ONLY;

/** The SQLSTATE or Node code of an error, looking through its causes. */
export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("code" in error && typeof error.code === "string" && !(error instanceof AppError)) return error.code;
  return codeOf(error.cause);
}
