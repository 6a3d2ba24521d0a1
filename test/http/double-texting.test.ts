// A second message while the first one is being answered: refused, queued, in its place, or as if it had been first.
// Each law holds whichever server the live run is on.
import { describe, expect, test } from "vitest";
import type { Run } from "@langchain/langgraph-sdk";
import {
  checkpointRows,
  logOf,
  newName,
  newThread,
  post,
  reaches,
  statusOf,
  usePair,
} from "../fixtures/pair.ts";
import { collect } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const pair = usePair();

const BUSY =
  "Thread is already running a task. Wait for it to finish or choose a different multitask strategy.";
const inputOf = (name: string): { name: string; gate: string } => ({ name, gate: pair.gate.url });
const whole = (name: string): string[] => ["begin", "work", "finish"].map((node) => `${name}:${node}`);

async function start(server: TestServer, threadId: string, name: string, options = {}): Promise<Run> {
  const run = await server.client.runs.create(threadId, "slow", { input: inputOf(name), ...options });
  await pair.gate.waitFor(name);
  return run;
}

async function finished(server: TestServer, threadId: string, name: string): Promise<void> {
  pair.gate.open(name);
  await server.client.runs.wait(threadId, "slow", { input: inputOf(name) });
}

async function traces(run: Run): Promise<unknown[]> {
  const events = "select seq from holdfast.run_events where run_id = $1";
  const points = "select checkpoint_id from public.checkpoints where metadata ->> 'run_id' = $1";
  return [
    ...(await pair.scratch.database.query(events, [run.run_id])),
    ...(await pair.scratch.database.query(points, [run.run_id])),
  ];
}

describe.each(["the server that is asked", "another server"])("the live run is on %s", (where) => {
  const owner = (): TestServer => (where === "another server" ? pair.there : pair.here);

  test("reject is 422 with the official text on every route, and the live run goes on", async () => {
    const threadId = await newThread(pair.here);
    const name = newName();
    const run = await start(owner(), threadId, name);
    for (const route of ["runs", "runs/wait", "runs/stream"]) {
      const refused = await post(pair.here, `/threads/${threadId}/${route}`, { assistant_id: "slow" });
      expect([refused.status, await refused.text()]).toEqual([422, BUSY]);
    }
    pair.gate.open(name);
    await reaches(pair.here, run, "success");
    expect(await logOf(pair.here, threadId)).toEqual(whole(name));
    expect(await pair.here.client.runs.list(threadId)).toHaveLength(1);
  });

  test("enqueued runs start in order, one at a time, each on the values of the one before", async () => {
    const threadId = await newThread(pair.here);
    const [first, ...rest] = Array.from({ length: 5 }, newName);
    const live = await start(owner(), threadId, first ?? "");
    const queued: Run[] = [];
    for (const name of rest) {
      queued.push(await enqueue(pair.here, threadId, name));
    }
    expect(queued.map(({ status }) => status)).toEqual(rest.map(() => "pending"));
    for (const name of rest.toReversed()) pair.gate.open(name);
    expect(await statusOf(pair.here, threadId, queued[0]?.run_id ?? "")).toBe("pending");
    pair.gate.open(first ?? "");
    for (const run of [live, ...queued]) await reaches(pair.here, run, "success");
    expect(await logOf(pair.here, threadId)).toEqual([first ?? "", ...rest].flatMap(whole));
    expect((await pair.here.client.threads.get(threadId)).status).toBe("idle");
  });

  test("interrupt stops the old run, keeps its checkpoints, and goes on from them", async () => {
    const threadId = await newThread(pair.here);
    const [old, fresh] = [newName(), newName()];
    const oldRun = await start(owner(), threadId, old);
    pair.gate.open(fresh);
    const values = await pair.here.client.runs.wait(threadId, "slow", {
      input: inputOf(fresh),
      multitaskStrategy: "interrupt",
    });
    expect(values).toMatchObject({ log: [`${old}:begin`, ...whole(fresh)] });
    expect(await statusOf(pair.here, threadId, oldRun.run_id)).toBe("interrupted");
    expect(pair.gate.left).toContain(old);
    expect(await traces(oldRun)).not.toEqual([]);
    const history = await pair.here.client.threads.getHistory<{ log?: string[] }>(threadId);
    expect(history.map((state) => state.values.log)).toContainEqual([`${old}:begin`]);
  });

  test("interrupt takes the place of runs that wait, too", async () => {
    const threadId = await newThread(pair.here);
    const [live, waiting, fresh] = [newName(), newName(), newName()];
    const runs = [await start(owner(), threadId, live), await enqueue(pair.here, threadId, waiting)];
    const last = await start(pair.here, threadId, fresh, { multitaskStrategy: "interrupt" });
    for (const run of runs) await reaches(pair.here, run, "interrupted");
    expect(await statusOf(pair.here, threadId, last.run_id)).toBe("running");
    pair.gate.open(fresh);
    await reaches(pair.here, last, "success");
    expect(pair.gate.came).not.toContain(waiting);
  });

  test.each(["runs", "runs/wait", "runs/stream"])(
    "rollback over %s leaves no trace of the old run",
    async (route) => {
      const threadId = await newThread(pair.here);
      const [before, old, fresh] = [newName(), newName(), newName()];
      await finished(owner(), threadId, before);
      const oldRun = await start(owner(), threadId, old);
      const watching = collect(pair.here.client.runs.joinStream(threadId, oldRun.run_id));
      pair.gate.open(fresh);
      const body = { assistant_id: "slow", input: inputOf(fresh), multitask_strategy: "rollback" };
      const answer = await post(pair.here, `/threads/${threadId}/${route}`, body);
      expect(answer.status).toBe(200);
      await answer.text();
      const idle = async (): Promise<boolean> =>
        (await pair.here.client.threads.get(threadId)).status === "idle";
      await until(idle, "the new run to end");
      expect(await logOf(pair.here, threadId)).toEqual([...whole(before), ...whole(fresh)]);
      await expect(pair.here.client.runs.get(threadId, oldRun.run_id)).rejects.toThrow(
        "HTTP 404: Run not found",
      );
      expect(await traces(oldRun)).toEqual([]);
      expect((await watching).map(({ event }) => event)).toContain("metadata");
    },
  );

  test("a run that is rolled back leaves the thread as it was, to the last row", async () => {
    const threadId = await newThread(pair.here);
    const [before, old] = [newName(), newName()];
    await finished(owner(), threadId, before);
    const [rows, state] = [
      await checkpointRows(pair, threadId),
      await pair.here.client.threads.getState(threadId),
    ];
    const run = await start(owner(), threadId, old);
    await pair.here.client.runs.cancel(threadId, run.run_id, true, "rollback");
    expect(await checkpointRows(pair, threadId)).toEqual(rows);
    expect(await pair.here.client.threads.getState(threadId)).toEqual(state);
    expect((await pair.here.client.threads.get(threadId)).status).toBe("idle");
    expect(await pair.here.client.runs.list(threadId)).toHaveLength(1);
  });

  test("an answer that is rolled back leaves the question open, and another answer counts", async () => {
    const threadId = await newThread(pair.here);
    const name = newName();
    await owner().client.runs.wait(threadId, "asksThenWaits", { input: inputOf(name) });
    const [rows, state] = [
      await checkpointRows(pair, threadId),
      await pair.here.client.threads.getState(threadId),
    ];
    const run = await owner().client.runs.create(threadId, "asksThenWaits", { command: { resume: "yes" } });
    await pair.gate.waitFor(name);
    await pair.here.client.runs.cancel(threadId, run.run_id, true, "rollback");
    expect.soft((await pair.here.client.threads.get(threadId)).status).toBe("interrupted");
    expect.soft(await pair.here.client.threads.getState(threadId)).toEqual(state);
    expect.soft(await checkpointRows(pair, threadId)).toEqual(rows);
    pair.gate.open(name);
    const values = await pair.here.client.runs.wait(threadId, "asksThenWaits", {
      command: { resume: "no" },
    });
    expect(values).toMatchObject({ log: ["answer:no"] });
  });
});

const enqueue = (server: TestServer, threadId: string, name: string): Promise<Run> =>
  server.client.runs.create(threadId, "slow", { input: inputOf(name), multitaskStrategy: "enqueue" });

test("reject is 422 while a run is delayed, and a delayed run does not hold up an enqueued one", async () => {
  const threadId = await newThread(pair.here);
  const later = await pair.here.client.runs.create(threadId, "slow", {
    input: inputOf(newName()),
    afterSeconds: 60,
  });
  expect(later.status).toBe("pending");
  expect((await pair.here.client.threads.get(threadId)).status).toBe("busy");
  const refused = await post(pair.there, `/threads/${threadId}/runs`, { assistant_id: "slow" });
  expect([refused.status, await refused.text()]).toEqual([422, BUSY]);
  const name = newName();
  pair.gate.open(name);
  const run = await enqueue(pair.there, threadId, name);
  await reaches(pair.here, run, "success");
  expect(await statusOf(pair.here, threadId, later.run_id)).toBe("pending");
  await pair.here.client.runs.cancel(threadId, later.run_id, true, "rollback");
  await expect(pair.here.client.runs.get(threadId, later.run_id)).rejects.toThrow("HTTP 404: Run not found");
  expect((await pair.here.client.threads.get(threadId)).status).toBe("idle");
});

test("a failed run that waits for its second try is rolled back, but not what another stands on", async () => {
  const threadId = await newThread(pair.here);
  const [failing, live] = [newName(), newName()];
  const failed = await start(pair.here, threadId, failing);
  pair.gate.refuse(failing);
  await reaches(pair.here, failed, "error");
  const running = await start(pair.here, threadId, live);
  const retried = await post(pair.here, `/threads/${threadId}/runs/${failed.run_id}/retry`);
  expect(await retried.json()).toMatchObject({ status: "pending" });
  await pair.here.client.runs.cancel(threadId, failed.run_id, false, "rollback");
  await expect(pair.here.client.runs.get(threadId, failed.run_id)).rejects.toThrow("HTTP 404");
  pair.gate.open(live);
  await reaches(pair.here, running, "success");
  const orphans = `select from public.checkpoints c where thread_id = $1 and parent_checkpoint_id is not null
    and not exists (select from public.checkpoints p where p.thread_id = c.thread_id and p.checkpoint_id = c.parent_checkpoint_id)`;
  expect(await pair.scratch.database.query(orphans, [threadId])).toEqual([]);
});

test("an answer to one of two questions that is rolled back leaves both open", async () => {
  const { client } = pair.here;
  const threadId = await newThread(pair.here);
  const name = newName();
  await client.runs.wait(threadId, "asksOn", { input: inputOf(name) });
  const [rows, state] = [await checkpointRows(pair, threadId), await client.threads.getState(threadId)];
  const right = state.tasks.find((task) => task.name === "right")?.interrupts[0]?.id ?? "";
  const run = await client.runs.create(threadId, "asksOn", { command: { resume: { [right]: "no" } } });
  await pair.gate.waitFor(name);
  await client.runs.cancel(threadId, run.run_id, true, "rollback");
  expect.soft(await client.threads.getState(threadId)).toEqual(state);
  expect.soft(await checkpointRows(pair, threadId)).toEqual(rows);
});

test("an answer to the second question of a node that is rolled back leaves the first one answered", async () => {
  const { client } = pair.here;
  const threadId = await newThread(pair.here);
  const name = newName();
  await client.runs.wait(threadId, "asksAgain", { input: inputOf(name) });
  await client.runs.wait(threadId, "asksAgain", { command: { resume: "one" } });
  const [thread, state] = [await client.threads.get(threadId), await client.threads.getState(threadId)];
  const run = await client.runs.create(threadId, "asksAgain", { command: { resume: "wrong" } });
  await pair.gate.waitFor(name);
  await client.runs.cancel(threadId, run.run_id, true, "rollback");
  const { status, interrupts } = await client.threads.get(threadId);
  expect.soft([status, interrupts]).toEqual(["interrupted", thread.interrupts]);
  expect.soft(await client.threads.getState(threadId)).toEqual(state);
  pair.gate.open(name);
  await client.runs.wait(threadId, "asksAgain", { command: { resume: "two" } });
  expect(await logOf(pair.here, threadId)).toEqual(["one", "two"]);
});

test("answers to two questions that are rolled back leave both open, although one has led to another", async () => {
  const { client } = pair.here;
  const threadId = await newThread(pair.here);
  const name = newName();
  await client.runs.wait(threadId, "asksOn", { input: inputOf(name) });
  const state = await client.threads.getState(threadId);
  const asked = state.tasks.flatMap(({ interrupts }) => interrupts);
  const resume = Object.fromEntries(asked.map(({ id = "" }) => [id, "yes"]));
  const run = await client.runs.create(threadId, "asksOn", { command: { resume } });
  await pair.gate.waitFor(name);
  await until(async () => {
    const { tasks } = await client.threads.getState(threadId);
    return tasks.some(({ interrupts }) => interrupts[0]?.value === "sure?");
  }, "the next question");
  await client.runs.cancel(threadId, run.run_id, true, "rollback");
  expect(await client.threads.getState(threadId)).toEqual(state);
});

test.each(["success", "error"])(
  "what a run left that was stopped between two servers is the thread's state, although nothing runs in its place, after %s",
  async (ending) => {
    const threadId = await newThread(pair.here);
    const [before, old] = [newName(), newName()];
    if (ending === "success") await finished(pair.here, threadId, before);
    else {
      const failing = await start(pair.here, threadId, before);
      pair.gate.refuse(before);
      await reaches(pair.here, failing, "error");
    }
    const left = await start(pair.here, threadId, old);
    const hasBegun = async (): Promise<boolean> =>
      (await logOf(pair.here, threadId)).includes(`${old}:begin`);
    await until(hasBegun, "its first step to be written");
    // As a reaper leaves it, with nobody free to take it.
    await pair.scratch.database.query(
      "update holdfast.runs set state = 'ready', worker_id = null, run_at = now() + interval '1 h' where run_id = $1",
      [left.run_id],
    );
    const later = await pair.here.client.runs.create(threadId, "slow", {
      input: inputOf(newName()),
      multitaskStrategy: "interrupt",
      afterSeconds: 60,
    });
    expect(await statusOf(pair.here, threadId, left.run_id)).toBe("interrupted");
    await pair.here.client.runs.cancel(threadId, later.run_id, true);
    const { status, error } = Object(await pair.here.client.threads.get(threadId));
    expect([status, error ?? null]).toEqual(["idle", null]);
    const told = ending === "success" ? whole(before) : [`${before}:begin`];
    expect(await logOf(pair.here, threadId)).toEqual([...told, `${old}:begin`]);
  },
);

test("whatever comes at once on two servers, the thread comes to rest and every accepted run has ended", async () => {
  const threadId = await newThread(pair.here);
  const strategies = ["reject", "enqueue", "interrupt", "rollback"];
  const send = async (index: number): Promise<Run | number> => {
    const name = newName();
    if (index % 3 !== 0) pair.gate.open(name);
    const body = {
      assistant_id: "slow",
      input: inputOf(name),
      multitask_strategy: strategies[(index * 7) % 4],
    };
    const response = await post(index % 2 ? pair.here : pair.there, `/threads/${threadId}/runs`, body);
    return response.ok ? ((await response.json()) as Run) : response.status;
  };
  const sent = await Promise.all(Array.from({ length: 40 }, (_, index) => send(index)));
  expect(new Set(sent.filter((one) => typeof one === "number"))).toEqual(new Set([422]));
  const last = newName();
  pair.gate.open(last);
  const values = await pair.here.client.runs.wait(threadId, "slow", {
    input: inputOf(last),
    multitaskStrategy: "interrupt",
  });
  expect((values as { log: string[] }).log.slice(-3)).toEqual(whole(last));
  const runs = await pair.here.client.runs.list(threadId, { limit: 1000 });
  const ended = new Set(["success", "interrupted"]);
  expect(runs.filter(({ status }) => !ended.has(status))).toEqual([]);
  expect((await pair.there.client.threads.get(threadId)).status).toBe("idle");
});

const key = (): Record<string, string> => ({ "idempotency-key": newName() });
const idOf = async (answer: Response): Promise<string> => ((await answer.json()) as Run).run_id;

describe("a repeated request", () => {
  test("with the same Idempotency-Key gets the first run, during it and after it", async () => {
    const threadId = await newThread(pair.here);
    const name = newName();
    const headers = key();
    const body = { assistant_id: "slow", input: inputOf(name) };
    const first = await idOf(await post(pair.here, `/threads/${threadId}/runs`, body, headers));
    await pair.gate.waitFor(name);
    expect(await idOf(await post(pair.there, `/threads/${threadId}/runs`, body, headers))).toBe(first);
    pair.gate.open(name);
    const values = await (await post(pair.there, `/threads/${threadId}/runs/wait`, body, headers)).json();
    expect(values).toMatchObject({ log: whole(name) });
    expect(await pair.here.client.runs.list(threadId)).toHaveLength(1);
  });

  test.each(["reject", "enqueue", "interrupt"])(
    "makes one run also when all come at once on two servers (%s)",
    async (strategy) => {
      const threadId = await newThread(pair.here);
      const name = newName();
      const headers = key();
      const body = { assistant_id: "slow", input: inputOf(name), multitask_strategy: strategy };
      const answers = await Promise.all(
        Array.from({ length: 16 }, (_, index) =>
          post(index % 2 ? pair.here : pair.there, `/threads/${threadId}/runs`, body, headers),
        ),
      );
      pair.gate.open(name);
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
      expect(new Set(await Promise.all(answers.map(idOf))).size).toBe(1);
      expect(await pair.here.client.runs.list(threadId)).toHaveLength(1);
    },
  );

  test("without a thread makes one run, too", async () => {
    const headers = key();
    const body = { assistant_id: "silent", input: {} };
    const answers = await Promise.all(
      Array.from({ length: 16 }, (_, index) =>
        post(index % 2 ? pair.here : pair.there, "/runs", body, headers),
      ),
    );
    expect(new Set(await Promise.all(answers.map(idOf))).size).toBe(1);
  });
});
