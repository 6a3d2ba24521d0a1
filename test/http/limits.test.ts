// How much one caller may ask for. What a limit says holds over all servers of a database, and for nobody else.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { resolve } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { addressReader } from "../../server/http/callers/address.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { makeProject } from "../support/project.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

type Headers = Record<string, string>;

let scratch: TestDatabase;
const servers: TestServer[] = [];
beforeAll(async () => {
  scratch = await testDatabase();
});
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop()));
});
afterAll(() => scratch.close());

const RUNS = "HOLDFAST_LIMIT_RUNS_PER_MINUTE";
const REQUESTS = "HOLDFAST_LIMIT_REQUESTS_PER_MINUTE";
const STREAMS = "HOLDFAST_LIMIT_STREAMS";
const LOGINS = "HOLDFAST_LIMIT_FAILED_LOGINS_PER_MINUTE";
// Each test is a caller of its own, so that none uses up what another counts.
const BEHIND = { HOLDFAST_TRUSTED_PROXIES: "127.0.0.0/8, ::1" };
let callers = 0;
const newCaller = (): Headers => ({ "x-forwarded-for": `203.0.113.${(callers += 1)}` });

async function start(settings: Headers, auth?: string): Promise<TestServer> {
  const project = auth && makeProject({ auth: { path: resolve("test/fixtures", auth) } }).path;
  const config = project ? { HOLDFAST_CONFIG: project } : {};
  const server = await startTestServer(scratch.url, { ...config, ...BEHIND, ...settings });
  servers.push(server);
  return server;
}

const post = ({ url }: { url: string }, path: string, body: object, headers: Headers): Promise<Response> =>
  fetch(url + path, { method: "POST", body: JSON.stringify(body), headers });
const count = (server: { url: string }, headers: Headers): Promise<Response> =>
  post(server, "/threads/count", {}, headers);
const statuses = async (answers: readonly Promise<Response>[]): Promise<Record<string, number>> => {
  const counts: Record<string, number> = {};
  for (const { status } of await Promise.all(answers)) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
};
const told = async (answer: Response): Promise<unknown[]> => [
  answer.status,
  answer.headers.get("x-holdfast-code"),
  await answer.text(),
];

const threads = (): Promise<unknown> => scratch.database.query("select count(*) from holdfast.threads");
const as = (user: string): Headers => ({ authorization: `Bearer ${user}`, ...newCaller() });

const echo = { assistant_id: "echo", input: {} };

test("two servers accept exactly as many runs as the limit says, and of the others nothing is left", async () => {
  const pair = [await start({ [RUNS]: "17" }), await start({ [RUNS]: "17" })] as const;
  const { thread_id: id } = await pair[0].client.threads.create();
  const caller = newCaller();
  const body = { ...echo, multitask_strategy: "enqueue" };
  const asked = Array.from({ length: 60 }, (_, at) =>
    post(pair[at % 2 ? 0 : 1], `/threads/${id}/runs`, body, caller),
  );
  expect(await statuses(asked)).toEqual({ 200: 17, 429: 43 });
  const left = await scratch.database.query("select 1 from holdfast.runs where thread_id = $1", [id]);
  expect(left).toHaveLength(17);
});

test("of a refused run without a thread not even the thread is made", async () => {
  const server = await start({ [RUNS]: "1" });
  const caller = newCaller();
  await post(server, "/runs", { ...echo, on_completion: "keep" }, caller);
  const before = await threads();
  for (const path of ["/runs", "/runs/stream", "/runs/wait", "/runs/crons"])
    expect([path, (await post(server, path, { ...echo, schedule: "* * * * *" }, caller)).status]).toEqual([
      path,
      429,
    ]);
  expect(await threads()).toEqual(before);
});

test("a refusal says which limit it was and when to come again, also to a page of another origin", async () => {
  const server = await start({ [REQUESTS]: "2" });
  const headers = { ...newCaller(), origin: "https://chat.example" };
  const first = await count(server, headers);
  expect(first.headers.get("x-ratelimit-remaining")).toBe("1");
  await count(server, headers);
  const answer = await count(server, headers);
  const seconds = Number(answer.headers.get("retry-after"));
  expect(seconds).toBeGreaterThanOrEqual(1);
  expect(seconds).toBeLessThanOrEqual(60);
  expect(answer.headers.get("access-control-allow-origin")).toBe("*");
  expect(answer.headers.get("access-control-expose-headers")).toContain("Retry-After");
  expect(answer.headers.get("x-ratelimit-limit")).toBe("2");
  expect(await told(answer)).toEqual([
    429,
    "rate_limited",
    `The limit is 2 requests a minute, and it is used up. Come again in ${seconds} s.`,
  ]);
});

test("probes are never counted, and each caller has his own minute", async () => {
  const server = await start({ [REQUESTS]: "1" });
  const [one, other] = [newCaller(), newCaller()];
  const probed = ["/ok", "/live", "/ready", "/info"].map((path) =>
    fetch(server.url + path, { headers: one }),
  );
  expect(await statuses(probed)).toEqual({ 200: 4 });
  expect(await statuses([count(server, one), count(server, one)])).toEqual({ 200: 1, 429: 1 });
  expect((await count(server, other)).status).toBe(200);
});

test("a batch counts each of its runs, and one that does not fit takes nothing", async () => {
  const server = await start({ [RUNS]: "5" });
  const caller = newCaller();
  const batch = (size: number): Promise<Response> =>
    post(
      server,
      "/runs/batch",
      Array.from({ length: size }, () => echo),
      caller,
    );
  // Nor does the first thing that a caller asks for.
  expect((await batch(6)).status).toBe(429);
  expect((await batch(3)).status).toBe(200);
  expect((await batch(3)).status).toBe(429);
  expect((await batch(2)).status).toBe(200);
  expect(await told(await batch(6))).toEqual([429, "rate_limited", expect.stringContaining("Send fewer")]);
});

test("commands that start runs count as runs, over HTTP and over a socket", async () => {
  const server = await start({ [RUNS]: "1" });
  const caller = newCaller();
  const path = `/threads/${randomUUID()}`;
  const startRun = { id: 1, method: "run.start", params: echo };
  expect((await post(server, `${path}/commands`, startRun, caller)).status).toBe(200);
  const refused = await post(server, `${path}/commands`, { ...startRun, id: 2 }, caller);
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, expect.stringMatching(/^\d+$/)]);
  const socket = new WebSocket(`${server.url.replace("http", "ws")}${path}/stream/events`, {
    headers: caller,
  });
  await once(socket, "open");
  socket.send(JSON.stringify({ ...startRun, id: 3 }));
  const [answer] = (await once(socket, "message")) as [Buffer];
  socket.close();
  expect(JSON.parse(answer.toString())).toMatchObject({
    type: "error",
    id: 3,
    message: expect.stringContaining("limit is 1 runs"),
  });
});

test("each command over a socket counts as a request", async () => {
  const server = await start({ [REQUESTS]: "2" });
  const url = `${server.url.replace("http", "ws")}/threads/${randomUUID()}/stream/events`;
  const socket = new WebSocket(url, { headers: newCaller() });
  const answers: string[] = [];
  socket.on("message", (data: Buffer) => answers.push(data.toString()));
  await once(socket, "open");
  for (const id of [1, 2]) socket.send(JSON.stringify({ id, method: "agent.getTree", params: {} }));
  await until(() => answers.length === 2, "both answers");
  socket.close();
  expect(answers.map((text) => text.includes("The limit is 2 requests"))).toEqual([false, true]);
});

test("an identity is one caller wherever it comes from; by address it is not", async () => {
  const byIdentity = await start({ [REQUESTS]: "1" }, "auth.ts:open");
  const byAddress = await start({ [REQUESTS]: "1", HOLDFAST_LIMIT_BY: "address" }, "auth.ts:open");
  const same = await statuses([count(byIdentity, as("alice")), count(byIdentity, as("alice"))]);
  expect(same).toEqual({ 200: 1, 429: 1 });
  expect((await count(byIdentity, as("bob"))).status).toBe(200);
  expect(await statuses([count(byAddress, as("alice")), count(byAddress, as("alice"))])).toEqual({ 200: 2 });
});

test("an address that nobody vouches for is not believed", async () => {
  const server = await start({ [REQUESTS]: "1", HOLDFAST_TRUSTED_PROXIES: "10.0.0.0/8" });
  expect(await statuses([count(server, newCaller()), count(server, newCaller())])).toEqual({
    200: 1,
    429: 1,
  });
});

test.each([
  ["198.51.100.1", "203.0.113.1", "198.51.100.1"],
  ["10.0.0.1", undefined, "10.0.0.1"],
  ["10.0.0.1", "203.0.113.1", "203.0.113.1"],
  ["::ffff:10.0.0.1", "203.0.113.1:4711", "203.0.113.1"],
  ["10.0.0.1", "1.1.1.1, 203.0.113.1, 10.9.9.9", "203.0.113.1"],
  ["10.0.0.1", "203.0.113.1, nonsense", "10.0.0.1"],
  ["10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"],
  ["fd00::1", "[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2::"],
  ["2001:db8:1:2::9", "203.0.113.1", "2001:db8:1:2::"],
  [undefined, "203.0.113.1", "gone"],
])("asked by %s for %s, it counts for %s", (remoteAddress, named, address) => {
  const read = addressReader(["10.0.0.0/8", "fd00::/8"]);
  expect(read({ socket: { remoteAddress }, headers: named ? { "x-forwarded-for": named } : {} })).toBe(
    address,
  );
});

test("a proxy that is neither network nor address stops the start", async () => {
  await expect(start({ HOLDFAST_TRUSTED_PROXIES: "10.0.0.0/99" })).rejects.toThrow("10.0.0.0/99 is neither");
});

test("logins that fail use up the address's minute over all servers; then nobody from there guesses on", async () => {
  const pair = [
    await start({ [LOGINS]: "5" }, "auth.ts:open"),
    await start({ [LOGINS]: "5" }, "auth.ts:open"),
  ] as const;
  const caller = newCaller();
  const asked = Array.from({ length: 30 }, (_, at) => count(pair[at % 2 ? 0 : 1], caller));
  expect(await statuses(asked)).toEqual({ 401: 5, 429: 25 });
  const right = { authorization: "Bearer alice" };
  expect(await told(await count(pair[0], { ...right, ...caller }))).toEqual([
    429,
    "rate_limited",
    expect.stringContaining("5 failed logins a minute"),
  ]);
  expect((await count(pair[0], { ...right, ...newCaller() })).status).toBe(200);
});

test("logins that succeed count as none that failed", async () => {
  const server = await start({ [LOGINS]: "1" }, "auth.ts:open");
  const headers = { authorization: "Bearer alice", ...newCaller() };
  expect(await statuses(Array.from({ length: 9 }, () => count(server, headers)))).toEqual({ 200: 9 });
});

test("a stream's place is free again when its client has left, and when it is over", async () => {
  const server = await start({ [STREAMS]: "1" });
  const caller = newCaller();
  const { thread_id: id } = await server.client.threads.create();
  const leaving = new AbortController();
  const follow = (signal?: AbortSignal): Promise<Response> =>
    fetch(`${server.url}/threads/${id}/stream`, { headers: caller, ...(signal ? { signal } : {}) });
  expect((await follow(leaving.signal)).status).toBe(200);
  expect(await told(await follow())).toEqual([429, "too_many_streams", expect.stringContaining("1 streams")]);
  expect((await post(server, "/runs/stream", echo, newCaller())).status).toBe(200);
  leaving.abort();
  const run = async (): Promise<number> => {
    const answer = await post(server, "/runs/stream", echo, caller);
    await answer.text();
    return answer.status;
  };
  await until(async () => (await run()) === 200, "the place of who left");
  await until(async () => (await run()) === 200, "the place of what is over");
});

test("streams asked for one behind the other on a connection that breaks leave no place taken", async () => {
  const server = await start({ [STREAMS]: "2" });
  const { thread_id: id } = await server.client.threads.create();
  const { "x-forwarded-for": address = "" } = newCaller();
  const path = `/threads/${id}/stream`;
  const { port } = new URL(server.url);
  const socket = connect(Number(port), "127.0.0.1");
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: ${address}\r\n\r\n`.repeat(2));
  await once(socket, "data");
  const leaving = new AbortController();
  const init = { headers: { "x-forwarded-for": address }, signal: leaving.signal };
  const opened = async (): Promise<boolean> => (await fetch(server.url + path, init)).status === 200;
  await until(async () => !(await opened()), "both places to be taken");
  socket.destroy();
  await until(opened, "the first place");
  await until(opened, "the second place");
  expect(await opened()).toBe(false);
  leaving.abort();
});

test("a request for a stream that fails holds no place", async () => {
  const server = await start({ [STREAMS]: "1" });
  const caller = newCaller();
  const fails = (): Promise<Response> => post(server, `/threads/${randomUUID()}/runs/stream`, echo, caller);
  expect((await fails()).status).toBe(404);
  await until(async () => (await fails()).status === 404, "the place of what failed");
});

test("a socket holds a place until it is closed; one too many is told so", async () => {
  const server = await start({ [STREAMS]: "1" });
  const url = `${server.url.replace("http", "ws")}/threads/${randomUUID()}/stream/events`;
  const headers = newCaller();
  const first = new WebSocket(url, { headers });
  await once(first, "open");
  first.send(JSON.stringify({ id: 1, method: "bogus", params: {} }));
  await once(first, "message");
  const second = new WebSocket(url, { headers });
  const [code, reason] = (await once(second, "close")) as [number, Buffer];
  expect([code, reason.toString()]).toEqual([4429, expect.stringContaining("1 streams")]);
  first.terminate();
  const get = (): Promise<Response> => fetch(url.replace("ws", "http"), { headers });
  await until(async () => (await get()).status === 426, "the socket's place");
});

test("without limits no statement is made for them; with one that cannot be counted the answer is 503", async () => {
  const [free, limited] = [
    await start({}),
    await start({ [REQUESTS]: "9", HOLDFAST_STATEMENT_TIMEOUT_MS: "400" }),
  ];
  await scratch.database.transaction(async (transaction) => {
    await transaction.query("lock table holdfast.rate_limits in access exclusive mode");
    expect((await count(free, newCaller())).status).toBe(200);
    expect((await told(await count(limited, newCaller()))).slice(0, 2)).toEqual([
      503,
      "database_unavailable",
    ]);
  });
});

test("of three processes one is killed, and what the others count goes on from there", async () => {
  const settings = { DATABASE_URL: scratch.url, PORT: "0", HOLDFAST_CONFIG: "test/fixtures/langgraph.json" };
  const all = [1, 2, 3].map(() => startHoldfast(["serve"], { ...settings, ...BEHIND, [REQUESTS]: "250" }));
  const urls: { url: string }[] = [];
  for (const one of all) {
    await one.says("http://");
    urls.push({ url: /http:\/\/[^\s/]+/.exec(one.out())?.[0] ?? "" });
  }
  const caller = newCaller();
  const send = (times: number, to: readonly { url: string }[]): Promise<Record<string, number>> =>
    statuses(Array.from({ length: times }, (_, at) => count(to[at % to.length] ?? { url: "" }, caller)));
  expect(await send(200, urls)).toEqual({ 200: 200 });
  all[0]?.process.kill("SIGKILL");
  await all[0]?.ended;
  expect(await send(400, urls.slice(1))).toEqual({ 200: 50, 429: 350 });
  for (const one of all) one.process.kill("SIGKILL");
  await Promise.all(all.map(({ ended }) => ended));
}, 60_000);
