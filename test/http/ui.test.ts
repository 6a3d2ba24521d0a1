// Components for web pages, built by a package that the project may have. What stands for it here answers as the official
// one does; the official one brings a bundler of 50 MB.
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildUi } from "../../server/http/web/ui-build.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { fetchDocument, judgeOf, operationsOf } from "../support/openapi.ts";
import { collect, startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";

const PACKAGE = `
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export async function build({ output, cwd, defs, config }) {
  appendFileSync(new URL("./asked", import.meta.url), JSON.stringify({ cwd, defs, config, env: Object.keys(process.env) }) + "\\n");
  for (const [key, file] of Object.entries(defs)) {
    if (file.includes("broken")) throw new Error("Build failed with 1 error:\\nui.tsx:3:7: ERROR: Expected a semicolon");
    const folder = join(output, "public", key);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "entrypoint.css"), ".p-4{padding:1rem}");
    writeFileSync(join(folder, "entrypoint.js"), "var __LGUI_" + key.replace(/[^a-zA-Z0-9]/g, "_") + " = {};");
  }
}
`;
let folder: string;
let scratch: TestDatabase;
let server: TestServer;
let guarded: TestServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-ui-test-"));
  const home = join(folder, "node_modules/@langchain/langgraph-ui");
  await mkdir(home, { recursive: true });
  await writeFile(join(home, "package.json"), JSON.stringify({ type: "module", main: "./index.js" }));
  await writeFile(join(home, "index.js"), PACKAGE);
  const graphs = {
    "my-echo": `${resolve("test/fixtures/graphs.ts")}:echo`,
    drawing: `${resolve("test/fixtures/drawing.mjs")}:drawing`,
  };
  const ui = { "my-echo": "./ui.tsx", other: "./other.tsx" };
  const about = { graphs, ui, ui_config: { shared: ["lodash"] } };
  await writeFile(join(folder, "langgraph.json"), JSON.stringify(about));
  const auth = { path: `${resolve("test/fixtures/auth.ts")}:owned` };
  await writeFile(join(folder, "guarded.json"), JSON.stringify({ ...about, auth }));
  scratch = await testDatabase();
  server = await startTestServer(scratch.url, { HOLDFAST_CONFIG: join(folder, "langgraph.json") });
  guarded = await startTestServer(scratch.url, { HOLDFAST_CONFIG: join(folder, "guarded.json") });
});
afterAll(async () => {
  await server.stop();
  await guarded.stop();
  await scratch.close();
  await rm(folder, { recursive: true, force: true });
});

const clientOf = ({ url }: TestServer, user?: string): Client =>
  new Client({
    apiUrl: url,
    apiKey: null,
    callerOptions: { maxRetries: 0 },
    ...(user ? { defaultHeaders: { authorization: `Bearer ${user}` } } : {}),
  });

/** What LoadExternalComponent of the client gets. */
const componentOf = (client: Client, assistant: string, name: string): Promise<string> =>
  (client as unknown as { "~ui": { getComponent(assistant: string, name: string): Promise<string> } })[
    "~ui"
  ].getComponent(assistant, name);

test("are built once, without the keys of the server, and with what the page shares", async () => {
  const asked = join(folder, "node_modules/@langchain/langgraph-ui/asked");
  const [first = "", ...others] = (await readFile(asked, "utf8")).trim().split("\n");
  expect(others).toHaveLength(1); // the other server's
  expect(JSON.parse(first)).toEqual({
    cwd: folder,
    defs: { "my-echo": "./ui.tsx", other: "./other.tsx" },
    config: { shared: ["lodash"] },
    env: ["LC_ALL", "PATH"],
  });
});

test("the client gets HTML that loads a bundle and draws a component of it", async () => {
  const { url } = server;
  const html = await componentOf(clientOf(server), "my-echo", "weather");
  expect(html).toBe(
    [
      `<link rel="stylesheet" href="${url}/ui/my-echo/entrypoint.css" />`,
      `<script src="${url}/ui/my-echo/entrypoint.js" onload="__LGUI_my_echo.render(&quot;weather&quot;, &quot;{{shadowRootId}}&quot;)"></script>`,
    ].join("\n"),
  );
  const answer = await fetch(`${url}/ui/other`, { method: "POST", body: '{"name":"x"}' });
  expect(answer.headers.get("content-type")).toBe("text/html; charset=UTF-8");
});

test.each([
  ["entrypoint.js", "text/javascript; charset=utf-8", "var __LGUI_my_echo = {};"],
  ["entrypoint.css", "text/css; charset=utf-8", ".p-4{padding:1rem}"],
])("%s is served, and not again while it is the same", async (file, type, text) => {
  const path = `${server.url}/ui/my-echo/${file}`;
  const response = await fetch(path);
  expect([response.status, response.headers.get("content-type"), await response.text()]).toEqual([
    200,
    type,
    text,
  ]);
  const etag = response.headers.get("etag") ?? "";
  const again = await fetch(path, { headers: { "if-none-match": etag } });
  expect([again.status, await again.text()]).toEqual([304, ""]);
});

test("what a graph sends to be drawn is in its stream and in its state", async () => {
  const { client } = server;
  const { thread_id: threadId } = await client.threads.create();
  const stream = client.runs.stream(threadId, "drawing", { input: {}, streamMode: ["custom"] });
  const [first, ...told] = await collect(stream);
  const sent = {
    type: "ui",
    id: expect.any(String),
    name: "weather",
    props: { city: "Berlin" },
    metadata: expect.objectContaining({ run_id: Object(first?.data).run_id }),
  };
  expect(told.map(({ event, data }) => [event, data])).toEqual([["custom", sent]]);
  expect((await client.threads.getState(threadId)).values).toEqual({ ui: [sent] });
});

test("a component's name cannot leave its place in the HTML", async () => {
  const html = await componentOf(clientOf(server), "other", `"');</script>{{shadowRootId}}<b>`);
  expect(html.match(/<\/?[a-z]+/g)).toEqual(["<link", "<script", "</script"]);
  expect(html.split("{{shadowRootId}}")).toHaveLength(2);
  const onload = /onload="([^"]*)"/.exec(html)?.[1] ?? "";
  const code = onload.replaceAll("&quot;", '"').replaceAll("&#39;", "'").replaceAll("&lt;", "<");
  const drawn = /^__LGUI_other\.render\((".*"), "\{\{shadowRootId\}\}"\)$/.exec(code.replaceAll("&gt;", ">"));
  expect(JSON.parse(drawn?.[1] ?? "")).toBe(`"');</script>{{shadowRootId}}<b>`);
});

test("they stand in the OpenAPI document, and answer as it says", async () => {
  const document = await fetchDocument(server.url);
  const judge = judgeOf(document);
  const operations = operationsOf(document).filter(({ path }) => path.startsWith("/ui/"));
  expect(operations.map(({ operationId }) => operationId)).toEqual(["getComponent", "getComponentFile"]);
  const [html, file] = operations;
  if (!html || !file) throw new Error("The document has no components.");
  for (const [operation, path, init] of [
    [html, "/ui/other", { method: "POST", body: '{"name":"x"}' }],
    [html, "/ui/none", { method: "POST", body: '{"name":"x"}' }],
    [html, "/ui/other", { method: "POST", body: '{"name":""}' }],
    [file, "/ui/other/entrypoint.js", {}],
    [file, "/ui/other/none.js", {}],
  ] as const) {
    const answer = await fetch(server.url + path, init);
    const { status, headers } = answer;
    expect(judge(operation, { status, headers, text: await answer.text(), isCut: false })).toBeUndefined();
  }
});

test("an assistant has the components of its graph", async () => {
  const client = clientOf(guarded, "alice");
  const made = await client.assistants.create({ graphId: "my-echo" });
  const html = await componentOf(client, made.assistant_id, "weather");
  expect(html).toContain("/ui/my-echo/entrypoint.js");
  const asked = (user: string): Promise<Response> =>
    fetch(`${guarded.url}/ui/${made.assistant_id}`, {
      method: "POST",
      headers: { authorization: `Bearer ${user}` },
      body: '{"name":"weather"}',
    });
  expect((await asked("bob")).status).toBe(404);
  expect((await asked("alice")).status).toBe(200);
});

const statusOf = (path: string, init?: RequestInit): Promise<number> =>
  fetch(guarded.url + path, init).then(({ status }) => status);

test("with auth the files are open, as a page loads them, and the HTML is for callers", async () => {
  expect(await statusOf("/ui/my-echo/entrypoint.js")).toBe(200);
  expect(await statusOf("/ui/my-echo/missing.js")).toBe(404);
  expect(await statusOf("/ui/nothing/entrypoint.js")).toBe(401);
  expect(await statusOf("/ui/my-echo/entrypoint.js/more")).toBe(401);
  expect(await statusOf("/ui/my-echo", { method: "POST", body: '{"name":"weather"}' })).toBe(401);
  const headers = { authorization: "Bearer alice" };
  expect(await statusOf("/ui/my-echo", { method: "POST", headers, body: '{"name":"weather"}' })).toBe(200);
});

test.each([
  ["/ui/nothing", "POST", { name: "x" }, 404, 'UI not found for agent "nothing"'],
  ["/ui/nothing/entrypoint.js", "GET", undefined, 404, "File not found"],
  ["/ui/my-echo/..%2f..%2flanggraph.json", "GET", undefined, 404, "File not found"],
] as const)("%s is not there", async (path, method, body, status, text) => {
  const response = await fetch(server.url + path, {
    method,
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  expect([response.status, await response.text()]).toEqual([status, text]);
});

test("a body without a name is refused", async () => {
  const response = await fetch(`${server.url}/ui/my-echo`, { method: "POST", body: "{}" });
  expect(response.status).toBe(400);
});

test.each([
  ["no-package", { agent: "./ui.tsx" }, "@langchain/langgraph-ui is not installed in its project."],
  ["broken", { agent: "./broken.tsx" }, "ui.tsx:3:7: ERROR: Expected a semicolon."],
])("what cannot be built is said in one sentence: %s", async (_, defs, reason) => {
  const said: string[] = [];
  const path = reason.startsWith("@") ? join(tmpdir(), "langgraph.json") : join(folder, "langgraph.json");
  const built = await buildUi({ path, ui: { defs, config: { shared: [] } } }, (text) => said.push(text));
  expect(built?.size).toBe(0);
  expect(said).toEqual([`Generative UI: what ui in ${path} names is not served: ${reason}`]);
});
