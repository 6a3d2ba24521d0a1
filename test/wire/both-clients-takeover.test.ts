// Laws of the wire for both official clients when the server that executes a run dies or stops. Two servers as operators
// run them, behind one address; the clients come back by themselves.
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { startBalancer } from "../support/balancer.ts";
import type { Balancer } from "../support/balancer.ts";
import { SDKS } from "../support/clients.ts";
import type { OfficialClient, Sdk } from "../support/clients.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { startFakeModel } from "../support/model.ts";
import type { FakeModel } from "../support/model.ts";
import { collect } from "../support/server.ts";
import type { Frame } from "../support/server.ts";
import { shown } from "../support/shown.ts";
import { until } from "../support/until.ts";

const TOKENS = 40;
const WHOLE = Array.from({ length: TOKENS }, (_, index) => `tok${index}`).join(" ");
const INPUT = {
  messages: [{ role: "user", content: "hold fast" }],
  model: `fake-slow-${TOKENS}tok-30ms`,
};

let scratch: TestDatabase;
let model: FakeModel;
let balancer: Balancer | undefined;
let servers: Running[] = [];
beforeAll(async () => {
  [scratch, model] = await Promise.all([testDatabase(), startFakeModel()]);
});
afterEach(async () => {
  for (const { process: child } of servers) child.kill("SIGTERM");
  await Promise.all(servers.map(({ ended }) => ended));
  await balancer?.stop();
});
afterAll(async () => {
  await model.stop();
  await scratch.close();
});

const urlOf = (server: Running): string => /Ready on (\S+)/.exec(server.out())?.[1] ?? "";

interface Watched {
  /** Executes the run. */
  readonly owner: Running;
  /** Through the address before both servers. */
  readonly client: OfficialClient;
  readonly threadId: string;
  readonly runId: string;
  /** All that the client yields, growing. */
  readonly frames: readonly Frame[];
  /** Settles as the client's stream does. */
  readonly ended: Promise<void>;
}

/** A run on the first of two servers, watched by the client that made it, in the middle of its answer. */
async function watchAnswer({ connect }: Sdk): Promise<Watched> {
  const settings = {
    DATABASE_URL: scratch.url,
    OPENAI_API_KEY: "none",
    OPENAI_BASE_URL: model.url,
    HOLDFAST_CONFIG: "test/fixtures/slow.langgraph.json",
    HOLDFAST_POOL_SIZE: "5",
    HOLDFAST_DRAIN_MS: "100",
    PORT: "0",
  };
  const owner = startHoldfast(["serve"], settings);
  servers = [owner, startHoldfast(["serve"], settings)];
  await Promise.all(servers.map((server) => server.says("Ready on")));
  balancer = await startBalancer(servers.map(urlOf));
  const client = connect({ apiUrl: balancer.url });
  const threadId = randomUUID();
  let runId = "";
  const stream = client.runs.stream(threadId, "talk", {
    input: INPUT,
    streamMode: ["messages-tuple"],
    ifNotExists: "create",
    onRunCreated: (made) => (runId = made.run_id),
  });
  const frames: Frame[] = [];
  const ended = (async () => {
    for await (const frame of stream) frames.push(frame);
  })();
  await until(() => frames.length > 5, "the first tokens");
  return { owner, client, threadId, runId, frames, ended };
}

/** The client has seen every event once, and shows what the thread holds. */
async function expectWhole({ client, threadId, runId, frames }: Watched): Promise<void> {
  expect(frames.map(({ id }) => id)).toEqual(frames.map((_, index) => String(index)));
  const attempts = frames.filter(({ event }) => event === "metadata").map(({ data }) => data);
  expect(attempts).toEqual([1, 2].map((attempt) => ({ run_id: runId, attempt })));
  expect((await client.runs.get(threadId, runId)).status).toBe("success");
  const { values } = await client.threads.getState(threadId);
  const { messages } = values as { messages: { id: string; type: string; content: string }[] };
  expect(messages.map(({ content }) => content)).toEqual(["hold fast", WHOLE]);
  const answers = messages.filter(({ type }) => type === "ai");
  expect(shown(frames)).toEqual(answers.map(({ id, content }) => [id, content]));
  expect(await collect(client.runs.joinStream(threadId, runId))).toEqual(frames);
}

test.each(SDKS)("kill -9 of the owner mid-token loses and repeats nothing (SDK $sdk)", async (sdk) => {
  const watched = await watchAnswer(sdk);
  watched.owner.process.kill("SIGKILL");
  await watched.ended;
  expect((await watched.owner.ended).code).toBeNull(); // ended by the signal alone
  await expectWhole(watched);
});

test.each(SDKS)("draining resets streams and never ends them cleanly (SDK $sdk)", async (sdk) => {
  const watched = await watchAnswer(sdk);
  const path = `/threads/${watched.threadId}/runs/${watched.runId}/stream`;
  const beside = await fetch(urlOf(watched.owner) + path);
  const end = beside.text().then(() => "a clean end", String);
  watched.owner.process.kill("SIGTERM");
  expect(await end).toBe("TypeError: terminated");
  await watched.ended;
  expect((await watched.owner.ended).code).toBe(0);
  await expectWhole(watched);
});
