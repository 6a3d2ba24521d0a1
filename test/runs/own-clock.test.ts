// A server whose clock is far behind the database's: runs are left to those whose clock is right, and wait where nobody
// else is there. Another server is a row here that beats: it takes runs when it comes to them, which it never does.
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { startTestServer, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const SETTINGS = { HOLDFAST_CONFIG: "test/fixtures/slow.langgraph.json" };
const held = useServer(SETTINGS);
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());
afterEach(async () => {
  vi.restoreAllMocks();
  await held.scratch.database.query("delete from holdfast.instances where worker_id = $1", [OTHER]);
  await ready(200);
});

const OTHER = randomUUID();
/** Beaten ahead of its time, so that it lives for the whole test. */
async function joinOther(isDraining = false): Promise<void> {
  await held.scratch.database.query(
    `insert into holdfast.instances (worker_id, beat_at, is_draining) values ($1, now() + interval '12 s', $2)`,
    [OTHER, isDraining],
  );
}

function fallBehind(ms: number): void {
  const real = Date.now.bind(Date);
  vi.spyOn(Date, "now").mockImplementation(() => real() - ms);
}

async function ready(status: number, { url } = held.server): Promise<object> {
  let said: object = {};
  const look = async (): Promise<boolean> => {
    const answer = await fetch(`${url}/ready`);
    said = (await answer.json()) as object;
    return answer.status === status;
  };
  await until(look, `/ready to be ${status}`);
  return said;
}

interface Climb {
  readonly threadId: string;
  readonly name: string;
  readonly runId: string;
}

async function start(threadId: string = randomUUID(), { client } = held.server): Promise<Climb> {
  const name = randomUUID();
  const input = { name, gate: gate.url };
  const run = await client.runs.create(threadId, "climbs", { input, ifNotExists: "create" });
  return { threadId, name, runId: run.run_id };
}

const steps = ({ name }: Climb): string[] => [1, 2, 3].map((step) => `${name}-${step}`);
const callsOf = ({ name }: Climb): string[] => gate.came.filter((came) => came.startsWith(name));
const openAll = (run: Climb): void => steps(run).forEach((step) => gate.open(step));

async function rowOf({ runId }: Climb): Promise<{ state: string; attempt: number } | undefined> {
  const [row] = await held.scratch.database.query<{ state: string; attempt: number }>(
    "select state, attempt from holdfast.runs where run_id = $1",
    [runId],
  );
  return row;
}

const becomes = (run: Climb, state: string, withinMs = 20_000): Promise<void> =>
  until(async () => (await rowOf(run))?.state === state, `the run to be ${state}`, withinMs);

test("it takes no runs while others do, says so, and takes them when its clock is right again", async () => {
  await joinOther();
  fallBehind(60_000);
  expect(await ready(503)).toMatchObject({ reason: expect.stringContaining("60 s behind") });
  const run = await start();
  openAll(run);
  expect(await rowOf(run)).toEqual({ state: "ready", attempt: 0 });
  vi.restoreAllMocks();
  await becomes(run, "success");
  expect(callsOf(run)).toEqual(steps(run));
});

test("nor does one that starts so", async () => {
  await joinOther();
  fallBehind(60_000);
  await ready(503);
  const run = await start();
  const second = await startTestServer(held.scratch.url, SETTINGS);
  await ready(503, second);
  expect(await rowOf(run)).toEqual({ state: "ready", attempt: 0 });
  await second.stop();
  vi.restoreAllMocks();
  openAll(run);
  await becomes(run, "success");
});

test("runs that the others leave lying, as they serve other graphs, are taken all the same", async () => {
  await joinOther();
  fallBehind(60_000);
  await ready(503);
  const [run, fresh] = [await start(), await start()];
  openAll(run);
  openAll(fresh);
  await held.scratch.database.query(
    "update holdfast.runs set updated_at = now() - interval '31 s' where run_id = $1",
    [run.runId],
  );
  // Sooner than the other one counts as dead.
  await becomes(run, "success", 5000);
  await becomes(fresh, "success", 5000);
  expect(await ready(200)).toMatchObject({ warning: expect.stringContaining("60 s behind") });
  vi.restoreAllMocks();
  await until(async () => !("warning" in (await ready(200))), "its clock to be right");
  // It leaves them to the others again.
  fallBehind(60_000);
  await ready(503);
});

test("where the clocks of all servers are behind, perhaps as the database is ahead, all take runs", async () => {
  const second = await startTestServer(held.scratch.url, SETTINGS);
  fallBehind(60_000);
  const warning = { ok: true, warning: expect.stringContaining("60 s behind") };
  const bothSay = async (): Promise<boolean> => {
    const said = await Promise.all([ready(200), ready(200, second)]);
    return said.every((answer) => "warning" in answer);
  };
  await until(bothSay, "both to know, and to be ready");
  expect([await ready(200), await ready(200, second)]).toEqual([warning, warning]);
  const run = await start();
  openAll(run);
  await becomes(run, "success");
  await second.stop();
});

test("a run that it is at is handed over, and nothing of it is done twice", async () => {
  const run = await start();
  await gate.waitFor(`${run.name}-1`);
  await joinOther();
  fallBehind(60_000);
  await ready(503);
  openAll(run);
  await becomes(run, "ready");
  expect(callsOf(run)).toEqual([`${run.name}-1`]);
  vi.restoreAllMocks();
  await becomes(run, "success");
});

test.each([false, true])(
  "where nobody else takes runs it does what it can, and the rest waits for its clock (others: %s)",
  async (hasOther) => {
    const before = await start();
    openAll(before);
    await becomes(before, "success");
    if (hasOther) await joinOther(true);
    fallBehind(60_000);
    const fresh = await start();
    openAll(fresh);
    await becomes(fresh, "success");
    const run = await start(before.threadId);
    openAll(run);
    await until(async () => ((await rowOf(run))?.attempt ?? 0) > 1, "another attempt", 20_000);
    expect(callsOf(run)).toEqual([]);
    expect(await ready(200)).toMatchObject({ warning: expect.stringContaining("60 s behind") });
    vi.restoreAllMocks();
    // It rests for up to half a minute, the longer the more often it was tried.
    await becomes(run, "success", 40_000);
    expect(callsOf(run)).toEqual(steps(run));
  },
  90_000,
);
