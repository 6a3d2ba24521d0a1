// What makes a cluster pass its rarer fault points: call-backs to a receiver here, a cron that fires each second,
// threads whose time is over at once.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Stage } from "../server/commands/chaos/round.ts";

export interface Receiver {
  readonly url: string;
  /** Runs whose call-back has arrived. */
  readonly runIds: ReadonlySet<string>;
  stop(): Promise<void>;
}

export async function startReceiver(): Promise<Receiver> {
  const runIds = new Set<string>();
  const server = createServer((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
      const { run_id: runId } = JSON.parse(Buffer.concat(chunks).toString()) as { run_id: string };
      runIds.add(runId);
      response.writeHead(204).end();
    })().catch(() => response.destroy()); // its sender died in the middle
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const stop = async (): Promise<void> => {
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    await closed;
  };
  return { url: `http://127.0.0.1:${port}/called-back`, runIds, stop };
}

/** For the servers: their call-backs may reach this machine. */
export const PROVOKED = { HOLDFAST_EGRESS_ALLOW: "127.0.0.1" };

const SOON_MINUTES = 0.01;

/** Leaves work for sweepers and clocks. Any instance may die under it: a lost request is no loss. */
export async function provoke({ cluster, random }: Stage): Promise<void> {
  const send = async (path: string, body: object): Promise<void> => {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body: JSON.stringify(body) };
    const response = await fetch(cluster.address(random) + path, init).catch(() => undefined);
    await response?.body?.cancel();
  };
  const config = { configurable: { model: "fake-slow-2tok-1ms" } };
  const end = new Date(Date.now() + 5000);
  const input = { messages: [{ role: "user", content: "What time is it?" }] };
  await send("/runs/crons", { assistant_id: "crash", schedule: "* * * * * *", end_time: end, input, config });
  for (let count = 0; count < 3; count += 1) await send("/threads", { ttl: SOON_MINUTES });
}

// A sender that died leaves its call-back to others after 30 s.
const ARRIVAL_MS = 45_000;
const POLL_MS = 200;

/** Runs whose call-back does not come. */
export async function missing(receiver: Receiver, runIds: readonly string[]): Promise<string[]> {
  const until = Date.now() + ARRIVAL_MS;
  const lacking = (): string[] => runIds.filter((runId) => !receiver.runIds.has(runId));
  while (Date.now() < until && lacking().length > 0) await delay(POLL_MS);
  return lacking();
}
