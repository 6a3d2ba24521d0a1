// The laws of authorisation, over all routes there are: what is somebody else's does not exist, and a list is as if it held
// one's own alone.
import { resolve } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ACCESS } from "../../server/http/callers/access.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { makeProject } from "../support/project.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";

let scratch: TestDatabase;
let server: TestServer;
let filtered: TestServer;
beforeAll(async () => {
  scratch = await testDatabase();
  server = await start("owned");
  filtered = await start("filtered");
});
afterAll(async () => {
  await server.stop();
  await filtered.stop();
  await scratch.close();
});

const start = (auth: string): Promise<TestServer> => {
  const { path } = makeProject({ auth: { path: resolve(`test/fixtures/auth.ts:${auth}`) } });
  return startTestServer(scratch.url, { HOLDFAST_CONFIG: path });
};
const clientOf = ({ url }: TestServer, user: string): Client =>
  new Client({
    apiUrl: url,
    defaultHeaders: { authorization: `Bearer ${user}` },
    callerOptions: { maxRetries: 0 },
  });

interface Place {
  readonly thread: string;
  readonly run: string;
  readonly checkpoint: string;
}

/** What a route answers; the ids of the place stand as their names in it. */
async function ask(user: string, route: string, place: Place): Promise<{ status: number; text: string }> {
  const [method = "", pattern = ""] = route.split(" ");
  const path = Object.entries(place).reduce((so, [name, id]) => so.replace(`:${name}`, id), pattern);
  // Whatever any of the routes takes.
  const body = {
    assistant_id: "echo",
    input: {},
    values: {},
    metadata: { taken: user },
    checkpoint: { checkpoint_id: place.checkpoint },
    schedule: "0 0 1 1 *",
    if_not_exists: "reject",
    stream_mode: "values",
  };
  const { checkpoint: _unused, ...withoutCheckpoint } = body;
  const response = await fetch(`${server.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${user}` },
    ...(method === "GET"
      ? {}
      : { body: JSON.stringify(/state|history/.test(path) ? body : withoutCheckpoint) }),
  });
  if (response.ok && route === "GET /threads/:thread/stream") {
    await response.body?.cancel(); // it stays open
    return { status: response.status, text: "" };
  }
  const text = Object.entries(place).reduce(
    (so, [name, id]) => so.replaceAll(id, name),
    await response.text(),
  );
  return { status: response.status, text };
}

// A thread need not exist to be followed, and a command says itself what it does.
const isProtocol = (route: string): boolean =>
  /^(GET|POST) .*\/(stream\/events|commands|:thread\/stream)$/.test(route);
const onThreads = Object.keys(ACCESS).filter(
  (route) => (route.includes(":thread") || route.includes("/:run")) && !isProtocol(route),
);
/** What deletes comes last, and the thread last of all. */
const rank = (route: string): number =>
  route === "DELETE /threads/:thread" ? 2 : route.startsWith("DELETE") ? 1 : 0;

async function rowsOf(thread: string): Promise<unknown> {
  return scratch.database.query(
    `select t::text as thread, (select json_agg(r order by run_id)::text from holdfast.runs r where thread_id = $1) as runs,
            (select json_agg(c order by checkpoint_id)::text from public.checkpoints c where thread_id = $1) as points,
            (select count(*) from holdfast.crons where thread_id = $1) as crons, (select count(*) from holdfast.threads) as all
       from holdfast.threads t where thread_id = $1`,
    [thread],
  );
}

test("a thread of another user is 404 on every route, REST and v2", async () => {
  const alice = clientOf(server, "alice");
  const { thread_id: thread } = await alice.threads.create();
  await alice.runs.wait(thread, "echo", { input: {} });
  const [run] = await alice.runs.list(thread);
  const { checkpoint } = await alice.threads.getState(thread);
  const hers: Place = { thread, run: run?.run_id ?? "", checkpoint: checkpoint?.checkpoint_id ?? "" };
  const nobodys: Place = {
    thread: crypto.randomUUID(),
    run: crypto.randomUUID(),
    checkpoint: hers.checkpoint,
  };
  expect(onThreads.length).toBeGreaterThanOrEqual(24);
  const before = await rowsOf(thread);
  for (const route of onThreads) {
    const answer = await ask("bob", route, hers);
    // Official servers answer a copy of what does not exist with 409.
    expect([route, answer.status]).toEqual([route, route.endsWith("/copy") ? 409 : 404]);
    expect([route, answer], "is told apart from one that does not exist").toEqual([
      route,
      await ask("bob", route, nobodys),
    ]);
  }
  expect(await rowsOf(thread)).toEqual(before);
  // The same requests are not 404 for whom the thread belongs to.
  for (const route of onThreads.toSorted((a, b) => rank(a) - rank(b))) {
    const { status, text } = await ask("alice", route, hers);
    expect([200, 204, 409, 422], `${route}: ${text}`).toContain(status);
  }
});

test("a thread of another user is 404 over protocol v2, and stays as it is", async () => {
  const alice = clientOf(server, "alice");
  const { thread_id: thread } = await alice.threads.create();
  await alice.runs.wait(thread, "questioning", { input: { value: 1 } });
  const { checkpoint, tasks } = await alice.threads.getState(thread);
  const question = tasks[0]?.interrupts[0]?.id;
  const before = await rowsOf(thread);
  const send = (user: string, path: string, body: object, signal?: AbortSignal): Promise<Response> =>
    fetch(`${server.url}/threads/${thread}${path}`, {
      method: "POST",
      headers: user ? { authorization: `Bearer ${user}` } : {},
      body: JSON.stringify(body),
      ...(signal ? { signal } : {}),
    });
  const commands = [
    ["state.get", {}],
    ["state.listCheckpoints", {}],
    ["agent.getTree", {}],
    ["state.fork", { checkpoint_id: checkpoint.checkpoint_id, input: {} }],
    ["input.respond", { namespace: [], interrupt_id: question, response: 1 }],
    ["run.start", { assistant_id: "questioning", input: {} }],
  ] as const;
  for (const [method, params] of commands) {
    const { status } = await send("bob", "/commands", { id: 1, method, params });
    expect([method, status]).toEqual([method, 404]);
    expect((await send("", "/commands", { id: 1, method, params })).status).toBe(401);
  }
  for (const path of ["/stream", "/stream/events"]) {
    expect((await send("bob", path, { channels: ["values"] })).status).toBe(404);
    expect((await send("", path, { channels: ["values"] })).status).toBe(401);
  }
  expect(await rowsOf(thread)).toEqual(before);
  for (const path of ["/stream", "/stream/events"]) {
    const gone = new AbortController();
    expect((await send("alice", path, { channels: ["values"] }, gone.signal)).status).toBe(200);
    gone.abort();
  }
  expect(await socketOf("bob", thread)).toBe(4404);
  expect(await socketOf("", thread)).toBe(4401);
  expect(await socketOf("alice", thread)).toMatchObject({
    type: "success",
    result: { values: { value: 1 } },
  });
  // What is not there yet may be followed; when somebody else makes it, the stream ends.
  const made = crypto.randomUUID();
  const early = await fetch(`${server.url}/threads/${made}/stream`, {
    method: "POST",
    headers: { authorization: "Bearer bob" },
    body: JSON.stringify({ channels: ["values", "lifecycle"] }),
  });
  expect(early.status).toBe(200);
  const heard = early.text().then(
    (text) => text,
    () => "cut",
  );
  await alice.runs.wait(made, "echo", { input: {}, ifNotExists: "create" });
  expect(await heard).toBe("cut");
});

/** What a socket answers to a first command, or the code with which it is closed. */
function socketOf(user: string, thread: string): Promise<unknown> {
  const socket = new WebSocket(
    `${server.url.replace("http", "ws")}/threads/${thread}/stream/events`,
    // Node's own client takes headers, a browser's would send a cookie.
    user ? { headers: { authorization: `Bearer ${user}` } } : {},
  );
  return new Promise((settle) => {
    socket.addEventListener("open", () => socket.send('{"id":1,"method":"state.get","params":{}}'));
    socket.addEventListener("close", ({ code }) => settle(code));
    socket.addEventListener("message", ({ data }) => {
      settle(JSON.parse(String(data)));
      socket.close();
    });
  });
}

async function pagesOf(
  user: string,
  path: string,
  body: object,
): Promise<{ sizes: number[]; totals: Set<string | null>; count: number }> {
  const sizes: number[] = [];
  const totals = new Set<string | null>();
  const post = (to: string, sent: object): Promise<Response> =>
    fetch(`${server.url}${to}`, {
      method: "POST",
      headers: { authorization: `Bearer ${user}` },
      body: JSON.stringify(sent),
    });
  let offset: string | null = "0";
  while (offset !== null) {
    const page = await post(`${path}/search`, { ...body, limit: 3, offset: Number(offset) });
    totals.add(page.headers.get("x-pagination-total"));
    sizes.push(((await page.json()) as unknown[]).length);
    offset = page.headers.get("x-pagination-next");
  }
  return { sizes, totals, count: Number(await (await post(`${path}/count`, body)).text()) };
}

test("auth filters never change page sizes or totals", async () => {
  const clients = { carol: clientOf(server, "carol"), dave: clientOf(server, "dave") };
  // Carol has one of each for every three of Dave's.
  for (let n = 0; n < 28; n += 1) {
    const client = n % 4 === 0 ? clients.carol : clients.dave;
    await client.threads.create({ metadata: { kind: "counted" } });
    await client.assistants.create({ graphId: "echo", metadata: { kind: "counted" } });
    await client.crons.create("echo", { schedule: "0 0 1 1 *", metadata: { kind: "counted" } });
  }
  const body = { metadata: { kind: "counted" } };
  for (const path of ["/threads", "/assistants", "/runs/crons"]) {
    const [carol, dave] = [await pagesOf("carol", path, body), await pagesOf("dave", path, body)];
    expect([path, carol]).toEqual([path, { sizes: [3, 3, 1], totals: new Set(["7"]), count: 7 }]);
    expect([path, dave]).toEqual([path, { sizes: Array(7).fill(3), totals: new Set(["21"]), count: 21 }]);
    const stranger = await pagesOf("erin", path, body);
    expect([path, stranger]).toEqual([path, { sizes: [0], totals: new Set(["0"]), count: 0 }]);
  }
  const stores = { carol: clientOf(filtered, "carol"), dave: clientOf(filtered, "dave") };
  for (let n = 0; n < 28; n += 1) {
    const { store } = n % 4 === 0 ? stores.carol : stores.dave;
    await store.putItem(["counted", `n${n}`], "k", { n });
  }
  for (const [user, sizes] of [
    ["carol", [3, 3, 1, 0]],
    ["dave", [3, 3, 3, 3, 3, 3, 3, 0]],
  ] as const) {
    const pages = sizes.map((_, page) =>
      stores[user].store.searchItems(["counted"], { limit: 3, offset: 3 * page }),
    );
    expect((await Promise.all(pages)).map(({ items }) => items.length)).toEqual(sizes);
  }
});
