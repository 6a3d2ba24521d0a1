// The package as it is published, in a project that uses it: one copy of LangGraph for both, and one sentence if the
// project's copy does not fit.
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "./support/database.ts";
import type { TestDatabase } from "./support/database.ts";
import { startHoldfast } from "./support/holdfast.ts";
import type { Finished } from "./support/holdfast.ts";

const run = promisify(execFile);

const GRAPH = `
import { AIMessage } from "@langchain/core/messages";
import { END, MessagesValue, START, StateGraph, StateSchema } from "@langchain/langgraph";
import { countTokens, servicesOf } from "holdfast";

export const graph = new StateGraph(new StateSchema({ messages: MessagesValue }))
  .addNode("answer", async ({ messages }, config) => {
    const tokens = await countTokens(messages.at(-1)?.text ?? "", "gpt-4o");
    return { messages: [new AIMessage(\`\${tokens} tokens, \${servicesOf(config).settings.collection}\`)] };
  })
  .addEdge(START, "answer")
  .addEdge("answer", END);
`;

let folder: string;
let tarball: string;
let files: string[];
let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
  folder = await mkdtemp(join(tmpdir(), "holdfast-package-"));
  const packed = await run("npm", ["pack", "--json", "--pack-destination", folder]);
  const [about] = JSON.parse(packed.stdout.slice(packed.stdout.indexOf("["))) as [
    { filename: string; files: { path: string }[] },
  ];
  tarball = join(folder, about.filename);
  files = about.files.map(({ path }) => path);
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
  await scratch.close();
});

/** A project with the package, and everything that the package needs as npm would have put it there. */
async function newProject(name: string, langgraph?: string): Promise<{ cli: string; config: string }> {
  const [project, installed] = [join(folder, name), resolve("node_modules")];
  const modules = join(project, "node_modules");
  await mkdir(join(modules, "@langchain"), { recursive: true });
  for (const entry of await readdir(installed))
    if (entry !== "@langchain" && !entry.startsWith("."))
      await symlink(join(installed, entry), join(modules, entry));
  for (const entry of await readdir(join(installed, "@langchain")))
    if (entry !== "langgraph" || langgraph === undefined)
      await symlink(join(installed, "@langchain", entry), join(modules, "@langchain", entry));
  if (langgraph !== undefined) {
    await mkdir(join(modules, "@langchain/langgraph"));
    const about = { name: "@langchain/langgraph", version: langgraph };
    await writeFile(join(modules, "@langchain/langgraph/package.json"), JSON.stringify(about));
  }
  await mkdir(join(modules, "holdfast"));
  await run("tar", ["-xzf", tarball, "-C", join(modules, "holdfast"), "--strip-components=1"]);
  await writeFile(join(project, "package.json"), JSON.stringify({ name, type: "module" }));
  await writeFile(join(project, "graph.ts"), GRAPH);
  const config = join(project, "langgraph.json");
  await writeFile(config, JSON.stringify({ graphs: { agent: "./graph.ts:graph" } }));
  return { cli: join(modules, "holdfast/dist/server/cli.js"), config };
}

const serve = (cli: string, config: string): Promise<Finished> =>
  startHoldfast(["serve", "--config", config], { DATABASE_URL: scratch.url, PORT: "0" }, cli).ended;

/** What is said of a LangGraph that does not fit. */
const sentence = (version: string): string =>
  `@langchain/langgraph ${version}, and Holdfast needs @langchain/langgraph@^1.7.3: ` +
  "run npm install @langchain/langgraph@^1.7.3";

test("holds the compiled server, the migrations and the documents, and nothing else", () => {
  const folders = new Set(files.map((path) => path.split("/")[0] ?? ""));
  expect([...folders].toSorted()).toEqual(
    ["LICENSE", "README.md", "dist", "docs", "migrations", "package.json"], //
  );
  expect(files).toEqual(expect.arrayContaining(["dist/server/cli.js", "dist/server/index.d.ts"]));
});

test("a project serves its own graph with it, which imports from it", async () => {
  const { cli, config } = await newProject("mine");
  const env = { DATABASE_URL: scratch.url, PORT: "0" };
  const running = startHoldfast(["serve", "--config", config], env, cli);
  await running.says("Ready on");
  const [apiUrl = ""] = /http:\S+/.exec(running.out()) ?? [];
  const input = { messages: [{ role: "user", content: "a b c" }] };
  const values = await new Client({ apiUrl }).runs.wait(null, "agent", { input });
  const script = await fetch(`${apiUrl}/docs/scalar.js`);
  expect([script.status, (await script.text()).length > 100_000]).toEqual([200, true]);
  running.process.kill("SIGTERM");
  expect((await running.ended).code).toBe(0);
  expect(Object(values).messages.at(-1)).toMatchObject({ type: "ai", content: "3 tokens, docs" });
});

test("with a LangGraph that is too old it stops with one sentence that says what to do", async () => {
  const [old, newer] = [await newProject("old", "1.2.0"), await newProject("newer", "2.0.0")];
  const own = await serve(old.cli, old.config);
  expect([own.code, own.err]).toEqual([1, `holdfast: This project has ${sentence("1.2.0")}.\n`]);
  const ahead = await serve(newer.cli, newer.config);
  expect([ahead.code, ahead.err]).toEqual([1, `holdfast: This project has ${sentence("2.0.0")}.\n`]);
  // Served from elsewhere, a graph brings its own copy along.
  const beside = await serve("server/cli.ts", old.config);
  const graph = "Graph agent (./graph.ts:graph) cannot be loaded: its project has";
  expect([beside.code, beside.err]).toEqual([1, `holdfast: ${graph} ${sentence("1.2.0")} there.\n`]);
});
