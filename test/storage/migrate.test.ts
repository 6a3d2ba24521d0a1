// The schema is brought up to date once, by whoever comes first, and never against what a database says.
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { emptyCheckpoint } from "@langchain/langgraph-checkpoint";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ConfigInvalid, SchemaUnknown } from "../../server/errors.ts";
import { checkSchema, migrate } from "../../server/storage/migrate.ts";
import { emptyDatabase, openTestPool } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { dumpSchema } from "../support/schema.ts";

let empty: TestDatabase;
let directory: string;

beforeEach(async () => {
  empty = await emptyDatabase();
  directory = await mkdtemp(join(tmpdir(), "migrations-"));
});

afterEach(async () => {
  await empty.close();
  await rm(directory, { recursive: true });
});

const add = (name: string, text: string): Promise<void> => writeFile(join(directory, name), text);
const tables = async (): Promise<string[]> => {
  const rows = await empty.database.query<{ name: string }>(
    "select relname as name from pg_class where relnamespace = to_regnamespace('holdfast') and relkind = 'r' order by 1",
  );
  return rows.map(({ name }) => name);
};

test("migrations/schema.sql is what all migrations add up to", async () => {
  await migrate(empty.database);
  await expect(await dumpSchema(empty.database)).toMatchFileSnapshot("../../migrations/schema.sql");
});

test("six processes that start at once on an empty database apply each migration once", async () => {
  const pools = Array.from({ length: 6 }, () => openTestPool(empty.url, { poolSize: 2 }));
  const results = await Promise.all(pools.map((pool) => migrate(pool)));
  const names = await empty.database.query<{ name: string }>(
    "select name from holdfast.migrations order by 1",
  );
  expect(results.flatMap(({ applied }) => applied).toSorted()).toEqual(names.map(({ name }) => name));
  expect(new Set(results.map(({ version }) => version)).size).toBe(1);
  await Promise.all(pools.map((pool) => pool.close()));
});

test("six processes that start at once on a database of the stock saver adopt it in place", async () => {
  const saver = PostgresSaver.fromConnString(empty.url);
  await saver.setup();
  const config = { configurable: { thread_id: "old", checkpoint_ns: "" } };
  const stored = await saver.put(config, emptyCheckpoint(), { source: "input", step: -1, parents: {} }, {});
  const pools = Array.from({ length: 6 }, () => openTestPool(empty.url, { poolSize: 2 }));
  await Promise.all(pools.map((pool) => migrate(pool)));
  await Promise.all(pools.map((pool) => pool.close()));

  expect(await saver.getTuple(stored)).toMatchObject({ metadata: { step: -1 } });
  expect(await empty.database.query("select thread_id, status from holdfast.threads")).toEqual([
    { thread_id: "old", status: "idle" },
  ]);
  await saver.end();
});

test("an adopted database has the schema of a new one", async () => {
  const saver = PostgresSaver.fromConnString(empty.url);
  await saver.setup();
  await saver.end();
  await migrate(empty.database);
  const adopted = await dumpSchema(empty.database);
  const fresh = await emptyDatabase();
  await migrate(fresh.database);
  expect(adopted).toBe(await dumpSchema(fresh.database));
  await fresh.close();
});

test("the stock saver's setup finds nothing left to do afterwards", async () => {
  await migrate(empty.database);
  const before = await dumpSchema(empty.database);
  const saver = PostgresSaver.fromConnString(empty.url);
  await saver.setup();
  await saver.end();
  expect(await dumpSchema(empty.database)).toBe(before);
});

test("a second run applies nothing, and a check changes nothing", async () => {
  await add("0001_a.sql", "-- breaking: no\ncreate table holdfast.a (id int primary key);");
  expect(await checkSchema(empty.database, { directory })).toEqual({ pending: ["0001_a"], current: "none" });
  expect(await tables()).toEqual([]);
  expect(await migrate(empty.database, { directory })).toEqual({ applied: ["0001_a"], version: "0001_a" });
  expect(await migrate(empty.database, { directory })).toEqual({ applied: [], version: "0001_a" });
  expect(await checkSchema(empty.database, { directory })).toEqual({ pending: [], current: "0001_a" });
});

test("a migration that fails leaves nothing of itself, and what went before stays", async () => {
  await add("0001_a.sql", "-- breaking: no\ncreate table holdfast.a (id int primary key);");
  await add("0002_b.sql", "-- breaking: no\ncreate table holdfast.b (id int primary key);\nselect 1 / 0;");
  await expect(migrate(empty.database, { directory })).rejects.toThrow(
    /^Migration 0002_b failed and was not recorded: division by zero/,
  );
  expect(await tables()).toEqual(["a", "migrations"]);
  await add("0002_b.sql", "-- breaking: no\ncreate table holdfast.b (id int primary key);");
  expect((await migrate(empty.database, { directory })).applied).toEqual(["0002_b"]);
});

test("a migration that waits for a lock for too long says so", async () => {
  await add("0001_a.sql", "-- breaking: no\ncreate table holdfast.a (id int primary key);");
  await migrate(empty.database, { directory });
  const text = "set local lock_timeout = '50ms';\nalter table holdfast.a add column b int;";
  await add("0002_b.sql", `-- breaking: no\n${text}`);
  await empty.database.transaction(async (transaction) => {
    await transaction.query("lock table holdfast.a in access share mode");
    const other = openTestPool(empty.url, { poolSize: 2 });
    await expect(migrate(other, { directory })).rejects.toThrow(
      /^Migration 0002_b failed and was not recorded: canceling statement due to lock timeout\. Mend/,
    );
    await other.close();
  });
});

test("a released migration that was edited is refused, whatever its line ends are not", async () => {
  const text = "-- breaking: no\ncreate table holdfast.a (id int primary key);\n";
  await add("0001_a.sql", text);
  await migrate(empty.database, { directory });
  await add("0001_a.sql", text.replaceAll("\n", "\r\n"));
  expect((await migrate(empty.database, { directory })).applied).toEqual([]);
  await add("0001_a.sql", `${text}-- a thought\n`);
  await expect(migrate(empty.database, { directory })).rejects.toThrow(
    "Migration 0001_a differs from 0001_a, which this database ran. Restore the released file, or use the database's own Holdfast version.",
  );
  await expect(checkSchema(empty.database, { directory })).rejects.toThrow(SchemaUnknown);
});

test("a server runs on a newer schema that broke nothing, and refuses one that did", async () => {
  const older = join(directory, "older");
  await add("0001_a.sql", "-- breaking: no\ncreate table holdfast.a (id int primary key);");
  await cp(join(directory, "0001_a.sql"), join(older, "0001_a.sql"));
  await add("0002_b.sql", "-- breaking: no\nalter table holdfast.a add column b int;");
  await migrate(empty.database, { directory });
  expect(await migrate(empty.database, { directory: older })).toEqual({ applied: [], version: "0002_b" });

  await add("0003_c.sql", "-- breaking: yes\nalter table holdfast.a drop column b;");
  await migrate(empty.database, { directory });
  await expect(migrate(empty.database, { directory: older })).rejects.toThrow(
    "The database was migrated to 0003_c, which this server is too old for. Upgrade this server.",
  );
});

test("a schema named holdfast that somebody else filled is refused and not touched", async () => {
  await empty.database.query("create schema holdfast create table holdfast.boats (id int)");
  await expect(migrate(empty.database)).rejects.toThrow(SchemaUnknown);
  expect(await tables()).toEqual(["boats"]);
});

test.each(["LATIN1", "SQL_ASCII"])(
  "a database encoded in %s is refused and not touched",
  async (encoding) => {
    const url = new URL(empty.url);
    const name = `${url.pathname.slice(1)}_${encoding.toLowerCase()}`;
    await empty.database.query(
      `create database ${name} encoding '${encoding}' locale 'C' template template0`,
    );
    url.pathname = name;
    const database = openTestPool(url.href);
    try {
      for (const touch of [migrate, checkSchema])
        await expect(touch(database)).rejects.toThrow(
          `encoded in ${encoding}, and Holdfast keeps texts in UTF8`,
        );
      expect(await database.query("select to_regnamespace('holdfast')::text as found")).toEqual([
        { found: null },
      ]);
    } finally {
      await database.close();
      await empty.database.query(`drop database ${name}`);
    }
  },
);

test("an empty schema that an administrator made is used", async () => {
  await empty.database.query("create schema holdfast");
  expect((await migrate(empty.database)).applied).toContain("0001_checkpoints");
});

test("a user who may not create tables is told what is missing", async () => {
  const name = `hf_reader_${crypto.randomUUID().slice(0, 8)}`;
  await empty.database.query(`create role ${name} login password 'reader'`);
  const url = new URL(empty.url);
  [url.username, url.password] = [name, "reader"];
  const reader = openTestPool(url.href, { poolSize: 1 });
  try {
    await expect(migrate(reader)).rejects.toThrow(ConfigInvalid);
    await expect(migrate(reader)).rejects.toThrow(/grant it create on the database/);
  } finally {
    await reader.close();
    await empty.database.query(`drop role ${name}`);
  }
});

test("indexes are built concurrently by any number of processes, and again after a failure", async () => {
  await add("0001_a.sql", "-- breaking: no\ncreate table holdfast.a (id int primary key, b int);");
  const build = `-- breaking: no
-- transaction: no
set statement_timeout = '1h';
-- A build that failed leaves an invalid index; this one starts afresh.
drop index concurrently if exists holdfast.a_b;
create index concurrently a_b on holdfast.a (b);
`;
  await add("0002_b.sql", `${build}select 1 / 0;\n`);
  await expect(migrate(empty.database, { directory })).rejects.toThrow(/division by zero/);
  await add("0002_b.sql", build);
  const pools = Array.from({ length: 4 }, () => openTestPool(empty.url, { poolSize: 2 }));
  const results = await Promise.all(pools.map((pool) => migrate(pool, { directory })));
  await Promise.all(pools.map((pool) => pool.close()));
  expect(results.flatMap(({ applied }) => applied)).toEqual(["0002_b"]);
  expect(
    await empty.database.query("select indisvalid from pg_index where indexrelid = 'holdfast.a_b'::regclass"),
  ).toEqual([{ indisvalid: true }]);
});

test.each([
  ["a file that does not say whether it breaks older servers", { "0001_a.sql": "select 1;" }],
  [
    "two files with one number",
    { "0001_a.sql": "-- breaking: no\nselect 1;", "0001_b.sql": "-- breaking: no\nselect 1;" },
  ],
])("%s is refused before anything runs", async (_, files) => {
  for (const [name, text] of Object.entries(files)) await add(name, text);
  await expect(migrate(empty.database, { directory })).rejects.toThrow(SchemaUnknown);
  expect(await tables()).toEqual([]);
});

test("large values are compressed with lz4 where the server can", async () => {
  await migrate(empty.database);
  const [can] = await empty.database.query<{ lz4: boolean }>(
    "select 'lz4' = any (enumvals) as lz4 from pg_settings where name = 'default_toast_compression'",
  );
  const columns = await empty.database.query<{ method: string }>(
    `select attcompression as method from pg_attribute where attname in ('blob', 'state') and atttypid <> 'text'::regtype
        and attrelid in ('public.checkpoint_blobs'::regclass, 'holdfast.threads'::regclass)`,
  );
  const wanted = can?.lz4 ? "l" : "";
  expect(columns.map(({ method }) => method)).toEqual([wanted, wanted]);
});
