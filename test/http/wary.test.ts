// What auth of langgraph.json decides holds on every way to the same thing.
import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { makeProject } from "../support/project.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

type Fields = Record<string, string>;

const fixture = (name: string): string => resolve(`test/fixtures/${name}`);
let scratch: TestDatabase;
let server: TestServer;
beforeAll(async () => {
  scratch = await testDatabase();
  const { path } = makeProject({ auth: { path: fixture("wary.ts:wary") } });
  server = await startTestServer(scratch.url, {
    HOLDFAST_CONFIG: path,
    HOLDFAST_LIMIT_FAILED_LOGINS_PER_MINUTE: "5",
    HOLDFAST_TRUSTED_PROXIES: "127.0.0.0/8, ::1",
  });
});
afterAll(async () => {
  await server.stop();
  await scratch.close();
});

const ask = (user: string | undefined, method: string, path: string, body?: object): Promise<Response> =>
  fetch(`${server.url}${path}`, {
    method,
    headers: user === undefined ? {} : { authorization: `Bearer ${user}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
const fieldsOf = async (answer: Promise<Response>): Promise<Fields> =>
  (await (await answer).json()) as Fields;

const forged = {
  langgraph_auth_user: { identity: "admin" },
  langgraph_auth_user_id: "admin",
  langgraph_auth_permissions: ["root"],
};

test("a graph that is made for its user is made for who asked, also when the thread is read", async () => {
  const { thread_id: threadId } = await fieldsOf(ask("bob", "POST", "/threads", {}));
  const run = { assistant_id: "made", input: {}, config: { configurable: forged } };
  expect(await fieldsOf(ask("bob", "POST", `/threads/${threadId}/runs/wait`, run))).toEqual({ told: "bob" });
  const state = await ask("bob", "GET", `/threads/${threadId}/state`);
  expect([state.status, await state.json()]).toMatchObject([200, { values: { told: "bob" } }]);
  // The newest state is stored as it is told; older ones are read through the graph.
  const past = await ask("bob", "GET", `/threads/${threadId}/history`);
  expect([past.status, await past.json()]).toMatchObject([200, [{ values: { told: "bob" } }, {}, {}]]);
});

test("what a handler takes out of a run is out of it", async () => {
  const config = { configurable: { extra: "from the client" }, tags: ["mine"] };
  const webhook = "https://example.org/hook";
  const run = await fieldsOf(
    ask("bob", "POST", "/runs", { assistant_id: "who", input: {}, config, webhook }),
  );
  const [kept] = await scratch.database.query<{ webhook: string | null }>(
    "select webhook from holdfast.runs where run_id = $1",
    [run["run_id"]],
  );
  expect([kept?.webhook, JSON.stringify(run["kwargs"])]).toEqual([
    null,
    expect.not.stringContaining("extra"),
  ]);
});

describe("a cron", () => {
  const schedule = "0 0 1 1 *";
  const cronOf = (user: string, body: object): Promise<Fields> =>
    fieldsOf(ask(user, "POST", "/runs/crons", { assistant_id: "who", schedule, ...body }));

  test("keeps what the handler of its runs made of it", async () => {
    const made = await cronOf("bob", { input: { say: "force" }, config: { tags: ["mine"] } });
    expect(made["payload"]).toEqual({ input: { say: "forced" } });
    const path = `/runs/crons/${made["cron_id"]}`;
    const changed = await fieldsOf(
      ask("bob", "PATCH", path, { input: { say: "force" }, stream_mode: "updates" }),
    );
    expect(changed["payload"]).toEqual({ input: { say: "forced" }, stream_mode: ["updates"] });
    expect(changed["metadata"]).toEqual({ owner: "bob" });
  });

  test("stays its maker's when somebody else changes what it asks for", async () => {
    const made = await cronOf("bob", { input: { say: "fine" } });
    const path = `/runs/crons/${made["cron_id"]}`;
    await scratch.database.query(`update holdfast.crons set metadata = '{"owner":"bob","team":"x"}'`);
    const changed = await fieldsOf(ask("admin", "PATCH", path, { input: { say: "other" } }));
    expect([changed["metadata"], changed["payload"]]).toEqual([
      { owner: "bob", team: "x" },
      { input: { say: "other" } },
    ]);
  });

  test("is not changed to what its maker may not start", async () => {
    const { cron_id: id } = await cronOf("bob", { input: { say: "fine" } });
    expect((await ask("bob", "PATCH", `/runs/crons/${id}`, { input: { say: "forbidden" } })).status).toBe(
      403,
    );
    const { thread_id: threadId } = await fieldsOf(ask("noupdate", "POST", "/threads", {}));
    const made = { assistant_id: "who", schedule, input: {} };
    const { cron_id: other } = await fieldsOf(
      ask("noupdate", "POST", `/threads/${threadId}/runs/crons`, made),
    );
    const path = `/runs/crons/${other}`;
    expect((await ask("noupdate", "PATCH", path, { multitask_strategy: "rollback" })).status).toBe(403);
    expect((await ask("noupdate", "PATCH", path, { enabled: false })).status).toBe(200);
  });
});

test("a stream of a thread shows nothing of who has its id next", async () => {
  const threadId = randomUUID();
  const start = async (user: string, tag: string): Promise<void> => {
    const params = { assistant_id: "who", input: {}, metadata: { tag } };
    await ask(user, "POST", `/threads/${threadId}/commands`, { id: 1, method: "run.start", params });
    const isDone = async (): Promise<boolean> => {
      const found = await scratch.database.query(
        "select from holdfast.runs where metadata ->> 'tag' = $1 and state = 'success'",
        [tag],
      );
      return found.length > 0;
    };
    await until(isDone, `the run of ${user}`);
  };
  await start("mallory", "first");
  const leaving = new AbortController();
  const stream = await fetch(`${server.url}/threads/${threadId}/stream`, {
    method: "POST",
    headers: { authorization: "Bearer mallory" },
    body: JSON.stringify({ channels: ["values", "lifecycle"] }),
    signal: leaving.signal,
  });
  let heard = "";
  const listening = (async () => {
    for await (const piece of stream.body ?? []) heard += Buffer.from(piece).toString();
  })().catch(() => undefined);
  await until(() => heard.includes('"completed"'), "the first run");
  expect((await ask("mallory", "DELETE", `/threads/${threadId}`)).status).toBe(204);
  await start("alice", "second");
  await start("alice", "third");
  await listening; // ended by the server
  expect(heard).not.toContain("alice");
  leaving.abort();
});

test("of many logins at once none that comes out after the limit is told whether it was right", async () => {
  const from = { "x-forwarded-for": "203.0.113.77" };
  const tryOut = (token: string): Promise<Response> =>
    fetch(`${server.url}/threads/count`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, ...from },
      body: "{}",
    });
  const answers = await Promise.all(
    Array.from({ length: 60 }, (_, index) => tryOut(index === 40 ? "slow_right" : `slowly_wrong${index}`)),
  );
  const counts = Map.groupBy(answers, ({ status }) => status);
  expect([counts.get(401)?.length, counts.get(429)?.length]).toEqual([5, 55]);
});

test("a body of unknown length is not waited for before it is known who sends it", async () => {
  const never = new ReadableStream({ start: (controller) => controller.enqueue(Buffer.from('{"a":')) });
  const leaving = new AbortController();
  const refused = await fetch(`${server.url}/threads/search`, {
    method: "POST",
    body: never,
    duplex: "half",
    signal: leaving.signal,
  });
  expect(refused.status).toBe(401);
  leaving.abort();
});

test("a page of another origin opens no socket with the cookies of who visits it", async () => {
  const open = async (headers: Record<string, string>): Promise<number> => {
    const url = `${server.url.replace("http", "ws")}/threads/${randomUUID()}/stream/events`;
    const socket = new WebSocket(url, { headers: { cookie: "session=alice", ...headers } });
    const closed = new Promise<number>((done) => void socket.once("close", done));
    await new Promise((done) => void socket.once("open", done));
    socket.send(
      JSON.stringify({ id: 1, method: "subscription.subscribe", params: { channels: ["values"] } }),
    );
    const heard = new Promise<number>((done) => void socket.once("message", () => done(200)));
    const code = await Promise.race([heard, closed]);
    socket.terminate();
    return code;
  };
  expect(await open({ origin: "https://evil.example" })).toBe(4401);
  expect(await open({ origin: server.url })).toBe(200);
  // A proxy that is trusted says which host its client asked for.
  const outside = { origin: "https://app.example", "x-forwarded-host": "app.example" };
  expect(await open(outside)).toBe(200);
  expect(await open({})).toBe(200);
});

test("pages of the user's own app in the place of ours ask who is calling", async () => {
  const at = async (http: object): Promise<number[]> => {
    const { path } = makeProject({ auth: { path: fixture("wary.ts:wary") }, http });
    const other = await startTestServer(scratch.url, { HOLDFAST_CONFIG: path });
    const paths = ["/ok", "/info", "/docs", "/openapi.json", "/docs/scalar.js"];
    const answers = await Promise.all(paths.map((one) => fetch(other.url + one)));
    await other.stop();
    return answers.map(({ status }) => status);
  };
  const app = fixture("wary.ts:pages");
  expect(await at({})).toEqual([200, 200, 200, 200, 200]);
  expect(await at({ app })).toEqual([200, 200, 401, 401, 200]);
  expect(await at({ app, disable_meta: true })).toEqual([404, 404, 401, 401, 401]);
});
