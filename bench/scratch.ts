// A migrated database for one bench, dropped at its end: on DATABASE_URL, else on an embedded Postgres.
import { randomBytes } from "node:crypto";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readConfig } from "../server/config.ts";
import type { Config } from "../server/config.ts";
import type { Database } from "../server/storage/database.ts";
import { startEmbedded } from "../server/storage/embedded/embedded.ts";
import { Seals } from "../server/storage/keys/seals.ts";
import { migrate, migrationTimeoutMs } from "../server/storage/migrate.ts";
import { openPostgres } from "../server/storage/postgres.ts";

export interface ScratchDatabase {
  readonly url: string;
  readonly database: Database;
  /** Closes the connections, drops the database and stops what was started for it. */
  close(): Promise<void>;
}

/**
 * @param seals without them nothing is sealed in it
 * @throws DatabaseUnavailable; the user of DATABASE_URL must be allowed to create databases
 */
export async function openScratchDatabase(seals = new Seals()): Promise<ScratchDatabase> {
  const config = readConfig();
  const server = await findServer(config);
  const name = `holdfast_bench_${randomBytes(6).toString("hex")}`;
  const address = new URL(server.url);
  address.pathname = `/${name}`;
  const url = address.href;
  try {
    await administer(config, server.url, `create database ${name}`);
    const migrating = open(config, url, migrationTimeoutMs);
    await migrate(migrating).finally(() => migrating.close());
  } catch (error) {
    await administer(config, server.url, `drop database if exists ${name} with (force)`).finally(() =>
      server.stop(),
    );
    throw error;
  }
  const database = open(config, url, config.statementTimeoutMs, seals);
  return {
    url,
    database,
    close: async () => {
      await database.close();
      await administer(config, server.url, `drop database if exists ${name} with (force)`).finally(() =>
        server.stop(),
      );
    },
  };
}

async function findServer(config: Config): Promise<{ url: string; stop(): Promise<void> }> {
  if (config.databaseUrl) return { url: config.databaseUrl, stop: () => Promise.resolve() };
  const dataDir = join(tmpdir(), `holdfast-bench-${randomBytes(6).toString("hex")}`);
  const clear = (): Promise<void> => rm(dataDir, { recursive: true, force: true });
  try {
    const { url, stop } = await startEmbedded({ dataDir });
    return { url, stop: () => stop().finally(clear) };
  } catch (error) {
    await clear();
    throw error;
  }
}

async function administer(config: Config, url: string, statement: string): Promise<void> {
  const database = open(config, url);
  await database.query(statement).finally(() => database.close());
}

function open(
  config: Config,
  url: string,
  statementTimeoutMs = config.statementTimeoutMs,
  seals = new Seals(),
): Database {
  const { poolSize, connectTimeoutMs, preparedStatements } = config;
  return openPostgres({ url, poolSize, connectTimeoutMs, statementTimeoutMs, preparedStatements, seals });
}
