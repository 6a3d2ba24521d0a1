// A server with keys: what was altered, moved or put into its tables by hand is refused, and only what depends on it.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { endUnreadable } from "../../server/runs/end.ts";
import { openWrites } from "../../server/storage/checkpoints/rows.ts";
import type { StoredWrite } from "../../server/storage/checkpoints/rows.ts";
import { SEALED } from "../../server/storage/keys/sealed.ts";
import type { SealedName } from "../../server/storage/keys/sealed.ts";
import { claimRuns } from "../../server/storage/queue.ts";
import { listRuns } from "../../server/storage/runs.ts";
import { engineOf } from "../fixtures/queue-engine.ts";
import { openTestPool } from "../support/database.ts";
import { TEST_KEYS, sealsOf } from "../support/keys.ts";
import { collect, startTestServer, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({ HOLDFAST_KEYS: TEST_KEYS });
const input = { messages: [{ role: "user", content: "a question" }] };
const sql = (text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> =>
  held.scratch.database.query(text, values);

async function newThread(): Promise<{ threadId: string; runId: string }> {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  await client.runs.wait(threadId, "echo", { input });
  const [run] = await client.runs.list(threadId);
  return { threadId, runId: run?.run_id ?? "" };
}

const answerOf = async (path: string): Promise<{ status: number; code: string | null; text: string }> => {
  const response = await fetch(held.server.url + path);
  return {
    status: response.status,
    code: response.headers.get("x-holdfast-code"),
    text: await response.text(),
  };
};

/** A sealed value with one bit of its ciphertext changed, in whatever form the column has it. */
const flipped = (name: SealedName): string => {
  const column = name.split(".")[1];
  const { form } = SEALED[name];
  if (form === "bytes") return `set_byte(${column}, 40, get_byte(${column}, 40) # 1)`;
  const text = `${column}::text`;
  const changed = `overlay(${text} placing case substr(${text}, 50, 1) when 'x' then 'y' else 'x' end from 50 for 1)`;
  return form === "text" ? changed : `(${changed})::${name === "store_items.value" ? "jsonb" : "json"}`;
};

test.each(Object.keys(SEALED) as SealedName[])(
  "the database itself refuses plain text in %s",
  async (name) => {
    const { schema, form } = SEALED[name];
    const [table = "", column = ""] = name.split(".");
    const [row] = await sql(
      `select pg_get_constraintdef(oid) as check from pg_constraint where conname = $1 and conrelid = $2::regclass`,
      [`${table}_${column}_sealed`, `${schema}.${table}`],
    );
    const condition = String(row?.["check"]).replace(/^CHECK /, "");
    const type =
      form === "bytes" ? "bytea" : form === "text" ? "text" : table === "store_items" ? "jsonb" : "json";
    const judge = async (value: string): Promise<unknown> =>
      (await sql(`select ${condition} as fits from (select $1::${type} as ${column}) as one`, [value]))[0]?.[
        "fits"
      ];
    const plain =
      form === "bytes"
        ? "\\x7b2261223a2022706c61696e20746578742074686174206973206c6f6e6720656e6f756768207d"
        : `{"plain": "${"text ".repeat(20)}"}`;
    expect(await judge(form === "text" ? "e\tvalues\t{}".padEnd(100, "x") : plain)).toBe(false);
  },
);

const reads: [SealedName, string, (at: { threadId: string; runId: string }) => string][] = [
  ["threads.state", "thread_id = $1", ({ threadId }) => `/threads/${threadId}`],
  ["threads.state", "thread_id = $1", ({ threadId }) => `/threads/${threadId}/state`],
  ["checkpoint_blobs.blob", "thread_id = $1", ({ threadId }) => `/threads/${threadId}/history`],
  ["checkpoint_writes.blob", "thread_id = $1", ({ threadId }) => `/threads/${threadId}/history`],
  ["runs.kwargs", "thread_id = $1", ({ threadId, runId }) => `/threads/${threadId}/runs/${runId}`],
];

test.each(reads)(
  "one changed bit in %s is an error with a code, and nothing is shown",
  async (name, where, path) => {
    const at = await newThread();
    const { schema } = SEALED[name];
    const [table, column] = name.split(".");
    await sql(`update ${schema}.${table} set ${column} = ${flipped(name)} where ${where}`, [at.threadId]);
    const { status, code, text } = await answerOf(path(at));
    expect({ status, code }).toEqual({ status: 500, code: "sealed_value_invalid" });
    expect(text).not.toContain("question");
  },
);

test.each(reads)("%s of another row, put in its place, is refused", async (name, where, path) => {
  const [at, other] = await Promise.all([newThread(), newThread()]);
  const { schema, row } = SEALED[name];
  const [table, column] = name.split(".");
  const rest = row.filter(
    (one) => !["thread_id", "run_id", "checkpoint_id", "task_id", "version"].includes(one),
  );
  const same = ["true", ...rest.map((one) => `a.${one} = b.${one}`)].join(" and ");
  const moved = await sql(
    `update ${schema}.${table} a set ${column} = b.${column} from ${schema}.${table} b
      where a.${where} and b.thread_id = $2 and ${same} returning 1`,
    [at.threadId, other.threadId],
  );
  expect(moved).not.toEqual([]);
  expect(await answerOf(path(at))).toMatchObject({ status: 500, code: "sealed_value_invalid" });
  expect((await answerOf(path(other))).status).toBe(200);
});

test("a changed event ends the stream that reads it, and no other", async () => {
  const [at, other] = await Promise.all([newThread(), newThread()]);
  await sql(`update holdfast.run_events set body = ${flipped("run_events.body")} where run_id = $1`, [
    at.runId,
  ]);
  const path = ({ threadId, runId }: typeof at): string =>
    `/threads/${threadId}/runs/${runId}/stream?last_event_id=-1`;
  const read = (one: typeof at): Promise<string> =>
    fetch(held.server.url + path(one))
      .then((response) => response.text())
      .catch(() => "broken off");
  const [changed, whole] = await Promise.all([read(at), read(other)]);
  expect(changed).not.toContain("alpha");
  expect(whole).toContain("alpha");
});

test("an item of the store that was changed, or moved to another key, is refused; its neighbour is read", async () => {
  const { store } = held.server.client;
  const user = randomUUID();
  for (const key of ["one", "two", "three"]) await store.putItem([user], key, { of: key });
  const path = `.${user}.`;
  await sql(
    `update holdfast.store_items set value = ${flipped("store_items.value")} where path = $1 and key = 'one'`,
    [path],
  );
  await sql(
    `update holdfast.store_items set value = (select value from holdfast.store_items where path = $1 and key = 'three') where path = $1 and key = 'two'`,
    [path],
  );
  await expect(store.getItem([user], "one")).rejects.toThrow(/was altered/);
  await expect(store.getItem([user], "two")).rejects.toThrow(/another place/);
  expect((await store.getItem([user], "three"))?.value).toEqual({ of: "three" });
});

test("a waiting run whose request was changed ends in error, and its thread and all others go on", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  const soon = { input, afterSeconds: 1, webhook: "https://example.org/hook" };
  const { run_id: runId } = await client.runs.create(threadId, "echo", soon);
  await sql(`update holdfast.runs set kwargs = ${flipped("runs.kwargs")} where run_id = $1`, [runId]);
  const stateOf = async (): Promise<unknown> =>
    (await sql("select state from holdfast.runs where run_id = $1", [runId]))[0]?.["state"];
  await until(async () => (await stateOf()) === "error", "the run to end", 15_000);
  expect(await answerOf(`/threads/${threadId}/runs/${runId}`)).toMatchObject({
    code: "sealed_value_invalid",
  });
  expect((await client.threads.get(threadId)).status).toBe("error");
  expect(await sql("select 1 from holdfast.webhooks where run_id = $1", [runId])).toHaveLength(1);
  await client.runs.delete(threadId, runId);
  expect(await client.runs.wait(threadId, "echo", { input })).toMatchObject({ log: ["prepare", "answer"] });
});

test("a waiting run whose key is gone ends in error, and nothing of it is said in plain text", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  const later = { input, afterSeconds: 600, webhook: "https://example.org/hook" };
  const { run_id: runId } = await client.runs.create(threadId, "echo", later);
  // A server that never had it in memory.
  const other = openTestPool(held.scratch.url, { seals: sealsOf(TEST_KEYS) });
  const engine = engineOf(other, randomUUID());
  const claim = { workerId: engine.workerId, limit: 1, graphIds: ["echo"], timeoutMs: 60_000 };
  const [row] = await other.transaction(async (transaction) => {
    await transaction.query("update holdfast.data_keys set data_key_id = $1 where thread_id = $2", [
      randomUUID(),
      threadId,
    ]);
    await transaction.query("update holdfast.runs set state = 'ready', run_at = now() where run_id = $1", [
      runId,
    ]);
    return claimRuns(transaction, claim);
  });
  expect(row).toMatchObject({ run_id: runId, unreadable: { code: "data_key_unusable" } });
  if (row?.unreadable) await endUnreadable(engine, row, row.unreadable);
  const left = `select r.state, r.error, t.status, (select count(*)::int from holdfast.run_events e where e.run_id = r.run_id) as events,
    (select count(*)::int from holdfast.webhooks w where w.run_id = r.run_id) as webhooks
    from holdfast.runs r join holdfast.threads t using (thread_id) where r.run_id = $1`;
  expect(await sql(left, [runId])).toEqual([
    { state: "error", error: null, status: "error", events: 0, webhooks: 1 },
  ]);
  await other.close();
});

test("a waiting run whose request was changed can be cancelled, and its call-back goes out without it", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  const waiting = { input, afterSeconds: 600, webhook: "https://example.org/hook" };
  const { run_id: runId } = await client.runs.create(threadId, "echo", waiting);
  await sql(`update holdfast.runs set kwargs = ${flipped("runs.kwargs")} where run_id = $1`, [runId]);
  await client.runs.cancel(threadId, runId);
  expect(await sql("select state from holdfast.runs where run_id = $1", [runId])).toEqual([
    { state: "interrupted" },
  ]);
  expect(await sql("select 1 from holdfast.webhooks where run_id = $1", [runId])).toHaveLength(1);
});

test("what names a key that is gone is refused as unreadable, and a search of threads shows the others", async () => {
  const [at, other] = await Promise.all([newThread(), newThread()]);
  await sql("update holdfast.data_keys set data_key_id = gen_random_uuid() where thread_id = $1", [
    at.threadId,
  ]);
  const second = await startTestServer(held.scratch.url, { HOLDFAST_KEYS: TEST_KEYS });
  const response = await fetch(`${second.url}/threads/${at.threadId}/state`);
  expect(response.status).toBe(500);
  expect(response.headers.get("x-holdfast-code")).toBe("data_key_unusable");
  const found = await second.client.threads.search({ ids: [at.threadId, other.threadId] });
  await second.stop();
  expect(new Set(found.map(({ thread_id: id }) => id))).toEqual(new Set([at.threadId, other.threadId]));
  expect(found.find(({ thread_id: id }) => id === other.threadId)?.values).toMatchObject({ topic: "none" });
});

test("a copy is sealed under a key of its own: it is read when its source and that key are gone", async () => {
  const { threads } = held.server.client;
  const { threadId } = await newThread();
  const { thread_id: copyId } = await threads.copy(threadId);
  const history = await threads.getHistory(copyId);
  const keys = await sql("select distinct data_key_id from holdfast.threads where thread_id = any ($1)", [
    [threadId, copyId],
  ]);
  expect(keys).toHaveLength(2);
  await threads.delete(threadId);
  expect(await sql("select 1 from holdfast.data_keys where thread_id = $1", [threadId])).toEqual([]);
  expect(await threads.getHistory(copyId)).toEqual(history);
  expect(await held.server.client.runs.wait(copyId, "echo", { input })).toMatchObject({
    log: ["prepare", "answer", "prepare", "answer"],
  });
});

test("a thread that was deleted and made again elsewhere is written to under its new key", async () => {
  const other = await startTestServer(held.scratch.url, { HOLDFAST_KEYS: TEST_KEYS });
  const { threadId } = await newThread(); // held.server remembers its key
  for (const ifNotExists of ["create", undefined] as const) {
    await other.client.threads.delete(threadId);
    if (ifNotExists === undefined) await other.client.threads.create({ threadId });
    const done = await held.server.client.runs.wait(threadId, "echo", {
      input,
      ...(ifNotExists ? { ifNotExists } : {}),
    });
    expect(done).toMatchObject({ log: ["prepare", "answer"] });
    expect((await other.client.threads.getState(threadId)).values).toEqual(done);
    // Both servers may remember a key that is gone.
    const later = openTestPool(held.scratch.url, { seals: sealsOf(TEST_KEYS) });
    const all = { states: undefined, metadata: undefined, limit: 10, offset: 0 };
    expect(await listRuns(later, threadId, all)).toMatchObject([{ state: "success" }]);
    await later.close();
  }
  await other.stop();
});

test("the rows of events that were put together are sealed, and the stream reads as before", async () => {
  const { client } = held.server;
  const { threadId, runId } = await newThread();
  const read = () => collect(client.runs.joinStream(threadId, runId, { lastEventId: "-1" }));
  const before = await read();
  await sql(
    "update holdfast.runs set segments = 40, ended_at = now() - interval '1 hour' where run_id = $1",
    [runId],
  );
  const count = async (): Promise<unknown> =>
    (await sql("select segments from holdfast.runs where run_id = $1", [runId]))[0]?.["segments"];
  await until(async () => Number(await count()) < 17, "the sweep", 15_000);
  expect(await read()).toEqual(before);
});

test("values are bound to their types: one that is renamed is refused", async () => {
  const { threadId } = await newThread();
  const database = openTestPool(held.scratch.url, { seals: sealsOf(TEST_KEYS) });
  const rows = await database.query<StoredWrite>(
    "select * from public.checkpoint_writes where thread_id = $1",
    [threadId],
  );
  expect(await openWrites(database, rows)).toHaveLength(rows.length);
  const renamed = rows.map((row) => Object.assign({}, row, { type: "other+sealed" }));
  await expect(openWrites(database, renamed)).rejects.toThrow(/another place/);
  await database.close();
});
