// What reading a state and a history asks of the database: rows of one thread, however many there are of others.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Checkpoints } from "../../server/storage/checkpoints/checkpoints.ts";
import type { Queryable } from "../../server/storage/database.ts";
import { findThread, findThreadState, findWholeThread } from "../../server/storage/threads.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { explain } from "../support/explain.ts";
import type { Parameter } from "../support/explain.ts";

const THREAD = "t7";
const key = { configurable: { thread_id: THREAD, checkpoint_ns: "" } };

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
  // 3,000 threads of 30 checkpoints; each checkpoint writes one of its two channels.
  const fill = [
    "insert into holdfast.threads (thread_id, state) select concat('t', n), '{}' from generate_series(1, 3000) as n",
    `insert into public.checkpoints (thread_id, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
     select concat('t', t), lpad(n::text, 6, '0'), case when n > 1 then lpad((n - 1)::text, 6, '0') end,
            jsonb_build_object('v', 4, 'id', lpad(n::text, 6, '0'), 'channel_versions', jsonb_build_object('a', n, 'log', 1)),
            jsonb_build_object('step', n, 'run_id', concat('r', n / 10))
       from generate_series(1, 3000) as t, generate_series(1, 30) as n`,
    `insert into public.checkpoint_blobs (thread_id, channel, version, type, blob)
     select thread_id, 'a', checkpoint -> 'channel_versions' ->> 'a', 'json', '1' from public.checkpoints`,
    `insert into public.checkpoint_blobs (thread_id, channel, version, type, blob)
     select concat('t', n), 'log', '1', 'empty', null from generate_series(1, 3000) as n`,
    `insert into public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, type, blob)
     select thread_id, checkpoint_id, 'task', i, 'log', 'json', '1' from public.checkpoints, generate_series(0, 1) as i`,
    "vacuum analyze holdfast.threads, public.checkpoints, public.checkpoint_blobs, public.checkpoint_writes",
  ];
  for (const statement of fill) await scratch.database.query(statement);
});
afterAll(() => scratch.close());

// All tables and their indexes are some 9,000 blocks.
test.each<[string, (on: Queryable) => Promise<unknown>, number]>([
  ["a thread", (on) => findWholeThread(on, THREAD), 20],
  ["the stored state of a thread", (on) => findThreadState(on, THREAD), 20],
  ["the newest checkpoint of a thread", (on) => new Checkpoints(on).getTuple(key), 40],
  [
    "a checkpoint by its id",
    (on) => new Checkpoints(on).getTuple({ configurable: { ...key.configurable, checkpoint_id: "000009" } }),
    40,
  ],
  [
    "ten states of a history",
    async (on) => [
      await findThread(on, THREAD),
      await Array.fromAsync(new Checkpoints(on).list(key, { limit: 10 })),
    ],
    150,
  ],
  [
    "ten states before another one, of one run",
    (on) =>
      Array.fromAsync(
        new Checkpoints(on).list(key, {
          limit: 10,
          before: { configurable: { checkpoint_id: "000025" } },
          filter: { run_id: "r1" },
        }),
      ),
    150,
  ],
  [
    "a delta channel through thirty ancestors",
    (on) => new Checkpoints(on).getDeltaChannelHistory({ config: key, channels: ["log"] }),
    500,
  ],
])("%s: every table is read by an index, and few blocks of it", async (_, read, most) => {
  const asked: { text: string; values: readonly unknown[] }[] = [];
  const noting: Queryable = {
    seals: scratch.database.seals,
    query: (text, values = []) => {
      asked.push({ text, values });
      return scratch.database.query(text, values);
    },
  };
  const answer = await read(noting);
  expect(answer).toBeTruthy();
  expect(asked.length).toBeGreaterThan(0);
  for (const { text, values } of asked) {
    // What has a name is prepared: PostgreSQL may plan it once for all values, and keep that plan.
    const isPrepared = /^\/\* \w+ \*\//.test(text);
    for (const mode of [
      "force_custom_plan",
      ...(isPrepared ? (["force_generic_plan"] as const) : []),
    ] as const) {
      const { nodes, blocks } = await explain(scratch.database, text, values as Parameter[], mode);
      const whole = nodes.filter((node) => node["Node Type"] === "Seq Scan" && node["Relation Name"]);
      expect([mode, text, whole.map((node) => node["Relation Name"])]).toEqual([mode, text, []]);
      expect([mode, text, blocks < most]).toEqual([mode, text, true]);
    }
  }
});
