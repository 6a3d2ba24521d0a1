// Breakpoints, when the server dies that has come to one: nobody has looked yet, so nothing goes on.
import { describe, expect, test } from "vitest";
import type { Run, ThreadState } from "@langchain/langgraph-sdk";
import { logOf, newName, newThread, reaches, usePair } from "../fixtures/pair.ts";
import { collect } from "../support/server.ts";
import { until } from "../support/until.ts";

const pair = usePair();
const client = (): typeof pair.here.client => pair.here.client;
const inputOf = (name: string): Record<string, unknown> => ({ name, gate: pair.gate.url });

/** As a reaper leaves the run of a server that is dead, even if it had all but ended. */
async function takeAway({ run_id: runId, thread_id: threadId }: Run): Promise<void> {
  const { database } = pair.scratch;
  await database.query("update holdfast.threads set status = 'busy', state = null where thread_id = $1", [
    threadId,
  ]);
  await database.query(
    "update holdfast.runs set state = 'ready', worker_id = null, run_at = now(), ended_at = null where run_id = $1",
    [runId],
  );
}

describe.each([
  { interruptBefore: ["work"] },
  { interruptAfter: ["begin"] },
  { interruptAfter: "*" as const },
])("a breakpoint as %o", (breakpoint) => {
  test("holds after a takeover, and is passed by who goes on", async () => {
    const [threadId, name] = [await newThread(pair.here), newName()];
    const options = { input: inputOf(name), streamMode: ["updates" as const], ...breakpoint };
    const run = await client().runs.create(threadId, "slow", options);
    await reaches(pair.here, run, "success");
    const undisturbed = await collect(client().runs.joinStream(threadId, run.run_id));
    await takeAway(run);
    await reaches(pair.here, run, "success");
    const { next, values } = await client().threads.getState(threadId);
    expect([next, values]).toMatchObject([["work"], { log: [`${name}:begin`] }]);
    expect((await client().threads.get(threadId)).status).toBe("interrupted");
    const frames = await collect(client().runs.joinStream(threadId, run.run_id));
    expect(frames.at(-1)?.data).toEqual(undisturbed.at(-1)?.data);
    pair.gate.open(name);
    await client().runs.wait(threadId, "slow", { input: null });
    expect(await logOf(pair.here, threadId)).toHaveLength(3);
  });
});

test.each(["the newest checkpoint", "that checkpoint by name"])(
  "who goes on from a breakpoint, at %s, has passed it also when his server dies",
  async (from) => {
    const [threadId, name] = [await newThread(pair.here), newName()];
    const breakpoint = { interruptBefore: ["work"] };
    await client().runs.wait(threadId, "slow", { input: inputOf(name), ...breakpoint });
    const { checkpoint } = await client().threads.getState(threadId);
    const id = checkpoint.checkpoint_id;
    const at = from === "the newest checkpoint" || !id ? {} : { checkpointId: id };
    const run = await client().runs.create(threadId, "slow", { input: null, ...breakpoint, ...at });
    await pair.gate.waitFor(name);
    await takeAway(run);
    pair.gate.open(name);
    await reaches(pair.here, run, "success");
    expect(await logOf(pair.here, threadId)).toEqual(
      ["begin", "work", "finish"].map((node) => `${name}:${node}`),
    );
  },
);

test("breakpoints of a graph in a graph hold after a takeover, also beside a question", async () => {
  const [threadId, name] = [await newThread(pair.here), newName()];
  const stopped = async (): Promise<unknown> => {
    const { next, tasks } = await client().threads.getState(threadId, undefined, { subgraphs: true });
    return { next, tasks };
  };
  const holds = async (options: object): Promise<void> => {
    const run = await client().runs.create(threadId, "stopsInside", options);
    await reaches(pair.here, run, "success");
    const before = await stopped();
    await takeAway(run);
    await reaches(pair.here, run, "success");
    expect(await stopped()).toEqual(before);
    expect((await client().threads.get(threadId)).status).toBe("interrupted");
  };
  await holds({ input: inputOf(name) });
  pair.gate.open(name);
  await holds({ command: { resume: "yes" } });
  await client().runs.wait(threadId, "stopsInside", { input: null });
  const nodes = ["begin", "work", "finish"].map((node) => `${name}:${node}`);
  expect(await logOf(pair.here, threadId)).toEqual(["answer:yes", ...nodes]);
});

test("a breakpoint of a graph in a graph holds after a takeover while another task is still at work", async () => {
  const [threadId, name] = [await newThread(pair.here), newName()];
  const beside = `${name}-1`;
  const inner = async (): Promise<unknown> => {
    const { tasks } = await client().threads.getState(threadId, undefined, { subgraphs: true });
    const middle = tasks.find((task) => task.name === "middle")?.state as ThreadState | undefined;
    return (middle?.tasks[0]?.state as ThreadState | undefined)?.next;
  };
  const run = await client().runs.create(threadId, "stopsBeside", { input: inputOf(name) });
  await pair.gate.waitFor(beside);
  await until(async () => String(await inner()) === "work", "the breakpoint");
  await takeAway(run);
  const tries = (): number => pair.gate.came.filter((came) => came === beside).length;
  await until(() => tries() === 2, "the other attempt");
  pair.gate.open(beside);
  await reaches(pair.here, run, "success");
  expect(await inner()).toEqual(["work"]);
  expect(pair.gate.came).not.toContain(name);
  expect((await client().threads.get(threadId)).status).toBe("interrupted");
  pair.gate.open(name);
  await client().runs.wait(threadId, "stopsBeside", { input: null });
  expect(await inner()).toEqual(["finish"]);
  await client().runs.wait(threadId, "stopsBeside", { input: null });
  const nodes = ["begin", "work", "finish"].map((node) => `${name}:${node}`);
  expect(await logOf(pair.here, threadId)).toEqual([beside, ...nodes]);
});

test("so does that of a graph that a node calls", async () => {
  const [threadId, name] = [await newThread(pair.here), newName()];
  const beside = `${name}-1`;
  const tries = (): number => pair.gate.came.filter((came) => came === beside).length;
  const run = await client().runs.create(threadId, "callsBeside", { input: inputOf(name) });
  await pair.gate.waitFor(beside);
  const stood = async (): Promise<boolean> => {
    const rows = await pair.scratch.database.query<{ step: string }>(
      "select metadata->>'step' as step from checkpoints where thread_id = $1 and checkpoint_ns like 'middle:%'",
      [threadId],
    );
    return rows.some(({ step }) => step === "1");
  };
  await until(stood, "the breakpoint");
  await takeAway(run);
  await until(() => tries() === 2, "the other attempt");
  pair.gate.open(beside);
  await reaches(pair.here, run, "success");
  await takeAway(run);
  await reaches(pair.here, run, "success");
  expect(pair.gate.came).not.toContain(name);
  const { status, ...thread } = await client().threads.get(threadId);
  expect([status, Object.keys(thread.interrupts)]).toEqual(["interrupted", []]);
  expect((await client().threads.getState(threadId)).next).toEqual(["middle"]);
  // Who goes on has looked, also where the server dies then.
  const next = await client().runs.create(threadId, "callsBeside", { input: null });
  await pair.gate.waitFor(name);
  await takeAway(next);
  pair.gate.open(name);
  await reaches(pair.here, next, "success");
  const nodes = ["begin", "work", "finish"].map((node) => `${name}:${node}`);
  expect(await logOf(pair.here, threadId)).toEqual([beside, ...nodes]);
});
