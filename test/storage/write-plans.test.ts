// How a write looks for its run: by the run's id, whatever PostgreSQL believes of the others that are live, and once more
// when it had to wait for a takeover.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  putForOwners,
  refuseAnswer,
  settleAnswers,
  withdrawUpdate,
} from "../../server/storage/checkpoints/writes.ts";
import type { Queryable } from "../../server/storage/database.ts";
import { insertSegments } from "../../server/storage/events.ts";
import type { Owner } from "../../server/storage/fence.ts";
import { deleteOwnRun, finishRun } from "../../server/storage/finish.ts";
import { sendCall } from "../../server/storage/model-calls.ts";
import { writeItems } from "../../server/storage/store/store.ts";
import { pointOf } from "../support/checkpoints.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { explain } from "../support/explain.ts";
import type { Parameter } from "../support/explain.ts";
import { runsOf, succeeded } from "../support/runs.ts";
import { until } from "../support/until.ts";

const LIVE = 300;
const WAITING =
  "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
const runOf = (key: string): string => key.split(":")[0] ?? "";

let scratch: TestDatabase;
let owners: Owner[];

beforeAll(async () => {
  scratch = await testDatabase();
  const { newRun } = await runsOf(scratch.database);
  owners = [];
  for (let made = 0; made < LIVE; made += 1) owners.push(await newRun());
  // As after a quiet night: what PostgreSQL knows is that hardly any run is live.
  await scratch.database.query("update holdfast.runs set state = 'success'");
  await scratch.database.query("vacuum analyze holdfast.runs");
  await scratch.database.query("update holdfast.runs set state = 'running'");
});
afterAll(() => scratch.close());

const segmentOf = ({ runId, attempt }: Owner): Parameters<typeof insertSegments>[2][number] => ({
  runId,
  attempt,
  seq: 5,
  last: 5,
  body: "[]",
  isFirst: true,
});

const writeOf = (owner: Owner): Parameters<typeof putForOwners>[2][number] => ({
  owner,
  write: pointOf(owner.threadId, {
    values: [{ channel: "messages", version: "1", type: "json", bytes: Buffer.from("[]") }],
  }),
});

type Write = (on: Queryable, few: readonly [Owner, ...Owner[]]) => Promise<unknown>;

const writeEvents = (on: Queryable, few: readonly [Owner, ...Owner[]]): ReturnType<typeof insertSegments> =>
  insertSegments(on, few[0].workerId, few.map(segmentOf));
const writePoints = (on: Queryable, few: readonly [Owner, ...Owner[]]): ReturnType<typeof putForOwners> =>
  putForOwners(on, few[0].workerId, few.map(writeOf), few.map(segmentOf));

test.each<[string, Write]>([
  ["events", writeEvents],
  ["checkpoints", writePoints],
  ["the end of a run", (on, [owner]) => finishRun(on, owner, succeeded)],
  ["what a command wrote", (on, [owner]) => withdrawUpdate(on, owner)],
  ["an answer that is refused", (on, [owner]) => refuseAnswer(on, owner)],
  ["a run that is rolled back", (on, [owner]) => deleteOwnRun(on, owner)],
  [
    "a call that is sent",
    (on, [owner]) => sendCall(on, randomUUID(), { node: "any", workerId: owner.workerId }),
  ],
  [
    "items of the store",
    (on, [owner]) =>
      writeItems(on, [{ namespace: ["a"], key: "b", value: { c: 1 }, ttlMinutes: null }], owner),
  ],
  [
    "an answer",
    (on, [{ runId, workerId, attempt }]) =>
      settleAnswers(on, { run_id: runId, workerId, attempt, kwargs: {} }),
  ],
])("%s: only the runs that are written for are looked at", async (_, write) => {
  const few = owners.slice(100, 103) as [Owner, Owner, Owner];
  const asked: [string, readonly unknown[]][] = [];
  const on: Queryable = {
    seals: scratch.database.seals,
    query: async <Row>(text: string, values: readonly unknown[] = []) => {
      asked.push([text, values]);
      return [{ has_keys: true } as Row]; // which the store asks for
    },
  };
  await write(on, few);
  expect(asked.length).toBeGreaterThan(0);
  for (const [text, values] of asked)
    for (const mode of ["force_custom_plan", "force_generic_plan"] as const) {
      const { nodes } = await explain(scratch.database, text, values as Parameter[], mode);
      const looks = nodes.filter(
        (node) => node["Relation Name"] === "runs" && node["Node Type"] !== "ModifyTable",
      );
      expect(looks.map((node) => node["Index Name"])).toEqual(["runs_pkey"]);
    }
});

// What each wrote for, by run.
test.each<[string, number, (...given: Parameters<Write>) => Promise<string[]>]>([
  ["events", 3, async (on, few) => (await writeEvents(on, few)).map(({ run_id: runId }) => runId)],
  ["checkpoints", 3, async (on, few) => [...(await writePoints(on, few)).keys()].map(runOf)],
  [
    "the end of a run",
    1,
    async (on, [owner]) => ((await finishRun(on, owner, succeeded)) ? [owner.runId] : []),
  ],
])("%s: who waits for a takeover is refused if it takes place, and nobody else", async (_, count, write) => {
  const few = owners.slice(0, count) as [Owner, ...Owner[]];
  const [{ runId, workerId }] = few;
  for (const isTaken of [true, false]) {
    const undo = new Error("taken back");
    let writing: Promise<string[]> | undefined;
    const takeover = scratch.database.transaction(async (transaction) => {
      await transaction.query(
        "update holdfast.runs set worker_id = gen_random_uuid(), attempt = 2 where run_id = $1",
        [runId],
      );
      writing = write(scratch.database, few);
      await until(async () => (await scratch.database.query(WAITING)).length > 0, "the write to wait");
      if (!isTaken) throw undo;
    });
    expect(await takeover.catch((error: unknown) => error)).toBe(isTaken ? undefined : undo);
    const written = await writing;
    expect(written?.toSorted()).toEqual(
      few
        .slice(isTaken ? 1 : 0)
        .map((owner) => owner.runId)
        .toSorted(),
    );
    await scratch.database.query(
      "update holdfast.runs set worker_id = $2, attempt = 1, state = 'running' where run_id = $1",
      [runId, workerId],
    );
  }
});
