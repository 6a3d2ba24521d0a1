// Schedules become runs: each fire time makes one, with any number of servers, whoever dies in between.
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import type { Cron } from "@langchain/langgraph-sdk";
import { describe, expect, test } from "vitest";
import { CronInvalid } from "../../server/errors.ts";
import { checkSchedule, latestTime, nextTime } from "../../server/runs/schedule.ts";
import { testDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { startTestServer, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer();

const query = <Row>(text: string, values: unknown[] = []): Promise<Row[]> =>
  held.scratch.database.query<Row>(text, values);

interface Fired {
  readonly run_id: string;
  readonly thread_id: string;
  readonly idem_key: string;
  readonly state: string;
  readonly metadata: Record<string, unknown>;
}

const runsOf = (cronId: string): Promise<Fired[]> =>
  query(
    "select run_id, thread_id, idem_key, state, metadata from holdfast.runs where metadata ->> 'cron_id' = $1 order by ord",
    [cronId],
  );

async function find(cronId: string): Promise<Cron & { error?: string }> {
  const all = await held.server.client.crons.search({ limit: 1000 });
  const cron = all.find((one) => one.cron_id === cronId);
  if (!cron) throw new Error(`no cron ${cronId}`);
  return cron;
}

/** Makes a cron due: as if its time had come while nobody looked. @param claim until when a server has claimed it */
async function makeDue(
  cronId: string,
  at = "date_trunc('hour', now()) - interval '3 hours'",
  claim = "null",
): Promise<void> {
  const due = `update holdfast.crons set next_run_at = ${at}, claimed_until = ${claim} where cron_id = $1`;
  await query(due, [cronId]);
}

const hourly = { schedule: "0 * * * *", input: { count: 1 } };
const thisHour = (): string => new Date(Math.floor(Date.now() / 3_600_000) * 3_600_000).toISOString();

test("times missed while no server ran make one run, for the latest of them, and it goes on from there", async () => {
  const { cron_id: id } = await held.server.client.crons.create("keeping", hourly);
  await makeDue(id);
  await until(async () => (await runsOf(id))[0]?.state === "success", "the run");
  expect((await runsOf(id)).map(({ idem_key: key }) => key)).toEqual([`cron:${id}:${thisHour()}`]);
  await until(async () => Date.parse((await find(id)).next_run_date ?? "") > Date.now(), "the next time");
});

test("a schedule of seconds fires at whole seconds, each of them at most once", async () => {
  const { cron_id: id } = await held.server.client.crons.create("keeping", { schedule: "* * * * * *" });
  await until(async () => (await runsOf(id)).length >= 3, "three runs");
  await held.server.client.crons.update(id, { enabled: false });
  const keys = (await runsOf(id)).map(({ idem_key: key }) => Date.parse(key.split(`${id}:`)[1] ?? ""));
  const gaps = keys.slice(1).map((key, index) => key - (keys[index] ?? 0));
  // A server too busy to look for a second makes one run of the times it missed: gaps may be longer.
  expect(gaps.filter((gap) => gap < 1000 || gap % 1000 !== 0)).toEqual([]);
});

test("several servers fire each time once", async () => {
  const others = await Promise.all([0, 1].map(() => startTestServer(held.scratch.url)));
  const ids = await Promise.all(
    Array.from({ length: 30 }, async () => {
      const { cron_id: id } = await held.server.client.crons.create("keeping", hourly);
      return id;
    }),
  );
  for (let round = 0; round < 3; round += 1) {
    await query("update holdfast.crons set next_run_at = $2, claimed_until = null where cron_id = any ($1)", [
      ids,
      new Date(Date.parse(thisHour()) - round * 3_600_000),
    ]);
    await until(
      async () =>
        (await Promise.all(ids.map(find))).every((one) => Date.parse(one.next_run_date ?? "") > Date.now()),
      "all",
    );
  }
  const counts = await Promise.all(ids.map(async (id) => (await runsOf(id)).length));
  expect(counts).toEqual(Array(30).fill(1));
  await Promise.all(others.map((one) => one.stop()));
});

test("a server killed after it made the run, before it moved on, leaves no second run", async () => {
  const own = await testDatabase();
  const { database, url } = own;
  const args = ["serve", "--port", "0", "--config", "test/fixtures/langgraph.json"];
  const dying = startHoldfast(args, { DATABASE_URL: url, HOLDFAST_FAULT: "cron.fired:1" });
  await dying.says("Ready");
  const client = new Client({ apiUrl: /http:\S+/.exec(dying.out())?.[0] ?? "" });
  const { cron_id: id } = await client.crons.create("keeping", hourly);
  await database.query("update holdfast.crons set next_run_at = $1", [thisHour()]);
  expect((await dying.ended).code).toBeNull();
  const made = "select run_id from holdfast.runs where metadata ->> 'cron_id' = $1";
  const [run] = await database.query<{ run_id: string }>(made, [id]);
  const next = startHoldfast(args, { DATABASE_URL: url });
  await next.says("Ready");
  // What the dead server claimed is free after ten seconds; the test does not wait for that.
  await database.query("update holdfast.crons set claimed_until = null");
  const isMoved = "select 1 from holdfast.crons where next_run_at > now()";
  await until(async () => (await database.query(isMoved)).length === 1, "the next time");
  const isEnded = "select 1 from holdfast.runs where state = 'success'";
  await until(async () => (await database.query(isEnded)).length === 1, "the run");
  expect(await database.query(made, [id])).toEqual([run]);
  next.process.kill("SIGTERM");
  await next.ended;
  await own.close();
}, 60_000);

test("what a server had claimed is fired by another when the claim has run out, and not before", async () => {
  const { crons } = held.server.client;
  const { cron_id: kept } = await crons.create("keeping", hourly);
  const { cron_id: left } = await crons.create("keeping", hourly);
  const at = "date_trunc('hour', now())";
  await makeDue(kept, at, "now() + interval '1 hour'");
  await makeDue(left, at, "now() - interval '1 second'");
  await until(async () => (await runsOf(left)).length === 1, "the one whose claim has run out");
  expect(await runsOf(kept)).toEqual([]);
});

test("a run without a thread gets one that goes with it, unless it is to be kept", async () => {
  const [gone, kept] = await Promise.all(
    (["delete", "keep"] as const).map((onRunCompleted) =>
      held.server.client.crons.create("keeping", { ...hourly, onRunCompleted }),
    ),
  );
  for (const cron of [gone, kept]) await makeDue(cron?.cron_id ?? "");
  const threadOf = async (cron: typeof gone): Promise<string> => {
    await until(async () => (await runsOf(cron?.cron_id ?? ""))[0]?.state === "success", "the run");
    return (await runsOf(cron?.cron_id ?? ""))[0]?.thread_id ?? "";
  };
  await expect(held.server.client.threads.get(await threadOf(gone))).rejects.toThrow(/404/);
  expect((await held.server.client.threads.get(await threadOf(kept))).values).toMatchObject({ count: 2 });
});

test("on a thread its runs wait for their turn, and carry the metadata of the cron", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  const first = await held.server.client.runs.create(threadId, "endless", { input: {} });
  const { cron_id: id } = await held.server.client.crons.createForThread(threadId, "keeping", {
    ...hourly,
    metadata: { purpose: "digest" },
  });
  await makeDue(id);
  await until(async () => (await runsOf(id)).length === 1, "the run");
  const [waiting] = await runsOf(id);
  expect(waiting).toMatchObject({ thread_id: threadId, state: "blocked" });
  expect(waiting?.metadata).toMatchObject({ purpose: "digest", cron_id: id });
  await held.server.client.runs.cancel(threadId, first.run_id, true);
  await until(async () => (await runsOf(id))[0]?.state === "success", "its turn");
});

test("a time at which no run could be made is passed over, and the cron says why", async () => {
  const { thread_id: threadId } = await held.server.client.threads.create();
  const live = await held.server.client.runs.create(threadId, "endless", { input: {} });
  const { cron_id: id } = await held.server.client.crons.createForThread(threadId, "keeping", {
    ...hourly,
    multitaskStrategy: "reject",
  });
  await makeDue(id);
  await until(async () => (await find(id)).error !== undefined, "the failure");
  expect(await find(id)).toMatchObject({ error: expect.stringContaining("already running a task") });
  expect(await runsOf(id)).toEqual([]);
  await held.server.client.runs.cancel(threadId, live.run_id, true);
  await makeDue(id);
  await until(async () => (await runsOf(id))[0]?.state === "success", "the run");
  await until(async () => (await find(id)).error === undefined, "the failure to be forgotten");
});

test("a cron that is switched off, or whose graph is not served here, waits", async () => {
  const off = await held.server.client.crons.create("keeping", { ...hourly, enabled: false });
  expect(off.next_run_date).toBeNull();
  const foreign = await held.server.client.crons.create("keeping", hourly);
  const assistantId = randomUUID();
  await query(
    "insert into holdfast.assistants (assistant_id, graph_id, name) values ($1, 'elsewhere', 'x')",
    [assistantId],
  );
  await query("update holdfast.crons set assistant_id = $2 where cron_id = $1", [
    foreign.cron_id,
    assistantId,
  ]);
  const marker = await held.server.client.crons.create("keeping", hourly);
  for (const cron of [off, foreign, marker]) await makeDue(cron.cron_id);
  await until(async () => (await runsOf(marker.cron_id)).length === 1, "a later one");
  expect([await runsOf(off.cron_id), await runsOf(foreign.cron_id)]).toEqual([[], []]);
  await held.server.client.crons.update(off.cron_id, { enabled: true });
  expect(Date.parse((await find(off.cron_id)).next_run_date ?? "")).toBeGreaterThan(Date.now());
});

test("after its end a cron comes no more, and what it missed before its end comes once", async () => {
  const { cron_id: id } = await held.server.client.crons.create("keeping", hourly);
  const end = new Date(Date.parse(thisHour()) - 30 * 60_000);
  await query("update holdfast.crons set end_time = $2 where cron_id = $1", [id, end]);
  await makeDue(id);
  await until(async () => (await find(id)).next_run_date === null, "the end");
  const hourBefore = new Date(Date.parse(thisHour()) - 3_600_000).toISOString();
  expect((await runsOf(id)).map(({ idem_key: key }) => key)).toEqual([`cron:${id}:${hourBefore}`]);
});

const berlin = (schedule: string) => ({ schedule, timezone: "Europe/Berlin" });
const times = (
  schedule: { schedule: string; timezone: string | null },
  after: string,
  count: number,
): string[] => {
  const found: string[] = [];
  let at: Date | undefined = new Date(after);
  while (found.length < count && (at = nextTime(schedule, at))) found.push(at.toISOString().slice(0, 16));
  return found;
};

describe("a schedule", () => {
  test("is read in its time zone, and in UTC without one", () => {
    expect(times({ schedule: "0 9 * * 1", timezone: null }, "2026-06-01T10:00:00Z", 1)).toEqual([
      "2026-06-08T09:00",
    ]);
    expect(times(berlin("0 9 * * 1"), "2026-06-01T10:00:00Z", 1)).toEqual(["2026-06-08T07:00"]);
    expect(times(berlin("@daily"), "2026-12-01T10:00:00Z", 1)).toEqual(["2026-12-01T23:00"]);
  });

  test("keeps its hour when clocks change, and loses and repeats no daily time", () => {
    expect(times(berlin("0 9 * * *"), "2026-03-28T00:00:00Z", 3)).toEqual([
      "2026-03-28T08:00",
      "2026-03-29T07:00",
      "2026-03-30T07:00",
    ]);
    // 02:30 does not exist on 29 March and exists twice on 25 October.
    expect(times(berlin("30 2 * * *"), "2026-03-28T12:00:00Z", 2)).toEqual([
      "2026-03-29T01:00",
      "2026-03-30T00:30",
    ]);
    expect(times(berlin("30 2,14 * * *"), "2026-10-24T13:00:00Z", 3)).toEqual([
      "2026-10-25T00:30",
      "2026-10-25T13:30",
      "2026-10-26T01:30",
    ]);
    expect(times(berlin("*/30 * * * *"), "2026-10-24T23:59:00Z", 5)).toEqual([
      "2026-10-25T00:00",
      "2026-10-25T00:30",
      "2026-10-25T01:00",
      "2026-10-25T01:30",
      "2026-10-25T02:00",
    ]);
  });

  test("that was missed came last at the last of its times, the current second included", () => {
    const due = new Date("2026-06-01T10:00:00Z");
    const latest = (schedule: string, now: string): string =>
      latestTime({ schedule, timezone: null }, due, new Date(now)).toISOString();
    expect(latest("0 * * * *", "2026-06-01T10:00:00.000Z")).toBe("2026-06-01T10:00:00.000Z");
    expect(latest("0 * * * *", "2026-06-01T12:59:59.999Z")).toBe("2026-06-01T12:00:00.000Z");
    expect(latest("0 * * * *", "2026-06-01T13:00:00.000Z")).toBe("2026-06-01T13:00:00.000Z");
    expect(latest("0 0 1 1 *", "2026-06-01T13:00:00.000Z")).toBe("2026-06-01T10:00:00.000Z");
    expect(latest("*/5 * * * * *", "2026-06-03T00:00:04.200Z")).toBe("2026-06-03T00:00:00.000Z");
  });

  test.each([
    ["", /5 fields/],
    ["* * * *", /5 fields .* or 6 with seconds first/],
    ["* * * * * * *", /5 fields/],
    ["2026-11-01T00:00:00Z", /5 fields/],
    ["@reboot", /5 fields/],
    ["61 * * * *", /cannot be understood: .*minute/],
    ["* * * * mon-xyz", /cannot be understood/],
    ["0 0 30 2 *", /never comes/],
  ])("of %j is refused with a sentence that says why", (schedule, why) => {
    expect(() => checkSchedule({ schedule, timezone: null }, new Date(), null)).toThrow(why);
    expect(() => checkSchedule({ schedule, timezone: null }, new Date(), null)).toThrow(CronInvalid);
  });

  test("of an unknown zone, or that ends before it begins, is refused", () => {
    const now = new Date("2026-06-01T10:30:00Z");
    expect(() => checkSchedule({ schedule: "0 0 * * *", timezone: "Mars/Base" }, now, null)).toThrow(
      /Mars\/Base/,
    );
    const end = (text: string) => () =>
      checkSchedule({ schedule: "0 * * * *", timezone: null }, now, new Date(text));
    expect(end("2026-06-01T10:00:00Z")).toThrow(/end_time has passed/);
    expect(end("2026-06-01T10:45:00Z")).toThrow(/2026-06-01T11:00/);
    expect(end("2026-06-01T11:00:00Z")).not.toThrow();
  });
});
