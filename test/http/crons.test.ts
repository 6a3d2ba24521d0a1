// Crons, pruning and the time that threads are kept, through the official client.
import { randomUUID } from "node:crypto";
import { afterEach, expect, test } from "vitest";
import { holding, letGo, waitsFor } from "../support/locks.ts";
import { collect, startTestServer, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer();

afterEach(() => held.scratch.database.query("delete from holdfast.crons"));

const NEVER_SOON = "0 0 1 1 *";
const post = (path: string, body: unknown): Promise<Response> =>
  fetch(`${held.server.url}${path}`, { method: "POST", body: JSON.stringify(body) });

test("a cron is created, found and counted with what it was given", async () => {
  const made = await held.server.client.crons.create("keeping", {
    schedule: NEVER_SOON,
    timezone: "Europe/Berlin",
    input: { count: 4, text: "\u0000" },
    metadata: { team: "a" },
    onRunCompleted: "keep",
    multitaskStrategy: "enqueue",
    interruptBefore: ["keep"],
    streamMode: "updates",
    endTime: "2999-01-01T00:00:00Z",
  });
  expect(made).toMatchObject({
    thread_id: null,
    schedule: NEVER_SOON,
    timezone: "Europe/Berlin",
    end_time: "2999-01-01T00:00:00.000Z",
    enabled: true,
    on_run_completed: "keep",
    metadata: { team: "a" },
    user_id: null,
  });
  expect(made.payload).toEqual({
    input: { count: 4, text: "\u0000" },
    multitask_strategy: "enqueue",
    interrupt_before: ["keep"],
    stream_mode: ["updates"],
  });
  expect(made.next_run_date).toMatch(/-12-31T23:00:00.000Z$/);
  expect(await held.server.client.crons.search({ metadata: { team: "a" } })).toEqual([made]);
  expect(await held.server.client.crons.count({ metadata: { team: "a" } })).toBe(1);
  expect(await held.server.client.crons.count({ metadata: { team: "b" } })).toBe(0);
});

test("crons are found by thread, assistant and whether they are on", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  const { crons } = held.server.client;
  const own = await crons.createForThread(threadId, "keeping", { schedule: NEVER_SOON });
  const off = await crons.create("echo", { schedule: NEVER_SOON, enabled: false });
  const ids = async (query: object): Promise<string[]> =>
    (await crons.search(query)).map((one) => one.cron_id);
  expect(own.thread_id).toBe(threadId);
  expect(await ids({ threadId })).toEqual([own.cron_id]);
  expect(await ids({ assistantId: "echo" })).toEqual([off.cron_id]);
  expect(await ids({ assistantId: off.assistant_id, enabled: false })).toEqual([off.cron_id]);
  expect(await ids({ assistantId: "nobody" })).toEqual([]);
  expect(await ids({ enabled: true })).toEqual([own.cron_id]);
  expect(await crons.count({ assistantId: "echo" })).toBe(1);
});

const page = async (query: object): Promise<{ ids: string[]; total: string | null; next: string | null }> => {
  const response = await post("/runs/crons/search", query);
  const rows = (await response.json()) as { cron_id: string }[];
  const { headers } = response;
  const [total, next] = [headers.get("x-pagination-total"), headers.get("x-pagination-next")];
  return { ids: rows.map((one) => one.cron_id), total, next };
};

test("pages visit every cron once, in the order asked for, with totals in the headers", async () => {
  const made: string[] = [];
  for (const day of [3, 1, 2]) {
    const { cron_id: id } = await held.server.client.crons.create("keeping", { schedule: `0 0 ${day} 1 *` });
    made.push(id);
  }
  const byDate = { sort_by: "next_run_date", sort_order: "asc", limit: 2 };
  const [third, first, second] = made;
  expect(await page(byDate)).toEqual({ ids: [first, second], total: "3", next: "2" });
  expect(await page({ ...byDate, offset: 2 })).toEqual({ ids: [third], total: "3", next: null });
  expect((await page({})).ids).toEqual(made.toReversed());
  expect((await page({ limit: null, offset: null, select: [] })).ids).toEqual(made.toReversed());
  expect((await page({ sort_by: "cron_id", sort_order: "asc" })).ids).toEqual(made);
  expect(await held.server.client.crons.search({ limit: 1, select: ["cron_id", "enabled"] })).toEqual([
    { cron_id: second, enabled: true },
  ]);
});

test("an update changes what it names and nothing else", async () => {
  const { crons } = held.server.client;
  const input = { count: 1 };
  const made = await crons.create("keeping", {
    schedule: NEVER_SOON,
    input,
    metadata: { a: 1 },
    durability: "exit",
  });
  const renamed = await crons.update(made.cron_id, {
    metadata: { b: 2 },
    webhook: "https://example.com/hook",
  });
  expect(renamed).toMatchObject({
    metadata: { a: 1, b: 2 },
    payload: { input, durability: "exit", webhook: "https://example.com/hook" },
    next_run_date: made.next_run_date,
    schedule: NEVER_SOON,
  });
  const moved = await crons.update(made.cron_id, {
    schedule: "0 0 2 1 *",
    timezone: "Asia/Tokyo",
    input: { count: 2 },
  });
  expect(moved.next_run_date).toMatch(/-01-01T15:00:00.000Z$/);
  expect(moved.payload["input"]).toEqual({ count: 2 });
  const elsewhere = await crons.update(made.cron_id, { timezone: "America/New_York" });
  expect(elsewhere.next_run_date).toMatch(/-01-02T05:00:00.000Z$/);
  const ended = await crons.update(made.cron_id, { endTime: "2020-01-01T00:00:00Z" });
  expect(ended.next_run_date).toBeNull();
  const again = await crons.update(made.cron_id, { endTime: null });
  expect([again.end_time, again.next_run_date]).toEqual([null, elsewhere.next_run_date]);
  expect((await crons.update(made.cron_id, { enabled: false })).next_run_date).toBeNull();
});

test("a cron that is on is given no end before it comes, and can be switched off whatever its end is", async () => {
  const { crons } = held.server.client;
  const { cron_id: id } = await crons.create("keeping", { schedule: NEVER_SOON });
  const endTime = new Date(Date.now() + 5000).toISOString();
  await expect(crons.update(id, { endTime })).rejects.toThrow(/HTTP 422.*before the schedule comes/);
  const off = await crons.update(id, { endTime, enabled: false });
  expect([off.enabled, off.next_run_date]).toEqual([false, null]);
});

test("null stands for nothing: it is not kept, and takes away what was there", async () => {
  const input = { count: 1 };
  const asked = { input, webhook: "https://example.com/hook", multitask_strategy: null };
  const response = await post("/runs/crons", { assistant_id: "keeping", schedule: NEVER_SOON, ...asked });
  const made = (await response.json()) as { cron_id: string; payload: object };
  expect(made.payload).toEqual({ input, webhook: asked.webhook });
  const changed = await fetch(`${held.server.url}/runs/crons/${made.cron_id}`, {
    method: "PATCH",
    body: JSON.stringify({ webhook: null }),
  });
  expect(await changed.json()).toMatchObject({ payload: { input } });
  const [kept] = await held.server.client.crons.search();
  expect(kept?.payload).toEqual({ input });
});

test("a cron that is off takes no schedule with which it could not be switched on", async () => {
  const { crons } = held.server.client;
  const made = await crons.create("keeping", { schedule: NEVER_SOON, enabled: false });
  const refused = [{ schedule: "nonsense" }, { schedule: "0 0 30 2 *" }, { timezone: "Mars/Base" }];
  for (const change of refused) await expect(crons.update(made.cron_id, change)).rejects.toThrow(/HTTP 422/);
  const on = await crons.update(made.cron_id, { enabled: true });
  expect([on.schedule, on.next_run_date]).toEqual([NEVER_SOON, expect.stringContaining("-01-01T00:00")]);
});

test("a deleted cron is gone, and so are those of a deleted thread", async () => {
  const { crons, threads } = held.server.client;
  const { cron_id: id } = await crons.create("keeping", { schedule: NEVER_SOON });
  await crons.delete(id);
  await expect(crons.delete(id)).rejects.toThrow("HTTP 404: Cron not found");
  await expect(crons.update(id, { enabled: true })).rejects.toThrow("HTTP 404: Cron not found");
  await expect(crons.delete("mine")).rejects.toThrow(/HTTP 400: Invalid cron ID/);
  const { thread_id: threadId } = await threads.create();
  await crons.createForThread(threadId, "keeping", { schedule: NEVER_SOON });
  await threads.delete(threadId);
  expect(await crons.count()).toBe(0);
});

test.each([
  [{ schedule: "* * *" }, 422, "cron_invalid", /5 fields/],
  [{ schedule: "0 25 * * *" }, 422, "cron_invalid", /hour/],
  [{ schedule: NEVER_SOON, timezone: "Mars/Base" }, 422, "cron_invalid", /Mars\/Base/],
  [{ schedule: NEVER_SOON, end_time: "2020-01-01T00:00:00Z" }, 422, "cron_invalid", /has passed/],
  [{ schedule: NEVER_SOON, webhook: "http://169.254.169.254/" }, 422, "webhook_refused", /not a public/],
  [{ schedule: NEVER_SOON, assistant_id: "nobody" }, 404, "assistant_not_found", /nobody/],
  [{ schedule: NEVER_SOON, metadata: { a: "\u0000" } }, 422, "poisoned_input", /NUL/],
  [{ schedule: NEVER_SOON, end_time: "tomorrow" }, 400, "input_invalid", /ZodError/],
  [{}, 400, "input_invalid", /schedule/],
])("a cron that cannot be is refused: %j", async (body, status, code, why) => {
  const response = await post("/runs/crons", { assistant_id: "keeping", ...body });
  expect([response.status, response.headers.get("x-holdfast-code")]).toEqual([status, code]);
  expect(await response.text()).toMatch(why);
  expect(await held.server.client.crons.count()).toBe(0);
});

test("a cron on a thread that is not there is 404", async () => {
  const threadId = randomUUID();
  const made = held.server.client.crons.createForThread(threadId, "keeping", { schedule: NEVER_SOON });
  await expect(made).rejects.toThrow(`HTTP 404: Thread with ID ${threadId} not found`);
});

test("a cron whose thread is just being deleted is 404", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  const { database } = held.scratch;
  const deleting = await holding(database, "delete from holdfast.threads where thread_id = $1", [threadId]);
  const asked = { schedule: NEVER_SOON };
  const failed = held.server.client.crons.createForThread(threadId, "keeping", asked).then(String, String);
  await waitsFor(database, "/* insertCron */");
  await deleting.query("commit");
  await letGo(deleting);
  expect(await failed).toContain(`HTTP 404: Thread with ID ${threadId} not found`);
});

test("a run with a webhook to an address inside is refused before it is made", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  const { runs } = held.server.client;
  const inside = { input: {}, webhook: "http://127.0.0.1:9/" };
  await expect(runs.create(threadId, "keeping", inside)).rejects.toThrow(
    /HTTP 422: 127.0.0.1 is not a public/,
  );
  await expect(runs.wait(null, "keeping", inside)).rejects.toThrow(/HTTP 422/);
  await expect(runs.createBatch([{ assistantId: "keeping", ...inside }])).rejects.toThrow(/HTTP 422/);
  expect(await runs.list(threadId)).toEqual([]);
});

const ask = (content: string) => ({ input: { messages: [{ role: "user", content }], topic: "tea" } });

async function talked(times: number): Promise<string> {
  const { thread_id: threadId } = await held.server.client.threads.create();
  for (let turn = 0; turn < times; turn += 1)
    await held.server.client.runs.wait(threadId, "topical", ask(`m${turn}`));
  return threadId;
}

test("pruning to the latest keeps the state, the runs and their streams, and forgets the past", async () => {
  const { threads, runs } = held.server.client;
  const [threadId, other] = [await talked(3), await talked(2)];
  const before = await threads.getState(threadId);
  const [first] = await runs.list(threadId);
  expect(await threads.prune([threadId, randomUUID()], { strategy: "keep_latest" })).toEqual({
    pruned_count: 1,
  });
  expect(await threads.getState(threadId)).toEqual(before);
  expect(await threads.getHistory(threadId)).toHaveLength(1);
  expect(await threads.getHistory(other)).toHaveLength(6);
  expect((await collect(runs.joinStream(threadId, first?.run_id ?? ""))).length).toBeGreaterThan(1);
  const { messages } = (await runs.wait(threadId, "topical", ask("again"))) as { messages: unknown[] };
  expect(messages).toHaveLength(8);
});

test("pruning deletes threads unless it is told otherwise, and counts those that were there", async () => {
  const [a, b] = [await talked(1), await talked(1)];
  expect(await held.server.client.threads.prune([a, b, a, randomUUID()])).toEqual({ pruned_count: 2 });
  await expect(held.server.client.threads.get(a)).rejects.toThrow(/HTTP 404/);
  expect(await held.server.client.threads.prune([])).toEqual({ pruned_count: 0 });
});

test.each(["delete", "keep_latest"] as const)(
  "with a run on one of the threads none is pruned: %s",
  async (strategy) => {
    const [quiet, busy] = [await talked(2), await talked(1)];
    const run = await held.server.client.runs.create(busy, "endless", { input: {} });
    const pruned = held.server.client.threads.prune([quiet, busy], { strategy });
    await expect(pruned).rejects.toThrow("HTTP 409: Thread is busy");
    expect(await held.server.client.threads.getHistory(quiet)).toHaveLength(6);
    await held.server.client.runs.cancel(busy, run.run_id, true);
    await until(
      async () => (await held.server.client.threads.get(busy)).status !== "busy",
      "the thread to be idle",
    );
    expect(await held.server.client.threads.prune([quiet, busy], { strategy })).toEqual({ pruned_count: 2 });
  },
);

test("a thread goes when its time is over, and each run gives it its time again", async () => {
  const { threads, runs } = held.server.client;
  const { thread_id: short } = await threads.create({ ttl: 0.001 });
  const { thread_id: long } = await threads.create({
    // The client's type knows only one of the two.
    ttl: { ttl: 1, strategy: "keep_latest" as "delete" },
  });
  await runs.wait(long, "topical", ask("one"));
  await held.scratch.database.query("update holdfast.threads set expires_at = now() where thread_id = $1", [
    long,
  ]);
  await until(async () => (await threads.getHistory(long)).length === 1, "the past to go");
  await until(
    async () => (await fetch(`${held.server.url}/threads/${short}`)).status === 404,
    "the thread to go",
  );
  await runs.wait(long, "topical", ask("two"));
  const [row] = await held.scratch.database.query<{ left: number }>(
    "select round(extract(epoch from expires_at - now()))::int as left from holdfast.threads where thread_id = $1",
    [long],
  );
  expect(row?.left).toBeGreaterThan(50);
});

test("a server may give every thread its time, however it came to be", async () => {
  const server = await startTestServer(held.scratch.url, { HOLDFAST_THREAD_TTL_MINUTES: "7" });
  const { thread_id: made } = await server.client.threads.create();
  const { thread_id: own } = await server.client.threads.create({ ttl: 3 });
  const implied = randomUUID();
  await server.client.runs.wait(implied, "keeping", { input: {}, ifNotExists: "create" });
  await server.stop();
  const rows = await held.scratch.database.query<{ ttl_minutes: number; is_set: boolean }>(
    `select t.ttl_minutes, t.expires_at is not null as is_set
       from unnest($1::text[]) with ordinality as asked (thread_id, n) join holdfast.threads t using (thread_id) order by n`,
    [[made, own, implied]],
  );
  expect(rows).toEqual([7, 3, 7].map((minutes) => ({ ttl_minutes: minutes, is_set: true })));
});
