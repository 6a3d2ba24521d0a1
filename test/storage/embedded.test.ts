// The embedded PostgreSQL: one per data directory, whoever starts it, and nothing acknowledged is ever lost.
import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import {
  chmod,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  readlink,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { ConfigInvalid, DatabaseUnavailable } from "../../server/errors.ts";
import { findBarrier, findPrograms, linkLibraries } from "../../server/storage/embedded/cluster.ts";
import { startEmbedded } from "../../server/storage/embedded/embedded.ts";
import type { Embedded } from "../../server/storage/embedded/embedded.ts";
import { openTestPool } from "../support/database.ts";
import { testDatabaseContract } from "../support/database-contract.ts";
import { holdfast } from "../support/holdfast.ts";
import { until } from "../support/until.ts";

let folder: string;
// One cluster that was initialised once serves most tests; each starts and stops it.
let dataDir: string;
const started: Embedded[] = [];
const children: ChildProcess[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-embedded-"));
  // The user postgres must get through when the suite runs as root.
  await chmod(folder, 0o711);
  dataDir = join(folder, "data");
});

afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const embedded of started.splice(0).toReversed()) await embedded.stop();
});

afterAll(() => rm(folder, { recursive: true, force: true }));

async function start(directory = dataDir): Promise<Embedded> {
  const embedded = await startEmbedded({ dataDir: directory });
  started.push(embedded);
  return embedded;
}

async function ask<Row>(url: string, text: string): Promise<Row[]> {
  const database = openTestPool(url, { poolSize: 1 });
  return database.query<Row>(text).finally(() => database.close());
}

const postmasterOf = async (): Promise<number> =>
  Number((await readFile(join(dataDir, "postgres", "postmaster.pid"), "utf8")).split("\n")[0]);

/** Another process that starts it and stays until it is killed. */
async function startElsewhere(): Promise<{ child: ChildProcess; url: string; reused: boolean }> {
  const script = join(import.meta.dirname, "../fixtures/embedded-owner.ts");
  const child = spawn(process.execPath, [script, dataDir], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const [line] = await once(child.stdout, "data");
  return { child, ...JSON.parse(String(line)) };
}

async function killNow(child: ChildProcess): Promise<void> {
  const gone = once(child, "exit");
  child.kill("SIGKILL");
  await gone;
}

test("rows survive a stop and a start, and the address stays the same", async () => {
  const first = await start();
  await ask(first.url, "create table kept as select 1 as one");
  await first.stop();
  await expect(ask(first.url, "select 1")).rejects.toThrow(DatabaseUnavailable);
  const second = await start();
  expect(second.url).toBe(first.url);
  expect(await ask(second.url, "select one from kept")).toEqual([{ one: 1 }]);
});

test("it listens on loopback only, asks for a password, syncs to disk and takes 100 connections", async () => {
  const { url } = await start();
  expect(
    await ask(
      url,
      "select name, setting from pg_settings where name in ('listen_addresses', 'fsync', 'max_connections', 'unix_socket_directories') order by name",
    ),
  ).toEqual([
    { name: "fsync", setting: "on" },
    { name: "listen_addresses", setting: "127.0.0.1" },
    { name: "max_connections", setting: "100" },
    { name: "unix_socket_directories", setting: "" },
  ]);
  const guess = new URL(url);
  guess.password = "guess";
  await expect(ask(guess.href, "select 1")).rejects.toMatchObject({
    inFull: expect.stringContaining("password authentication failed"),
  });
  const { mode } = await stat(join(dataDir, "postgres", "holdfast.password"));
  expect(mode & 0o777).toBe(0o600);
});

test("processes that come later share it, and their stop leaves it running", async () => {
  const owner = await startElsewhere();
  const guest = await start();
  expect(guest).toMatchObject({ url: owner.url, reused: true });
  await guest.stop();
  expect(await ask(owner.url, "select 1 as one")).toEqual([{ one: 1 }]);
});

test("what a killed process left running is used on, with every row, and stopped in the end", async () => {
  const { child, url } = await startElsewhere();
  await ask(url, "create table acknowledged as select 1 as one");
  await killNow(child);
  const heir = await start();
  expect(heir).toMatchObject({ url, reused: true });
  expect(await ask(url, "select one from acknowledged")).toEqual([{ one: 1 }]);
  await heir.stop();
  await expect(ask(url, "select 1")).rejects.toThrow(DatabaseUnavailable);
});

test("a killed PostgreSQL starts again with every acknowledged row", async () => {
  const { url } = await start();
  await ask(url, "create table written as select 7 as seven");
  const pid = await postmasterOf();
  process.kill(pid, "SIGKILL");
  await until(
    () =>
      ask(url, "select 1").then(
        () => false,
        () => true,
      ),
    "the server to be gone",
  );
  const next = await start();
  expect(next.reused).toBe(false);
  expect(await ask(next.url, "select seven from written")).toEqual([{ seven: 7 }]);
});

test("of several that start at once on an empty directory one starts it and all share it", async () => {
  const directory = join(folder, "crowded");
  const crowd = await Promise.all([start(directory), start(directory), start(directory)]);
  expect(new Set(crowd.map(({ url }) => url)).size).toBe(1);
  expect(crowd.filter(({ reused }) => !reused)).toHaveLength(1);
  expect((await readdir(directory)).filter((name) => name.includes(".new-"))).toEqual([]);
});

test("of several processes that start at once none leaves it running", async () => {
  const directory = join(folder, "crowded-processes");
  const env = { HOLDFAST_DATA_DIR: directory };
  // Who does not own it may lose it under his hands.
  await Promise.all([1, 2, 3].map(() => holdfast(["migrate"], env)));
  const { url, reused } = await start(directory);
  expect(reused).toBe(false);
  expect(await ask(url, "select 1 as one")).toEqual([{ one: 1 }]);
});

test("a first start that was interrupted is made good by the next", async () => {
  const directory = join(folder, "interrupted");
  // No process has this number: it is above what Linux and macOS give out.
  const draft = join(directory, "postgres.new-99999999-abc");
  await mkdir(join(draft, "base"), { recursive: true });
  await chmod(directory, 0o711);
  await writeFile(join(draft, "PG_VERSION"), "18\n");
  const { url } = await start(directory);
  expect(await ask(url, "select 1 as one")).toEqual([{ one: 1 }]);
  expect(await readdir(directory)).not.toContain("postgres.new-99999999-abc");
});

test("a port that somebody took meanwhile is given up for another", async () => {
  const first = await start();
  await first.stop();
  const port = Number(new URL(first.url).port);
  const squatter = createServer().listen(port, "127.0.0.1");
  await once(squatter, "listening");
  const second = await start();
  squatter.close();
  expect(new URL(second.url).port).not.toBe(String(port));
  expect(await ask(second.url, "select 1 as one")).toEqual([{ one: 1 }]);
});

test.each([
  ["a file", "file", /file\) is not a directory this process can write to/],
  ["data of another version", "old", /holds data of PostgreSQL 15, and this is PostgreSQL 18; move it away/],
  ["something else", "photos", /holds something that is not PostgreSQL data/],
])(
  "a directory that is or holds %s is refused in one sentence and left as it is",
  async (_, name, sentence) => {
    await writeFile(join(folder, "file"), "text");
    for (const other of ["old", "photos"]) {
      await mkdir(join(folder, other, "postgres"), { recursive: true });
      await writeFile(join(folder, other, "postgres", other === "old" ? "PG_VERSION" : "boat.jpg"), "15\n");
    }
    const before = await readdir(folder, { recursive: true });
    await expect(startEmbedded({ dataDir: join(folder, name) })).rejects.toThrow(ConfigInvalid);
    await expect(startEmbedded({ dataDir: join(folder, name) })).rejects.toThrow(sentence);
    expect(await readdir(folder, { recursive: true })).toEqual(before);
  },
);

test("a folder that another user may not enter is found before PostgreSQL fails on it", async () => {
  const home = join(folder, "home");
  await mkdir(join(home, "project"), { recursive: true });
  await chmod(home, 0o700);
  const stranger = { uid: 61_234, gid: 61_234 };
  expect(await findBarrier(join(home, "project"), stranger)).toBe(home);
  await chmod(home, 0o711);
  expect(await findBarrier(join(home, "project"), stranger)).toBeUndefined();
});

// A copy for a user who may not enter the installation has the name of its version.
test.each(["native", "postgresql-18.4"])(
  "an installation whose install script npm did not run has its libraries linked at the first start, in %s",
  async (name) => {
    const found = dirname(dirname((await findPrograms()).postgres));
    const native = join(folder, "blocked", name);
    // What is in the package; all else of it is made by the script.
    const packed = ["bin/initdb", "bin/postgres", "lib", "pg-symlinks.json"];
    for (const part of packed)
      await cp(join(found, part), join(native, part), {
        recursive: true,
        filter: async (path) => !(await lstat(path)).isSymbolicLink(),
      });
    const programs = { initdb: join(native, "bin/initdb"), postgres: join(native, "bin/postgres") };
    await Promise.all([linkLibraries(programs), linkLibraries(programs)]);
    expect(await linksIn(join(native, "lib"))).toEqual(await linksIn(join(found, "lib")));
    expect((await promisify(execFile)(programs.initdb, ["--version"])).stdout).toContain("PostgreSQL");
  },
);

async function linksIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  const links = entries.filter((entry) => entry.isSymbolicLink()).map(({ name }) => name);
  return Promise.all(
    links.toSorted().map(async (name) => `${name} -> ${await readlink(join(directory, name))}`),
  );
}

let shared: Embedded;
beforeAll(async () => {
  const directory = join(folder, "contract");
  shared = await startEmbedded({ dataDir: directory });
});
afterAll(() => shared.stop());
testDatabaseContract((options = {}) => openTestPool(shared.url, options));
