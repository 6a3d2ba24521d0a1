// Auth of langgraph.json: who is let in, what the handlers decide, and what a run knows of who asked for it.
import { resolve } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ACCESS, checkAccess } from "../../server/http/callers/access.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { makeProject } from "../support/project.ts";
import { collect, startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const fixture = (name: string): string => resolve(`test/fixtures/${name}`);
let scratch: TestDatabase;
const servers: TestServer[] = [];
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  await scratch.close();
});

async function start(auth: string, http: object = {}): Promise<TestServer> {
  const { path } = makeProject({ auth: { path: fixture(auth) }, http });
  const server = await startTestServer(scratch.url, { HOLDFAST_CONFIG: path });
  servers.push(server);
  return server;
}
const clientOf = ({ url }: TestServer, user: string): Client =>
  new Client({
    apiUrl: url,
    defaultHeaders: { authorization: `Bearer ${user}` },
    callerOptions: { maxRetries: 0 },
  });

describe("with an owner for everything", () => {
  let server: TestServer;
  let alice: Client;
  let bob: Client;
  beforeAll(async () => {
    server = await start("auth.ts:owned", { app: fixture("custom-app.ts:knowing") });
    [alice, bob] = [clientOf(server, "alice"), clientOf(server, "bob")];
  });

  const post = (user: string, path: string, body: object, more: object = {}): Promise<Response> =>
    fetch(`${server.url}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${user}`, ...more },
      body: JSON.stringify(body),
    });
  const keyed = async (user: string): Promise<unknown> => {
    const body = { assistant_id: "echo", input: {} };
    const response = await post(user, "/runs", body, { "idempotency-key": "one" });
    return Object(await response.json()).run_id;
  };
  const ask = async (user: string, named: string, route: string): Promise<[string, number, string]> => {
    const [method = "", path = ""] = route.split(" ");
    const url = `${server.url}${path.replace(":assistant", named).replace(":namespace", "x")}`;
    const response = await fetch(url, {
      method,
      headers: { authorization: `Bearer ${user}` },
      ...(method === "GET" ? {} : { body: JSON.stringify({ version: 1, name: "other" }) }),
    });
    return [route, response.status, await response.text()];
  };

  test("nobody gets past a route without a token, but for those that say how the server is", async () => {
    const answers = Object.entries(ACCESS).map(async ([route, events]) => {
      const [method = "", path = ""] = route.split(" ");
      const response = await fetch(`${server.url}${path.replaceAll(/:\w+/g, crypto.randomUUID())}`, {
        method,
        headers: { "x-auth-scheme": "langsmith" },
        ...(method === "GET" ? {} : { body: "{}" }),
      });
      const { status, headers } = response;
      const text = await response.text();
      const refused = [401, "Who are you?", "Bearer"];
      const answer = [status, text, headers.get("www-authenticate")];
      return events === "open"
        ? { is: [route, status], asked: [route, 200] }
        : { is: [route, ...answer], asked: [route, ...refused] };
    });
    for (const { is, asked } of await Promise.all(answers)) expect(is).toEqual(asked);
    expect((await fetch(`${server.url}/custom/who`)).status).toBe(401);
    expect((await fetch(`${server.url}/nowhere`)).status).toBe(401);
    const preflight = await fetch(`${server.url}/threads`, {
      method: "OPTIONS",
      headers: { origin: "https://a.example", "access-control-request-method": "POST" },
    });
    expect(preflight.ok).toBe(true);
  });

  test("the user's own app knows who is calling", async () => {
    const response = await fetch(`${server.url}/custom/who`, { headers: { authorization: "Bearer alice" } });
    expect(await response.json()).toBe("alice");
  });

  test("what is made for somebody is stamped as his handler says", async () => {
    const thread = await alice.threads.create({ metadata: { owner: "bob", kind: "x" } });
    expect(thread.metadata).toMatchObject({ owner: "alice", kind: "x" });
    expect((await alice.threads.update(thread.thread_id, { metadata: { n: 1 } })).metadata).toMatchObject({
      owner: "alice",
      n: 1,
    });
    const copy = await alice.threads.copy(thread.thread_id);
    expect(Object(copy).metadata).toMatchObject({ owner: "alice", kind: "x" });
    const threadId = crypto.randomUUID();
    const create = { ifNotExists: "create", multitaskStrategy: "rollback" } as const;
    await alice.runs.wait(threadId, "echo", { input: {}, ...create, metadata: { m: 1 } });
    expect((await alice.threads.get(threadId)).metadata).toMatchObject({
      owner: "alice",
      graph_id: "echo",
      m: 1,
    });
    expect((await alice.runs.list(threadId))[0]?.metadata).toMatchObject({ owner: "alice", m: 1 });
  });

  test("an id that somebody else has taken is 409, whatever is asked for", async () => {
    const threadId = crypto.randomUUID();
    await alice.threads.create({ threadId });
    for (const ifExists of ["raise", "do_nothing"] as const)
      await expect(bob.threads.create({ threadId, ifExists })).rejects.toMatchObject({ status: 409 });
    expect((await alice.threads.create({ threadId, ifExists: "do_nothing" })).thread_id).toBe(threadId);
    const assistantId = crypto.randomUUID();
    await alice.assistants.create({ graphId: "echo", assistantId });
    for (const ifExists of ["raise", "do_nothing"] as const)
      await expect(bob.assistants.create({ graphId: "echo", assistantId, ifExists })).rejects.toMatchObject({
        status: 409,
      });
  });

  test("a thread cannot be taken by making a run on it, nor by a cron", async () => {
    const { thread_id: threadId } = await alice.threads.create();
    for (const multitaskStrategy of ["reject", "enqueue", "interrupt", "rollback"] as const) {
      const create = { input: {}, ifNotExists: "create", multitaskStrategy } as const;
      await expect(bob.runs.create(threadId, "echo", create)).rejects.toMatchObject({ status: 404 });
    }
    await expect(
      bob.crons.createForThread(threadId, "echo", { schedule: "0 0 * * *" }),
    ).rejects.toMatchObject({
      status: 404,
    });
    expect(await alice.runs.list(threadId)).toEqual([]);
  });

  test("of two who make a thread under one id at once, one has it and the other finds nothing", async () => {
    const races = Array.from({ length: 12 }, async (_, n) => {
      const threadId = crypto.randomUUID();
      const multitaskStrategy = (["reject", "enqueue", "interrupt"] as const)[n % 3] ?? "reject";
      const create = { input: {}, ifNotExists: "create", multitaskStrategy } as const;
      const users = [alice, bob];
      const tried = await Promise.allSettled(users.map((user) => user.runs.create(threadId, "echo", create)));
      const winner = tried.findIndex(({ status }) => status === "fulfilled");
      const runs = await users[winner]?.runs.list(threadId);
      const other = await users[1 - winner]?.threads
        .get(threadId)
        .catch((error: unknown) => Object(error).status);
      const reason = tried.map((one) => (one.status === "rejected" ? Object(one.reason).status : 0));
      return { refused: Math.max(...reason), runs: runs?.length, other };
    });
    expect(await Promise.all(races)).toEqual(races.map(() => ({ refused: 404, runs: 1, other: 404 })));
  });

  test("an assistant of somebody else is 404 on every route; the graphs' own are there for all", async () => {
    const { assistant_id: id } = await alice.assistants.create({ graphId: "echo", name: "hers" });
    const routes = Object.keys(ACCESS).filter((route) => route.includes(":assistant"));
    for (const route of routes)
      expect(await ask("bob", id, route)).toEqual([route, 404, "Assistant not found"]);
    for (const route of routes.toSorted((a, b) => Number(/DELETE/.test(a)) - Number(/DELETE/.test(b)))) {
      expect([route, (await ask("alice", id, route))[1]]).toEqual([route, 200]);
      const isRead = ACCESS[route]?.includes("assistants:read");
      expect([route, (await ask("bob", "echo", route))[1]]).toEqual([route, isRead ? 200 : 404]);
    }
  });

  test("a run of somebody else's assistant is refused as if there were none", async () => {
    const { assistant_id: id } = await alice.assistants.create({ graphId: "echo" });
    await expect(bob.runs.wait(null, id, { input: {} })).rejects.toThrow(`No assistant found for "${id}"`);
    await expect(bob.crons.create(id, { schedule: "0 0 * * *" })).rejects.toMatchObject({ status: 404 });
    await alice.runs.wait(null, id, { input: {} });
  });

  test("deleting an assistant with its threads leaves those of others", async () => {
    const { assistant_id: id } = await alice.assistants.create({ graphId: "echo" });
    const hers = crypto.randomUUID();
    await alice.runs.wait(hers, id, { input: {}, ifNotExists: "create" });
    const his = await bob.threads.create({ metadata: { assistant_id: id } });
    await alice.assistants.delete(id, { deleteThreads: true });
    await expect(alice.threads.get(hers)).rejects.toMatchObject({ status: 404 });
    expect((await bob.threads.get(his.thread_id)).thread_id).toBe(his.thread_id);
  });

  test("an idempotency key of somebody else is another key", async () => {
    const first = await keyed("alice");
    expect(await keyed("alice")).toBe(first);
    expect(await keyed("bob")).not.toBe(first);
  });

  test("crons are seen, changed and deleted by who made them, and run on his behalf", async () => {
    const { cron_id: id } = Object(
      await alice.crons.create("who", { schedule: "* * * * * *", onRunCompleted: "keep", input: {} }),
    );
    await expect(bob.crons.update(id, { enabled: false })).rejects.toMatchObject({ status: 404 });
    await expect(bob.crons.delete(id)).rejects.toMatchObject({ status: 404 });
    const made = async () => alice.threads.search({ metadata: { graph_id: "who" }, values: {} });
    await until(async () => (await made()).some(({ status }) => status === "idle"), "a run of the cron");
    await alice.crons.delete(id);
    const thread = (await made()).find(({ status }) => status === "idle");
    expect(thread?.values).toMatchObject({ told: { langgraph_auth_user_id: "alice" } });
    expect(await bob.threads.search({ metadata: { graph_id: "who" } })).toEqual([]);
  });

  test("namespaces of the store are those that the handler made of them", async () => {
    await alice.store.putItem(["notes"], "a", { text: "hers" });
    expect(await alice.store.getItem(["notes"], "a")).toMatchObject({ namespace: ["alice", "notes"] });
    expect(await bob.store.getItem(["notes"], "a")).toBeNull();
    expect((await bob.store.searchItems([])).items).toEqual([]);
    expect((await alice.store.searchItems([])).items).toHaveLength(1);
    expect((await bob.store.listNamespaces()).namespaces).toEqual([]);
    expect((await alice.store.listNamespaces()).namespaces).toEqual([["alice", "notes"]]);
    await bob.store.deleteItem(["notes"], "a");
    expect((await alice.store.searchItems([])).items).toHaveLength(1);
  });

  test("pruning and cancelling pass over what belongs to others", async () => {
    const { thread_id: hers } = await alice.threads.create();
    const run = await alice.runs.create(hers, "endless", { input: {} });
    const his = await bob.threads.create();
    const runIds = [run.run_id];
    expect((await post("bob", "/runs/cancel", { thread_id: hers, run_ids: runIds })).status).toBe(404);
    expect((await post("bob", "/runs/cancel", { run_ids: runIds })).status).toBe(404);
    expect((await post("bob", "/runs/cancel", { status: "all" })).status).toBe(204);
    expect((await alice.runs.get(hers, run.run_id)).status).toMatch(/running|pending/);
    await alice.runs.cancel(hers, run.run_id, true);
    for (const strategy of ["keep_latest", "delete"]) {
      const response = await post("bob", "/threads/prune", { thread_ids: [hers, his.thread_id], strategy });
      expect(await response.json()).toEqual({ pruned_count: 1 });
    }
    expect((await alice.threads.get(hers)).thread_id).toBe(hers);
  });
});

describe("what a run knows of who asked for it", () => {
  let server: TestServer;
  let alice: Client;
  const told = {
    langgraph_auth_user: {
      identity: "alice",
      display_name: "alice",
      permissions: ["chat"],
      team: "blue",
      is_authenticated: true,
    },
    langgraph_auth_user_id: "alice",
    langgraph_auth_permissions: ["chat"],
  };
  const forged = {
    langgraph_auth_user: { identity: "root" },
    langgraph_auth_user_id: "root",
    langgraph_auth_permissions: ["all"],
  };
  beforeAll(async () => {
    server = await start("auth.ts:open");
    alice = clientOf(server, "alice");
  });

  test("a client that a graph makes of its own server carries nobody's token, and is told so", async () => {
    const failed = await alice.runs.wait(null, "asking", { input: { messages: [] }, raiseError: false });
    expect(JSON.stringify(failed)).toContain("Who are you?");
  });

  test("its configurable holds the user, and no client can say otherwise", async () => {
    const { assistant_id: id } = await alice.assistants.create({
      graphId: "who",
      config: { configurable: forged },
    });
    const values = await alice.runs.wait(null, id, { input: {}, config: { configurable: forged } });
    expect(values).toEqual({ told });
  });

  test("without auth there is no user, whatever a client says", async () => {
    const { path } = makeProject({});
    const bare = await startTestServer(scratch.url, { HOLDFAST_CONFIG: path });
    servers.push(bare);
    const values = await bare.client.runs.wait(null, "who", { input: {}, config: { configurable: forged } });
    expect(values).toEqual({ told: {} });
  });

  test("a run that another process takes from the database tells the same", async () => {
    const { thread_id: threadId } = await alice.threads.create();
    await alice.runs.create(threadId, "who", { input: {}, afterSeconds: 1 });
    await until(async () => (await alice.threads.get(threadId)).status === "idle", "the delayed run");
    expect((await alice.threads.getState(threadId)).values).toEqual({ told });
  });

  test("a run whose server was killed tells the same on the one that goes on with it", async () => {
    const { path } = makeProject({ auth: { path: fixture("auth.ts:open") } });
    const one = startHoldfast(["serve", "--config", path, "--port", "0"], { DATABASE_URL: scratch.url });
    await one.says("Ready on ");
    const there = new Client({
      apiUrl: /Ready on (\S+)/.exec(one.out())?.[1] ?? "",
      defaultHeaders: { authorization: "Bearer alice" },
      callerOptions: { maxRetries: 0 },
    });
    const { thread_id: threadId } = await there.threads.create();
    const run = await there.runs.create(threadId, "patient", { input: {} });
    await until(async () => (await there.runs.get(threadId, run.run_id)).status === "running", "its begin");
    one.process.kill("SIGKILL");
    await one.ended;
    expect(await alice.runs.join(threadId, run.run_id)).toEqual({ told });
  });

  test("the log and the checkpoints of a run do not name its user", async () => {
    const carol = clientOf(server, "carol_of_the_test");
    const modes = ["values", "updates", "messages-tuple", "debug", "tasks", "checkpoints", "events"] as const;
    const { thread_id: threadId } = await carol.threads.create();
    const frames = await collect(
      carol.runs.stream(threadId, "talking", { input: {}, streamMode: [...modes] }),
    );
    expect(frames.length).toBeGreaterThan(10);
    expect(frames.filter((frame) => JSON.stringify(frame).includes("carol_of"))).toEqual([]);
    for (const table of ["holdfast.run_events", "public.checkpoints", "holdfast.threads"]) {
      const rows = await scratch.database.query(`select 1 from ${table} t where t::text like '%carol_of%'`);
      expect([table, rows]).toEqual([table, []]);
    }
    const kept = await scratch.database.query(
      "select 1 from holdfast.runs r where r::text like '%carol_of%'",
    );
    expect(kept).toHaveLength(1); // the column that the graph is told from
  });
});

describe("what handlers decide", () => {
  let server: TestServer;
  let alice: Client;
  let threadId: string;
  beforeAll(async () => {
    server = await start("auth.ts:strict");
    alice = clientOf(server, "alice");
    ({ thread_id: threadId } = await alice.threads.create());
  });

  test("true allows all rows, false is 403, what is thrown keeps its status and words", async () => {
    expect((await clientOf(server, "bob").threads.get(threadId)).thread_id).toBe(threadId);
    await expect(alice.threads.delete(threadId)).rejects.toThrow("HTTP 403: Forbidden");
    await expect(alice.threads.update(threadId, { metadata: {} })).rejects.toThrow("HTTP 402: Pay first");
  });

  test("what no handler is for is 403", async () => {
    await expect(alice.assistants.get("echo")).rejects.toMatchObject({ status: 403 });
    await expect(alice.store.getItem(["a"], "b")).rejects.toMatchObject({ status: 403 });
    expect((await alice.assistants.search()).length).toBeGreaterThan(0); // *:search
  });

  test("an operator that is not known is 500 and shows no rows", async () => {
    await expect(alice.threads.search()).rejects.toThrow(
      'HTTP 500: Auth of langgraph.json: the filter of "owner" is not a value, {$eq: value} or {$contains: value or values}.',
    );
  });

  test("ending a run by leaving, or by another run, needs the permission to end it", async () => {
    const { thread_id: other } = await alice.threads.create();
    const run = await alice.runs.create(other, "endless", { input: {} });
    const headers = { authorization: "Bearer alice" };
    for (const way of ["stream", "join"]) {
      const path = `${server.url}/threads/${other}/runs/${run.run_id}/${way}?cancel_on_disconnect=1`;
      expect((await fetch(path, { headers })).status).toBe(402);
    }
    for (const multitaskStrategy of ["interrupt", "rollback"] as const)
      await expect(alice.runs.create(other, "who", { input: {}, multitaskStrategy })).rejects.toMatchObject({
        status: 402,
      });
    expect((await alice.runs.get(other, run.run_id)).status).toMatch(/running|pending/);
    await alice.runs.create(other, "who", { input: {}, multitaskStrategy: "enqueue" });
  });

  test("a handler changes what a run is asked", async () => {
    const run = await alice.runs.create(threadId, "who", { input: { told: "asked" } });
    expect(Object(run).kwargs.input).toEqual({ told: "rewritten" });
    await alice.runs.join(threadId, run.run_id);
  });
});

test("filters of the store hide, and keep from writing, what is somebody else's", async () => {
  const server = await start("auth.ts:filtered");
  const [alice, bob] = [clientOf(server, "alice"), clientOf(server, "bob")];
  await alice.store.putItem(["shared", "hers"], "k", { n: 1 });
  await bob.store.putItem(["shared", "his"], "k", { n: 2 });
  await expect(bob.store.getItem(["shared", "hers"], "k")).rejects.toMatchObject({ status: 404 });
  await expect(bob.store.putItem(["shared", "hers"], "k", {})).rejects.toMatchObject({ status: 404 });
  await expect(bob.store.deleteItem(["shared", "hers"], "k")).rejects.toMatchObject({ status: 404 });
  await expect(bob.store.deleteItem(["shared", "nobody's"], "k")).rejects.toMatchObject({ status: 403 });
  expect(await alice.store.getItem(["shared", "hers"], "k")).toMatchObject({
    value: { n: 1, owner: "alice" },
  });
  const found = (await bob.store.searchItems(["shared"])).items.map(({ namespace }) => namespace);
  expect(found).toEqual([["shared", "his"]]);
  await bob.store.deleteItem(["shared", "his"], "k");
  for (let n = 0; n < 10; n += 1) {
    const puts = [alice, bob].map(({ store }) => store.putItem(["race"], `k${n}`, { n }));
    expect((await Promise.allSettled(puts)).filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  }
  await expect(alice.threads.search()).rejects.toMatchObject({ status: 403 });
});

test.each([
  ["auth.ts:unguarded", "it has no authenticate(), so nobody could be told apart; add one."],
  ["auth.ts:missing", "not missing."],
  ["graphs.ts:echo", "it is no Auth of @langchain/langgraph-sdk/auth."],
])("auth that cannot be used stops the start in one sentence: %s", async (spec, text) => {
  await expect(start(spec)).rejects.toThrow(text);
});

test("a route without an entry of what it asks for stops the start", () => {
  expect(() => checkAccess([{ method: "GET", path: "/threads/:thread/new" }])).toThrow(
    "GET /threads/:thread/new",
  );
});
