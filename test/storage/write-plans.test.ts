// How a write looks for its run: by the run's id, whatever PostgreSQL believes of the others that are live.
import { afterAll, beforeAll, expect, test } from "vitest";
import { finishRun } from "../../server/storage/finish.ts";
import { insertSegments } from "../../server/storage/events.ts";
import { putForOwners, withdrawAnswer, withdrawUpdate } from "../../server/storage/checkpoint-writes.ts";
import type { Queryable } from "../../server/storage/database.ts";
import type { Owner } from "../../server/runs/run.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { explain } from "../support/explain.ts";
import type { Parameter } from "../support/explain.ts";
import { runsOf } from "../support/runs.ts";

const LIVE = 300;

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

const pointOf = (owner: Owner): Parameters<typeof putForOwners>[2][number] => ({
  owner,
  write: {
    threadId: owner.threadId,
    namespace: "",
    checkpointId: "1",
    parentId: undefined,
    checkpoint: "{}",
    metadata: "{}",
    values: [{ channel: "messages", version: "1", type: "json", bytes: Buffer.from("[]") }],
    isInput: false,
  },
});

type Write = (on: Queryable, few: readonly [Owner, ...Owner[]]) => Promise<unknown>;

test.each<[string, Write]>([
  ["events", (on, few) => insertSegments(on, few[0].workerId, few.map(segmentOf))],
  ["checkpoints", (on, few) => putForOwners(on, few[0].workerId, few.map(pointOf), few.map(segmentOf))],
  [
    "the end of a run",
    (on, [owner]) =>
      finishRun(on, owner, {
        state: "success",
        error: null,
        threadStatus: "idle",
        threadState: null,
        rest: undefined,
        points: [],
        notes: [],
        segments: 1,
        after: undefined,
        webhook: undefined,
      }),
  ],
  ["what a command wrote", (on, [owner]) => withdrawUpdate(on, owner)],
  [
    "an answer",
    (on, [{ runId, workerId, attempt }]) => withdrawAnswer(on, { run_id: runId, workerId, attempt }),
  ],
])("%s: only the runs that are written for are looked at", async (_, write) => {
  const few = owners.slice(100, 103) as [Owner, Owner, Owner];
  const asked: [string, readonly unknown[]][] = [];
  const on: Queryable = {
    seals: scratch.database.seals,
    query: async (text, values = []) => {
      asked.push([text, values]);
      return [];
    },
  };
  await write(on, few);
  for (const [text, values] of asked)
    for (const mode of ["force_custom_plan", "force_generic_plan"] as const) {
      const { nodes } = await explain(scratch.database, text, values as Parameter[], mode);
      const looks = nodes.filter(
        (node) => node["Relation Name"] === "runs" && node["Node Type"] !== "ModifyTable",
      );
      expect(looks.map((node) => node["Index Name"])).toEqual(["runs_pkey"]);
    }
});
