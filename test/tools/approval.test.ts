// Who may answer for a tool: an answer of somebody who may not is no answer, now and later, whoever goes on.
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { useServer } from "../support/server.ts";
import { calling, newCallId, questions, run } from "../support/tool-calls.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/tools-auth.langgraph.json" });
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const as = (user: string): Client =>
  new Client({
    apiUrl: held.server.url,
    callerOptions: { maxRetries: 0 },
    defaultHeaders: { authorization: `Bearer ${user}` },
  });
const yes = { command: { resume: { approved: true } } };

function paying(amount = 20): { name: string; args: object; id: string } {
  const id = newCallId();
  gate.open(`pay.${id}`);
  return { name: "pay", id, args: { gate: gate.url, name: "pay", amount } };
}
const isPaid = ({ id }: { id: string }): boolean => gate.came.includes(`pay.${id}`);

async function waiting(...calls: { name: string; args: object }[]): Promise<string> {
  const { thread_id: threadId } = await as("bob").threads.create();
  await run(as("bob"), threadId, { input: calling(...calls) });
  return threadId;
}

/** Writes an answer to whatever is asked first on the thread's newest checkpoint. */
async function leaveAnswer(threadId: string, answer: object): Promise<void> {
  await held.scratch.database.query(
    `insert into public.checkpoint_writes
       (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob, run_id)
     select thread_id, '', max(checkpoint_id), $2, '', -4, '__resume__', 'json', convert_to($3, 'utf8'), gen_random_uuid()
       from public.checkpoints where thread_id = $1 and checkpoint_ns = '' group by thread_id
     on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) do update set blob = excluded.blob, run_id = excluded.run_id`,
    [threadId, "00000000-0000-0000-0000-000000000000", JSON.stringify(answer)],
  );
}

test("a permission is that of the caller of the run, and of no other", async () => {
  const { thread_id: threadId } = await as("bob").threads.create();
  const input = calling({ name: "guarded", args: { text: "x" } }, { name: "forbidden", args: { text: "y" } });
  const config = { configurable: { langgraph_auth_permissions: ["everything"] } };
  expect(await run(as("bob"), threadId, { input, config })).toMatchObject([
    { status: "success", content: "x" },
    { status: "error", content: expect.stringMatching(/^tool_forbidden: /) },
  ]);
});

test("whoever may not answer fails his run, nothing is made, and the question stays for somebody who may", async () => {
  const call = paying();
  const threadId = await waiting(call);
  const failed = (await as("bob").runs.wait(threadId, "toolbox", { ...yes, raiseError: false })) as object;
  expect(failed).toMatchObject({
    __error__: {
      error: "ToolApprovalRefused",
      message: expect.stringMatching(/The tool pay waits for the answer of somebody who may/),
    },
  });
  expect(isPaid(call)).toBe(false);
  expect(await questions(as("boss"), threadId)).toHaveLength(1);
  expect(await run(as("boss"), threadId, yes)).toMatchObject([{ content: "paid 20" }]);
  expect(gate.came.filter((one) => one === `pay.${call.id}`)).toHaveLength(1);
});

test.each(["by order", "by id"])(
  "an answer that was not to be given is not there for the next who goes on (%s)",
  async (how) => {
    const call = paying();
    const threadId = await waiting(call);
    const [question] = await questions(as("bob"), threadId);
    const resume = how === "by id" ? { [question?.id ?? ""]: { approved: true } } : { approved: true };
    await as("bob").runs.wait(threadId, "toolbox", { command: { resume }, raiseError: false });
    const asked = await as("boss").runs.wait(threadId, "toolbox", { input: null, raiseError: false });
    expect(asked).toMatchObject({ __interrupt__: [{ id: question?.id }] });
    expect(isPaid(call)).toBe(false);
    await run(as("boss"), threadId, { command: { resume: { approved: false } } });
    expect(isPaid(call)).toBe(false);
  },
);

test("an answer whose run was stopped before it counted is nobody's, for whichever question comes", async () => {
  const [first, second] = [paying(), paying(30)];
  const threadId = await waiting(first, second);
  const [question] = await questions(as("boss"), threadId);
  // As a run leaves it that is cancelled, or whose server dies, between its first write and its node.
  await leaveAnswer(threadId, { approved: true });
  const byOrder = await as("boss").runs.wait(threadId, "toolbox", { input: null, raiseError: false });
  expect(byOrder).toMatchObject({ __error__: { error: "ToolApprovalRefused" } });
  await leaveAnswer(threadId, { approved: true });
  const resume = { [question?.id ?? ""]: { approved: true } };
  await as("boss").runs.wait(threadId, "toolbox", { command: { resume }, raiseError: false });
  expect([isPaid(first), isPaid(second)]).toEqual([false, false]);
});

test("an answer of somebody who may not does not count for the first of two questions", async () => {
  const [first, second] = [paying(), paying(30)];
  const threadId = await waiting(first, second);
  await as("bob").runs.wait(threadId, "toolbox", { ...yes, raiseError: false });
  await run(as("boss"), threadId, { command: { resume: false } });
  await as("bob").runs.wait(threadId, "toolbox", { ...yes, raiseError: false });
  const told = await run(as("boss"), threadId, yes);
  expect(told.map(({ content }) => content.split(":")[0])).toEqual(["tool_rejected", "paid 30"]);
  expect([isPaid(first), isPaid(second)]).toEqual([false, true]);
});

test("in a graph within another graph it is the same", async () => {
  const [first, second] = [paying(), paying(30)];
  const { thread_id: threadId } = await as("bob").threads.create();
  const answered = async (user: string, resume: unknown): Promise<unknown> =>
    as(user).runs.wait(threadId, "nested", { command: { resume }, raiseError: false });
  await as("bob").runs.wait(threadId, "nested", { input: calling(first, second) });
  expect(await answered("bob", true)).toMatchObject({ __error__: { error: "ToolApprovalRefused" } });
  await as("boss").runs.wait(threadId, "nested", { input: null, raiseError: false });
  await answered("boss", false);
  expect(await answered("bob", true)).toMatchObject({ __error__: { error: "ToolApprovalRefused" } });
  await answered("boss", true);
  expect([isPaid(first), isPaid(second)]).toEqual([false, true]);
  expect(gate.came.filter((one) => one === `pay.${second.id}`)).toHaveLength(1);
});

test("the audit log says who asked, who answered, and that one may not", async () => {
  const call = paying();
  const threadId = await waiting(call);
  await as("bob").runs.wait(threadId, "toolbox", { ...yes, raiseError: false });
  await run(as("boss"), threadId, yes);
  const entries = await held.scratch.database.query<{
    action: string;
    actor_kind: string;
    actor_hash: string;
  }>(
    `select action, actor_kind, actor_hash from holdfast.audit_entries
      where detail ->> 'thread_id' = $1 order by entry_id`,
    [threadId],
  );
  expect(entries.map(({ action }) => action)).toEqual(["tool.answered", "tool.approved", "tool.called"]);
  const [refused, approved, called] = entries.map(({ actor_hash: hash }) => hash);
  expect(approved).toBe(called);
  expect(approved).not.toBe(refused);
  expect(JSON.stringify(entries)).not.toMatch(/boss|bob/);
});
