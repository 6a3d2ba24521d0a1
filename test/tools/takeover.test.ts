// A server that dies in the middle of a tool: the run goes on elsewhere, and its calls are made again under the same ids.
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { calling, newCallId, run, toldIn } from "../support/tool-calls.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
let gate: Gate;
const started: Running[] = [];
beforeAll(async () => {
  scratch = await testDatabase();
  gate = await startGate();
});
afterAll(async () => {
  for (const { process: child, ended } of started) {
    child.kill("SIGTERM");
    await ended;
  }
  await gate.stop();
  await scratch.close();
});

async function startInstance(): Promise<{ running: Running; client: Client }> {
  const env = { DATABASE_URL: scratch.url, PORT: "0", HOLDFAST_CONFIG: "test/fixtures/tools.langgraph.json" };
  const running = startHoldfast(["serve"], env);
  started.push(running);
  await running.says("Ready on ");
  const apiUrl = /Ready on (\S+)/.exec(running.out())?.[1] ?? "";
  return { running, client: new Client({ apiUrl, callerOptions: { maxRetries: 0 } }) };
}

const timesOf = (name: string): number => gate.came.filter((one) => one === name).length;

test("calls under way when their server is killed are made again under the same ids, and audited once done", async () => {
  const [a, b] = [await startInstance(), await startInstance()];
  const { thread_id: threadId } = await a.client.threads.create();
  const [free, paid] = [newCallId(), newCallId()];
  const at = { gate: gate.url };
  const input = calling(
    { name: "work", args: { ...at, name: "work" }, id: free },
    { name: "pay", args: { ...at, name: "pay", amount: 20 }, id: paid },
  );
  await run(a.client, threadId, { input });
  const payload = { command: { resume: { approved: true } } };
  const { run_id: runId } = await a.client.runs.create(threadId, "toolbox", payload);
  await until(() => timesOf(`work.${free}`) + timesOf(`pay.${paid}`) === 2, "both calls to be under way");
  a.running.process.kill("SIGKILL");
  await until(() => timesOf(`work.${free}`) + timesOf(`pay.${paid}`) === 4, "both calls to come again");
  gate.open(`work.${free}`);
  gate.open(`pay.${paid}`);
  await b.client.runs.join(threadId, runId);
  const { values } = await b.client.threads.getState(threadId);
  expect(toldIn(values).map(({ tool_call_id: id, status }) => [id, status])).toEqual([
    [free, "success"],
    [paid, "success"],
  ]);
  const called = await scratch.database.query<{ call: string }>(
    "select detail ->> 'call_id' as call from holdfast.audit_entries where action = 'tool.called'",
  );
  expect(called.map(({ call }) => call).toSorted()).toEqual([free, paid].toSorted());
}, 60_000);
