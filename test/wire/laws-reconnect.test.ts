// Laws of the wire: connections that break, repeat or say nothing, and what official clients make of it by themselves.
// What happens when instances die or stop stands in laws-takeover.test.ts and laws-restart.test.ts.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { startBalancer } from "../support/balancer.ts";
import { SDKS } from "../support/clients.ts";
import type { OfficialClient, Sdk } from "../support/clients.ts";
import { ONE_REQUEST, eachCluster } from "../support/cluster.ts";
import type { Cluster } from "../support/cluster.ts";
import { startFakeModel } from "../support/model.ts";
import { collect } from "../support/server.ts";
import type { Frame } from "../support/server.ts";
import { shown } from "../support/shown.ts";
import { until } from "../support/until.ts";

const model = await startFakeModel();
let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => Promise.all([gate.stop(), model.stop()]));

const SETTINGS = {
  OPENAI_API_KEY: "none",
  OPENAI_BASE_URL: model.url,
  HOLDFAST_CONFIG: "test/fixtures/laws.langgraph.json",
  HOLDFAST_HEARTBEAT_MS: "100",
  HOLDFAST_EGRESS_ALLOW: "127.0.0.1",
};

const question = { messages: [{ role: "user", content: "hello" }] };
const ALL_MODES = ["values", "updates", "messages-tuple", "custom"] as const;
const asking = (input: Record<string, unknown>) => ({ input, streamMode: [...ALL_MODES] });
const [newest] = SDKS as [Sdk, Sdk];

/** The input of a run that waits at the gate under a name of its own. */
const gated = (): { name: string; gate: string } => ({ name: randomUUID(), gate: gate.url });

const idsOf = (frames: readonly Frame[]): (string | undefined)[] => frames.map(({ id }) => id);
const dense = (frames: readonly Frame[]): string[] => frames.map((_, index) => String(index));
const runOf = (frames: readonly Frame[]): string => String(Object(frames[0]?.data).run_id);

const ANSWER = "one two three";
const TALK = { messages: [{ role: "user", content: ANSWER }], model: "fake-echo" };

/**
 * Streams a run whose connection is reset once, right behind the nth mark; the client comes back by itself.
 * @returns how often it was reset
 */
async function streamWithReset(cluster: Cluster, sdk: Sdk, mark: string, nth: number): Promise<number> {
  const balancer = await startBalancer(cluster.urls, { inTurn: true });
  balancer.resetBehind(mark, nth);
  let runId = "";
  const threadId = randomUUID();
  const client = sdk.connect({ apiUrl: balancer.url, defaultHeaders: ONE_REQUEST });
  const frames = await collect(
    client.runs.stream(threadId, "talk", {
      ...asking(TALK),
      ifNotExists: "create",
      onRunCreated: (made) => (runId = made.run_id),
    }),
  );
  const seen = { mark, nth, resets: balancer.resets(), ids: idsOf(frames) };
  expect(seen).toEqual({ mark, nth, resets: 1, ids: dense(frames) });
  expect(shown(frames).map(([, text]) => text)).toEqual([ANSWER, ANSWER]);
  expect(frames).toEqual(await collect(cluster.connect(sdk).runs.joinStream(threadId, runId)));
  await balancer.stop();
  return balancer.resets();
}

/** Reads the bytes of a stream beside the client's own connection. */
async function heartbeatsOf(cluster: Cluster, path: string): Promise<() => number> {
  let text = "";
  const { body } = await cluster.ask(path);
  void (async () => {
    for await (const chunk of body ?? []) text += Buffer.from(chunk).toString();
  })();
  return () => text.split(": heartbeat\n").length - 1;
}

/** Headers that a page of another origin can read. */
const exposed = (answer: Response): string[] =>
  (answer.headers.get("access-control-expose-headers") ?? "").split(/,\s*/);

type Ask = (client: OfficialClient, threadId: string) => Promise<string>;

/** The ways to make a run, each answering the run's id. */
const WAYS: readonly Ask[] = [
  async ({ runs }, threadId) => (await runs.create(threadId, "keeping", { input: { count: 1 } })).run_id,
  async ({ runs }, threadId) => {
    const [frame] = await collect(runs.stream(threadId, "keeping", { input: { count: 1 } }));
    return String(Object(frame?.data).run_id);
  },
  async ({ runs }, threadId) => {
    const values = await runs.wait(threadId, "keeping", { input: { count: 1 } });
    expect(values).toEqual({ count: 2 });
    return (await runs.list(threadId))[0]?.run_id ?? "";
  },
];

/** A gateway that passes the first POST on, and answers 503 in the server's place. */
function losingGateway(): typeof fetch {
  let isFirst = true;
  return async (input, init) => {
    const response = await fetch(input, init);
    if (init?.method !== "POST" || !isFirst) return response;
    isFirst = false;
    await response.body?.cancel();
    return new Response("no upstream", { status: 503 });
  };
}

/** Asks as a caller does that never gives up: SDK 2.0.0 repeats what was answered 503 by itself, the other does not. */
const insist = (ask: () => Promise<string>): Promise<string> =>
  ask().catch((error: unknown) => {
    if (/HTTP 4/.test(String(error))) throw error;
    return ask();
  });

eachCluster(
  SETTINGS,
  (cluster) => {
    describe.each(SDKS)("SDK $sdk", (sdk) => {
      test("a reset at any frame loses and repeats nothing", async () => {
        const whole = await collect(cluster.connect(sdk).runs.stream(null, "talk", asking(TALK)));
        expect(shown(whole).map(([, text]) => text)).toEqual([ANSWER, ANSWER]);
        expect(whole.length).toBeGreaterThan(ANSWER.split(" ").length);
        const numbers = whole.map((_, index) => index + 1);
        await Promise.all([
          ...numbers.map((nth) => streamWithReset(cluster, sdk, "data: ", nth)), // in the middle of a frame
          ...numbers.map((nth) => streamWithReset(cluster, sdk, "\n\n", nth)), // behind a frame
        ]);
      });
    });

    test("a cut before the first id replays from the start", async () => {
      const behindHeaders = "\r\n\r\n";
      const marks = [behindHeaders, "event: metadata"];
      const cuts = SDKS.flatMap((sdk) => marks.map((mark) => streamWithReset(cluster, sdk, mark, 1)));
      expect(await Promise.all(cuts)).toEqual(cuts.map(() => 1));
    });

    test("any instance serves any cursor of any run", async () => {
      const { runs } = cluster.client;
      const threadId = await cluster.newThread();
      const input = gated();
      const live = await runs.create(threadId, "slow", asking(input));
      await gate.waitFor(input.name);
      const ended = await collect(runs.stream(await cluster.newThread(), "echo", asking(question)));
      const stateless = await collect(runs.stream(null, "echo", asking(question)));
      const from = (url: string, runId: string, last: number): Promise<Frame[]> =>
        collect(newest.connect({ apiUrl: url }).runs.joinStream(threadId, runId, { lastEventId: `${last}` }));
      const cursors = [-1, 0, 1, 2].flatMap((last) => cluster.urls.map((url) => ({ url, last })));
      const joining = cursors.map(async ({ url, last }) => ({
        last,
        frames: await from(url, live.run_id, last),
      }));
      gate.open(input.name);
      const whole = await collect(runs.joinStream(threadId, live.run_id));
      expect(idsOf(whole)).toEqual(dense(whole));
      for (const { last, frames } of await Promise.all(joining))
        expect(frames).toEqual(whole.slice(last + 1));
      for (const frames of [ended, stateless]) {
        const lasts = [-1, ...frames.keys()];
        const rests = cluster.urls.flatMap((url) =>
          lasts.map((last) =>
            collect(
              newest
                .connect({ apiUrl: url })
                .runs.joinStream(null, runOf(frames), { lastEventId: `${last}` }),
            ),
          ),
        );
        const expected = cluster.urls.flatMap(() => lasts.map((last) => frames.slice(last + 1)));
        expect(await Promise.all(rests)).toEqual(expected);
      }
    });

    describe.each(SDKS)("SDK $sdk", (sdk) => {
      test("heartbeats are invisible to the caller", async () => {
        const { runs } = cluster.connect(sdk);
        const threadId = await cluster.newThread();
        const [first, second] = [gated(), gated()];
        await runs.create(threadId, "slow", { input: first });
        await gate.waitFor(first.name);
        const { promise: created, resolve: onRunCreated } = Promise.withResolvers<{ run_id: string }>();
        const options = { ...asking(second), multitaskStrategy: "enqueue", onRunCreated } as const;
        const streaming = collect(runs.stream(threadId, "slow", options));
        const { run_id: runId } = await created;
        const heartbeats = await heartbeatsOf(cluster, `/threads/${threadId}/runs/${runId}/stream`);
        await until(() => heartbeats() > 2, "heartbeats before the first frame");
        gate.open(first.name);
        await gate.waitFor(second.name);
        const before = heartbeats();
        await until(() => heartbeats() > before + 2, "heartbeats between frames");
        gate.open(second.name);
        const frames = await streaming;
        const expected = [
          "metadata",
          "values",
          "values",
          "updates",
          "values",
          "updates",
          "values",
          "updates",
        ];
        expect(frames.map(({ event }) => event).toSorted()).toEqual(expected.toSorted());
        expect(idsOf(frames)).toEqual(dense(frames));
        expect(frames).toEqual(await collect(runs.joinStream(threadId, runId)));
      });
    });

    test("a silent socket is reopened by the client's watchdog", async () => {
      const balancer = await startBalancer(cluster.urls, { inTurn: true });
      // The watchdog measures between heartbeats: three that are read at one moment, after a pause, tell it nothing.
      balancer.silenceBehind(": heartbeat\n", 10);
      const client = newest.connect({ apiUrl: balancer.url, defaultHeaders: ONE_REQUEST });
      const threadId = await cluster.newThread();
      const input = gated();
      const streaming = collect(client.runs.stream(threadId, "slow", asking(input)));
      await until(() => balancer.resets() === 1, "the connection to fall silent");
      gate.open(input.name); // the rest of the answer is never heard on the first connection
      const frames = await streaming;
      expect(idsOf(frames)).toEqual(dense(frames));
      expect(frames).toEqual(await collect(client.runs.joinStream(threadId, runOf(frames))));
      await balancer.stop();
    }, 60_000); // it waits three times the longest pause, at least six seconds

    test("a stateless run can be rejoined after its end", async () => {
      const { runs } = cluster.client;
      const frames = await collect(runs.stream(null, "echo", asking(question)));
      const runId = runOf(frames);
      for (let instance = 0; instance < cluster.size; instance += 1)
        expect(await collect(runs.joinStream(null, runId))).toEqual(frames);
      const run = (await (await cluster.ask(`/runs/${runId}`)).json()) as { thread_id: string };
      expect(run).toMatchObject({ run_id: runId, status: "success" });
      expect(await collect(runs.joinStream(run.thread_id, runId))).toEqual(frames);
      expect((await cluster.ask(`/threads/${run.thread_id}`)).status).toBe(404);
    });

    test("Location is exposed to browsers on POST and GET", async () => {
      const threadId = await cluster.newThread();
      const browser = { origin: "https://chat.example" };
      for (const path of [`/threads/${threadId}/runs/stream`, "/runs/stream"]) {
        const posted = await cluster.post(path, { assistant_id: "echo", input: question }, browser);
        await posted.text();
        const location = posted.headers.get("location") ?? "";
        expect(location).toMatch(/^\/threads\/[\da-f-]{36}\/runs\/[\da-f-]{36}\/stream$/);
        const joined = await cluster.ask(location, { headers: browser });
        await joined.text();
        expect(joined.headers.get("location")).toBe(location);
        for (const answer of [posted, joined]) {
          expect(exposed(answer)).toEqual(expect.arrayContaining(["Location", "Content-Location"]));
          expect(answer.headers.get("access-control-allow-origin")).toBe("*");
        }
      }
    });

    describe.each(SDKS)("SDK $sdk", (sdk) => {
      test("a repeated create never makes two runs", async () => {
        const { runs } = cluster.connect(sdk);
        const onceEach = async (ask: Ask, way: "503" | "lost"): Promise<void> => {
          const balancer = await startBalancer(cluster.urls, { inTurn: true });
          if (way === "lost") balancer.resetBehind("HTTP/1.1", 1);
          const client = sdk.connect({
            apiUrl: balancer.url,
            defaultHeaders: { ...ONE_REQUEST, "idempotency-key": randomUUID() },
            ...(way === "503" ? { callerOptions: { fetch: losingGateway() } } : {}),
          });
          const threadId = await cluster.newThread();
          const runId = await insist(() => ask(client, threadId));
          expect(balancer.resets()).toBe(way === "lost" ? 1 : 0);
          expect((await runs.list(threadId)).map((run) => run.run_id)).toEqual([runId]);
          expect(await runs.join(threadId, runId)).toEqual({ count: 2 });
          await balancer.stop();
        };
        await Promise.all(WAYS.flatMap((ask) => [onceEach(ask, "503"), onceEach(ask, "lost")]));
      });
    });

    describe.each(SDKS)("SDK $sdk", (sdk) => {
      test("a create repeated without a key is refused while its run is live", async () => {
        const callerOptions = { fetch: losingGateway() };
        const client = sdk.connect({ apiUrl: cluster.url, defaultHeaders: ONE_REQUEST, callerOptions });
        const threadId = await cluster.newThread();
        const input = gated();
        const ask = async (): Promise<string> =>
          (await client.runs.create(threadId, "slow", { input })).run_id;
        await expect(insist(ask)).rejects.toThrow("HTTP 422: Thread is already running a task");
        expect(await cluster.connect(sdk).runs.list(threadId)).toHaveLength(1);
        gate.open(input.name);
      });
    });

    test("a webhook arrives after its receiver was down", async () => {
      const bodies: string[] = [];
      const receiver = createServer((request, response) => {
        let body = "";
        request.on("data", (part: Buffer) => (body += part.toString()));
        request.on("end", () => {
          bodies.push(body);
          response.end();
        });
      });
      const listen = (port: number): Promise<void> =>
        new Promise((resolve) => receiver.listen(port, "127.0.0.1", resolve));
      await listen(0);
      const { port } = receiver.address() as AddressInfo;
      await new Promise((resolve) => receiver.close(resolve));
      const threadId = await cluster.newThread();
      const run = await cluster.client.runs.create(threadId, "keeping", {
        input: { count: 1 },
        webhook: `http://127.0.0.1:${port}/hook`,
      });
      const { database } = cluster.scratch;
      const failed = "select from holdfast.webhooks where run_id = $1 and attempts > 0 and error is not null";
      await until(async () => (await database.query(failed, [run.run_id])).length === 1, "a failed attempt");
      expect(bodies).toEqual([]);
      await listen(port);
      await until(() => bodies.length > 0, "the call-back", 15_000); // the second attempt comes after 5 s
      expect(bodies.map((body) => JSON.parse(body))).toMatchObject([
        { run_id: run.run_id, thread_id: threadId, status: "success", values: { count: 2 } },
      ]);
      receiver.closeAllConnections();
      receiver.close();
    });
  },
  true,
);
