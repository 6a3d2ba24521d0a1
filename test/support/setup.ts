// Before the suite: finds or starts a Postgres and makes one migrated template database.
// After it: drops every database of this run, also when tests failed, and stops what was started.
import { randomBytes } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, escapeIdentifier } from "pg";
import type { TestProject } from "vitest/node";
import { isAlive } from "../../server/storage/embedded/cluster.ts";
import { startEmbedded } from "../../server/storage/embedded/embedded.ts";
import { migrate } from "../../server/storage/migrate.ts";
import { openPostgres } from "../../server/storage/postgres.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** Address of the suite's Postgres server; its user may create databases. */
    serverUrl: string;
    /** Begins the name of every database of this run. */
    databasePrefix: string;
    templateDatabase: string;
  }
}

const HOUR_MS = 3_600_000;

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await findServer();
  const prefix = `hf_${Date.now()}_${randomBytes(4).toString("hex")}`;
  const template = `${prefix}_template`;
  const teardown = async (): Promise<void> => {
    await dropDatabases(server.url, (name) => name.startsWith(prefix)).finally(server.stop);
  };
  try {
    await dropDatabases(server.url, isLeftOver);
    await createTemplate(server.url, template);
  } catch (error) {
    await teardown();
    throw error;
  }
  project.provide("serverUrl", server.url);
  project.provide("databasePrefix", prefix);
  project.provide("templateDatabase", template);
  return teardown;
}

async function findServer(): Promise<{ url: string; stop: () => Promise<void> }> {
  const given = process.env["DATABASE_URL"];
  if (given) return { url: given, stop: () => Promise.resolve() };
  await removeLeftOverServers();
  const dataDir = join(tmpdir(), `holdfast-test-${process.pid}-${randomBytes(4).toString("hex")}`);
  const remove = (): Promise<void> => rm(dataDir, { recursive: true, force: true });
  try {
    const { url, stop } = await startEmbedded({ dataDir });
    return { url, stop: () => stop().finally(remove) };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** A run that was killed left its server running; the folder's name says which process it was. */
async function removeLeftOverServers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = /^holdfast-test-(\d+)-/.exec(name)?.[1];
    if (!pid || isAlive(Number(pid))) continue;
    const dataDir = join(tmpdir(), name);
    const { stop } = await startEmbedded({ dataDir });
    await stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function createTemplate(serverUrl: string, name: string): Promise<void> {
  await administer(serverUrl, (client) => client.query(`create database ${escapeIdentifier(name)}`));
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const database = openPostgres({
    url: url.href,
    poolSize: 2,
    connectTimeoutMs: 5000,
    statementTimeoutMs: 60_000,
    preparedStatements: true,
  });
  await migrate(database).finally(() => database.close());
}

/** A run that was killed could not drop its databases; their names say when it began. */
function isLeftOver(name: string): boolean {
  const startedAt = /^hf_(\d+)_/.exec(name)?.[1];
  return startedAt !== undefined && Number(startedAt) < Date.now() - HOUR_MS;
}

async function dropDatabases(serverUrl: string, matches: (name: string) => boolean): Promise<void> {
  await administer(serverUrl, async (client) => {
    const { rows } = await client.query<{ datname: string }>("select datname from pg_database");
    for (const { datname } of rows.filter((row) => matches(row.datname))) {
      await client.query(`drop database if exists ${escapeIdentifier(datname)} with (force)`);
    }
  });
}

async function administer(url: string, work: (client: Client) => Promise<unknown>): Promise<void> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5000 });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}
