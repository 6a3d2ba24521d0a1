// holdfast keys: what is stored can be read with its keys and not without, and what was shredded by nobody.
import { randomUUID } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { HumanMessage } from "@langchain/core/messages";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { uuidv7 } from "../../server/ids.ts";
import { KeyRing } from "../../server/privacy/key-ring.ts";
import { Checkpoints } from "../../server/storage/checkpoints/checkpoints.ts";
import { insertCron, listCrons, lockCron, updateCron } from "../../server/storage/crons.ts";
import type { Database, Queryable } from "../../server/storage/database.ts";
import { sealExisting } from "../../server/storage/keys/seal-existing.ts";
import { SEALED } from "../../server/storage/keys/sealed.ts";
import { codeOf } from "../../server/storage/postgres.ts";
import { topical } from "../fixtures/graphs.ts";
import { emptyDatabase, openTestPool, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holdfast } from "../support/holdfast.ts";
import { sealsOf } from "../support/keys.ts";
import { collect, startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

type Answer = [code: number | null, said: string];
type Command = (...args: string[]) => Promise<Answer>;

const line = (name: string, byte: number): string => `${name}:${Buffer.alloc(32, byte).toString("base64")}`;
const [NONE, K1, K2] = ["", line("k1", 1), line("k2", 2)];
const MARK = "zq7marker";
const NEVER_SOON = "0 0 1 1 *";
const CRONS = { sortBy: "cron_id", sortOrder: "asc", limit: 10, offset: 0 } as const;
const GRAPHS = ["echo", "asking", "failing", "keeping", "endless", "topical"];
/** Each table that holds what is sealed. */
const TABLES = [
  ...new Set(Object.entries(SEALED).map(([name, { schema }]) => `${schema}.${name.split(".")[0]}`)),
].toSorted();

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-keys-"));
  const graphs = Object.fromEntries(GRAPHS.map((id) => [id, resolve(`test/fixtures/graphs.ts:${id}`)]));
  const store = { index: { embed: resolve("test/fixtures/embed.ts:embed"), dims: 16 } };
  await writeFile(join(folder, "langgraph.json"), JSON.stringify({ graphs, store }));
});
afterAll(() => rm(folder, { recursive: true }));

const has = (part: string): unknown => expect.stringContaining(part);

/** A database for one test. */
async function fresh(make: () => Promise<TestDatabase> = testDatabase): Promise<TestDatabase> {
  const scratch = await make();
  onTestFinished(() => scratch.close());
  return scratch;
}

const startWith = (keys: string, { url }: { url: string }): Promise<TestServer> =>
  startTestServer(url, {
    HOLDFAST_KEYS: keys,
    HOLDFAST_CONFIG: join(folder, "langgraph.json"),
    HOLDFAST_EGRESS_ALLOW: "127.0.0.1",
  });

/** A server until the test has ended. */
async function serve(keys: string, scratch: TestDatabase): Promise<TestServer> {
  const server = await startWith(keys, scratch);
  onTestFinished(() => server.stop());
  return server;
}

async function run(args: string[], env: Record<string, string> = {}): Promise<Answer> {
  const { code, out, err } = await holdfast(args, env);
  return [code, out + err];
}

/** holdfast keys with these keys. */
const commandOf =
  (keys: string, { url }: { url: string }): Command =>
  (...args) =>
    run(["keys", ...args], { DATABASE_URL: url, HOLDFAST_KEYS: keys });

/** As a process of its own would open it. */
function open(keys: string, { url }: { url: string }): Database {
  const database = openTestPool(url, { seals: sealsOf(keys || undefined) });
  onTestFinished(() => database.close());
  return database;
}

/** The database of a process that dies before the statement of this number, or the first that has this in it. */
function dying(database: Database, at: number | string): Database {
  let number = 0;
  const mortal = (on: Queryable): Queryable => ({
    seals: on.seals,
    query: async <Row>(sql: string, values?: readonly unknown[]) => {
      number += 1;
      if (typeof at === "string" ? sql.includes(at) : number === at) throw new Error(`died before ${sql}`);
      return on.query<Row>(sql, values);
    },
  });
  const transaction: Database["transaction"] = (work) => database.transaction((one) => work(mortal(one)));
  const session: Database["session"] = async (options) => {
    const one = await database.session(options);
    return { ...one, ...mortal(one) };
  };
  return { ...database, ...mortal(database), transaction, session };
}

/** Tables in which a row holds the text, as it is or as bytes; documents and the audit log are kept in the clear. */
async function tablesWith(found: string, { database }: TestDatabase): Promise<string[]> {
  const tables = await database.query<{ name: string }>(
    `select schemaname || '.' || tablename as name from pg_tables where schemaname in ('holdfast', 'public')
        and tablename !~ '^(audit_|documents|chunks|terms|postings|collections)' order by 1`,
  );
  const like = [found, Buffer.from(found).toString("hex")].map((one) => `%${one}%`);
  const held = await Promise.all(
    tables.map(({ name }) => database.query(`select from ${name} t where t::text like any ($1)`, [like])),
  );
  return tables.flatMap(({ name }, index) => ((held[index]?.length ?? 0) > 0 ? [name] : []));
}

/** How many rows each table has. */
async function counted(scratch: TestDatabase, tables: string[], condition = "true"): Promise<number[]> {
  const rows = tables.map((one) => scratch.database.query(`select from ${one} where ${condition}`));
  return (await Promise.all(rows)).map((found) => found.length);
}

describe("a new key", () => {
  test("is a line that the ring takes, and another one each time", async () => {
    const made = await Promise.all([run(["keys", "new"]), run(["keys", "new", "--name", "mine"])]);
    const [[code, today], [, mine]] = made;
    expect(code).toBe(0);
    expect(new KeyRing(today).current).toMatch(/^key-\d{4}-\d\d-\d\d$/);
    expect(new KeyRing(mine).current).toBe("mine");
    expect(today.split(":")[1]).not.toBe(mine.split(":")[1]);
    expect(made.map(([, said]) => said.trimEnd().split("\n").length)).toEqual([1, 1]);
  });

  test("in a file is its owner's alone, and the next one comes after it", async () => {
    const file = join(folder, "keys");
    const add: Command = (...more) => run(["keys", "new", "--file", file, ...more]);
    const mode = async (): Promise<number> => (await stat(file)).mode & 0o777;
    expect(await add()).toEqual([0, has("Set HOLDFAST_KEYS_FILE to it")]);
    expect(await mode()).toBe(0o600);
    const first = await readFile(file, "utf8");
    await writeFile(file, first.trimEnd());
    await chmod(file, 0o644);
    const second = await add("--name", "second");
    expect(second).toEqual([0, has("run holdfast keys rotate")]);
    expect(await mode()).toBe(0o600);
    const both = await readFile(file, "utf8");
    expect(both.startsWith(first)).toBe(true);
    expect(new KeyRing(both).names).toEqual([expect.stringMatching(/^key-/), "second"]);
    expect(second[1]).not.toContain(both.trimEnd().split(":").at(-1));
    expect(await add("--name", "second")).toEqual([2, has("holds a key second already")]);
    expect(await readFile(file, "utf8")).toBe(both);
  });

  test("is not made under a bad name, nor where it cannot be kept", async () => {
    expect(await run(["keys", "new", "--name", "a key:"])).toEqual([2, has("The name of a key is made of")]);
    expect(await run(["keys", "new", "--file", ""])).toEqual([2, has("--file names no file")]);
    const { mode } = await stat(folder);
    for (const path of [join(folder, "none", "keys"), folder]) {
      const [code, said] = await run(["keys", "new", "--file", path]);
      expect([code, said.trim().split("\n")]).toEqual([1, [has(`${path} cannot be written`)]]);
    }
    expect((await stat(folder)).mode).toBe(mode);
  });
});

/** A row of each table that passes for sealed, for a thread that is there. */
function rowOfEach(id: string, assistant: string): string[] {
  const bytes = `decode(rpad('01', 120, '0'), 'hex')`;
  return [
    `holdfast.runs (run_id, thread_id, assistant_id, state, kwargs) values ('${id}', '${id}', '${assistant}', 'error', '"~A"')`,
    `holdfast.run_events values ('${id}', 1, 1, 1, '~A')`,
    `holdfast.crons (cron_id, assistant_id, schedule, payload) values ('${id}', '${assistant}', '', '"~A"')`,
    `holdfast.webhooks (webhook_id, run_id, url, payload, state) values ('${id}', '${id}', '/', '{}', 'delivered')`,
    `holdfast.store_items (path, key, value) values ('.a.', 'k', '"~A"')`,
    `holdfast.store_vectors values ('.a.', 'k', 'e', now(), ${bytes}, ${bytes})`,
    `holdfast.cache_entries (tenant_id, kind, key, value, expires_at) values ('t', 'k', 'k', ${bytes}, 'infinity')`,
    `holdfast.vault_entries values ('t', '${id}', 'EMAIL', ${bytes})`,
    `public.checkpoint_blobs values ('${id}', '', 'c', '1', 'json', null)`,
    `public.checkpoint_writes values ('${id}', '', '1', '1', 1, 'c', 'json', ${bytes})`,
  ].map((row) => `insert into ${row}`);
}

describe("a database", () => {
  test("without content is sealed by the first server with keys, and then refuses plain text everywhere", async () => {
    const scratch = await fresh();
    const { client } = await serve(K1, scratch);
    const { thread_id: id } = await client.threads.create();
    const [{ assistant_id: assistant } = expect.fail("no assistant")] = await client.assistants.search();
    const query = (sql: string): Promise<unknown> => scratch.database.query(sql);
    for (const insert of rowOfEach(id, assistant)) await query(insert);
    for (const [name, { schema, form }] of Object.entries(SEALED)) {
      const [table, column] = name.split(".");
      const plain = form === "bytes" ? `'{"a": ${"1".repeat(80)}}'::bytea` : `'{"a": "~A"}'`;
      const refused = await query(`update ${schema}.${table} set ${column} = ${plain}`).catch(codeOf);
      expect([name, refused]).toEqual([name, "23514"]);
    }
    expect(await query("insert into holdfast.threads values ('plain')").catch(codeOf)).toBe("23514");
  });

  test("is served by nobody who lacks one of its keys, and no key is told", async () => {
    const scratch = await fresh();
    const first = await startWith(K1, scratch);
    await first.client.threads.create();
    await first.stop();
    await expect(startWith(NONE, scratch)).rejects.toThrow(/is sealed: set HOLDFAST_KEYS_FILE/);
    const args = ["serve", "--port", "0", "--config", join(folder, "langgraph.json")];
    const [code, said] = await run(args, { DATABASE_URL: scratch.url, HOLDFAST_KEYS: K2 });
    expect([code, said]).toEqual([1, has("under their names: k1 (1 data keys).\n")]);
    for (const key of [K1, K2]) expect(said).not.toContain(key.slice(3, 20));
    const namesake = line("k1", 9);
    await expect(startWith(namesake, scratch)).rejects.toThrow(/others under their names: k1/);
    const missing = has("MISSING k1: what its data keys seal cannot be read without it");
    for (const keys of [K2, namesake]) expect(await commandOf(keys, scratch)("status")).toEqual([3, missing]);
    expect(await commandOf(K2, scratch)("rotate")).toEqual([1, has("lacks keys")]);
    const told = "Sealing: on\nk2: wraps 0 data keys and all new ones\nk1: wraps 1 data keys\n";
    expect(await commandOf(`${K2}\n${K1}`, scratch)("status")).toEqual([0, told]);
  });

  test("with plain content is sealed while no server runs, and served with keys from then on", async () => {
    const scratch = await fresh();
    const plain = await startWith(NONE, scratch);
    for (let n = 0; n < 2; n += 1) await plain.client.threads.create();
    const [seal, status] = [commandOf(K1, scratch), commandOf(K1, scratch)];
    await expect(startWith(K1, scratch)).rejects.toThrow(/stop all servers and run holdfast keys seal/);
    expect(await seal("seal")).toEqual([3, has("Stop all of them first")]);
    expect(await counted(scratch, ["holdfast.data_keys"])).toEqual([0]);
    await plain.stop();
    expect(await status("status")).toEqual([0, has("Sealing: off\n")]);
    await expect(sealExisting(dying(open(K1, scratch), 40), () => {})).rejects.toThrow(/died/);
    for (const keys of [K1, NONE]) await expect(startWith(keys, scratch)).rejects.toThrow(/seal/);
    expect(await status("status")).toEqual([3, has("begun; run holdfast keys seal")]);
    const [code, json] = await status("status", "--json");
    const used = [{ kek_id: "k1", keys: 1 }];
    const begun = { ok: false, sealing: "begun", current: "k1", names: ["k1"], used, missing: [] };
    expect([code, JSON.parse(json)]).toEqual([3, begun]);
    expect(await commandOf(NONE, scratch)("seal")).toEqual([1, has("Set HOLDFAST_KEYS_FILE")]);
    const told = "To seal: 1 threads, 0 namespaces of the store\nTo seal: 0 threads";
    expect(await seal("seal")).toEqual([
      0,
      expect.stringMatching(`^${told}[^]*Writing holdfast.threads anew[^]*\nSealed\\. `),
    ]);
    expect(await seal("seal")).toEqual([0, "This database is sealed already.\n"]);
    expect((await (await serve(K1, scratch)).client.threads.search()).length).toBe(2);
  });
});

/** Vectors are no text, without keys there is no vault, and nothing asks for a cache. */
const UNSEEN = new Set(["holdfast.store_vectors", "holdfast.vault_entries", "holdfast.cache_entries"]);

/** The first thread is sealed at the second of these; then all, the namespaces, and what belongs to neither. */
const DEATHS = [
  3,
  60,
  "noteThreadKey",
  "store_vectors set exact",
  "crons set payload",
  "vacuum full holdfast.runs",
  "public.checkpoint_writes add",
];

/** Takes call-backs, until all tests have ended. */
async function startReceiver(): Promise<{ url: string; readonly bodies: string[]; status: number }> {
  const receiver = { url: "", bodies: [] as string[], status: 204 };
  const server = createServer(async (request, response) => {
    receiver.bodies.push(await text(request));
    response.writeHead(receiver.status).end();
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });
  receiver.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  return receiver;
}

const shownThread = async ({ client: { threads, runs } }: TestServer, id: string): Promise<unknown[]> => {
  const made = await runs.list(id);
  const joined = made.map((one) => runs.joinStream(id, one.run_id, { lastEventId: "-1" }));
  return [made, await Promise.all([...joined.map(collect), threads.get(id), threads.getHistory(id)])];
};

describe("a database that was served without keys, once it is sealed", async () => {
  const receiver = await startReceiver();
  let scratch: TestDatabase;
  let [talk, question, broken, late] = ["", "", "", ""];
  let before: unknown;
  let tables: string[] = [];
  const deaths: string[] = [];

  const shown = async (server: TestServer): Promise<unknown> => ({
    threads: await Promise.all([talk, question, broken].map((id) => shownThread(server, id))),
    found: await server.client.threads.search({ values: { value: MARK } }),
    near: await server.client.store.searchItems(["users"], { query: "thirsty" }),
    notes: await server.client.store.searchItems(["notes"], { filter: { note: MARK } }),
    crons: await server.client.crons.search(),
  });

  const fill = async ({ client: { threads, runs, store, crons } }: TestServer): Promise<void> => {
    const ids = await Promise.all([1, 2, 3, 4].map(async () => (await threads.create()).thread_id));
    [talk, question, broken, late] = ids as [string, string, string, string];
    const [input, webhook] = [{ value: MARK }, receiver.url];
    for (const topic of ["tea", "coffee", "milk"])
      await runs.wait(talk, "echo", { input: { messages: `${MARK} ${topic}`, topic }, webhook });
    await until(() => receiver.bodies.length === 3, "three call-backs");
    receiver.status = 500;
    await runs.wait(question, "asking", { input, webhook });
    await runs.wait(broken, "failing", { input, raiseError: false });
    await runs.create(late, "keeping", { input, afterSeconds: 3600 });
    for (const name of ["1", "10"]) await store.putItem(["users", name], "a", { text: `${MARK} likes tea` });
    await store.putItem(["notes"], "b", { note: MARK }, { index: false });
    await crons.create("keeping", { schedule: NEVER_SOON, input });
    const failed = ["holdfast.webhooks"];
    await until(
      async () => (await counted(scratch, failed, "error is not null"))[0] === 1,
      "a call-back that fails",
    );
    const auth = JSON.stringify({ user: { identity: MARK }, permissions: [] });
    for (const table of ["runs", "crons"])
      await scratch.database.query(`update holdfast.${table} set auth = '${auth}'`);
  };

  beforeAll(async () => {
    scratch = await testDatabase();
    const server = await startWith(NONE, scratch);
    await fill(server);
    before = await shown(server);
    tables = await tablesWith(MARK, scratch);
    await server.stop();
    const database = openTestPool(scratch.url, { seals: sealsOf(K1) });
    for (const at of DEATHS)
      await sealExisting(dying(database, at), () => {}).catch((error: Error) => deaths.push(error.message));
    await sealExisting(database, () => {});
    await database.close();
  });
  afterAll(() => scratch.close());

  test("is sealed to the end although that died again and again", () => {
    expect(deaths).toEqual(DEATHS.map(() => expect.stringMatching(/^died before /)));
  });

  test("holds no plain text any more", async () => {
    expect(tables).toEqual(TABLES.filter((name) => !UNSEEN.has(name)));
    expect(await tablesWith(MARK, scratch)).toEqual([]);
    expect(await tablesWith("failed on purpose", scratch)).toEqual([]);
  });

  test("holds none in the files of its tables either, from which backups are made", async () => {
    await scratch.database.query("checkpoint");
    const files = await scratch.database.query<{ name: string; is_plain: boolean }>(
      `select c.relname as name, position($1::bytea in pg_read_binary_file(pg_relation_filepath(c.oid))) > 0 as is_plain
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('holdfast', 'public', 'pg_toast') and c.relkind in ('r', 't')
          and pg_relation_size(c.oid) > 0`,
      [Buffer.from(MARK)],
    );
    expect(files.length).toBeGreaterThan(10);
    expect(files.filter(({ is_plain: isPlain }) => isPlain).map(({ name }) => name)).toEqual([]);
  });

  test("is not called sealed while somebody could still see what was there", async () => {
    const plain = await fresh();
    const served = await startWith(NONE, plain);
    await served.client.threads.create();
    await served.stop();
    const looker = await plain.database.session();
    await looker.query("begin isolation level repeatable read");
    await looker.query("select count(*) from holdfast.threads");
    const on = open(K1, plain);
    const patience = { patienceMs: 100 };
    const seen = /still seen by session \d+/;
    await expect(sealExisting(on, () => {}, patience)).rejects.toThrow(seen);
    await expect(startWith(K1, plain)).rejects.toThrow(/holdfast keys seal to its end/);
    await looker.query("commit");
    await looker.query("begin");
    await looker.query("lock table holdfast.threads in access share mode");
    await expect(sealExisting(on, () => {}, patience)).rejects.toThrow(/Somebody uses holdfast\.threads/);
    await looker.query("commit");
    await looker.close();
    // A vacuum keeps what the oldest transaction that writes could see, also of another database.
    const elsewhere = await (await fresh()).database.session();
    await elsewhere.query("begin").then(() => elsewhere.query("select pg_current_xact_id()"));
    await expect(sealExisting(on, () => {}, patience)).rejects.toThrow(seen);
    await elsewhere.close();
    await sealExisting(on, () => {}); // with time for what other tests write in this PostgreSQL meanwhile
    expect((await (await serve(K1, plain)).client.threads.search()).length).toBe(1);
  });

  test("shows what it showed, and its threads, runs and call-backs go on", async () => {
    const server = await serve(K1, scratch);
    expect(await shown(server)).toEqual(before);
    const { runs, threads } = server.client;
    const more = await runs.wait(talk, "topical", { input: { messages: "more" } });
    const log = [1, 2, 3].flatMap(() => ["prepare", "answer"]);
    expect(more).toMatchObject({ topic: "milk+", log: [...log, "milk"] });
    const answered = await runs.wait(question, "asking", { command: { resume: "yes" } });
    expect(answered).toEqual({ value: "yes", count: 0 });
    receiver.status = 204;
    await scratch.database.query("update holdfast.webhooks set next_at = now()");
    await until(() => receiver.bodies.length === 5, "the call-back that had failed");
    const [failed, sent] = receiver.bodies.slice(3).map((body) => JSON.parse(body) as object);
    expect(sent).toEqual({ ...failed, webhook_sent_at: expect.any(String) });
    await scratch.database.query("update holdfast.runs set run_at = now() where state = 'delayed'");
    const [{ run_id: waiting } = expect.fail("no run")] = await runs.list(late);
    await until(async () => (await runs.get(late, waiting)).status === "success", "the run that waited");
    expect((await threads.getState(late)).values).toEqual({ value: MARK, count: 1 });
    expect(await tablesWith(MARK, scratch)).toEqual([]);
  });
});

test("a database of the stock saver is sealed in place, and its threads carry on", async () => {
  const scratch = await fresh(emptyDatabase);
  const stock = PostgresSaver.fromConnString(scratch.url);
  await stock.setup();
  const graph = topical.compile({ checkpointer: stock });
  const ask = (body: string): object => ({ messages: [new HumanMessage(`${MARK} ${body}`)] });
  const config = { configurable: { thread_id: randomUUID() } };
  await graph.invoke({ ...ask("old"), topic: "tea" }, config);
  await graph.invoke(ask("asked"), { ...config, interruptBefore: ["answer"] });
  const before = await Array.fromAsync(graph.getStateHistory(config));
  await stock.end();
  expect(await run(["migrate"], { DATABASE_URL: scratch.url })).toEqual([0, has("Applied")]);
  await expect(startWith(K1, scratch)).rejects.toThrow(/holdfast keys seal/);
  expect(await tablesWith(MARK, scratch)).toEqual(["public.checkpoint_blobs", "public.checkpoint_writes"]);
  expect(await commandOf(K1, scratch)("seal", "--json")).toEqual([0, '{"sealing":"on"}\n']);
  expect(await tablesWith(MARK, scratch)).toEqual([]);
  const sealed = topical.compile({ checkpointer: new Checkpoints(open(K1, scratch)) });
  expect(await Array.fromAsync(sealed.getStateHistory(config))).toEqual(before);
  expect((await sealed.invoke(null, config)).log).toEqual(["tea", "tea+"]);
  const { client } = await serve(K1, scratch);
  const { thread_id: id } = config.configurable;
  const more = await client.runs.wait(id, "topical", { input: { messages: "new" } });
  expect(more).toMatchObject({ topic: "tea+++" });
});

test("nothing is sealed under a key whose making was undone", async () => {
  const scratch = await fresh();
  const server = await startWith(K1, scratch);
  const made = await server.client.crons.create("keeping", { schedule: NEVER_SOON, input: { value: MARK } });
  await server.stop();
  // A week later the next key is made.
  await scratch.database.query("update holdfast.data_keys set created_at = now() - interval '8 days'");
  const database = open(K1, scratch);
  const undone = database.transaction(async (transaction) => {
    const row = await lockCron(transaction, made.cron_id);
    for (const one of row ? [row, row] : []) await updateCron(transaction, one);
    throw new Error("undone");
  });
  await expect(undone).rejects.toThrow(/undone/);
  const [cron = expect.fail("no cron")] = await listCrons(database, CRONS);
  await insertCron(database, { ...cron, cron_id: uuidv7(), auth: null });
  const found = await listCrons(open(K1, scratch), CRONS);
  expect(found.map(({ payload }) => payload)).toEqual([made.payload, made.payload]);
  expect(await counted(scratch, ["holdfast.data_keys"])).toEqual([2]);
});

/** In an order in which rows can be put back. */
const OF_THREAD = [
  ...["threads", "runs", "run_events"].map((name) => `holdfast.${name}`),
  ...["checkpoints", "checkpoint_blobs", "checkpoint_writes"].map((name) => `public.${name}`),
];

const copyOf = (name: string): string => `saved.${name.split(".")[1]}`;

const usersOf = async ({ client }: TestServer): Promise<string[]> =>
  (await client.store.searchItems(["users"], { limit: 100 })).items.map(
    ({ namespace, key, value }) => `${namespace.join(".")} ${key} ${value["text"]}`,
  );

/** Leaves something of every kind: the log of a thread and the number of items. */
async function useAll({ client: { threads, runs, store, crons } }: TestServer): Promise<unknown> {
  const { thread_id: id } = await threads.create();
  await runs.wait(id, "echo", { input: { messages: MARK }, webhook: "/nobody" });
  await store.putItem(["users"], "a", { text: "tea" });
  await crons.create("keeping", { schedule: NEVER_SOON });
  const { items } = await store.searchItems(["users"]);
  return [(await threads.getState<{ log: string[] }>(id)).values.log, items.length];
}

describe("what is shredded", () => {
  test("of a thread is gone, and an older copy of it cannot be read", async () => {
    const scratch = await fresh();
    const { client } = await serve(K1, scratch);
    const { thread_id: id } = await client.threads.create();
    await client.runs.wait(id, "echo", { input: { messages: MARK }, webhook: "/nobody" });
    const [{ run_id: runId } = expect.fail("no run")] = await client.runs.list(id);
    await scratch.database.query("create schema saved");
    for (const name of OF_THREAD)
      await scratch.database.query(`create table ${copyOf(name)} as select * from ${name}`);
    const [code, json] = await commandOf(K1, scratch)("shred", "thread", id, "--json");
    expect([code, JSON.parse(json)]).toEqual([0, { shredded: { subject: "thread", name: id }, keys: 1 }]);
    expect(await counted(scratch, [...OF_THREAD, "holdfast.webhooks"])).toEqual([0, 0, 0, 0, 0, 0, 0]);
    expect(await counted(scratch, ["holdfast.data_keys"], "thread_id is not null")).toEqual([0]);
    await expect(client.threads.get(id)).rejects.toThrow(/404/);
    for (const name of OF_THREAD)
      await scratch.database.query(
        `insert into ${name} overriding system value select * from ${copyOf(name)}`,
      );
    const other = await serve(K1, scratch);
    for (const path of ["", "/state", "/history", `/runs/${runId}`, `/runs/${runId}/join`]) {
      const { status, headers } = await fetch(`${other.url}/threads/${id}${path}`);
      expect([path, status, headers.get("x-holdfast-code")]).toEqual([path, 500, "data_key_unusable"]);
    }
  });

  test("of a thread can be made anew under its id, also where the old one is remembered", async () => {
    const scratch = await fresh();
    const { client } = await serve(K1, scratch);
    const id = randomUUID();
    const shred = (): Promise<Answer> => commandOf(K1, scratch)("shred", "thread", id);
    for (const makes of [false, true, false, true]) {
      if (makes) await client.threads.create({ threadId: id });
      const asked = { input: { value: MARK }, ifNotExists: "create" } as const;
      expect(await client.runs.wait(id, "keeping", asked)).toEqual({ value: MARK, count: 1 });
      expect(await shred()).toEqual([0, has(`Shredded thread ${id}: 1 data keys are gone.`)]);
    }
    expect(await shred()).toEqual([3, `There is no thread ${id}.\n`]);
  });

  test("is no thread on which a run is live", async () => {
    const scratch = await fresh();
    const { client } = await serve(K1, scratch);
    const { thread_id: id } = await client.threads.create();
    const { run_id: runId } = await client.runs.create(id, "endless", { input: {} });
    const live = await commandOf(K1, scratch)("shred", "thread", id);
    expect(live).toEqual([3, has("has not ended. Cancel it, or wait")]);
    expect(await counted(scratch, ["holdfast.audit_entries"])).toEqual([0]);
    await client.runs.cancel(id, runId, true);
    expect(await client.runs.get(id, runId)).toMatchObject({ status: "interrupted" });
    expect((await client.threads.getState(id)).values).toEqual({ count: 1 });
  });

  test("of a namespace is what stands under it and nothing else, and there can be more later", async () => {
    const scratch = await fresh();
    const servers = await Promise.all([serve(K1, scratch), serve(K1, scratch)]);
    const put = async (value: string, ...names: string[]): Promise<void> => {
      for (const name of names)
        for (const [key, { client }] of servers.entries())
          await client.store.putItem(name.split("."), `${key}`, { text: value });
    };
    const shred: Command = (...labels) => commandOf(K1, scratch)("shred", "namespace", ...labels);
    await put("old", "users", "users.1", "users.1.deep", "users.10");
    expect(await shred("users.1")).toEqual([0, has("Shredded namespace users.1: 2 data keys are gone.")]);
    const [root, ten] = [
      ["users 0 old", "users 1 old"],
      ["users.10 0 old", "users.10 1 old"],
    ];
    for (const server of servers) expect(await usersOf(server)).toEqual([...root, ...ten]);
    await put("new", "users.1");
    const now = [...root, "users.1 0 new", "users.1 1 new", ...ten];
    for (const server of [...servers, await serve(K1, scratch)]) expect(await usersOf(server)).toEqual(now);
    expect(await shred("users..1")).toEqual([1, has("A label of a namespace is empty")]);
  });

  test("of a tenant is everything, asked for with --yes while no server runs", async () => {
    const scratch = await fresh();
    const done = [["prepare", "answer"], 1];
    const server = await startWith(K1, scratch);
    expect(await useAll(server)).toEqual(done);
    const shred: Command = (...more) => commandOf(K1, scratch)("shred", "tenant", ...more);
    expect(await shred("default")).toEqual([2, has("Say --yes")]);
    expect(await shred("other", "--yes")).toEqual([2, has("There is no tenant other.")]);
    expect(await shred("default", "--yes")).toEqual([3, has("Stop all of them first")]);
    await server.stop();
    expect(await shred("default", "--yes")).toEqual([
      0,
      has("Shredded tenant default: 3 data keys are gone."),
    ]);
    const all = [...TABLES, "public.checkpoints", "holdfast.data_keys"];
    expect(await counted(scratch, all)).toEqual(all.map(() => 0));
    expect(await useAll(await serve(K1, scratch))).toEqual(done);
    expect(await tablesWith(MARK, scratch)).toEqual([]);
  });
});

test("the audit log says when a database was sealed, its keys were rotated and a thread was shredded", async () => {
  const scratch = await fresh();
  const plain = await startWith(NONE, scratch);
  const { thread_id: id } = await plain.client.threads.create();
  await plain.stop();
  const keys = commandOf(`${K2}\n${K1}`, scratch);
  expect(await commandOf(K1, scratch)("seal")).toEqual([0, has("Sealed.")]);
  expect(await keys("rotate", "--json")).toEqual([0, '{"rotated":2,"current":"k2"}\n']);
  expect(await keys("shred", "thread", id)).toEqual([0, has("1 data keys are gone")]);
  const [, json] = await run(["audit", "list", "--json"], { DATABASE_URL: scratch.url });
  const entries = JSON.parse(json) as Record<string, unknown>[];
  expect(entries.map((one) => [one["action"], one["actor_kind"], one["object"], one["detail"]])).toEqual([
    ["keys.shredded", "command", `thread:${id}`, { keys: 1 }],
    ["keys.rotated", "command", "kek:k2", { keys: 2 }],
    ["database.sealed", "command", "database", {}],
  ]);
});
