// Runs that are stopped between two servers: one died or stopped, and nobody has taken them yet.
import type { Run } from "@langchain/langgraph-sdk";
import { expect, test } from "vitest";
import { newName, newThread, usePair } from "../fixtures/pair.ts";

const pair = usePair();

const inputOf = (name: string): { name: string; gate: string } => ({ name, gate: pair.gate.url });

/** A run that answers a question and waits at the gate, as a reaper leaves it with nobody free to take it. */
async function leftAnswer(threadId: string, cancel: "rollback" | null): Promise<Run> {
  const { client } = pair.here;
  const name = newName();
  await client.runs.wait(threadId, "asksThenWaits", { input: inputOf(name) });
  const run = await client.runs.create(threadId, "asksThenWaits", { command: { resume: "wrong" } });
  await pair.gate.waitFor(name);
  await pair.scratch.database.query(
    "update holdfast.runs set state = 'ready', worker_id = null, run_at = now() + interval '1 h', cancel = $2 where run_id = $1",
    [run.run_id, cancel],
  );
  return run;
}

/** What the thread says of its question. */
async function askedOf(threadId: string): Promise<object> {
  const { client } = pair.here;
  const { status, interrupts } = await client.threads.get(threadId);
  const { next } = await client.threads.getState(threadId);
  return { status, next, asked: Object.values(interrupts).flatMap((all) => all.map(({ value }) => value)) };
}

const OPEN = { status: "interrupted", next: ["ask"], asked: [{ question: "go on?" }] };

test("an answer that is rolled back between two servers leaves the thread waiting, although nothing runs in its place", async () => {
  const threadId = await newThread(pair.here);
  await leftAnswer(threadId, null);
  const later = await pair.here.client.runs.create(threadId, "slow", {
    input: inputOf(newName()),
    multitaskStrategy: "rollback",
    afterSeconds: 60,
  });
  await pair.here.client.runs.cancel(threadId, later.run_id, true);
  expect(await askedOf(threadId)).toEqual(OPEN);
});

test("a rollback that was asked for holds, whoever wants the run stopped while it is between two servers", async () => {
  const threadId = await newThread(pair.here);
  const run = await leftAnswer(threadId, "rollback");
  await pair.here.client.runs.cancel(threadId, run.run_id, false, "interrupt");
  await expect(pair.here.client.runs.get(threadId, run.run_id)).rejects.toThrow("HTTP 404: Run not found");
  expect(await askedOf(threadId)).toEqual(OPEN);
});

test("a thread whose run is stopped between two servers shows what the run has kept, and is found by it", async () => {
  const { client } = pair.here;
  const threadId = await newThread(pair.here);
  const name = newName();
  const run = await client.runs.create(threadId, "slow", { input: inputOf(name) });
  await pair.gate.waitFor(name);
  await pair.scratch.database.query(
    "update holdfast.runs set state = 'ready', worker_id = null, run_at = now() + interval '1 h' where run_id = $1",
    [run.run_id],
  );
  await client.runs.cancel(threadId, run.run_id);
  const values = { log: [`${name}:begin`] };
  expect(await client.threads.get(threadId)).toMatchObject({ status: "idle", values });
  expect(await client.threads.search({ values })).toMatchObject([{ thread_id: threadId }]);
});
