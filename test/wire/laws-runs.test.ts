// Laws of the wire: what becomes of runs. Those of a second message while the first is being answered, of cancelling, and
// of what a request may and may not leave behind.
import { randomUUID } from "node:crypto";
import type { Run } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { eachCluster } from "../support/cluster.ts";
import { collect } from "../support/server.ts";
import { until } from "../support/until.ts";

let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const BUSY =
  "Thread is already running a task. Wait for it to finish or choose a different multitask strategy.";
const ROUTES = ["runs", "runs/wait", "runs/stream"];

const newName = (): string => randomUUID().slice(0, 8);
const inputOf = (name: string): { name: string; gate: string } => ({ name, gate: gate.url });
const whole = (name: string): string[] => ["begin", "work", "finish"].map((node) => `${name}:${node}`);
/** What a run that waited for its values was asked. */
const questionsOf = (values: unknown): { id: string }[] => Object(values)["__interrupt__"];

const pathOf = ({ thread_id: thread, run_id: run }: Run): string => `/threads/${thread}/runs/${run}`;

eachCluster({ HOLDFAST_CONFIG: "test/fixtures/laws.langgraph.json" }, (cluster) => {
  const created = (threadId: string, name: string, options = {}): Promise<Run> =>
    cluster.client.runs.create(threadId, "slow", { input: inputOf(name), ...options });

  /** A run that waits at the gate. */
  async function start(threadId: string, name: string, options = {}): Promise<Run> {
    const run = await created(threadId, name, options);
    await gate.waitFor(name);
    return run;
  }

  const enqueue = (threadId: string, name: string): Promise<Run> =>
    created(threadId, name, { multitaskStrategy: "enqueue" });

  const statusOf = async ({ thread_id: threadId, run_id: runId }: Run): Promise<string> =>
    (await cluster.client.runs.get(threadId, runId)).status;

  const reaches = (run: Run, status: string): Promise<void> =>
    until(async () => (await statusOf(run)) === status, `the run to be ${status}`);

  const threadStatus = async (threadId: string): Promise<string> =>
    (await cluster.client.threads.get(threadId)).status;

  const logOf = async (threadId: string): Promise<string[]> =>
    (await cluster.client.threads.getState<{ log?: string[] }>(threadId)).values.log ?? [];

  /** Everything that is stored of a thread and its runs. */
  const rowsOf = async (threadId: string): Promise<string[]> => {
    const tables = ["public.checkpoints", "public.checkpoint_blobs", "public.checkpoint_writes"];
    const all = [...tables, "holdfast.runs", "holdfast.threads"].map((table) =>
      cluster.scratch.database.query<{ row: string }>(
        `select t::text as row from ${table} t where thread_id = $1 order by 1`,
        [threadId],
      ),
    );
    return (await Promise.all(all)).flat().map(({ row }) => row);
  };

  /** What a run has left in its log and among the checkpoints. */
  const tracesOf = async ({ run_id: runId }: Run): Promise<unknown[]> => {
    const { database } = cluster.scratch;
    const events = "select seq from holdfast.run_events where run_id = $1";
    const points = "select checkpoint_id from public.checkpoints where metadata ->> 'run_id' = $1";
    return [...(await database.query(events, [runId])), ...(await database.query(points, [runId]))];
  };

  test("reject is 422 while a run is pending, running or delayed", async () => {
    const refuses = async (threadId: string): Promise<void> => {
      for (const route of ROUTES) {
        const refused = await cluster.post(`/threads/${threadId}/${route}`, { assistant_id: "slow" });
        expect([route, refused.status, await refused.text()]).toEqual([route, 422, BUSY]);
      }
    };
    const [busy, later] = [await cluster.newThread(), await cluster.newThread()];
    const [live, waiting] = [newName(), newName()];
    const running = await start(busy, live);
    await refuses(busy);
    const pending = await enqueue(busy, waiting);
    await cluster.client.runs.cancel(busy, running.run_id, true);
    await gate.waitFor(waiting);
    await refuses(busy);
    gate.open(waiting);
    await reaches(pending, "success");
    expect(await logOf(busy)).toEqual([`${live}:begin`, ...whole(waiting)]);
    expect(await cluster.client.runs.list(busy)).toHaveLength(2);
    const delayed = await created(later, newName(), { afterSeconds: 60 });
    expect([delayed.status, await threadStatus(later)]).toEqual(["pending", "busy"]);
    await refuses(later);
    await cluster.client.runs.cancel(later, delayed.run_id);
  });

  test("enqueued runs start in order, one at a time", async () => {
    const threadId = await cluster.newThread();
    const [first = "", ...rest] = Array.from({ length: 5 }, newName);
    const live = await start(threadId, first);
    const queued: Run[] = [];
    for (const name of rest) queued.push(await enqueue(threadId, name));
    expect(queued.map(({ status }) => status)).toEqual(rest.map(() => "pending"));
    for (const name of rest.toReversed()) gate.open(name);
    expect(gate.came).not.toContain(rest[0]);
    gate.open(first);
    for (const run of [live, ...queued]) await reaches(run, "success");
    expect(await logOf(threadId)).toEqual([first, ...rest].flatMap(whole));
    expect(gate.came.filter((name) => rest.includes(name))).toEqual(rest);
  });

  test("interrupt stops the old run and keeps its checkpoints", async () => {
    const threadId = await cluster.newThread();
    const [old, fresh] = [newName(), newName()];
    const oldRun = await start(threadId, old);
    gate.open(fresh);
    const values = await cluster.client.runs.wait(threadId, "slow", {
      input: inputOf(fresh),
      multitaskStrategy: "interrupt",
    });
    expect(values).toMatchObject({ log: [`${old}:begin`, ...whole(fresh)] });
    expect(await statusOf(oldRun)).toBe("interrupted");
    expect(gate.left).toContain(old);
    expect(await tracesOf(oldRun)).not.toEqual([]);
    const history = await cluster.client.threads.getHistory<{ log?: string[] }>(threadId);
    expect(history.map((state) => state.values.log)).toContainEqual([`${old}:begin`]);
  });

  test("rollback leaves no trace of the old run, also on wait", async () => {
    for (const route of ROUTES) {
      const threadId = await cluster.newThread();
      const [before, old, fresh] = [newName(), newName(), newName()];
      for (const name of [before, fresh]) gate.open(name);
      await cluster.client.runs.wait(threadId, "slow", { input: inputOf(before) });
      const oldRun = await start(threadId, old);
      const body = { assistant_id: "slow", input: inputOf(fresh), multitask_strategy: "rollback" };
      const answer = await cluster.post(`/threads/${threadId}/${route}`, body);
      expect(answer.status).toBe(200);
      await answer.text();
      await until(async () => (await threadStatus(threadId)) === "idle", "the new run to end");
      expect([route, ...(await logOf(threadId))]).toEqual([route, ...whole(before), ...whole(fresh)]);
      const gone = cluster.client.runs.get(threadId, oldRun.run_id);
      await expect(gone).rejects.toThrow("HTTP 404: Run not found");
      expect(await tracesOf(oldRun)).toEqual([]);
    }
  });

  test("cancel without wait answers 202 at once and the graph stops", async () => {
    const threadId = await cluster.newThread();
    const name = newName();
    const run = await start(threadId, name);
    const answer = await cluster.post(`${pathOf(run)}/cancel?wait=0`);
    expect([answer.status, await answer.text()]).toEqual([202, ""]);
    await until(() => gate.left.includes(name), "the node's signal to be aborted", 2000);
    await reaches(run, "interrupted");
    expect(await logOf(threadId)).toEqual([`${name}:begin`]);
  });

  test("cancel keeps the thread's values", async () => {
    const threadId = await cluster.newThread();
    const [before, cancelled, waiting, next] = [newName(), newName(), newName(), newName()];
    for (const name of [before, next]) gate.open(name);
    await cluster.client.runs.wait(threadId, "slow", { input: inputOf(before) });
    const running = await start(threadId, cancelled);
    const pending = await enqueue(threadId, waiting);
    for (const run of [pending, running]) await cluster.client.runs.cancel(threadId, run.run_id, true);
    const { status, values } = await cluster.client.threads.get(threadId);
    const kept = [...whole(before), `${cancelled}:begin`];
    expect([status, values]).toEqual(["idle", expect.objectContaining({ log: kept })]);
    expect(await statusOf(pending)).toBe("interrupted");
    const after = await cluster.client.runs.wait(threadId, "slow", { input: inputOf(next) });
    expect(after).toMatchObject({ log: [...kept, ...whole(next)] });
  });

  test("a delayed run starts when due and not before", async () => {
    const threadId = await cluster.newThread();
    const name = newName();
    gate.open(name);
    const run = await created(threadId, name, { afterSeconds: 1, streamMode: "values" });
    expect(run.status).toBe("pending");
    await collect(cluster.client.runs.joinStream(threadId, run.run_id));
    const sql = "select extract(epoch from started_at - created_at)::float as waited from holdfast.runs";
    const rows = await cluster.scratch.database.query<{ waited: number }>(`${sql} where run_id = $1`, [
      run.run_id,
    ]);
    expect(rows[0]?.waited).toBeGreaterThanOrEqual(1);
    expect(await logOf(threadId)).toEqual(whole(name));
    const other = await created(threadId, newName(), { afterSeconds: 3600 });
    await cluster.client.runs.cancel(threadId, other.run_id);
    expect([await statusOf(other), await threadStatus(threadId)]).toEqual(["interrupted", "idle"]);
  });

  test("wait returns an object, also for a run that wrote nothing", async () => {
    const { runs } = cluster.client;
    const threadId = await cluster.newThread();
    expect(await runs.wait(threadId, "silent", { input: {} })).toEqual({});
    expect(await runs.wait(null, "silent", { input: {} })).toEqual({});
    const name = newName();
    gate.open(name);
    // Whatever the run streams to others, those who wait get its values.
    const body = { assistant_id: "slow", input: inputOf(name), stream_mode: "custom" };
    const answer = await cluster.post(`/threads/${threadId}/runs/wait`, body);
    expect(await answer.json()).toMatchObject({ log: whole(name) });
    for (const run of await runs.list(threadId))
      expect(await runs.join(threadId, run.run_id)).toBeTypeOf("object");
  });

  test("a resume map answers two parallel interrupts in one run", async () => {
    const { runs, threads } = cluster.client;
    const threadId = await cluster.newThread();
    const told = questionsOf(await runs.wait(threadId, "asksTwice", { input: {} }));
    const asked = Object.values((await threads.get(threadId)).interrupts).flat();
    expect(asked.map(({ value }) => String(value)).toSorted()).toEqual(["left?", "right?"]);
    expect(told).toEqual(expect.arrayContaining(asked));
    const resume = Object.fromEntries(asked.map(({ id, value }) => [id, String(value).slice(0, -1)]));
    const answered = await runs.wait(threadId, "asksTwice", { command: { resume } });
    expect(answered).toMatchObject({ log: ["left:left", "right:right"] });
    expect(await runs.list(threadId)).toHaveLength(2);
    expect(await threadStatus(threadId)).toBe("idle");
  });

  test("a stale answer with strict resume fails and changes nothing", async () => {
    const { runs, threads } = cluster.client;
    const threadId = await cluster.newThread();
    const [asked] = questionsOf(await runs.wait(threadId, "asksThenWaits", { input: {} }));
    const before = await threads.getState(threadId);
    const stale = String(asked?.id).replace(/^./, (digit) => (digit === "0" ? "1" : "0"));
    const options = { command: { resume: { [stale]: "yes" } }, strictResume: true };
    const last = (await collect(runs.stream(threadId, "asksThenWaits", options))).at(-1);
    expect(last).toMatchObject({ event: "error", data: { error: "UnknownInterruptError" } });
    expect(await threads.getState(threadId)).toEqual(before);
    expect(await threadStatus(threadId)).toBe("interrupted");
    const fresh = { command: { resume: { [String(asked?.id)]: "yes" } }, strictResume: true };
    expect(await runs.wait(threadId, "asksThenWaits", fresh)).toMatchObject({ log: ["answer:yes"] });
  });

  test("request headers outside the allow-list are never stored", async () => {
    const threadId = await cluster.newThread();
    const secret = newName();
    const names = ["x-secret", "x-api-key", "authorization", "user-agent", "cookie", "x-forwarded-for"];
    const headers = Object.fromEntries(names.map((name) => [name, secret]));
    for (const route of ROUTES) {
      const body = { assistant_id: "silent", input: {}, multitask_strategy: "enqueue" };
      const answer = await cluster.post(`/threads/${threadId}/${route}`, body, headers);
      await answer.text();
    }
    await until(async () => (await threadStatus(threadId)) === "idle", "the runs to end");
    const rows = await rowsOf(threadId);
    expect(rows.length).toBeGreaterThan(ROUTES.length);
    expect(rows.join("\n")).not.toContain(secret);
    expect(JSON.stringify(await cluster.client.runs.list(threadId))).not.toContain(secret);
  });
});
