// Keys are exchanged while servers work: at no moment is there anything that cannot be read.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { deleteThreads } from "../../server/storage/checkpoints/prune.ts";
import type { Database } from "../../server/storage/database.ts";
import { countByKek } from "../../server/storage/keys/data-keys.ts";
import type { KekUse } from "../../server/storage/keys/data-keys.ts";
import { rotate } from "../../server/storage/keys/rotate.ts";
import { findItems } from "../../server/storage/store/store.ts";
import { findThreadState, insertThread } from "../../server/storage/threads.ts";
import { openTestPool, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holdfast } from "../support/holdfast.ts";
import { sealsOf } from "../support/keys.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const line = (name: string, byte: number): string => `${name}:${Buffer.alloc(32, byte).toString("base64")}`;
const [K1, K2] = [line("k1", 1), line("k2", 2)];
const [OLD_FIRST, NEW_FIRST] = [`${K1}\n${K2}`, `${K2}\n${K1}`];
const READS = 2000;
const SUBJECTS = 24;

let scratch: TestDatabase;
beforeEach(async () => {
  scratch = await testDatabase();
  onTestFinished(() => scratch.close());
});

async function serve(keys: string): Promise<TestServer> {
  const server = await startTestServer(scratch.url, { HOLDFAST_KEYS: keys });
  onTestFinished(() => server.stop());
  return server;
}

function open(keys: string): Database {
  const database = openTestPool(scratch.url, { seals: sealsOf(keys) });
  onTestFinished(() => database.close());
  return database;
}

/** holdfast keys rotate with these keys: how many data keys it wrapped. */
async function command(keys: string): Promise<number> {
  const env = { DATABASE_URL: scratch.url, HOLDFAST_KEYS: keys };
  const { code, out, err } = await holdfast(["keys", "rotate", "--json"], env);
  expect([code, err]).toEqual([0, ""]);
  return JSON.parse(out).rotated as number;
}

const used = (): Promise<KekUse[]> => countByKek(scratch.database);

/** A thread with a run that has ended, and an item; both say which thread it is. */
interface Subject {
  readonly threadId: string;
  readonly runId: string;
}

async function makeSubject({ client: { threads, runs, store } }: TestServer): Promise<Subject> {
  const { thread_id: threadId } = await threads.create();
  await runs.wait(threadId, "keeping", { input: { value: threadId } });
  await store.putItem(["users", threadId], "item", { value: threadId });
  const [run = expect.fail("no run")] = await runs.list(threadId);
  return { threadId, runId: run.run_id };
}

type Read = (subject: Subject) => Promise<unknown>;

/** Ways to read a subject; each ends with its thread's id. */
const readsOf = ({ client: { threads, runs, store } }: TestServer): Read[] => [
  async ({ threadId }) => (await threads.getState<{ value: string }>(threadId)).values.value,
  async ({ threadId }) =>
    (await threads.getHistory<{ value: string }>(threadId, { limit: 3 }))[0]?.values.value,
  async ({ threadId, runId }) => Object(await runs.join(threadId, runId)).value,
  async ({ threadId }) => (await store.getItem(["users", threadId], "item"))?.value["value"],
];

/** The same as a process that remembers no key, and so opens each of them. */
const forgetfulReadsOf = (database: Database): Read[] => [
  async ({ threadId }) => {
    const found = await findThreadState({ ...database, seals: sealsOf(OLD_FIRST) }, threadId);
    // While a run is live the state is not kept there.
    return found?.state ? JSON.parse(found.state).values.value : threadId;
  },
  async ({ threadId }) => {
    const place = { namespace: ["users", threadId], key: "item" };
    const [found] = await findItems({ ...database, seals: sealsOf(NEW_FIRST) }, [place], false);
    return found?.value["value"];
  },
];

interface Load {
  readonly subjects: Subject[];
  readonly failures: unknown[];
  reads: number;
  writes: number;
  isOver: boolean;
}

/** Reads whatever there is in all these ways, again and again. */
async function read(load: Load, reads: Read[]): Promise<void> {
  for (let n = 0; !load.isOver; n += 1) {
    const [way, subject] = [reads[n % reads.length], load.subjects[(n * 7) % load.subjects.length]];
    if (!way || !subject) continue;
    const value = await way(subject).catch((error: unknown) => error);
    if (value !== subject.threadId) load.failures.push(value);
    load.reads += 1;
  }
}

/** Runs on, writes to and makes subjects; those are written to by nobody else. */
async function write(load: Load, server: TestServer, own: Subject[]): Promise<void> {
  const { runs, store } = server.client;
  for (let n = 0; !load.isOver; n += 1) {
    const { threadId } = own[n % own.length] as Subject;
    const done = await Promise.all([
      runs.wait(threadId, "keeping", { input: { value: threadId } }),
      store.putItem(["users", threadId], "item", { value: threadId, n }),
      n % 5 === 0 ? makeSubject(server) : undefined,
    ]).catch((error: unknown) => void load.failures.push(error));
    if (done?.[2]) load.subjects.push(done[2]);
    load.writes += 1;
    // Readers are to have most of the machine.
    await delay(25);
  }
}

/** Readers and writers at both servers, until `end` is called. */
async function startLoad(
  servers: TestServer[],
  database: Database,
): Promise<Load & { end(): Promise<void> }> {
  const halves = await Promise.all(
    servers.map((server) => Promise.all(Array.from({ length: SUBJECTS / 2 }, () => makeSubject(server)))),
  );
  const load = { subjects: halves.flat(), failures: [], reads: 0, writes: 0, isOver: false };
  const readers = servers.flatMap((server) => [readsOf(server), readsOf(server), forgetfulReadsOf(database)]);
  const working = Promise.all([
    ...readers.map((ways) => read(load, ways)),
    ...servers.map((server, index) => write(load, server, halves[index] ?? [])),
  ]);
  const end = async (): Promise<void> => {
    load.isOver = true;
    await working;
  };
  return Object.assign(load, { end });
}

test("while keys are rotated there and back under load, no request fails, and in the end one key is enough", async () => {
  const servers = await Promise.all([serve(OLD_FIRST), serve(NEW_FIRST)]);
  const [toNew, toOld] = [open(NEW_FIRST), open(OLD_FIRST)];
  const load = await startLoad(servers, toNew);
  for (let n = 0; n < 4 || load.reads < READS; n += 1) {
    const [keys, there, back] = n % 2 === 0 ? [NEW_FIRST, toNew, toOld] : [OLD_FIRST, toOld, toNew];
    // The command in a process of its own, and then, since that takes long to start, the same in this one.
    expect(n < 4 ? await command(keys) : await rotate(there, () => {})).toBeGreaterThan(0);
    for (const database of [back, there]) await rotate(database, () => {});
    await delay(100);
  }
  await load.end();
  expect(load.failures).toEqual([]);
  expect(load.writes).toBeGreaterThan(50);
  await Promise.all(servers.map((server) => server.stop()));
  await command(NEW_FIRST);
  expect((await used()).map(({ kek_id: kek }) => kek)).toEqual(["k2"]);
  await expect(serve(K1)).rejects.toThrow(/lacks keys .*: k2/);
  const last = readsOf(await serve(K2));
  const ids = load.subjects.map(({ threadId }) => threadId);
  for (const way of last) expect(await Promise.all(load.subjects.map(way))).toEqual(ids);
}, 60_000);

/** Threads with a key each. */
async function makeThreads(database: Database, count: number): Promise<string[]> {
  const ids = Array.from({ length: count }, () => randomUUID());
  for (let n = 0; n < count; n += 20)
    await Promise.all(ids.slice(n, n + 20).map((id) => insertThread(database, id, {})));
  return ids;
}

test("a rotation that dies leaves every key readable, and the next one completes it", async () => {
  const [before, after] = [open(OLD_FIRST), open(NEW_FIRST)];
  await makeThreads(before, 700);
  const died = rotate(after, (done) => {
    throw new Error(`died after ${done}`);
  });
  await expect(died).rejects.toThrow(/died after 500/);
  expect(await used()).toEqual([
    { kek_id: "k1", keys: 200 },
    { kek_id: "k2", keys: 500 },
  ]);
  const rows = await before.query<{ data_key_id: string }>("select data_key_id from holdfast.data_keys");
  const ids = rows.map(({ data_key_id: id }) => id);
  for (const keys of [OLD_FIRST, NEW_FIRST]) expect((await sealsOf(keys).keys(before, ids)).size).toBe(700);
  expect(await command(NEW_FIRST)).toBe(200);
  expect((await sealsOf(K2).keys(before, ids)).size).toBe(700);
  expect(await command(NEW_FIRST)).toBe(0);
});

test.each(["deleted", "kept"])(
  "a rotation does not wait for who is deleting a thread, and misses none that is %s in the end",
  async (end) => {
    const [database, rotating] = [open(OLD_FIRST), open(NEW_FIRST)];
    const [first = "", second = "", third = ""] = await makeThreads(database, 3);
    let done: Promise<number> | undefined;
    const deleting = database.transaction(async (transaction) => {
      await deleteThreads(transaction, [third]);
      done = rotate(rotating, () => {});
      await until(
        async () => (await used()).some(({ kek_id: kek, keys }) => kek === "k2" && keys === 2),
        "the others",
      );
      await deleteThreads(transaction, [first, second]);
      if (end === "kept") throw new Error("undone");
    });
    await deleting.catch(() => undefined);
    expect(await done).toBe(end === "kept" ? 3 : 2);
    expect(await used()).toEqual(end === "kept" ? [{ kek_id: "k2", keys: 3 }] : []);
  },
);
