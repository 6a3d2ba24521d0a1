// Call-backs: each is delivered at least once, under one id, whoever dies and however long its receiver is away.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { IncomingHttpHeaders, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Client } from "@langchain/langgraph-sdk";
import { Webhook } from "standardwebhooks";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { uuidv7 } from "../../server/ids.ts";
import { WebhookRefused } from "../../server/errors.ts";
import { openEgress } from "../../server/models/egress.ts";
import { checkWebhook, startWebhooks } from "../../server/runs/webhook.ts";
import type { WebhookOptions, Webhooks } from "../../server/runs/webhook.ts";
import { claimWebhooks, listWebhooks, replayWebhooks } from "../../server/storage/webhooks.ts";
import type { WebhookRow } from "../../server/storage/webhooks.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holdfast, startHoldfast } from "../support/holdfast.ts";
import { startTestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

const SECRET = `whsec_${Buffer.from("a secret of 24 bytes or so").toString("base64")}`;
const OTHER = `whsec_${Buffer.from("another one that is longer").toString("base64")}`;

let scratch: TestDatabase;
let receiver: Server;
let url = "";
let received: Received[] = [];
let statuses: number[] = [];
let location: string | undefined;
const logged: { event: string; facts: Record<string, unknown> }[] = [];
const started: Webhooks[] = [];

const egress = openEgress({ allow: ["127.0.0.1"] });
const log = Object.fromEntries(
  ["debug", "info", "warn", "error"].map((level) => [
    level,
    (event: string, facts: Record<string, unknown> = {}) => logged.push({ event, facts }),
  ]),
) as unknown as WebhookOptions["log"];

beforeAll(async () => {
  scratch = await testDatabase();
  receiver = createServer((request, response) => {
    let body = "";
    request.on("data", (part: Buffer) => (body += part.toString()));
    request.on("end", () => {
      received.push({ path: request.url ?? "", headers: request.headers, body });
      const status = statuses.shift() ?? 204;
      if (status > 0) response.writeHead(status, location ? { location } : {}).end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
});
afterAll(async () => {
  await egress.close();
  receiver.closeAllConnections();
  receiver.close();
  await scratch.close();
});
beforeEach(() => {
  [received, statuses, location] = [[], [], undefined];
  logged.length = 0;
});
afterEach(async () => {
  await Promise.all(started.splice(0).map((one) => one.stop()));
  await scratch.database.query("truncate holdfast.webhooks");
});

function start(over: Partial<WebhookOptions> = {}): Webhooks {
  const options = {
    database: scratch.database,
    log,
    egress,
    secrets: [],
    backOffMs: [20, 20, 20, 20, 20, 20, 20],
  };
  const webhooks = startWebhooks({ ...options, ...over });
  started.push(webhooks);
  return webhooks;
}

async function addWebhook(
  path = `${url}/hook`,
  payload: object = { run_id: "r", values: { a: 1 } },
): Promise<string> {
  const id = uuidv7();
  await scratch.database.query(
    "insert into holdfast.webhooks (webhook_id, run_id, url, payload) values ($1, $2, $3, $4)",
    [id, randomUUID(), path, JSON.stringify(payload)],
  );
  return id;
}

async function find(id: string): Promise<WebhookRow> {
  const rows = await listWebhooks(scratch.database, { state: undefined, limit: 1000 });
  const row = rows.find((one) => one.webhook_id === id);
  if (!row) throw new Error(`no webhook ${id}`);
  return row;
}

const isIn = (id: string, state: string) => async () => (await find(id)).state === state;

test.each([
  ["never ends", (response: ServerResponse) => response.write("accepted")],
  ["never begins", (response: ServerResponse) => response.flushHeaders()],
  ["breaks off", (response: ServerResponse) => response.write("half", () => response.destroy())],
])("the receiver has taken what it answers 2xx to, although its body %s", async (_how, answer) => {
  const slow = createServer((_request, response) => {
    answer(response.writeHead(202, { "content-length": "100" }));
  });
  await new Promise<void>((resolve) => slow.listen(0, "127.0.0.1", resolve));
  const id = await addWebhook(`http://127.0.0.1:${(slow.address() as AddressInfo).port}/`);
  start();
  await until(isIn(id, "delivered"), "the delivery", 5000);
  expect((await find(id)).attempts).toBe(1);
  slow.closeAllConnections();
  slow.close();
});

test("a call-back is the stored object with the time it was sent, as JSON", async () => {
  const id = await addWebhook(undefined, { run_id: "r", status: "success", values: { big: "x\u0000" } });
  start();
  await until(isIn(id, "delivered"), "the delivery");
  const [{ body, headers } = expect.fail("nothing came")] = received;
  const { webhook_sent_at: sentAt, ...rest } = JSON.parse(body);
  expect(rest).toEqual({ run_id: "r", status: "success", values: { big: "x\u0000" } });
  expect(Math.abs(Date.parse(sentAt) - Date.now())).toBeLessThan(5000);
  expect(headers).toMatchObject({ "content-type": "application/json", "webhook-id": id });
  expect(headers["webhook-signature"]).toBeUndefined();
  expect(received).toHaveLength(1);
});

test("a server that stops counts no failure of the receiver, and the next one delivers", async () => {
  statuses = [0];
  const id = await addWebhook();
  await scratch.database.query("update holdfast.webhooks set attempts = 7 where webhook_id = $1", [id]);
  const stopping = start();
  await until(() => received.length === 1, "the call-back to be under way");
  await stopping.stop();
  expect(await find(id)).toMatchObject({ state: "pending", error: null });
  expect(logged).toEqual([]);
  await scratch.database.query("update holdfast.webhooks set next_at = now() where webhook_id = $1", [id]);
  start();
  await until(isIn(id, "delivered"), "the delivery");
});

test("what was delivered leaves no content behind", async () => {
  const id = await addWebhook(undefined, { values: { secret: "of a user" } });
  start();
  await until(isIn(id, "delivered"), "the delivery");
  const [row] = await scratch.database.query("select payload from holdfast.webhooks where webhook_id = $1", [
    id,
  ]);
  expect(row).toEqual({ payload: {} });
});

test("while secrets are exchanged a receiver that knows either of them is satisfied", async () => {
  const id = await addWebhook(undefined, {});
  start({ secrets: [SECRET, OTHER] });
  await until(isIn(id, "delivered"), "the delivery");
  const [{ body, headers } = expect.fail("nothing came")] = received;
  const given = headers as Record<string, string>;
  expect(() => new Webhook(SECRET).verify(body, given)).not.toThrow();
  expect(() => new Webhook(OTHER).verify(body, given)).not.toThrow();
  expect(() => new Webhook(OTHER).verify(`${body} `, given)).toThrow(/signature/);
  const stale = { ...given, "webhook-timestamp": String(Number(given["webhook-timestamp"]) - 600) };
  expect(() => new Webhook(SECRET).verify(body, stale)).toThrow(/too old/);
});

test("a receiver that fails for a while gets it in the end, under the same id", async () => {
  statuses = [500, 503, 429, 404];
  const id = await addWebhook();
  const webhooks = start();
  await until(async () => (webhooks.wake(), (await find(id)).state === "delivered"), "the delivery");
  expect(received.map(({ headers }) => headers["webhook-id"])).toEqual(Array(5).fill(id));
  expect((await find(id)).attempts).toBe(5);
});

test("a receiver that is not there yet gets it when it is", async () => {
  const closed = createServer((_request, response) => response.end());
  await new Promise<void>((resolve) => closed.listen(0, "127.0.0.1", resolve));
  const { port } = closed.address() as AddressInfo;
  await new Promise((resolve) => closed.close(resolve));
  const id = await addWebhook(`http://127.0.0.1:${port}/`);
  const webhooks = start({ backOffMs: Array(200).fill(20) });
  await until(async () => (await find(id)).error !== null, "a failure");
  await new Promise<void>((resolve) => closed.listen(port, "127.0.0.1", resolve));
  await until(async () => (webhooks.wake(), (await find(id)).state === "delivered"), "the delivery");
  expect((await find(id)).attempts).toBeGreaterThan(1);
  closed.closeAllConnections();
  closed.close();
});

test("the last failure parks it, and a replay sends it again", async () => {
  statuses = Array(3).fill(500);
  const id = await addWebhook();
  const webhooks = start({ backOffMs: [5, 5] });
  await until(async () => (webhooks.wake(), (await find(id)).state === "parked"), "the parking");
  expect(await find(id)).toMatchObject({ attempts: 3, error: "The receiver answered 500." });
  expect(logged.find(({ event }) => event === "webhook.parked")?.facts).toMatchObject({
    webhook_id: id,
    attempt: 3,
  });
  expect(await replayWebhooks(scratch.database, [randomUUID()])).toEqual([]);
  expect(await replayWebhooks(scratch.database, undefined)).toEqual([id]);
  webhooks.wake();
  await until(isIn(id, "delivered"), "the delivery");
  expect(received.at(-1)?.headers["webhook-id"]).toBe(id);
  expect(JSON.parse(received.at(-1)?.body ?? "")).toMatchObject({ values: { a: 1 } });
});

test("a receiver that says it is gone is not asked again", async () => {
  statuses = [410];
  const id = await addWebhook();
  start();
  await until(isIn(id, "parked"), "the parking");
  expect(received).toHaveLength(1);
});

test("a redirect is a failure and is not followed", async () => {
  statuses = [307];
  location = `${url}/elsewhere`;
  const id = await addWebhook();
  start({ backOffMs: [] });
  await until(isIn(id, "parked"), "the parking");
  expect(received.map(({ path }) => path)).toEqual(["/hook"]);
});

test("an address inside is refused at every attempt and ends parked", async () => {
  const strict = openEgress();
  const id = await addWebhook(`http://localhost:${new URL(url).port}/`);
  start({ egress: strict, backOffMs: [] });
  await until(isIn(id, "parked"), "the parking");
  expect((await find(id)).error).toMatch(/not a public address/);
  expect(received).toEqual([]);
  await strict.close();
});

test("a path is a call to this server itself, and waits for one that has an address", async () => {
  const id = await addWebhook("/my/hook?x=1");
  const other = await addWebhook();
  const silent = start();
  await until(isIn(other, "delivered"), "the other delivery");
  await silent.stop();
  expect(await find(id)).toMatchObject({ state: "pending", attempts: 0 });
  start({ loopbackUrl: url });
  await until(isIn(id, "delivered"), "the delivery");
  expect(received.map(({ path }) => path)).toEqual(["/hook", "/my/hook?x=1"]);
});

test("many senders deliver each call-back once", async () => {
  const ids = await Promise.all(Array.from({ length: 200 }, () => addWebhook()));
  for (let instance = 0; instance < 3; instance += 1) start();
  await until(async () => received.length >= ids.length, "all deliveries");
  await until(
    async () => (await listWebhooks(scratch.database, { state: "pending", limit: 1 })).length === 0,
    "the ends",
  );
  expect(received).toHaveLength(ids.length);
  expect(new Set(received.map(({ headers }) => headers["webhook-id"]))).toEqual(new Set(ids));
});

test("receivers that never answer hold a quarter of the senders each, and the others are served", async () => {
  const held = new Map<string, number>();
  const silent = createServer(({ headers }) => {
    const name = headers.host?.toLowerCase() ?? "";
    held.set(name, (held.get(name) ?? 0) + 1); // and never an answer
  });
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as AddressInfo;
  const named = openEgress({ allow: ["127.0.0.1", "localhost"] });
  try {
    for (let each = 0; each < 20; each += 1) {
      await addWebhook(`http://127.0.0.1:${port}/${each}`);
      await addWebhook(`HTTP://LocalHost:${port}?${each}`);
    }
    const living = await Promise.all(Array.from({ length: 10 }, (_, each) => addWebhook(`${url}/${each}`)));
    const webhooks = start({ egress: named });
    for (const id of living) await until(isIn(id, "delivered"), "the delivery");
    // What comes later does not wait either.
    const later = await addWebhook(`${url}/later`);
    webhooks.wake();
    await until(isIn(later, "delivered"), "the delivery of a later one");
    expect(Object.fromEntries(held)).toEqual({ [`127.0.0.1:${port}`]: 16, [`localhost:${port}`]: 16 });
  } finally {
    await Promise.all(started.splice(0).map((one) => one.stop()));
    await named.close();
    silent.closeAllConnections();
    silent.close();
  }
});

test("what a dead sender had taken is sent by another one when its lease is over", async () => {
  const id = await addWebhook();
  const claim = { limit: 10, leaseMs: 300, hasLoopback: false };
  expect(await claimWebhooks(scratch.database, claim)).toHaveLength(1);
  expect(await claimWebhooks(scratch.database, claim)).toEqual([]);
  const webhooks = start();
  await until(async () => (webhooks.wake(), (await find(id)).state === "delivered"), "the delivery");
  expect((await find(id)).attempts).toBe(2);
});

test("a stopping sender gives up what hangs, and it is sent again later", async () => {
  statuses = [0];
  const id = await addWebhook();
  const webhooks = start({ backOffMs: [60_000] });
  await until(() => received.length === 1, "the attempt");
  const startedAt = Date.now();
  await webhooks.stop();
  expect(Date.now() - startedAt).toBeLessThan(2000);
  expect(await find(id)).toMatchObject({ state: "pending", attempts: 1 });
});

test("a call-back has the values that a run told, also those that no checkpoint keeps", async () => {
  const server = await startTestServer(scratch.url, {
    HOLDFAST_CONFIG: "test/fixtures/stateful.langgraph.json",
    HOLDFAST_EGRESS_ALLOW: "127.0.0.1",
  });
  const told = await server.client.runs.wait(null, "fan", {
    input: { items: ["a"] },
    webhook: `${url}/untracked`,
  });
  await until(() => received.length === 1, "the call-back");
  await server.stop();
  expect(told).toMatchObject({ scratch: "not kept" });
  expect(JSON.parse(received[0]?.body ?? "")).toMatchObject({ status: "success", values: told });
});

test("a run calls back when it has ended, however it ended", async () => {
  const server = await startTestServer(scratch.url, {
    HOLDFAST_EGRESS_ALLOW: "127.0.0.1",
    HOLDFAST_WEBHOOK_SECRETS: SECRET,
  });
  const { thread_id: threadId } = await server.client.threads.create();
  const webhook = `${url}/ended`;
  const made = await server.client.runs.create(threadId, "keeping", {
    input: { count: 1 },
    metadata: { a: 1 },
    webhook,
  });
  await until(() => received.length === 1, "the first");
  await server.client.runs.wait(null, "failing", { input: {}, webhook }).catch(() => undefined);
  await until(() => received.length === 2, "the second");
  const stopped = await server.client.runs.create(threadId, "endless", { input: {}, webhook });
  await server.client.runs.cancel(threadId, stopped.run_id, true);
  await until(() => received.length === 3, "the third");
  const early = await server.client.runs.create(threadId, "keeping", {
    input: {},
    webhook,
    afterSeconds: 60,
  });
  await server.client.runs.cancel(threadId, early.run_id);
  await until(() => received.length === 4, "the fourth");
  await server.stop();
  const [first, second, third, fourth] = received.map(({ body }) => JSON.parse(body));
  expect(first).toMatchObject({
    run_id: made.run_id,
    thread_id: threadId,
    status: "success",
    values: { count: 2 },
  });
  expect(first).toMatchObject({
    assistant_id: made.assistant_id,
    metadata: { a: 1 },
    kwargs: { input: { count: 1 } },
  });
  for (const field of ["run_started_at", "run_ended_at", "webhook_sent_at"])
    expect(new Date(first[field]).toISOString()).toBe(first[field]);
  expect(second).toMatchObject({ status: "error", error: { error: "RangeError" } });
  expect(third).toMatchObject({ run_id: stopped.run_id, status: "interrupted" });
  expect(fourth).toMatchObject({ run_id: early.run_id, status: "interrupted", run_started_at: null });
  const [{ body, headers } = { body: "", headers: {} }] = received;
  expect(() => new Webhook(SECRET).verify(body, headers as Record<string, string>)).not.toThrow();
});

test("a server killed between sending and noting it sends again, under the same id", async () => {
  const dying = startHoldfast(["serve", "--port", "0", "--config", "test/fixtures/langgraph.json"], {
    DATABASE_URL: scratch.url,
    HOLDFAST_FAULT: "webhook.sent:1",
    HOLDFAST_EGRESS_ALLOW: "127.0.0.1",
  });
  await dying.says("Ready");
  const client = new Client({ apiUrl: /http:\S+/.exec(dying.out())?.[0] ?? "" });
  await client.runs.wait(null, "keeping", { input: { count: 1 }, webhook: `${url}/killed` });
  await dying.ended;
  expect(received).toHaveLength(1);
  const [row] = await listWebhooks(scratch.database, { state: "pending", limit: 2 });
  // Its lease is over after half a minute; the test does not wait for that.
  await scratch.database.query("update holdfast.webhooks set next_at = now()");
  start();
  await until(isIn(row?.webhook_id ?? "", "delivered"), "the delivery");
  expect(received.map(({ headers }) => headers["webhook-id"])).toEqual([row?.webhook_id, row?.webhook_id]);
});

test("the command lists call-backs without their addresses, and sends parked ones again", async () => {
  const env = { DATABASE_URL: scratch.url };
  const id = await addWebhook("https://example.com/hook?token=secret");
  await scratch.database.query(
    "update holdfast.webhooks set state = 'parked', error = 'The receiver answered 500.'",
  );
  const listed = await holdfast(["webhooks", "list", "--state", "parked"], env);
  expect(listed.out).toMatch(
    new RegExp(`${id} parked .* to example.com, 0 attempts: The receiver answered 500`),
  );
  expect(listed.out).not.toContain("secret");
  const [one] = JSON.parse((await holdfast(["webhooks", "list", "--json"], env)).out);
  expect(one).toMatchObject({ webhook_id: id, state: "parked" });
  expect(await holdfast(["webhooks", "replay"], env)).toMatchObject({ code: 2 });
  expect(await holdfast(["webhooks", "replay", "x"], env)).toMatchObject({
    code: 2,
    out: "x is no webhook id.\n",
  });
  expect(await holdfast(["webhooks", "replay", id], env)).toMatchObject({
    code: 0,
    out: "Sending again: 1.\n",
  });
  expect(await find(id)).toMatchObject({ state: "pending", attempts: 0 });
  expect(await holdfast(["webhooks", "replay", id], env)).toMatchObject({ code: 3 });
  expect(await holdfast(["webhooks", "replay", "--all", "--json"], env)).toMatchObject({ code: 0 });
});

test.each(["/hook", "/", "/a//b", "https://example.com/x"])("a run may name %s", (given) => {
  expect(() => checkWebhook(egress, given)).not.toThrow();
});

test.each(["//example.com/", "/\\example.com", "hook", "http://10.0.0.1/", "mailto:a@b.c"])(
  "a run may not name %s",
  (given) => {
    expect(() => checkWebhook(egress, given)).toThrow(WebhookRefused);
  },
);
