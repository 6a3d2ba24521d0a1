// Runs of a thread that change while somebody reads them slowly.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Engine } from "../../server/runs/engine.ts";
import { findBegin, followRuns, idOf, readPlace } from "../../server/runs/follow-runs.ts";
import { Hints } from "../../server/runs/hints.ts";
import { LiveRuns } from "../../server/runs/live.ts";
import { dataOf, nameOf } from "../../server/runs/log/lines.ts";
import { EventReader } from "../../server/runs/log/reader.ts";
import { watchThread } from "../../server/storage/watched.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/laws.langgraph.json" });
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

/** What an instance beside the server reads with: it executes nothing. */
function reader(): Engine {
  const { database } = held.scratch;
  return {
    database,
    hints: new Hints(database, openLog("error")),
    live: new LiveRuns(),
    reader: new EventReader(database),
  } as Partial<Engine> as Engine;
}

test("a run that is tried again while its first try is read shows each try once", async () => {
  const { client, url } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  const run = randomUUID();
  const { run_id: echo } = await client.runs.create(threadId, "echo", { input: {} });
  await client.runs.join(threadId, echo);
  const input = { name: run, gate: gate.url };
  const { run_id: failing } = await client.runs.create(threadId, "slow", { input });
  await gate.waitFor(run);
  gate.refuse(run);
  await until(async () => (await client.runs.get(threadId, failing)).status === "error", "the failure");
  const engine = reader();
  const gone = new AbortController();
  const begin = await findBegin(engine, threadId, readPlace("-1"));
  const told: { id: string; ordinal: number; name: string; data: string }[] = [];
  const events = followRuns(engine, threadId, { begin, tellsState: false, signal: gone.signal });
  let retried: number | undefined;
  for await (const batch of events) {
    for (const { seq, entry } of batch.events)
      told.push({
        id: idOf({ ordinal: batch.ordinal, position: seq }),
        ordinal: batch.ordinal,
        name: nameOf(entry),
        data: dataOf(entry),
      });
    // The list of runs has been read; the second of them has not.
    if (retried === undefined) {
      retried = (await fetch(`${url}/threads/${threadId}/runs/${failing}/retry`, { method: "POST" })).status;
      await gate.waitFor(run);
    }
    if (batch.ordinal === 3) gate.open(run);
    if (told.at(-1)?.data.includes("run_done") && batch.ordinal === 3) gone.abort();
  }
  expect(retried).toBe(200);
  expect(new Set(told.map(({ id }) => id)).size).toBe(told.length);
  const attempts = told.filter(({ name, data }) => name === "metadata" && data.includes("attempt"));
  expect(attempts.map(({ ordinal, data }) => [ordinal, JSON.parse(data)])).toEqual([
    [1, { run_id: echo, attempt: 1 }],
    [2, { run_id: failing, attempt: 1 }],
    [3, { run_id: failing, attempt: 2 }],
  ]);
  expect(told.filter(({ name }) => name === "error").map(({ ordinal }) => ordinal)).toEqual([2]);
  expect(told.filter(({ data }) => data.includes("run_done")).map(({ ordinal }) => ordinal)).toEqual([
    1, 2, 3,
  ]);
});

test("a run that is cancelled before it began is not shown, also where somebody follows by protocol v2", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  await watchThread(held.scratch.database, threadId);
  const [name, hindmost] = [randomUUID(), randomUUID()];
  const live = await client.runs.create(threadId, "slow", { input: { name, gate: gate.url } });
  await gate.waitFor(name);
  const waiting = await client.runs.create(threadId, "echo", { input: {}, multitaskStrategy: "enqueue" });
  const next = await client.runs.create(threadId, "slow", {
    input: { name: hindmost, gate: gate.url },
    multitaskStrategy: "enqueue",
  });
  await client.runs.cancel(threadId, waiting.run_id);
  gate.open(name);
  await gate.waitFor(hindmost);
  gate.open(hindmost);
  await client.runs.join(threadId, next.run_id);
  const engine = reader();
  const gone = new AbortController();
  const begin = await findBegin(engine, threadId, readPlace("-1"));
  const done: unknown[] = [];
  for await (const { events } of followRuns(engine, threadId, {
    begin,
    tellsState: false,
    signal: gone.signal,
  })) {
    const ends = events.map(({ entry }) => dataOf(entry)).filter((data) => data.includes("run_done"));
    done.push(...ends.map((data) => Object(JSON.parse(data)).run_id));
    if (done.includes(next.run_id)) gone.abort();
  }
  expect(done).toEqual([live.run_id, next.run_id]);
});

test("what is told of a thread ends with the thread, and whoever has its id next is not shown", async () => {
  const { client } = held.server;
  const threadId = randomUUID();
  const ran = async (): Promise<string> => {
    const run = await client.runs.create(threadId, "echo", { input: {}, ifNotExists: "create" });
    await client.runs.join(threadId, run.run_id);
    return run.run_id;
  };
  const first = await ran();
  const engine = reader();
  const gone = new AbortController();
  const begin = await findBegin(engine, threadId, readPlace("-1"));
  const done: unknown[] = [];
  const following = { begin, tellsState: false, signal: gone.signal };
  for await (const { events } of followRuns(engine, threadId, following)) {
    const ends = events.map(({ entry }) => dataOf(entry)).filter((data) => data.includes("run_done"));
    if (ends.length === 0) continue;
    done.push(...ends.map((data) => Object(JSON.parse(data)).run_id));
    if (done.length > 1) gone.abort();
    await client.threads.delete(threadId);
    await ran();
    await ran();
  }
  expect(done).toEqual([first]);
});

test("behind an event of a run that is gone, the next run is shown from its beginning", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  const runs: string[] = [];
  for (let count = 0; count < 2; count += 1) {
    const run = await client.runs.create(threadId, "echo", { input: {} });
    await client.runs.join(threadId, run.run_id);
    runs.push(run.run_id);
  }
  await client.runs.delete(threadId, runs[0] ?? "");
  const seen: unknown[] = [];
  for await (const { data } of client.threads.joinStream(threadId, { lastEventId: "1-2" })) {
    seen.push(data);
    if (Object(data).status === "run_done") break;
  }
  expect(seen[0]).toEqual({ run_id: runs[1], attempt: 1 });
});

test("an id of a run that has not begun, or that can never begin, is refused", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  const run = await client.runs.create(threadId, "echo", { input: {} });
  await client.runs.join(threadId, run.run_id);
  const engine = reader();
  expect(await findBegin(engine, threadId, readPlace("1-2"))).toMatchObject({ ordinal: 1, position: 2 });
  await expect(findBegin(engine, threadId, readPlace("2-0"))).rejects.toThrow("of another thread");
  expect(() => readPlace(`${2 ** 31 - 1}-0`)).toThrow("Last-Event-ID must be");
});
