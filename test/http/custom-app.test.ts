// The user's own app in front of the API, with our copy of Hono and with another one.
import { cpSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { corsPolicyOf } from "../../server/http/edge/cors.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { makeProject } from "../support/project.ts";
import { collect, startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const FIXTURE = "test/fixtures/custom-app.ts";
let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

/** A project that names the app; it may bring its own Hono. */
function project(http: object, { hasOwnHono = false } = {}): string {
  const { folder, path } = makeProject({ http });
  if (hasOwnHono) {
    cpSync("node_modules/hono", join(folder, "node_modules/hono"), { recursive: true });
    cpSync(FIXTURE, join(folder, "custom-app.ts"));
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  }
  return path;
}

const start = (config: string): Promise<TestServer> =>
  startTestServer(scratch.url, { HOLDFAST_CONFIG: config, HOLDFAST_HEARTBEAT_MS: "100" });

describe.each([
  ["our copy of Hono", () => project({ app: `${resolve(FIXTURE)}:app` })],
  ["another copy of Hono", () => project({ app: "./custom-app.ts:app" }, { hasOwnHono: true })],
])("an app made with %s", (_, make) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await start(make());
  });
  afterAll(() => server.stop());
  const get = (path: string): Promise<Response> => fetch(`${server.url}${path}`);
  const streamed = async (wish: string): Promise<Response> => {
    const { thread_id: id } = await server.client.threads.create();
    return fetch(`${server.url}/threads/${id}/runs/stream`, {
      method: "POST",
      headers: { "x-wish": wish },
      body: JSON.stringify({ assistant_id: "echo", input: {}, stream_mode: "values" }),
    });
  };

  test("answers on its own routes, also beside ours", async () => {
    expect(await (await get("/custom/hello/you")).json()).toEqual({ hello: "you" });
    expect(await (await get("/runs/mine")).text()).toBe("mine");
    expect(await (await get("/custom/stream")).text()).toBe("data: one\n\ndata: two\n\n");
    expect(await (await get("/nowhere")).text()).toBe("No route GET /nowhere");
  });

  test("wraps ours: it may answer instead, and change headers and bodies both ways", async () => {
    expect(await (await get("/ok?stop")).json()).toEqual({ stopped: true });
    expect((await get("/ok")).headers.get("x-custom")).toBe("seen");
    expect(await (await get("/info")).json()).toMatchObject({ context: "js", extra: true });
    const thread = await server.client.threads.create({ metadata: { own: 1 } });
    expect(thread.metadata).toEqual({ own: 1, stamped: "on its way" });
    const found = await server.client.threads.search({ ids: ["not looked at"] });
    expect(found.map(({ metadata }) => metadata?.["stamped"])).toContain("on its way");
  });

  test("lets streams pass as they are, with the headers it adds", async () => {
    const { thread_id: id } = await server.client.threads.create();
    const frames = await collect(
      server.client.runs.stream(id, "echo", { input: {}, streamMode: ["values", "messages-tuple"] }),
    );
    expect(frames.map(({ id: seq }) => Number(seq))).toEqual(frames.map((_frame, index) => index));
    const text = await streamed("nothing");
    expect([text.headers.get("x-custom"), text.headers.get("content-type")]).toEqual([
      "seen",
      "text/event-stream",
    ]);
    expect(text.headers.get("x-hono-already-sent")).toBeNull();
    expect(await text.text()).toContain("alpha beta");
  });

  test("may read a stream, change it, or answer something else", async () => {
    const changed = await (await streamed("upper")).text();
    expect(changed).toContain("ALPHA beta");
    expect(changed).not.toContain("alpha");
    expect(changed).toMatch(/^event: metadata\ndata: .*\nid: 0\n\n/);
    const refused = await streamed("refuse");
    expect([refused.status, await refused.text()]).toEqual([403, "refused afterwards"]);
    expect((await streamed("empty")).status).toBe(204);
    const read = await streamed("read");
    expect(Number(read.headers.get("x-length"))).toBe((await read.text()).length);
  });

  test("that changes a stream hides neither its heartbeats nor that the client leaves", async () => {
    const { thread_id: id } = await server.client.threads.create();
    const leaving = new AbortController();
    const response = await fetch(`${server.url}/threads/${id}/runs/stream`, {
      method: "POST",
      headers: { "x-wish": "upper" },
      body: JSON.stringify({ assistant_id: "endless", input: {}, on_disconnect: "cancel" }),
      signal: leaving.signal,
    });
    let text = "";
    for await (const piece of response.body ?? []) {
      text += Buffer.from(piece).toString();
      if (text.split(": heartbeat\n").length > 2) break;
    }
    expect(text).toContain("event: values");
    leaving.abort();
    const statusOf = async (): Promise<string | undefined> => (await server.client.runs.list(id))[0]?.status;
    await until(async () => (await statusOf()) === "interrupted", "the run to be cancelled", 5000);
  });

  test("that throws is answered with 500 without its words, a thrown HTTP answer with itself", async () => {
    const broken = await get("/custom/broken");
    expect([broken.status, broken.headers.get("x-holdfast-code")]).toEqual([500, "custom_app_failed"]);
    expect(await broken.text()).not.toContain("secret");
    const teapot = await get("/custom/teapot");
    expect([teapot.status, await teapot.text()]).toEqual([418, "short and stout"]);
    expect((await get(`/threads/${crypto.randomUUID()}`)).headers.get("x-holdfast-code")).toBe(
      "thread_not_found",
    );
  });

  test("receives webhooks that name a path of it", async () => {
    const { thread_id: id } = await server.client.threads.create();
    await server.client.runs.wait(id, "echo", { input: {}, webhook: "/custom/hook" });
    // It keeps those of all who use it in this process.
    const mine = async (): Promise<object[]> =>
      ((await (await get("/custom/hooks")).json()) as { thread_id: string }[]).filter(
        ({ thread_id: threadId }) => threadId === id,
      );
    await until(async () => (await mine()).length > 0, "the webhook", 10_000);
    expect(await mine()).toMatchObject([{ status: "success" }]);
  });
});

test("an app answers its failures itself if it wants to", async () => {
  const server = await start(project({ app: `${resolve(FIXTURE)}:careful` }));
  const response = await fetch(`${server.url}/custom/broken`);
  expect([response.status, await response.text()]).toEqual([502, "handled: again"]);
  await server.stop();
});

test("what is no Hono is asked first, and what it does not find goes on", async () => {
  const server = await start(project({ app: `${resolve(FIXTURE)}:bare` }));
  const echoed = await fetch(`${server.url}/custom/echo`, { method: "POST", body: "word" });
  expect([echoed.status, await echoed.text()]).toEqual([201, "word"]);
  const thread = await server.client.threads.create({ metadata: { whole: true } });
  expect(thread.metadata).toEqual({ whole: true });
  expect((await collect(server.client.runs.stream(thread.thread_id, "echo", { input: {} })))[0]?.event).toBe(
    "metadata",
  );
  expect((await fetch(`${server.url}/custom/broken`)).headers.get("x-holdfast-code")).toBe(
    "custom_app_failed",
  );
  await server.stop();
});

test.each([
  ["./missing.ts:app", "http.app names ./missing.ts:app, which cannot be loaded: "],
  [`${resolve(FIXTURE)}:gone`, "nothing, not gone."],
  [`${resolve(FIXTURE)}:nothing`, "it has no fetch function"],
])("an app that cannot be loaded stops the start in one sentence: %s", async (app, text) => {
  await expect(start(project({ app }))).rejects.toThrow(text);
});

test.each([
  ["https://a.example/", "write https://a.example"],
  ["https://A.example", "write https://a.example"],
  ["https://a.example:443", "write https://a.example"],
  ["http://localhost:3000/chat", "write http://localhost:3000"],
  ["app://chat/", "write app://chat"],
  ["https://*.a.example", "name each, or use http.cors.allow_origin_regex"],
  ["a.example", "write one such as https://chat.example"],
])("the origin %s, which no browser sends, stops the start", (origin, cure) => {
  const sentence = `holds ${origin}, which no browser sends as an origin: ${cure}.`;
  expect(() => corsPolicyOf([origin], undefined)).toThrow(`HOLDFAST_CORS_ORIGINS ${sentence}`);
  expect(() => corsPolicyOf([], { allow_origins: ["*", origin] })).toThrow(
    `http.cors.allow_origins ${sentence}`,
  );
});

test.each(["https://a.example", "http://[::1]:3000", "app://chat", "chrome-extension://abc", "null"])(
  "the origin %s is let in",
  (origin) => {
    const { isAllowed } = corsPolicyOf([origin, ""], undefined);
    expect([isAllowed?.(origin), isAllowed?.("https://b.example")]).toEqual([true, false]);
  },
);

test("http.cors says which pages may call, and what they see", async () => {
  const server = await start(
    project({
      cors: {
        allow_origins: ["https://a.example"],
        allow_origin_regex: "https://.*\\.b\\.example",
        allow_credentials: true,
        allow_headers: ["x-one"],
        expose_headers: ["x-two", "Location"],
        max_age: 7,
      },
    }),
  );
  const asked = async (origin: string, method: string): Promise<Headers> => {
    const headers = { origin, "access-control-request-method": "POST" };
    return (await fetch(`${server.url}/ok`, { method, headers })).headers;
  };
  for (const method of ["GET", "OPTIONS"]) {
    for (const origin of ["https://a.example", "https://x.b.example"]) {
      const headers = await asked(origin, method);
      expect(headers.get("access-control-allow-origin")).toBe(origin);
      expect(headers.get("access-control-allow-credentials")).toBe("true");
      expect(headers.get("access-control-expose-headers")).toMatch(/^Content-Location,Location,.*,x-two$/);
      expect(headers.get("vary")).toMatch(/Origin/);
    }
    for (const origin of [
      "https://c.example",
      "https://x.b.example.c.example",
      "https://a.example.c.example",
    ])
      expect((await asked(origin, method)).get("access-control-allow-origin")).toBeNull();
  }
  const preflight = await asked("https://a.example", "OPTIONS");
  expect(preflight.get("access-control-allow-headers")).toBe("x-one");
  expect(preflight.get("access-control-max-age")).toBe("7");
  await server.stop();
});

test.each([
  [{ allow_credentials: true }, "http.cors allows credentials to any origin"],
  [{ allow_origins: ["*"], allow_credentials: true }, "http.cors allows credentials to any origin"],
  [{ allow_origin_regex: "(" }, "http.cors.allow_origin_regex is no regular expression"],
  [{ allow_origins: "*" }, "http.cors.allow_origins"],
])("http.cors %o stops the start in one sentence", async (cors, text) => {
  await expect(start(project({ cors }))).rejects.toThrow(text);
});

test("langgraph.json disables parts of the API", async () => {
  const off = { disable_assistants: true, disable_threads: true, disable_runs: true };
  const server = await start(project({ ...off, disable_store: true, disable_meta: true }));
  const paths = [
    "/assistants/echo",
    `/threads/${crypto.randomUUID()}`,
    "/runs/x",
    "/store/items?key=a",
    "/info",
  ];
  const answers = await Promise.all(paths.map(async (path) => (await fetch(`${server.url}${path}`)).text()));
  expect(answers).toEqual(paths.map((path) => `No route GET ${path.split("?")[0]}`));
  expect((await fetch(`${server.url}/live`)).status).toBe(200);
  await server.stop();
});
