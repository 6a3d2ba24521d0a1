// A database for one trial of strength, made for it and dropped after it: on a server that is given, or on a
// PostgreSQL of our own that may be crashed.
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { now, sleep } from "../../clock.ts";
import { KeyRing } from "../../privacy/key-ring.ts";
import type { Database, Queryable } from "../../storage/database.ts";
import { isAlive } from "../../storage/embedded/cluster.ts";
import { startEmbedded } from "../../storage/embedded/embedded.ts";
import { Seals } from "../../storage/keys/seals.ts";
import { migrate } from "../../storage/migrate.ts";
import { openPostgres } from "../../storage/postgres.ts";
import { dropDatabase, installAudit, listDatabases } from "./audit.ts";

/** A PostgreSQL server that databases can be made on. */
export interface PostgresServer {
  readonly url: string;
  stop(): Promise<void>;
}

/** One of our own, on which no data but ours can be lost. */
export interface OwnServer extends PostgresServer {
  /** Ends every process of it at once, as a failing machine does, and starts it again. */
  crash(): Promise<void>;
}

export interface Scratch {
  readonly name: string;
  readonly url: string;
  readonly database: Database;
  close(): Promise<void>;
}

const POLL_MS = 20;
const DAY_MS = 86_400_000;
const FOLDER = "holdfast-chaos-";
const DATABASE = "holdfast_chaos_";

export const givenServer = (url: string): PostgresServer => ({ url, stop: () => Promise.resolve() });

export async function ownServer(): Promise<OwnServer> {
  await removeLeftOvers();
  const dataDir = await mkdtemp(join(tmpdir(), `${FOLDER}${process.pid}-`));
  await chmod(dataDir, 0o755); // a root process runs PostgreSQL as another user
  let embedded = await startEmbedded({ dataDir });
  return {
    url: embedded.url,
    crash: async () => {
      const [line = ""] = (await readFile(join(dataDir, "postgres", "postmaster.pid"), "utf8")).split("\n");
      const pid = Number(line);
      process.kill(pid, "SIGQUIT");
      while (isAlive(pid)) await sleep(POLL_MS);
      // On the same port, with the same password.
      embedded = await startEmbedded({ dataDir });
    },
    stop: async () => {
      await embedded.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** What a process that was killed left running; the folder's name says which process it was. */
async function removeLeftOvers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = Number(name.startsWith(FOLDER) ? name.slice(FOLDER.length).split("-")[0] : 0);
    if (pid === 0 || isAlive(pid)) continue;
    const dataDir = join(tmpdir(), name);
    const { stop } = await startEmbedded({ dataDir });
    await stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

/**
 * A migrated database with the audit in it.
 * @param keys those of the servers on it, if what they store is sealed
 * @throws when the server's user may not create databases
 */
export async function openScratch(server: PostgresServer, keys?: string): Promise<Scratch> {
  await administer(server.url, dropLeftOvers);
  const name = `${DATABASE}${now()}_${randomBytes(4).toString("hex")}`;
  const address = new URL(server.url);
  address.pathname = `/${name}`;
  const drop = (): Promise<void> => administer(server.url, (on) => dropDatabase(on, name));
  await administer(server.url, (on) => on.query(`create database ${name}`));
  try {
    const database = open(address.href, keys);
    await migrate(database);
    await installAudit(database);
    const close = (): Promise<void> => database.close().finally(drop);
    return { name, url: address.href, database, close };
  } catch (error) {
    await drop();
    throw error;
  }
}

/** A process that was killed could not drop its database; the name says when it was made. */
async function dropLeftOvers(on: Queryable): Promise<void> {
  for (const name of await listDatabases(on, DATABASE)) {
    const madeAt = Number(name.slice(DATABASE.length).split("_")[0]);
    if (madeAt < now() - DAY_MS) await dropDatabase(on, name);
  }
}

async function administer(url: string, work: (on: Queryable) => Promise<unknown>): Promise<void> {
  const database = open(url);
  try {
    await work(database);
  } finally {
    await database.close();
  }
}

const open = (url: string, keys?: string): Database =>
  openPostgres({
    seals: new Seals(keys === undefined ? undefined : new KeyRing(keys)),
    url,
    poolSize: 4,
    connectTimeoutMs: 5000,
    statementTimeoutMs: 60_000,
    preparedStatements: true,
  });
