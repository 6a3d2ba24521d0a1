// TypeScript of projects as the official templates and tsc take it, which Node.js alone does not run.
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "./support/database.ts";
import type { TestDatabase } from "./support/database.ts";
import { holdfast, startHoldfast } from "./support/holdfast.ts";
import { until } from "./support/until.ts";

const FILES = {
  "tsconfig.json": `{
    // as tsc --init leaves it, comments and all
    "compilerOptions": { "module": "NodeNext", "experimentalDecorators": true, "paths": { "@/*": ["./src/*"] } },
  }`,
  "src/answers.json": '{ "short": "yes" }',
  "src/utils/kinds.ts": `
    import { RunnableConfig } from "@langchain/core/runnables";
    export enum Kind { Short = "short", Long = "long" }
    export interface Settings { kind: Kind }
    export const settingsOf = (config: RunnableConfig): Settings => config.configurable as Settings;
    export class Prompt { constructor(readonly text: string) {} }
    export namespace Names { export const node = "answer"; }`,
  "src/state.ts": `
    import { MessagesAnnotation } from "@langchain/langgraph";
    export const State = MessagesAnnotation;
    export type StateT = typeof State.State;`,
  "src/graph.ts": `
    import { AIMessage, BaseMessage } from "@langchain/core/messages";
    import { RunnableConfig } from "@langchain/core/runnables";
    import { StateGraph } from "@langchain/langgraph";
    import answers from "./answers.json";
    import { State, StateT } from "./state";
    import { Kind, Names } from "@/utils/kinds";
    import { Prompt, Settings, settingsOf } from "./utils/kinds.js";
    const same = (_class: unknown, _name: string, of: PropertyDescriptor) => of;
    class Model { @same answer(to: BaseMessage) { return answers.short + " to " + to.text; } }
    async function answer(state: StateT, config: RunnableConfig): Promise<{ messages: AIMessage[] }> {
      const settings: Settings = settingsOf(config);
      if (settings.kind === Kind.Long) {
        const { Prompt: Later } = await import("./utils/kinds.js");
        throw new Error(new Later("no long answers").text);
      }
      return { messages: [new AIMessage(new Prompt(new Model().answer(state.messages.at(-1)!)).text)] };
    }
    export const graph = new StateGraph(State).addNode(Names.node, answer).addEdge("__start__", Names.node).compile();`,
  "src/app.ts": `
    import { Hono } from "hono";
    import { Kind } from "@/utils/kinds";
    export const app = new Hono().get("/kinds", (c) => c.json(Object.values(Kind)));`,
  "langgraph.json": JSON.stringify({
    graphs: { mine: "./src/graph.ts:graph" },
    http: { app: "./src/app.ts:app" },
  }),
};

let folder: string;
let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
  folder = await mkdtemp(join(tmpdir(), "holdfast-typescript-"));
});
afterAll(async () => {
  await scratch.close();
  await rm(folder, { recursive: true, force: true });
});

async function makeProject(type: string, files: Record<string, string>): Promise<string> {
  const project = await mkdtemp(join(folder, `${type}-`));
  await symlink(resolve("node_modules"), join(project, "node_modules"));
  for (const [file, text] of Object.entries({ ...files, "package.json": JSON.stringify({ type }) })) {
    await mkdir(dirname(join(project, file)), { recursive: true });
    await writeFile(join(project, file), text);
  }
  return join(project, "langgraph.json");
}

test.each(["module", "commonjs"])("a project of type %s is served as it is", async (type) => {
  const config = await makeProject(type, FILES);
  const server = startHoldfast(["serve", "--port", "0", "--config", config], { DATABASE_URL: scratch.url });
  await server.says("Ready on");
  const [apiUrl = ""] = /http:\S+/.exec(server.out()) ?? [];
  const client = new Client({ apiUrl });
  const input = { messages: [{ role: "user", content: "all of it" }] };
  const values = await client.runs.wait(null, "mine", { input });
  expect(Object(values).messages.at(-1)).toMatchObject({ type: "ai", content: "yes to all of it" });
  const long = client.runs.wait(null, "mine", { input, config: { configurable: { kind: "long" } } });
  await expect(long).rejects.toThrow("no long answers");
  expect(await (await fetch(`${apiUrl}/kinds`)).json()).toEqual(["short", "long"]);
  server.process.kill("SIGTERM");
  expect((await server.ended).code).toBe(0);
});

test.each([
  ["module", "const a = 1;\nenum {};", 'Expected identifier but found "{"', "src/graph.ts:2"],
  ["commonjs", "const a = 1;\nenum {};", 'Expected identifier but found "{"', "src/graph.ts:2"],
  [
    "module",
    "interface A { a: 1 }\n\nenum B { C }\nthrow new Error('no key ' + B.C)",
    "no key 0",
    "src/graph.ts:4",
  ],
  [
    "commonjs",
    "interface A { a: 1 }\n\nenum B { C }\nthrow new Error('no key ' + B.C)",
    "no key 0",
    "src/graph.ts:4",
  ],
  ["commonjs", "import { a } from 'no-such';\na();", "Cannot find module 'no-such'", "src/graph.ts"],
])("in a project of type %s, %j is told with its place", async (type, text, what, place) => {
  const config = await makeProject(type, { ...FILES, "src/graph.ts": text });
  const { out } = await holdfast(["doctor", "--config", config], { DATABASE_URL: scratch.url });
  const told = `Graph mine (./src/graph.ts:graph) cannot be loaded: ${what} (${join(dirname(config), place)}).\n`;
  expect(out).toContain(told);
});

test("plain JavaScript in a project of type commonjs may import as modules do", async () => {
  const config = await makeProject("commonjs", {
    "langgraph.json": JSON.stringify({ graphs: { mine: "./graph.js:graph" } }),
    "graph.js": `
      import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";
      export const graph = new StateGraph(MessagesAnnotation).addNode("a", () => ({})).addEdge("__start__", "a");`,
  });
  const { out } = await holdfast(["doctor", "--config", config], { DATABASE_URL: scratch.url });
  expect(out).toContain("ok      graphs: mine");
});

test("a script that was compiled from a module has its exports, whether Node.js sees their names or not", async () => {
  const config = await makeProject("commonjs", {
    "langgraph.json": JSON.stringify({ graphs: { mine: "./graph.cjs:graph", other: "./graph.cjs:default" } }),
    "graph.cjs": `
      const { MessagesAnnotation, StateGraph } = require("@langchain/langgraph");
      const graph = new StateGraph(MessagesAnnotation).addNode("a", () => ({})).addEdge("__start__", "a");
      Object.defineProperty(exports, "__esModule", { value: true });
      Object.assign(exports, { graph, default: graph });`,
  });
  const { out } = await holdfast(["doctor", "--config", config], { DATABASE_URL: scratch.url });
  expect(out).toContain("ok      graphs: mine, other");
});

const LOADER = `
  import { readFileSync } from "node:fs";
  import { registerHooks } from "node:module";
  registerHooks({
    load: (url, context, next) =>
      url.endsWith(".txt")
        ? { format: "module", shortCircuit: true, source: "export default " + JSON.stringify(readFileSync(new URL(url), "utf8")) }
        : next(url, context),
  });`;
const READ = `
  import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";
  import name from "./name.txt";
  export const graph = new StateGraph(MessagesAnnotation).addNode(name, () => ({})).addEdge("__start__", name);`;

const loaded = (loader: string): Record<string, string> => ({
  "langgraph.json": JSON.stringify({ graphs: { mine: "./src/graph.ts:graph" }, node_loader: loader }),
  "src/loader.mjs": LOADER,
  "src/graph.ts": READ,
  "src/name.txt": "one",
});

test("a loader of the project reads its code", async () => {
  const config = await makeProject("module", loaded("./src/loader.mjs"));
  const { out } = await holdfast(["doctor", "--config", config], { DATABASE_URL: scratch.url });
  expect(out).toContain("ok      graphs: mine");
});

test("a loader that is not there is named", async () => {
  const config = await makeProject("module", loaded("a-loader"));
  const { out } = await holdfast(["doctor", "--config", config], { DATABASE_URL: scratch.url });
  expect(out).toContain("node_loader names a-loader, which cannot be used: Cannot find package 'a-loader'");
});

const answering = (body: string): string => `
  import { AIMessage } from "@langchain/core/messages";
  import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";
  enum Node { Answer = "answer" }
  export const graph = new StateGraph(MessagesAnnotation)
    .addNode(Node.Answer, async () => { ${body} })
    .addEdge("__start__", Node.Answer);`;

test("dev --watch starts again when a file changes, and a run goes on with the new code", async () => {
  const slow = answering("await new Promise((done) => setTimeout(done, 3000)); throw new Error('old code');");
  const config = await makeProject("module", { ...loaded("tsx"), "src/graph.ts": slow });
  const env = { DATABASE_URL: scratch.url };
  const server = startHoldfast(["dev", "--watch", "--port", "0", "--config", config], env);
  const ready = (): string[] => [...server.out().matchAll(/Ready on (\S+)/g)].map(([, url = ""]) => url);
  await server.says("Ready on");
  const client = new Client({ apiUrl: ready()[0] ?? "" });
  const { thread_id } = await client.threads.create();
  const { run_id } = await client.runs.create(thread_id, "mine", { input: { messages: [] } });
  await until(
    async () => (await client.runs.get(thread_id, run_id)).status === "running",
    "the run to begin",
  );
  await writeFile(
    join(dirname(config), "src/graph.ts"),
    answering("return { messages: [new AIMessage('new code')] };"),
  );
  await until(() => ready().length === 2, "the second start", 30_000);
  const values = await new Client({ apiUrl: ready()[1] ?? "" }).runs.join(thread_id, run_id);
  expect(Object(values).messages).toMatchObject([{ type: "ai", content: "new code" }]);
  server.process.kill("SIGTERM");
  await server.ended;
});
