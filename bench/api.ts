// What reading costs: a thread's state, its history, and pages of threads, among 1,000 threads and among 100,000.
// One client asks for one thing after the other; the requests of all kinds are mixed.
import { parseArgs } from "node:util";
import { Client } from "@langchain/langgraph-sdk";
import { startOfflineModel } from "../server/models/offline/server.ts";
import type { Database } from "../server/storage/database.ts";
import { quantile, startServer } from "./engine/processes.ts";
import { openScratchDatabase } from "./scratch.ts";

const CONVERSATIONS = 20;
const TURNS = 5;
const ROUNDS = 200;

type Request = (client: Client, round: number) => Promise<unknown>;

export async function api(args: string[]): Promise<void> {
  const { values } = parseArgs({ args, options: { json: { type: "boolean" }, threads: { type: "string" } } });
  const most = Number(values.threads ?? 100_000);
  const parts = new AsyncDisposableStack();
  try {
    const scratch = await openScratchDatabase();
    parts.defer(() => scratch.close());
    const model = await startOfflineModel({ delayMs: 0 });
    parts.defer(() => model.stop());
    const server = await startServer(["serve"], scratch.url, model.url);
    parts.defer(() => server.stop());
    const client = new Client({ apiUrl: server.url });
    const threadIds = await converse(client);
    const tables: Record<string, Record<string, object>> = {};
    for (const threads of [1000, most]) {
      await fill(scratch.database, threads);
      tables[threads] = await measure(client, requestsOf(threadIds));
      if (!values.json) {
        console.log(`\n${threads.toLocaleString("en")} threads, ${ROUNDS} requests of each kind, in ms`);
        console.table(tables[threads]);
      }
    }
    if (values.json) console.log(JSON.stringify(tables));
  } finally {
    await parts.disposeAsync();
  }
}

/** Threads with a history. */
async function converse(client: Client): Promise<string[]> {
  const threadIds: string[] = [];
  for (let number = 0; number < CONVERSATIONS; number += 1) {
    const { thread_id: threadId } = await client.threads.create({ metadata: { user: `user-${number}` } });
    for (let turn = 1; turn <= TURNS; turn += 1) {
      const messages = [{ role: "user", content: `turn ${turn}: what happens when the process dies?` }];
      await client.runs.wait(threadId, "chat", { input: { messages } });
    }
    threadIds.push(threadId);
  }
  return threadIds;
}

/** Makes the table this large with threads like the first ones: ten to a user, spread over a year. */
async function fill(database: Database, threads: number): Promise<void> {
  await database.query(
    `/* fillThreads */
     insert into holdfast.threads (thread_id, status, metadata, state, created_at, updated_at, state_updated_at)
     select gen_random_uuid(), (array['idle', 'interrupted', 'error'])[1 + n % 3],
            t.metadata || jsonb_build_object('user', 'user-' || n / 10), t.state, at.at, at.at, at.at
       from generate_series((select count(*) from holdfast.threads), $1::bigint - 1) n
       join lateral (select metadata, state from holdfast.threads where state is not null limit 1) t on true,
            lateral (select now() - n * interval '1 year' / $1::bigint as at) at`,
    [threads],
  );
  // As autovacuum leaves a table that grew over months.
  await database.query("/* vacuumThreads */ vacuum analyze holdfast.threads");
}

function requestsOf(threadIds: readonly string[]): Record<string, Request> {
  const some = (round: number): string => threadIds[round % threadIds.length] ?? "";
  return {
    "GET state": (client, round) => client.threads.getState(some(round)),
    "history, 10 states": (client, round) => client.threads.getHistory(some(round), { limit: 10 }),
    "search, newest 10": (client) => client.threads.search({ limit: 10 }),
    "search, newest 100, without values": (client) =>
      client.threads.search({ limit: 100, select: ["thread_id", "status", "metadata", "updated_at"] }),
    "search, one user's": (client, round) =>
      client.threads.search({ metadata: { user: `user-${round}` }, sortBy: "updated_at", limit: 10 }),
    "search, one graph's": (client) => client.threads.search({ metadata: { graph_id: "chat" }, limit: 10 }),
    "search, interrupted": (client) => client.threads.search({ status: "interrupted", limit: 10 }),
    "count, one user's": (client, round) => client.threads.count({ metadata: { user: `user-${round}` } }),
    "count, all": (client) => client.threads.count({}),
  };
}

const rounded = (value: number): number => Math.round(value * 100) / 100;

async function measure(client: Client, requests: Record<string, Request>): Promise<Record<string, object>> {
  const times = new Map<string, number[]>(Object.keys(requests).map((name) => [name, []]));
  for (let round = -20; round < ROUNDS; round += 1) {
    for (const [name, request] of Object.entries(requests)) {
      const startedAt = performance.now();
      await request(client, Math.abs(round));
      if (round >= 0) times.get(name)?.push(performance.now() - startedAt);
    }
  }
  const rows = [...times].map(([name, taken]) => [
    name,
    { p50: rounded(quantile(taken, 0.5)), p99: rounded(quantile(taken, 0.99)) },
  ]);
  return Object.fromEntries(rows);
}
