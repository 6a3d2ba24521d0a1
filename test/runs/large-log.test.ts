// A run that tells forty megabytes. Whoever follows it holds a small part of that at a time, however slow he reads.
import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { WebSocket } from "ws";
import { Client } from "@langchain/langgraph-sdk";
import type { Run } from "@langchain/langgraph-sdk";
import { startHoldfast } from "../support/holdfast.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const TOLD_BYTES = 40_000_000;

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/protocol.langgraph.json" });
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** What is held once all garbage is gone. */
function heldBytes(): number {
  // What the first time sets free may have held more.
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

async function wordyRun(): Promise<Run> {
  const { runs } = held.server.client;
  const run = await runs.create(randomUUID(), "wordy", {
    input: {},
    streamMode: ["custom"],
    ifNotExists: "create",
  });
  await runs.join(run.thread_id, run.run_id);
  return run;
}

const ROWS =
  "select count(*)::int as count, max(length(body)) as longest from holdfast.run_events where run_id = $1";

/** Asks for the run's stream behind an event, takes what comes first, and reads no further. */
async function slowReader({ thread_id: threadId, run_id: runId }: Run, after: number): Promise<Socket> {
  const { port, hostname } = new URL(held.server.url);
  const socket = connect(Number(port), hostname);
  const headers = `Host: holdfast\r\nLast-Event-ID: ${after}`;
  socket.write(`GET /threads/${threadId}/runs/${runId}/stream HTTP/1.1\r\n${headers}\r\n\r\n`);
  let heard = "";
  socket.on("data", (data) => {
    heard += data.toString();
    if (heard.includes("event: custom")) socket.pause();
  });
  await until(() => socket.isPaused(), "the first events");
  return socket;
}

test("a log stands in rows of a bounded size, and slow readers hold little of it", async () => {
  const run = await wordyRun();
  const [rows] = await held.scratch.database.query<{ count: number; longest: number }>(ROWS, [run.run_id]);
  expect(rows?.longest).toBeLessThan(1_000_000);
  const before = heldBytes();
  const readers = await Promise.all(Array.from({ length: 10 }, (_, index) => slowReader(run, index * 30)));
  expect((heldBytes() - before) / readers.length).toBeLessThan(TOLD_BYTES / 8);
  for (const reader of readers) reader.destroy();
});

test("a second subscription of a socket is told all that it missed, in portions", async () => {
  const socket = new WebSocket(
    `${held.server.url.replace("http", "ws")}/threads/${randomUUID()}/stream/events`,
  );
  const say = (id: number, method: string, params: object): void =>
    socket.send(JSON.stringify({ id, method, params }));
  let [isOver, count, before, most] = [false, 0, 0, 0];
  let answer: { replayed_events?: number } = {};
  socket.on("message", (data: Buffer) => {
    const text = data.toString();
    isOver ||= text.includes('"completed"');
    if (text.startsWith('{"type":"success","id":3')) ({ result: answer } = JSON.parse(text));
    if (!text.includes('"method":"custom"')) return;
    count += 1;
    if (count % 50 === 1) most = Math.max(most, heldBytes() - before);
  });
  await new Promise((resolve) => void socket.once("open", resolve));
  say(1, "subscription.subscribe", { channels: ["lifecycle"] });
  say(2, "run.start", { assistant_id: "wordy", input: {} });
  await until(() => isOver, "the run's end");
  before = heldBytes();
  say(3, "subscription.subscribe", { channels: ["custom"] });
  await until(() => count === 400, "what was told");
  expect(answer.replayed_events).toBe(400);
  expect(most).toBeLessThan(TOLD_BYTES / 4);
  socket.terminate();
});

test("all that a step has told is kept with its checkpoint, although it is more than a row", async () => {
  const args = ["serve", "--port", "0", "--config", "test/fixtures/protocol.langgraph.json"];
  const env = { DATABASE_URL: held.scratch.url, HOLDFAST_FAULT: "checkpoints.written:1" };
  const dying = startHoldfast(args, env);
  await dying.says("Ready on");
  const apiUrl = /Ready on (\S+)/.exec(dying.out())?.[1] ?? "";
  const { runs } = new Client({ apiUrl, callerOptions: { maxRetries: 0 } });
  const asked = {
    input: {},
    streamMode: ["custom" as const],
    ifNotExists: "create" as const,
    durability: "sync" as const,
  };
  const run = await runs.create(randomUUID(), "bursting", asked);
  await dying.ended;
  const told: unknown[] = [];
  const stream = held.server.client.runs.joinStream(run.thread_id, run.run_id, { lastEventId: "-1" });
  for await (const { event, data } of stream)
    if (String(event) === "custom") told.push(Reflect.get(Object(data), "n"));
  expect(told).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  const [rows] = await held.scratch.database.query<{ longest: number }>(ROWS, [run.run_id]);
  expect(rows?.longest).toBeLessThan(1_000_000);
}, 60_000);
