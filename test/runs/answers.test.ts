// Questions, and answers to several at once, when the server dies that has asked them or taken them.
import { Client } from "@langchain/langgraph-sdk";
import type { Interrupt } from "@langchain/langgraph-sdk";
import { expect, test } from "vitest";
import { logOf, newName, newThread, post, reaches, usePair } from "../fixtures/pair.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { command } from "../support/protocol.ts";
import { until } from "../support/until.ts";

const pair = usePair();

/** The questions of tasks that have no result yet, by their texts. */
async function questionsOf(threadId: string): Promise<Record<string, string>> {
  const { tasks } = await pair.here.client.threads.getState(threadId);
  const open = tasks.filter((task) => !("result" in task && task.result !== null));
  const asked: Interrupt[] = open.flatMap(({ interrupts }) => interrupts);
  return Object.fromEntries(asked.map(({ id = "", value }) => [String(value), id]));
}

/** As a reaper leaves the run of a server that is dead. */
const takeAway = (runId: string): Promise<unknown> =>
  pair.scratch.database.query(
    "update holdfast.runs set state = 'ready', worker_id = null, run_at = now() where run_id = $1",
    [runId],
  );

test.each(["left?", "another"])(
  "after a takeover each answer goes to the question that it was given to, beside %s question",
  async (beside) => {
    const { client } = pair.here;
    const threadId = await newThread(pair.here);
    const name = newName();
    await client.runs.wait(threadId, "asksOn", { input: { name, gate: pair.gate.url } });
    const { "left?": left = "", "right?": right = "" } = await questionsOf(threadId);
    const resume = { [right]: "no", ...(beside === "another" ? { [left]: "yes" } : {}) };
    const run = await client.runs.create(threadId, "asksOn", { command: { resume } });
    await pair.gate.waitFor(name);
    // What is asked once more is not written again.
    const isAsked = async (): Promise<boolean> =>
      beside === "left?" || "sure?" in (await questionsOf(threadId));
    await until(isAsked, "the next question");
    await takeAway(run.run_id);
    pair.gate.open(name);
    await reaches(pair.here, run, "success");
    const open = await questionsOf(threadId);
    expect(Object.keys(open)).toEqual([beside === "another" ? "sure?" : "left?"]);
    if (beside === "left?")
      await client.runs.wait(threadId, "asksOn", { command: { resume: { [left]: "yes" } } });
    const { "sure?": sure = "" } = await questionsOf(threadId);
    await client.runs.wait(threadId, "asksOn", { command: { resume: { [sure]: "quite" } } });
    expect(await logOf(pair.here, threadId)).toEqual(["left:yes:quite", "right:no"]);
  },
);

test("a run that keeps nothing until its end begins again when only the graph in its graph has kept its question", async () => {
  const args = ["serve", "--port", "0", "--config", "test/fixtures/slow.langgraph.json"];
  const { url } = pair.scratch;
  const dying = startHoldfast(args, { DATABASE_URL: url, HOLDFAST_FAULT: "checkpoints.written:1" });
  await dying.says("Ready on");
  const apiUrl = /Ready on (\S+)/.exec(dying.out())?.[1] ?? "";
  const client = new Client({ apiUrl, callerOptions: { maxRetries: 0 } });
  const threadId = await newThread(pair.here);
  const run = await client.runs.create(threadId, "asksInside", { input: {}, durability: "exit" });
  await dying.ended;
  await reaches(pair.here, run, "success");
  expect(Object.keys(await questionsOf(threadId))).toHaveLength(1);
  await pair.here.client.runs.wait(threadId, "asksInside", { command: { resume: "yes" } });
  expect(await logOf(pair.here, threadId)).toEqual(["answer:yes"]);
}, 60_000);

test.each(["run.accepting:1", "run.accepted:1"])(
  "an answer that is sent once more counts once, when the server dies at %s",
  async (fault) => {
    const args = ["serve", "--port", "0", "--config", "test/fixtures/slow.langgraph.json"];
    const dying = startHoldfast(args, { DATABASE_URL: pair.scratch.url, HOLDFAST_FAULT: fault });
    await dying.says("Ready on");
    const url = /Ready on (\S+)/.exec(dying.out())?.[1] ?? "";
    const { client } = pair.here;
    const threadId = await newThread(pair.here);
    await client.runs.wait(threadId, "asksThenWaits", { input: {} });
    const { tasks } = await client.threads.getState(threadId);
    const answer = { interrupt_id: tasks[0]?.interrupts[0]?.id, response: "yes" };
    await expect(command({ url, fetch }, threadId, "input.respond", answer)).rejects.toThrow("fetch failed");
    await dying.ended;
    const again = await command({ url: pair.here.url, fetch }, threadId, "input.respond", answer);
    expect(again).toMatchObject({ type: "success" });
    const [, run = expect.fail("no run"), ...others] = await client.runs.list(threadId);
    expect(others).toEqual([]);
    await reaches(pair.here, run, "success");
    expect(await logOf(pair.here, threadId)).toEqual(["answer:yes"]);
    // Also once nothing is asked any more.
    expect(await command({ url: pair.here.url, fetch }, threadId, "input.respond", answer)).toMatchObject({
      type: "success",
    });
    expect(await client.runs.list(threadId)).toHaveLength(2);
  },
  60_000,
);

test("one answer to all open questions is given again to those that were not done with it", async () => {
  const { runs } = pair.here.client;
  const threadId = await newThread(pair.here);
  const name = newName();
  await runs.wait(threadId, "asksOn", { input: { name, gate: pair.gate.url } });
  const run = await runs.create(threadId, "asksOn", { command: { resume: "yes" } });
  await pair.gate.waitFor(name);
  await until(async () => "sure?" in (await questionsOf(threadId)), "the next question");
  await takeAway(run.run_id);
  pair.gate.open(name);
  await reaches(pair.here, run, "success");
  await isAsked(threadId, "sure?");
  await runs.wait(threadId, "asksOn", { command: { resume: "quite" } });
  expect(await logOf(pair.here, threadId)).toEqual(["left:yes:quite", "right:yes"]);
});

/** A thread whose graph asks "sure?". */
async function halfway(graph: string): Promise<{ threadId: string; name: string }> {
  const threadId = await newThread(pair.here);
  const name = newName();
  const { runs } = pair.here.client;
  await runs.wait(threadId, graph, { input: { name, gate: pair.gate.url } });
  await runs.wait(threadId, graph, { command: { resume: "yes" } });
  return { threadId, name };
}
const isAsked = async (threadId: string, question: string): Promise<void> =>
  expect(Object.keys(await questionsOf(threadId))).toEqual([question]);

test.each(["asksInStepsInside", "asksInStepsCalled"])(
  "an answer that a graph in the graph took is not given to its next question after a takeover: %s",
  async (graph) => {
    const { runs } = pair.here.client;
    const { threadId, name } = await halfway(graph);
    const run = await runs.create(threadId, graph, { command: { resume: "sure" } });
    await pair.gate.waitFor(name);
    const tries = (): number => pair.gate.came.filter((came) => came === name).length;
    for (const more of [2, 3]) {
      await takeAway(run.run_id);
      await until(() => tries() === more, "another attempt");
    }
    pair.gate.open(name);
    await reaches(pair.here, run, "success");
    await isAsked(threadId, "second?");
    await runs.wait(threadId, graph, { command: { resume: "no" } });
    expect(await logOf(pair.here, threadId)).toEqual(["yes", "sure", "no"]);
  },
);

test.each(["asksInStepsInside", "asksInStepsCalled"])(
  "who goes on without an answer is asked again, not answered for: %s",
  async (graph) => {
    const { runs } = pair.here.client;
    const { threadId, name } = await halfway(graph);
    pair.gate.open(name);
    const [nobody, ...steps] = [{ input: null }, { command: { resume: "sure" } }, { input: null }];
    await runs.wait(threadId, graph, nobody);
    await runs.wait(threadId, graph, nobody);
    await isAsked(threadId, "sure?");
    for (const step of [...steps, nobody]) {
      await runs.wait(threadId, graph, step);
      await isAsked(threadId, "second?");
    }
    await runs.wait(threadId, graph, { command: { resume: "no" } });
    expect(await logOf(pair.here, threadId)).toEqual(["yes", "sure", "no"]);
  },
);

test.each(["retry", "another run"])(
  "a step that fails behind an answer does not leave it to the next question: %s",
  async (how) => {
    const graph = "asksInStepsInside";
    const { runs } = pair.here.client;
    const { threadId, name } = await halfway(graph);
    pair.gate.refuse(name);
    const run = await runs.create(threadId, graph, { command: { resume: "sure" } });
    await reaches(pair.here, run, "error");
    pair.gate.open(name);
    if (how === "retry") {
      await post(pair.here, `/threads/${threadId}/runs/${run.run_id}/retry`);
      await reaches(pair.here, run, "success");
    } else await runs.wait(threadId, graph, { input: null });
    await isAsked(threadId, "second?");
    // One that nobody has taken is kept for who goes on, and is then his.
    for (const step of [{ command: { resume: "no" } }, { input: null }]) {
      pair.gate.refuse(name);
      await reaches(pair.here, await runs.create(threadId, graph, step), "error");
    }
    pair.gate.open(name);
    await runs.wait(threadId, graph, { input: null });
    expect(await logOf(pair.here, threadId)).toEqual(["yes", "sure", "no"]);
  },
);

// Some clients send an input beside each command; it counts for nothing.
test.each([{}, { input: {} }])(
  "one that no task has taken is dropped for one by name: %j",
  async (beside) => {
    const { runs } = pair.here.client;
    const threadId = await newThread(pair.here);
    const name = newName();
    pair.gate.open(name);
    await runs.wait(threadId, "asksBehindGate", { input: { name, gate: pair.gate.url } });
    const { "first?": first = "" } = await questionsOf(threadId);
    pair.gate.refuse(name);
    const untaken = await runs.create(threadId, "asksBehindGate", { command: { resume: "yes" } });
    await reaches(pair.here, untaken, "error");
    pair.gate.open(name);
    await runs.wait(threadId, "asksBehindGate", { ...beside, command: { resume: { [first]: "no" } } });
    await isAsked(threadId, "second?");
    await runs.wait(threadId, "asksBehindGate", { command: { resume: "quite" } });
    expect(await logOf(pair.here, threadId)).toEqual(["no", "quite"]);
  },
);

test("a run that begins at a checkpoint of a graph in the graph goes on with the graph around it", async () => {
  const { runs, threads } = pair.here.client;
  const threadId = await newThread(pair.here);
  await runs.wait(threadId, "asksInside", { input: {} });
  const { tasks } = await threads.getState(threadId, undefined, { subgraphs: true });
  const checkpoint = tasks[0]?.state?.checkpoint;
  expect(checkpoint?.checkpoint_ns).toMatch(/^inner:/);
  const run = await runs.create(threadId, "asksInside", {
    input: null,
    ...(checkpoint ? { checkpoint } : {}),
  });
  await runs.join(threadId, run.run_id);
  expect((await runs.get(threadId, run.run_id)).status).toBe("success");
  expect(Object.keys(await questionsOf(threadId))).toHaveLength(1);
});
