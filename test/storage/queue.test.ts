// Which runs are accepted and taken, among those that are not for this server, not for now, or in the hands of somebody
// else in the same moment.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ThreadNotFound } from "../../server/errors.ts";
import { cancelRun, cancelRuns, retry } from "../../server/runs/cancel.ts";
import { createRun } from "../../server/runs/create.ts";
import { endRun } from "../../server/runs/end.ts";
import type { Engine } from "../../server/runs/engine.ts";
import type { Recording } from "../../server/runs/log/record.ts";
import type { AcceptedRun } from "../../server/runs/request.ts";
import { promoteWaiting } from "../../server/runs/worker.ts";
import { upsertSystemAssistants } from "../../server/storage/assistants.ts";
import { putForOwners } from "../../server/storage/checkpoints/writes.ts";
import type { Queryable } from "../../server/storage/database.ts";
import { insertSegments } from "../../server/storage/events.ts";
import { finishRun } from "../../server/storage/finish.ts";
import { beat, lockDeadInstances } from "../../server/storage/instances.ts";
import { claimRuns, lockWaitingThreads } from "../../server/storage/queue.ts";
import type { ClaimedRunRow } from "../../server/storage/queue.ts";
import { insertRun } from "../../server/storage/runs.ts";
import type { NewRun } from "../../server/storage/runs.ts";
import { ASSISTANT, engineOf } from "../fixtures/queue-engine.ts";
import { pointOf } from "../support/checkpoints.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { succeeded } from "../support/runs.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
  const { assistant_id: assistantId } = ASSISTANT;
  await upsertSystemAssistants(scratch.database, [{ assistantId, graphId: "any" }]);
  await query("update holdfast.assistants set revision = $1", [ASSISTANT.revision]);
});
afterAll(() => scratch.close());

const query = <Row>(text: string, values: unknown[] = []): Promise<Row[]> =>
  scratch.database.query<Row>(text, values);

const newRun = (graph: string, threadId: string): NewRun => ({
  runId: randomUUID(),
  threadId,
  assistantId: ASSISTANT.assistant_id,
  workerId: null,
  state: "ready",
  multitask: "reject",
  metadata: { graph_id: graph },
  kwargs: {},
  threadMetadata: {},
  timeoutMs: 60_000,
});

interface Place {
  readonly runId: string;
  readonly threadId: string;
}

/** A run on a thread of its own. */
async function leave(
  graph: string,
  more: Partial<NewRun> = {},
  on: Queryable = scratch.database,
): Promise<Place> {
  const run: NewRun = { ...newRun(graph, randomUUID()), creates: "thread", ...more };
  expect(await insertRun(on, run)).toMatchObject({ run_id: run.runId });
  return run;
}

const WAITING =
  "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

const workerId = randomUUID();
const claim = (graph: string, limit: number, on: Queryable = scratch.database): Promise<ClaimedRunRow[]> =>
  claimRuns(on, { workerId, limit, graphIds: [graph], timeoutMs: 60_000 });

const idsOf = (rows: readonly ClaimedRunRow[]): string[] => rows.map(({ run_id: runId }) => runId);

test("a server leaves runs of graphs that it does not serve to the servers that do", async () => {
  const { runId } = await leave("newer");
  expect(await claim("older", 10)).toEqual([]);
  expect(idsOf(await claim("newer", 10))).toEqual([runId]);
});

test("runs that came in one batch begin in its order", async () => {
  const batch = await scratch.database.transaction(async (transaction) => {
    const runIds: string[] = [];
    for (let at = 0; at < 4; at += 1) runIds.push((await leave("batched", {}, transaction)).runId);
    return runIds;
  });
  const begun: string[] = [];
  for (let at = 0; at < 4; at += 1) begun.push(...idsOf(await claim("batched", 1)));
  expect(begun).toEqual(batch);
});

test("a run that somebody is just about to stop does not hold up the next", async () => {
  const held = await leave("held");
  const next = await leave("held");
  await scratch.database.transaction(async (transaction) => {
    await transaction.query("select from holdfast.runs where run_id = $1 for update", [held.runId]);
    expect(idsOf(await claim("held", 1))).toEqual([next.runId]);
  });
});

test("threads whose delayed runs are not due do not keep a due one from being found", async () => {
  const [later, due] = [`a ${randomUUID()}`, `b ${randomUUID()}`];
  await leave("any", { threadId: later, state: "delayed", afterSeconds: 3600 });
  await leave("any", { threadId: due, state: "delayed", afterSeconds: -1 });
  const found = scratch.database.transaction((transaction) => lockWaitingThreads(transaction, 1));
  expect(await found).toEqual([due]);
});

const message = {
  assistant_id: ASSISTANT.assistant_id,
  stream_mode: ["values"],
  stream_subgraphs: false,
  multitask_strategy: "interrupt",
  if_not_exists: "reject",
  durability: "sync",
} as const;

test.each<[string, (at: Place) => Promise<unknown>]>([
  ["its cancel", (at) => cancelRun(engineOf(scratch.database, randomUUID()), at, "interrupt", null)],
  [
    "a message in its place",
    ({ threadId }) => createRun(engineOf(scratch.database, randomUUID()), threadId, { ...message }),
  ],
])("a run that a server takes in the same moment is stopped all the same: %s", async (_, stop) => {
  const at = await leave("any");
  let stopping: Promise<unknown> | undefined;
  await scratch.database.transaction(async (transaction) => {
    expect(idsOf(await claim("any", 1, transaction))).toEqual([at.runId]);
    stopping = stop(at);
    await until(async () => (await query(WAITING)).length > 0, "who stops it to wait");
  });
  await stopping;
  expect(await query("select state, cancel from holdfast.runs where run_id = $1", [at.runId])).toEqual([
    { state: "running", cancel: "interrupt" },
  ]);
});

test("a run that took too long has all of its time again when it is tried again", async () => {
  const at = await leave("slow");
  await claim("slow", 1);
  await query(
    `with over as (update holdfast.threads set status = 'error', resting = 'error' where thread_id = $2)
     update holdfast.runs set state = 'timeout', deadline = now(), ended_at = now() where run_id = $1`,
    [at.runId, at.threadId],
  );
  await retry(engineOf(scratch.database, randomUUID()), at);
  const [again] = await claim("slow", 1);
  expect(again).toMatchObject({ run_id: at.runId, attempt: 2 });
  expect(again?.left_ms).toBeGreaterThan(59_000);
});

test("a thread that is made for a run has nothing of one that has just gone", async () => {
  const threadId = randomUUID();
  const asked = { threadConfig: { was: 1, is: 2 }, configBefore: '{"was":1}', creates: "thread" } as const;
  expect(await insertRun(scratch.database, { ...newRun("gone", threadId), ...asked })).toBeUndefined();
  expect(await query("select from holdfast.threads where thread_id = $1", [threadId])).toEqual([]);
});

test("nothing more is put on the thread of a run that had none of its own", async () => {
  const { runId, threadId } = await leave("alone", { creates: "temporary" });
  expect(idsOf(await claim("alone", 1))).toEqual([runId]);
  const owner = { runId, threadId, workerId, attempt: 1 };
  await finishRun(scratch.database, owner, succeeded);
  const putting = createRun(engineOf(scratch.database, randomUUID()), threadId, { ...message });
  await expect(putting).rejects.toThrow(ThreadNotFound);
});

test("a run that waits for a change of the state by hand begins with it", async () => {
  const threadId = randomUUID();
  await query("insert into holdfast.threads (thread_id) values ($1)", [threadId]);
  let accepting: Promise<unknown> | undefined;
  await scratch.database.transaction(async (transaction) => {
    await transaction.query("update holdfast.threads set state_updated_at = now() where thread_id = $1", [
      threadId,
    ]);
    await transaction.query(
      "insert into public.checkpoints (thread_id, checkpoint_id, checkpoint) values ($1, '1', '{}')",
      [threadId],
    );
    accepting = insertRun(scratch.database, newRun("changed", threadId));
    await until(async () => (await query(WAITING)).length > 0, "the run to wait");
  });
  expect(await accepting).toMatchObject({ has_checkpoints: true });
});

test("runs of one thread are cancelled together, each by where it is, and those of others not at all", async () => {
  const { threadId, runId: running } = await leave("any", { workerId: randomUUID(), state: "running" });
  const more = async (): Promise<Place> => {
    const run = newRun("any", threadId);
    const added = { ...run, multitask: "enqueue", state: "blocked", isDecided: true } as const;
    expect(await insertRun(scratch.database, added)).toMatchObject({ run_id: run.runId });
    return run;
  };
  const [tried, waiting, delayed, over] = await Promise.all([more(), more(), more(), more()]);
  const other = await leave("any");
  await query("update holdfast.runs set attempt = 1 where run_id = $1", [tried.runId]);
  await query(
    "update holdfast.runs set state = 'delayed', run_at = now() + interval '1 h' where run_id = $1",
    [delayed.runId],
  );
  await query("update holdfast.runs set state = 'success', ended_at = now() where run_id = $1", [over.runId]);
  const gone = randomUUID();
  const runIds = [other, tried, waiting, delayed, over].map(({ runId }) => runId);
  const raised: unknown[] = [];
  const engine = engineOf(scratch.database, randomUUID());
  const { hints } = engine;
  await cancelRuns(
    {
      ...engine,
      hints: Object.assign(Object.create(hints), { raise: (hint: unknown) => raised.push(hint) }),
    },
    { threadId, runIds: [gone, running, ...runIds] },
    "interrupt",
  );
  const states = await query<{ run_id: string; state: string; cancel: string | null }>(
    "select run_id, state, cancel from holdfast.runs where run_id = any ($1)",
    [[running, ...runIds]],
  );
  const of = (one: string) => states.find(({ run_id: id }) => id === one);
  expect(of(running)).toMatchObject({ state: "running", cancel: "interrupt" });
  const ended = expect.objectContaining({ state: "interrupted", cancel: "interrupt" });
  expect([tried, waiting, delayed].map(({ runId }) => of(runId))).toEqual([ended, ended, ended]);
  expect([of(over.runId)?.state, of(other.runId)]).toEqual([
    "success",
    expect.objectContaining({ cancel: null }),
  ]);
  expect(raised).toEqual([{ kind: "cancel", runIds: [running] }, { kind: "ready" }]);
});

test("a run that is handed over takes along what its server has still in hand", async () => {
  const { runId, threadId } = await leave("moved");
  expect(idsOf(await claim("moved", 1))).toEqual([runId]);
  const owner = { runId, threadId, workerId, attempt: 1 };
  const segment = { runId, attempt: 1, seq: 0, last: 0, body: "e\tvalues\t{}", isFirst: true };
  const write = pointOf(threadId);
  const engine = engineOf(scratch.database, workerId);
  const checkpoints = {
    settled: () => putForOwners(scratch.database, workerId, [{ owner, write }], []),
  } as unknown as Engine["checkpoints"];
  const recording = {
    flushed: () => insertSegments(scratch.database, workerId, [segment]),
    close: () => undefined,
  } as unknown as Recording;
  const held = { run: { run_id: runId } as AcceptedRun, owner, recording, told: undefined };
  const outcome = { state: "handed over", error: null, threadStatus: "idle", threadState: null } as const;
  await endRun({ ...engine, checkpoints }, held, outcome);
  const left = `select state, (select count(*)::int from holdfast.run_events e where e.run_id = r.run_id) as events,
    (select count(*)::int from public.checkpoints c where c.thread_id = r.thread_id) as points
    from holdfast.runs r where run_id = $1`;
  expect(await query(left, [runId])).toEqual([{ state: "ready", events: 1, points: 1 }]);
});

test("a heartbeat tells of a thread that nobody promoted although another of its runs is delayed", async () => {
  await promoteWaiting(engineOf(scratch.database, randomUUID()));
  const hasWaiting = async (): Promise<boolean> =>
    (await beat(scratch.database, randomUUID(), false)).has_waiting;
  const { threadId } = await leave("any", { state: "delayed", afterSeconds: 3600 });
  expect(await hasWaiting()).toBe(false);
  // As a server leaves it that died between the end of a run and what follows it.
  const next = { multitask: "enqueue", state: "blocked", isDecided: true } as const;
  await insertRun(scratch.database, { ...newRun("any", threadId), ...next });
  expect(await hasWaiting()).toBe(true);
});

test("a server without a session lock is dead after fifteen seconds of silence, one whose lock is free much sooner", async () => {
  const [dead, silent, pooled, gone] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
  const future = randomUUID();
  const left = [
    [dead, true, 3],
    [silent, true, 1],
    [pooled, false, 14],
    [gone, false, 16],
    [future, false, -3600], // the clock of the database was set back after its death
  ] as const;
  const row =
    "insert into holdfast.instances (worker_id, has_lock, beat_at) values ($1, $2, now() - $3 * interval '1 s')";
  for (const values of left) await query(row, [...values]);
  const found = scratch.database.transaction((transaction) => lockDeadInstances(transaction, randomUUID()));
  expect((await found).toSorted()).toEqual([dead, gone, future].toSorted());
});
