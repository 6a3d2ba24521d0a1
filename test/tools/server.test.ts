// Tools under a server: people are asked before anything dangerous, limits hold over all servers, and each call is audited.
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { startTestServer, useServer } from "../support/server.ts";
import { calling, newCallId, questions, run } from "../support/tool-calls.ts";
import { until } from "../support/until.ts";

const SETTINGS = { HOLDFAST_CONFIG: "test/fixtures/tools.langgraph.json" };
const held = useServer(SETTINGS);
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const newThread = async (): Promise<string> => (await held.server.client.threads.create()).thread_id;
const act = (threadId: string, payload: Parameters<typeof run>[2]): ReturnType<typeof run> =>
  run(held.server.client, threadId, payload);
const resume = (threadId: string, answer: unknown): ReturnType<typeof run> =>
  act(threadId, { command: { resume: answer } });

/** A call that finds its gate open. */
function passing(
  name: "work" | "pay",
  more: object = {},
): { name: string; args: object; id: string; came: string } {
  const id = newCallId();
  gate.open(`${name}.${id}`);
  return { name, id, args: { gate: gate.url, name, ...more }, came: `${name}.${id}` };
}
const timesOf = (...calls: { came: string }[]): number[] =>
  calls.map(({ came }) => gate.came.filter((one) => one === came).length);

test("of two calls one waits for a person: neither is made before, and each is made once", async () => {
  const threadId = await newThread();
  const [free, dangerous] = [passing("work"), passing("pay", { amount: 20 })];
  expect(await act(threadId, { input: calling(free, dangerous) })).toEqual([]);
  expect(await questions(held.server.client, threadId)).toMatchObject([
    { value: { type: "tool_approval", tool: "pay", args: dangerous.args, id: dangerous.id } },
  ]);
  expect(timesOf(free, dangerous)).toEqual([0, 0]);
  const told = await resume(threadId, { approved: true });
  expect(told.map(({ content, status }) => [content, status])).toEqual([
    ["work: the gate says so", "success"],
    ["paid 20", "success"],
  ]);
  expect(timesOf(free, dangerous)).toEqual([1, 1]);
});

test.each([false, { approved: false }, "yes", 1, { approved: "true" }, { approved: true, id: "another" }])(
  "a call is not made after the answer %j, and the model is told so",
  async (answer) => {
    const threadId = await newThread();
    const [free, dangerous] = [passing("work"), passing("pay", { amount: 20 })];
    await act(threadId, { input: calling(free, dangerous) });
    const told = await resume(threadId, answer);
    expect(told[1]).toMatchObject({
      status: "error",
      content: expect.stringMatching(/^tool_rejected: /),
    });
    expect(timesOf(free, dangerous)).toEqual([1, 0]);
  },
);

test("a person may change the arguments, within the schema", async () => {
  const threadId = await newThread();
  const dangerous = passing("pay", { amount: 20 });
  await act(threadId, { input: calling(dangerous) });
  const [told] = await resume(threadId, { approved: true, args: { ...dangerous.args, amount: 15 } });
  expect(told).toMatchObject({ status: "success", content: "paid 15" });
  const other = await newThread();
  await act(other, { input: calling(passing("pay", { amount: 20 })) });
  const [wrong] = await resume(other, { approved: true, args: { amount: "much" } });
  expect(wrong).toMatchObject({
    status: "error",
    content: expect.stringMatching(/^tool_arguments_invalid: /),
  });
});

test("several questions are asked one after the other, and nothing is made before the last answer", async () => {
  const threadId = await newThread();
  const calls = [passing("pay", { amount: 20 }), passing("work"), passing("pay", { amount: 30 })];
  await act(threadId, { input: calling(...calls) });
  const [first] = await questions(held.server.client, threadId);
  await resume(threadId, { [first?.id ?? ""]: { approved: true } });
  expect(timesOf(...calls)).toEqual([0, 0, 0]);
  const [second] = await questions(held.server.client, threadId);
  expect(second?.value).toMatchObject({ id: calls[2]?.id });
  const told = await resume(threadId, { approved: false });
  expect(told.map(({ status }) => status)).toEqual(["success", "success", "error"]);
  expect(timesOf(...calls)).toEqual([1, 1, 0]);
});

test("what the definition lets pass is not asked about", async () => {
  const [told] = await act(await newThread(), { input: calling(passing("pay", { amount: 5 })) });
  expect(told).toMatchObject({ status: "success", content: "paid 5" });
});

test("a tool that takes too long has its request closed, and the run goes on", async () => {
  const id = newCallId();
  const args = { gate: gate.url, name: "late" };
  const [told] = await act(await newThread(), { input: calling({ name: "late", args, id }) });
  expect(told).toMatchObject({ status: "error", content: expect.stringMatching(/^tool_timeout: /) });
  await until(() => gate.left.includes(`late.${id}`), "the request to be closed");
});

test("a cancelled run closes the request of its tool", async () => {
  const { client } = held.server;
  const threadId = await newThread();
  const id = newCallId();
  const input = calling({ name: "work", args: { gate: gate.url, name: "work" }, id });
  const { run_id: runId } = await client.runs.create(threadId, "toolbox", { input });
  await gate.waitFor(`work.${id}`);
  await client.runs.cancel(threadId, runId, true);
  await until(() => gate.left.includes(`work.${id}`), "the request to be closed");
  await until(async () => (await auditOf(threadId)).length > 0, "the line in the audit log");
  expect(await auditOf(threadId)).toMatchObject([{ outcome: "error", detail: { code: "run_stopped" } }]);
});

test("how often a tool may be used in a minute holds over all servers together", async () => {
  const other = await startTestServer(held.scratch.url, SETTINGS);
  const rare = { name: "rare", args: {} };
  const contents: string[] = [];
  for (const client of [held.server.client, other.client, held.server.client, other.client]) {
    const { thread_id: threadId } = await client.threads.create();
    const [told] = await run(client, threadId, { input: calling(rare) });
    contents.push(told?.content ?? "");
  }
  await other.stop();
  const over = expect.stringMatching(/^tool_rate_limited: .* in \d+ s\.$/);
  expect(contents).toEqual(["once more", "once more", over, over]);
});

test("without auth a tool may ask for a caller, and nobody can say that he is one", async () => {
  const config = { configurable: { langgraph_auth_permissions: ["chat"], langgraph_auth_user_id: "boss" } };
  const input = calling({ name: "guarded", args: { text: "x" } }, { name: "forbidden", args: { text: "y" } });
  const told = await act(await newThread(), { input, config });
  expect(told).toMatchObject([
    { status: "error", content: expect.stringMatching(/^tool_forbidden: /) },
    { status: "success", content: "y" },
  ]);
});

interface Audited {
  readonly action: string;
  readonly object: string;
  readonly outcome: string;
  readonly actor_kind: string;
  readonly detail: Record<string, unknown>;
}
const auditOf = (threadId: string): Promise<Audited[]> =>
  held.scratch.database.query<Audited & object>(
    `select action, object, outcome, actor_kind, detail from holdfast.audit_entries
      where detail ->> 'thread_id' = $1 order by entry_id`,
    [threadId],
  );

test("each call and each answer is one line in the audit log, without arguments and results", async () => {
  const threadId = await newThread();
  const dangerous = passing("pay", { amount: 20 });
  const more = [
    { name: "made up by a model", args: {} },
    { name: "work", args: { gate: "private text" }, id: "with private text" },
  ];
  await act(threadId, { input: calling(dangerous, ...more) });
  expect(await auditOf(threadId)).toEqual([]);
  await resume(threadId, true);
  const entries = await auditOf(threadId);
  const facts = entries.map(({ action, object, outcome, detail }) => [
    action,
    object.split(" ")[0],
    outcome,
    detail["code"],
  ]);
  expect(facts.slice(0, 1)).toEqual([["tool.approved", "tool:pay", "done", undefined]]);
  expect(facts.slice(1).toSorted((a, b) => String(a[1]).localeCompare(String(b[1])))).toEqual([
    ["tool.called", "tool:pay", "done", undefined],
    ["tool.called", "tool:unknown", "refused", "tool_unknown"],
    ["tool.called", "tool:work", "refused", "tool_arguments_invalid"],
  ]);
  expect(entries.find(({ object }) => object.startsWith("tool:pay"))).toMatchObject({
    actor_kind: "server",
    detail: { call_id: dangerous.id, run_id: expect.any(String) },
  });
  expect(JSON.stringify(entries)).not.toMatch(/private|made up|paid|127\.0/);
});
