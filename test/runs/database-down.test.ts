// A database that stops while the server runs: requests say so, runs wait for it, and then all goes on.
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startEmbedded } from "../../server/storage/embedded/embedded.ts";
import type { Embedded } from "../../server/storage/embedded/embedded.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

let dataDir: string;
let postgres: Embedded;
let server: TestServer;
beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "holdfast-down-"));
  await chmod(dataDir, 0o755); // as root, PostgreSQL runs as another user
  postgres = await startEmbedded({ dataDir });
  server = await startTestServer(postgres.url);
});
afterAll(async () => {
  await server.stop();
  await postgres.stop();
  await rm(dataDir, { recursive: true, force: true });
});

test("while PostgreSQL is down requests are 503 with a reason, and a live run ends well when it is back", async () => {
  const { thread_id: threadId } = await server.client.threads.create();
  const leave = new AbortController();
  const options = { input: {}, onDisconnect: "cancel" as const, signal: leave.signal };
  const live = server.client.runs.stream(threadId, "endless", options);
  await live.next();
  await postgres.stop();

  const refused = await fetch(`${server.url}/threads`, { method: "POST", body: "{}" });
  expect([refused.status, refused.headers.get("x-holdfast-code")]).toEqual([503, "database_unavailable"]);
  expect(await refused.text()).toBe("PostgreSQL did not answer. Try again later.");
  expect((await fetch(`${server.url}/ok`)).status).toBe(200);

  leave.abort();
  await live.next().catch(() => undefined);
  postgres = await startEmbedded({ dataDir });
  const status = async (): Promise<string> => (await server.client.threads.get(threadId)).status;
  await until(async () => (await status().catch(() => "")) === "idle", "the run to end", 15_000);
  expect(await server.client.runs.wait(threadId, "keeping", { input: { value: 1 } })).toMatchObject({
    value: 1,
  });
}, 40_000);

test("who leaves while PostgreSQL is down has his run cancelled all the same, although another server executes it", async () => {
  const { thread_id: threadId } = await server.client.threads.create();
  const run = await server.client.runs.create(threadId, "endless", { input: {} });
  const other = await startTestServer(postgres.url);
  const leave = new AbortController();
  const options = { cancelOnDisconnect: true, signal: leave.signal };
  const live = other.client.runs.joinStream(threadId, run.run_id, options);
  await live.next();
  await postgres.stop();
  leave.abort();
  await live.next().catch(() => undefined);
  // Nobody is connected any more.
  await until(async () => (await fetch(`${other.url}/threads/${threadId}`)).status === 503, "the absence");
  postgres = await startEmbedded({ dataDir });
  const status = (): Promise<string> =>
    server.client.runs.get(threadId, run.run_id).then((one) => one.status);
  const isOver = async (): Promise<boolean> => !["", "running"].includes(await status().catch(() => ""));
  await until(isOver, "the cancel", 15_000);
  expect(await status()).toBe("interrupted");
  await other.stop();
}, 40_000);
