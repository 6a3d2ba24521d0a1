// A cron that is deleted or changed while a server is about to fire it: nothing comes of what it was.
import { execFileSync } from "node:child_process";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { armFault } from "../../server/faults.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { holding, letGo, waitsFor } from "../support/locks.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer();

// Another server on the same database. It serves another graph, so that it never fires these crons itself.
const other: { running?: Running; url: string } = { url: "" };
beforeAll(async () => {
  const args = ["serve", "--port", "0", "--config", "test/fixtures/chat.langgraph.json"];
  other.running = startHoldfast(args, { DATABASE_URL: held.scratch.url });
  await other.running.says("Ready", 50_000);
  other.url = /http:\S+/.exec(other.running.out())?.[0] ?? "";
});
afterAll(async () => {
  other.running?.process.kill("SIGTERM");
  await other.running?.ended;
});

const query = <Row>(text: string, values: unknown[] = []): Promise<Row[]> =>
  held.scratch.database.query<Row>(text, values);

const inputsOf = async (cronId: string): Promise<unknown[]> => {
  const text = "select kwargs -> 'input' as input from holdfast.runs where metadata ->> 'cron_id' = $1";
  return (await query<{ input: unknown }>(text, [cronId])).map(({ input }) => input);
};

const makeDue = (cronId: string): Promise<unknown> =>
  query(
    "update holdfast.crons set next_run_at = date_trunc('hour', now()), claimed_until = null where cron_id = $1",
    [cronId],
  );

/** Makes a request while this whole process stands still. */
function meanwhile(method: string, path: string, body: object | undefined): void {
  const script = `fetch(process.argv[1], { method: process.argv[2], body: process.argv[3] || undefined })
    .then((answer) => process.exit(answer.ok ? 0 : 1))`;
  const args = ["-e", script, `${other.url}${path}`, method, body ? JSON.stringify(body) : ""];
  execFileSync("node", args, { timeout: 15_000 });
}

/** A cron on a thread of its own, or without one. */
async function make(isOnThread: boolean): Promise<string> {
  const { crons, threads } = held.server.client;
  const asked = { schedule: "0 * * * *", input: { count: 1 } };
  if (!isOnThread) return (await crons.create("keeping", asked)).cron_id;
  const { thread_id: threadId } = await threads.create();
  return (await crons.createForThread(threadId, "keeping", asked)).cron_id;
}

/** A cron that comes later than all before it has come: whatever is to be fired of those is fired. */
async function laterHasFired(): Promise<void> {
  const later = await make(false);
  await makeDue(later);
  await until(async () => (await inputsOf(later)).length === 1, "a later cron");
}

const CHANGES = [
  ["deleted", "DELETE", undefined],
  ["switched off", "PATCH", { enabled: false }],
  ["moved", "PATCH", { schedule: "30 4 1 1 *" }],
  ["ended", "PATCH", { end_time: "2020-01-01T00:00:00Z" }],
] as const;
const PLACES = [
  ["on a thread", true],
  ["without a thread", false],
] as const;

describe.each(PLACES)("a cron %s", (_where, isOnThread) => {
  test.each(CHANGES)(
    "that is %s elsewhere between its claim and its run does not come",
    async (_what, method, body) => {
      const id = await make(isOnThread);
      let isClaimed = false;
      armFault("cron.firing", 1, () => {
        meanwhile(method, `/runs/crons/${id}`, body);
        isClaimed = true;
      });
      await makeDue(id);
      await until(() => isClaimed, "the claim");
      await laterHasFired();
      expect(await inputsOf(id)).toEqual([]);
      const text = "select error from holdfast.crons where cron_id = $1";
      for (const row of await query(text, [id])) expect(row).toMatchObject({ error: null });
    },
  );
});

test.each(PLACES)("a cron %s whose input is changed then comes once, with the new input", async (_, on) => {
  const id = await make(on);
  let isClaimed = false;
  armFault("cron.firing", 1, () => {
    meanwhile("PATCH", `/runs/crons/${id}`, { input: { count: 7 } });
    isClaimed = true;
  });
  await makeDue(id);
  await until(() => isClaimed, "the claim");
  const isMoved = "select from holdfast.crons where cron_id = $1 and next_run_at > now()";
  await until(async () => (await query(isMoved, [id])).length === 1, "its next time");
  expect(await inputsOf(id)).toEqual([{ count: 7 }]);
});

test.each(PLACES)(
  "a cron %s that others fired meanwhile does not come for the time before",
  async (_, on) => {
    const id = await make(on);
    let isClaimed = false;
    armFault("cron.firing", 1, () => {
      // As a server does that takes over a claim which has run out, at a later time of the schedule.
      const script = `import { Client } from "pg";
      const client = new Client(process.argv[1]);
      await client.connect();
      await client.query("update holdfast.crons set next_run_at = date_trunc('hour', now()) + interval '1 hour', claimed_until = null where cron_id = $1", [process.argv[2]]);
      await client.end();`;
      execFileSync("node", ["--input-type=module", "-e", script, held.scratch.url, id], { timeout: 15_000 });
      isClaimed = true;
    });
    await makeDue(id);
    await until(() => isClaimed, "the claim");
    await laterHasFired();
    expect(await inputsOf(id)).toEqual([]);
  },
);

test.each(PLACES)("a cron %s that is moved when its run was just accepted stays moved", async (_, on) => {
  const id = await make(on);
  let isFired = false;
  armFault("cron.fired", 1, () => {
    meanwhile("PATCH", `/runs/crons/${id}`, { schedule: "30 4 1 1 *" });
    isFired = true;
  });
  await makeDue(id);
  await until(() => isFired, "its run");
  await laterHasFired();
  expect(
    await query(
      "select to_char(next_run_at at time zone 'utc', 'MM-DD HH24:MI') as next from holdfast.crons where cron_id = $1",
      [id],
    ),
  ).toEqual([{ next: "01-01 04:30" }]);
  expect(await inputsOf(id)).toHaveLength(1);
});

test("a cron that is deleted while its run waits for the thread does not come", async () => {
  const id = await make(true);
  const [cron] = await query<{ thread_id: string }>(
    "select thread_id from holdfast.crons where cron_id = $1",
    [id],
  );
  const lock = "select from holdfast.threads where thread_id = $1 for update";
  const session = await holding(held.scratch.database, lock, [cron?.thread_id]);
  await makeDue(id);
  await waitsFor(held.scratch.database, "/* lockThread */");
  await new Client({ apiUrl: other.url }).crons.delete(id);
  await letGo(session);
  await laterHasFired();
  expect(await inputsOf(id)).toEqual([]);
  const [thread] = await query("select status from holdfast.threads where thread_id = $1", [cron?.thread_id]);
  expect(thread).toEqual({ status: "idle" });
});
