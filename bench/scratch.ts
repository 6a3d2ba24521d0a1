// A migrated database that exists for one bench, on DATABASE_URL or else on an embedded PostgreSQL of its own.
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readConfig } from "../server/config.ts";
import type { Database } from "../server/storage/database.ts";
import { startEmbedded } from "../server/storage/embedded.ts";
import { migrate } from "../server/storage/migrate.ts";
import { openPostgres } from "../server/storage/postgres.ts";

export interface ScratchDatabase {
  readonly url: string;
  readonly database: Database;
  /** Closes every connection and drops the database. */
  readonly close: () => Promise<void>;
}

export async function openScratchDatabase(): Promise<ScratchDatabase> {
  const server = await findServer();
  const name = `holdfast_bench_${randomBytes(4).toString("hex")}`;
  const admin = open(server.url);
  await admin.query(`create database ${name}`);
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  const database = open(url.href);
  await migrate(database);
  const close = async (): Promise<void> => {
    await database.close();
    await admin.query(`drop database ${name} with (force)`);
    await admin.close();
    await server.stop();
  };
  return { url: url.href, database, close };
}

async function findServer(): Promise<{ url: string; stop: () => Promise<void> }> {
  const { databaseUrl } = readConfig();
  if (databaseUrl) return { url: databaseUrl, stop: () => Promise.resolve() };
  const dataDir = await mkdtemp(join(tmpdir(), "holdfast-bench-"));
  const embedded = await startEmbedded({ dataDir });
  const stop = async (): Promise<void> => {
    await embedded.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
  return { url: embedded.url, stop };
}

function open(url: string): Database {
  const limits = {
    poolSize: 10,
    connectTimeoutMs: 5000,
    statementTimeoutMs: 120_000,
    preparedStatements: true,
  };
  return openPostgres({ url, ...limits });
}
