// Opens the database that the configuration names: a given PostgreSQL, or the embedded one.
import { isAbsolute, resolve } from "node:path";
import { DEFAULT_DATA_DIR } from "../config.ts";
import type { Config } from "../config.ts";
import { KeyRing } from "../privacy/key-ring.ts";
import type { Database } from "./database.ts";
import { startEmbedded } from "./embedded/embedded.ts";
import { Seals } from "./keys/seals.ts";
import { migrate, migrationTimeoutMs } from "./migrate.ts";
import { openPostgres } from "./postgres.ts";

export interface OpenDatabase {
  readonly database: Database;
  readonly isEmbedded: boolean;
  /** Brings the schema up to date, on a connection of its own that allows a migration its time. */
  readonly migrate: () => Promise<{ applied: string[]; version: string }>;
  /** Closes every connection, and stops the embedded server if this process started it. */
  readonly close: () => Promise<void>;
}

type DatabaseConfig = Pick<
  Config,
  | "databaseUrl"
  | "databaseDirectUrl"
  | "dataDir"
  | "poolSize"
  | "connectTimeoutMs"
  | "statementTimeoutMs"
  | "preparedStatements"
  | "pooler"
  | "keys"
>;

/** @param say told of each slow step, in words for a person */
export async function openDatabase(
  config: DatabaseConfig,
  say: (text: string) => void = () => {},
): Promise<OpenDatabase> {
  const { databaseUrl: url, databaseDirectUrl: directUrl } = config;
  const seals = new Seals(config.keys === undefined ? undefined : new KeyRing(config.keys));
  if (url) {
    const database = openPostgres({ ...config, url, directUrl, seals });
    const migrateGiven = (): ReturnType<typeof migrate> => migrateAt(config, directUrl ?? url, !directUrl);
    return { database, isEmbedded: false, migrate: migrateGiven, close: () => database.close() };
  }
  const dataDir = isAbsolute(config.dataDir) ? config.dataDir : resolve(config.dataDir);
  const mayMove = config.dataDir === DEFAULT_DATA_DIR;
  const embedded = await startEmbedded({ dataDir, mayMove, onProgress: say });
  const database = openPostgres({ ...config, url: embedded.url, pooler: false, seals });
  const close = async (): Promise<void> => {
    await database.close();
    await embedded.stop();
  };
  return { database, isEmbedded: true, migrate: () => migrateAt(config, embedded.url, false), close };
}

async function migrateAt(config: DatabaseConfig, url: string, mayPool: boolean): ReturnType<typeof migrate> {
  const pooler = config.pooler && mayPool;
  const database = openPostgres({
    ...config,
    url,
    pooler,
    poolSize: 2,
    statementTimeoutMs: migrationTimeoutMs,
  });
  try {
    return await migrate(database);
  } finally {
    await database.close();
  }
}
