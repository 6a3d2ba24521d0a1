// Schemas that are read from a graph's source, by a package that the project may have. What stands for it here answers
// as the official one does; the official one needs another TypeScript than this project.
import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Annotation, START, StateGraph } from "@langchain/langgraph";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { schemasOf } from "../../server/runs/schemas.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";

const PACKAGE = `
import { appendFileSync } from "node:fs";

export async function getStaticGraphSchema({ sourceFile, exportSymbol }, { timeoutMs }) {
  appendFileSync(new URL("./asked", import.meta.url), exportSymbol + " " + timeoutMs + "\\n");
  if (exportSymbol !== "annotated") throw new Error("this source cannot be read: " + sourceFile);
  const state = { type: "object", properties: { count: { type: "number" } } };
  return { annotated: { state, input: state, output: state, config: { type: "object" } } };
}
`;

let folder: string;
let asked: string;
let scratch: TestDatabase;
let server: TestServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-schemas-"));
  const home = join(folder, "node_modules/@langchain/langgraph-api");
  await mkdir(home, { recursive: true });
  const about = { name: "@langchain/langgraph-api", type: "module", exports: { "./schema": "./schema.js" } };
  await writeFile(join(home, "package.json"), JSON.stringify(about));
  await writeFile(join(home, "schema.js"), PACKAGE);
  await appendFile((asked = join(home, "asked")), "");
  const kinds = resolve("test/fixtures/kinds.ts");
  const graphs = Object.fromEntries(
    ["annotated", "telling", "silent"].map((name) => [name, `${kinds}:${name}`]),
  );
  await writeFile(join(folder, "langgraph.json"), JSON.stringify({ graphs }));
  scratch = await testDatabase();
  server = await startTestServer(scratch.url, { HOLDFAST_CONFIG: join(folder, "langgraph.json") });
});
afterAll(async () => {
  await server.stop();
  await scratch.close();
  await rm(folder, { recursive: true, force: true });
});

test("are read when they are asked for, once, and only of graphs that declare none", async () => {
  const { assistants } = server.client;
  const before = await readFile(asked, "utf8");
  const known = await Promise.all([1, 2, 3].map(() => assistants.getSchemas("annotated")));
  const state = { type: "object", properties: { count: { type: "number" } } };
  for (const schemas of known)
    expect(schemas).toEqual({
      graph_id: "annotated",
      state_schema: state,
      input_schema: state,
      output_schema: state,
      config_schema: { type: "object" },
      context_schema: { type: "object" },
    });
  const own = await assistants.getSchemas("telling");
  expect(Object.keys(own.state_schema?.properties ?? {})).toEqual(["told"]);
  expect([before, await readFile(asked, "utf8")]).toEqual(["", "annotated 30000\n"]);
});

test("of a source that cannot be read are null", async () => {
  expect(await server.client.assistants.getSchemas("silent")).toEqual({
    graph_id: "silent",
    state_schema: null,
    input_schema: null,
    output_schema: null,
    config_schema: null,
    context_schema: null,
  });
});

test("what a graph declares of its configuration is told, although its source says nothing of its state", async () => {
  const graph = new StateGraph(
    Annotation.Root({ count: Annotation<number> }),
    z.object({ model: z.string().default("small") }),
  )
    .addNode("one", () => ({ count: 1 }))
    .addEdge(START, "one")
    .compile();
  const nobody = { staticSchemas: () => Promise.resolve(new Map()) };
  const { context_schema: context, state_schema: state } = await schemasOf(nobody, "one", graph as never);
  expect([state, context]).toMatchObject([null, { properties: { model: { default: "small" } } }]);
});
