// What the way through the log costs a stream: the first token here, every token on another instance, and idle readers.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "@langchain/langgraph-sdk";
import { Agent, fetch, setGlobalDispatcher } from "undici";
import type { ScratchDatabase } from "../scratch.ts";
import { quantile, startServer, usageOf } from "./processes.ts";
import type { Figures } from "./queue.ts";

// A thousand streams at once are the point here.
setGlobalDispatcher(new Agent({ connections: 4000, headersTimeout: 0, bodyTimeout: 0 }));
const ms = (value: number): string => `${value.toFixed(value < 10 ? 2 : 0)} ms`;
const asked = { messages: [{ role: "user", content: "hi" }] };

export async function firstToken(
  scratch: ScratchDatabase,
  modelUrl: string,
  count: number,
): Promise<Figures> {
  const server = await startServer(["serve"], scratch.url, modelUrl);
  const [direct, through]: [number[], number[]] = [[], []];
  const body = { model: "fake-slow-40tok-5ms", stream: true, messages: asked.messages };
  for (let index = -10; index < count; index += 1) {
    const plain = await until(`${modelUrl}/chat/completions`, body, /"content":"[^"]/);
    const path = `${server.url}/threads/${randomUUID()}/runs/stream`;
    const run = {
      assistant_id: "chat",
      input: asked,
      stream_mode: "messages-tuple",
      if_not_exists: "create",
    };
    const ours = await until(path, run, /"content":"[^"]/);
    if (index < 0) continue; // warm-up
    direct.push(plain);
    through.push(ours);
  }
  await server.stop();
  const added = quantile(through, 0.5) - quantile(direct, 0.5);
  return { "added time to first token p50 (≤ 5 ms)": ms(added) };
}

/** Milliseconds until the answer holds `pattern`; the rest is read too, so that runs do not pile up. */
export async function until(url: string, body: object, pattern: RegExp): Promise<number> {
  const startedAt = performance.now();
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer none" },
    body: JSON.stringify(body),
  });
  let [text, at] = ["", Number.NaN];
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk as Uint8Array).toString();
    if (Number.isNaN(at) && pattern.test(text)) at = performance.now() - startedAt;
  }
  return at;
}

/** Runs execute on one instance and are read on another: the age of each event when its client has it. */
export async function crossInstance(
  scratch: ScratchDatabase,
  modelUrl: string,
  streams: number,
): Promise<Figures> {
  const worker = await startServer(["work"], scratch.url, modelUrl);
  const door = await startServer(["serve", "--no-worker"], scratch.url, modelUrl);
  const input = { count: 100, everyMs: 50 + Math.floor(streams / 50) };
  const lags: number[] = [];
  let complete = 0;
  await Promise.all(
    Array.from({ length: streams }, async (_, index) => {
      await delay((index / streams) * 2000);
      const body = { assistant_id: "ticking", input, stream_mode: "custom" };
      const response = await fetch(`${door.url}/runs/stream`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      let ticks = 0;
      for await (const chunk of response.body ?? []) {
        const now = Date.now();
        for (const [, at] of Buffer.from(chunk as Uint8Array)
          .toString()
          .matchAll(/"at":(\d+)/g)) {
          ticks += 1;
          lags.push(now - Number(at));
        }
      }
      if (ticks === input.count) complete += 1;
    }),
  );
  await Promise.all([worker.stop(), door.stop()]);
  const rate = Math.round((streams * 1000) / input.everyMs);
  const name = `${streams} streams elsewhere, ${rate} events/s`;
  return {
    [`${name}: lag p50 (≤ 15 ms at 500)`]: ms(quantile(lags, 0.5)),
    [`${name}: lag p99 (≤ 60 ms at 500)`]: ms(quantile(lags, 0.99)),
    [`${name}: complete`]: `${complete} of ${streams}`,
  };
}

/** Clients that follow a run which does not begin. */
export async function idleReaders(
  scratch: ScratchDatabase,
  modelUrl: string,
  readers: number,
): Promise<Figures> {
  const server = await startServer(["serve"], scratch.url, modelUrl);
  const client = new Client({ apiUrl: server.url });
  const { thread_id: threadId } = await client.threads.create();
  const late = { input: { count: 0, everyMs: 1 }, afterSeconds: 600 };
  const run = await client.runs.create(threadId, "ticking", late);
  await delay(1000);
  const before = usageOf(server.pid);
  await delay(5000);
  const quiet = usageOf(server.pid);
  const gone = new AbortController();
  const url = `${server.url}/threads/${threadId}/runs/${run.run_id}/stream`;
  for (let open = 0; open < readers; open += 50) {
    await Promise.all(Array.from({ length: 50 }, () => fetch(url, { signal: gone.signal })));
  }
  await delay(3000);
  const opened = usageOf(server.pid);
  await delay(10_000);
  const after = usageOf(server.pid);
  // A server gives back what it needed for opening them when it has been quiet for a while.
  await delay(15_000);
  const settled = usageOf(server.pid);
  gone.abort();
  await server.stop();
  const idle = (quiet.cpu - before.cpu) / 5;
  const perReader = ((after.cpu - opened.cpu) / 10 - idle) / readers;
  return {
    "idle server, resident (≤ 180 MB)": `${Math.round(quiet.rss / 1e6)} MB`,
    [`${readers} idle readers, resident each (≤ 60 KB)`]: `${Math.round((settled.rss - quiet.rss) / readers / 1000)} KB`,
    [`${readers} idle readers, CPU each`]: `${(perReader * 1e6).toFixed(0)} µs/s`,
  };
}
