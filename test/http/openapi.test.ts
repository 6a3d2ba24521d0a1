// The OpenAPI document and the page on it: they show the API as it is, and the page needs nobody else.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { gunzipSync } from "node:zlib";
import { beforeAll, expect, test } from "vitest";
import { documentOf, nouns } from "../../server/http/described/openapi.ts";
import { fetchDocument, judgeOf, operationsOf } from "../support/openapi.ts";
import type { Document } from "../support/openapi.ts";
import { useServer } from "../support/server.ts";

/** Of dist/browser/standalone.js in the published @scalar/api-reference 1.72.1. */
const SCALAR = "bf091006bdc3af6067af77c2f534812e3e633e94a94e87138069f570f33b762c";

const held = useServer();
let document: Document;
beforeAll(async () => {
  document = await fetchDocument(held.server.url);
});

const described = nouns.flatMap(({ operations }) => Object.entries(operations));

test("the document has every route of the server, described, and none that the server has not", () => {
  // The document is made from the routes; one that nobody described has no name in it.
  const shown = operationsOf(document);
  expect(shown.filter(({ operationId }) => operationId === undefined).map(({ name }) => name)).toEqual([]);
  // Components are served when langgraph.json has some: ui.test.ts.
  const ids = described.filter(([route]) => !route.includes(" /ui/")).map(([, { id }]) => id);
  expect(shown.map(({ operationId = "" }) => operationId).toSorted()).toEqual(ids.toSorted());
  expect(new Set(ids).size).toBe(ids.length);
});

test("a route that nobody described stands in the document, without a name", () => {
  const routes = [
    { method: "ALL", path: "/*" },
    { method: "GET", path: "/threads/:thread/secret" },
  ];
  const [bare, ...rest] = operationsOf(documentOf(routes, "1.0.0") as unknown as Document);
  expect([bare?.name, bare?.operationId, rest]).toEqual(["GET /threads/{thread_id}/secret", undefined, []]);
});

test("a described path is one that the server answers", async () => {
  for (const { method, path, name } of operationsOf(document)) {
    const answer = await fetch(held.server.url + path.replaceAll(/[{}]/g, ""), {
      method,
      ...(method === "GET" ? {} : { body: "{" }),
    });
    expect([name, await answer.text()]).not.toEqual([name, expect.stringMatching(/^No route/)]);
  }
});

test("its version is the package's", async () => {
  const { version } = JSON.parse(await readFile("package.json", "utf8")) as { version: string };
  expect([document.openapi, document.info.version]).toEqual(["3.1.1", version]);
});

test("each code of an error is explained in docs/errors.md, under the status it has here", async () => {
  const page = await readFile("docs/errors.md", "utf8");
  const sections = new Map(page.split(/^## /m).map((text) => [text.split("\n")[0], text]));
  for (const { name, responses } of operationsOf(document)) {
    for (const [status, { headers }] of Object.entries(responses)) {
      const codes = (headers?.["X-Holdfast-Code"]?.schema["enum"] ?? []) as string[];
      for (const code of codes.filter((one) => one !== "internal"))
        expect([name, sections.get(code)]).toEqual([name, expect.stringContaining(`HTTP ${status}`)]);
    }
  }
});

test("an answer that differs from the document is seen: its status, code, type, body, header or frames", () => {
  const judge = judgeOf(document);
  const operations = operationsOf(document);
  const said = (id: string, status: number, text: string, headers: Record<string, string>) => {
    const operation = operations.find(({ operationId }) => operationId === id) ?? fail(id);
    return judge(operation, { status, text, isCut: false, headers: new Headers(headers) });
  };
  const json = { "content-type": "application/json" };
  const plain = { "content-type": "text/plain; charset=UTF-8" };
  const events = { "content-type": "text/event-stream", location: "/a", "content-location": "/b" };
  const frame = "event: values\ndata: {}\nid: 1\n\n";
  expect(said("ok", 200, '{"ok":true}', json)).toBeUndefined();
  expect(said("ok", 200, '{"ok":true,"more":1}', json)).toContain("must NOT have additional properties");
  expect(said("ok", 200, "{}", json)).toContain("must have required property");
  expect(said("ok", 200, "yes", plain)).toContain("content type text/plain");
  expect(said("ok", 418, "", {})).toContain("status 418");
  expect(said("getThread", 404, "no", { ...plain, "X-Holdfast-Code": "thread_not_found" })).toBeUndefined();
  expect(said("getThread", 404, "no", { ...plain, "X-Holdfast-Code": "run_not_found" })).toContain(
    "run_not_found",
  );
  expect(said("getThread", 404, "no", plain)).toContain("null");
  expect(said("deleteThread", 204, "", {})).toBeUndefined();
  expect(said("deleteThread", 204, "gone", {})).toContain("body");
  expect(said("searchThreads", 200, "[]", json)).toContain("X-Pagination-Total");
  expect(said("joinRunStream", 200, `: heartbeat\n${frame}`, events)).toBeUndefined();
  expect(said("joinRunStream", 200, frame + frame, events)).toContain("frame 1 after 1");
  expect(said("joinRunStream", 200, "data: {}\n\n", events)).toContain("not a frame");
});

function fail(id: string): never {
  throw new Error(`The document has no operation ${id}.`);
}

/** What a linter of OpenAPI documents says, without asking anybody. */
async function problemsOf(text: string): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-openapi-"));
  const file = join(folder, "openapi.json");
  await writeFile(file, text);
  // /ok cannot fail, and the official API has /runs/crons/{cron_id} beside /runs/{run_id}/join.
  const skipped = ["operation-4xx-response", "no-ambiguous-paths"].map((rule) => `--skip-rule=${rule}`);
  const options = ["lint", "--format=json", ...skipped, file];
  const env = { ...process.env, REDOCLY_TELEMETRY: "off", REDOCLY_SUPPRESS_UPDATE_NOTICE: "true" };
  const output = await new Promise<string>((resolve) => {
    // It ends with 1 when it finds something.
    execFile("node_modules/.bin/redocly", options, { env, cwd: process.cwd() }, (_, out) => resolve(out));
  });
  await rm(folder, { recursive: true });
  const { problems } = JSON.parse(output) as { problems: { ruleId: string; message: string }[] };
  return problems.map(({ ruleId, message }) => `${ruleId}: ${message}`);
}

test("the linter finds nothing, and finds what is planted", async () => {
  expect(await problemsOf(JSON.stringify(document))).toEqual([]);
  const planted = structuredClone(document) as unknown as {
    paths: Record<string, Record<string, { parameters: object[] }>>;
  };
  const operation = planted.paths["/threads/{thread_id}"]?.["get"];
  if (operation) operation.parameters = [];
  expect(await problemsOf(JSON.stringify(planted))).toEqual([
    expect.stringMatching(/^path-parameters-defined: /),
  ]);
});

test("the page may load from and talk to this server only", async () => {
  const page = await fetch(`${held.server.url}/docs`);
  expect(page.headers.get("content-type")).toMatch(/^text\/html/);
  const policy = (page.headers.get("content-security-policy") ?? "").split("; ");
  expect(policy).toContain("default-src 'none'");
  const sources = policy.flatMap((rule) => rule.split(" ").slice(1));
  const own = /^'(none|self|unsafe-inline|sha256-[\w+/=]+)'$|^data:$/;
  expect(sources.filter((source) => !own.test(source))).toEqual([]);
  expect(policy.find((rule) => rule.startsWith("script-src"))).not.toContain("unsafe");
});

test("the script of the page is the published file, packed for those who take it so, and is kept for ever", async () => {
  for (const accepted of ["gzip, deflate", "identity"]) {
    const answer = await new Promise<{ headers: Record<string, unknown>; body: Buffer }>(
      (resolve, reject) => {
        const headers = { "accept-encoding": accepted };
        get(`${held.server.url}/docs/scalar.js`, { headers }, (response) => {
          buffer(response).then((body) => resolve({ headers: response.headers, body }), reject);
        });
      },
    );
    const isPacked = answer.headers["content-encoding"] === "gzip";
    expect(isPacked).toBe(accepted.startsWith("gzip"));
    const script = isPacked ? gunzipSync(answer.body) : answer.body;
    expect(createHash("sha256").update(script).digest("hex")).toBe(SCALAR);
    expect(answer.headers).toMatchObject({
      "content-type": "text/javascript; charset=utf-8",
      "cache-control": "public, max-age=31536000, immutable",
    });
  }
});
