// The commands as a user runs them: what they print, what they exit with, what they leave behind.
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { emptyDatabase, testDatabase } from "./support/database.ts";
import type { TestDatabase } from "./support/database.ts";
import { holdfast, startHoldfast } from "./support/holdfast.ts";

let scratch: TestDatabase;
let folder: string;
let projects: string;
beforeAll(async () => {
  scratch = await testDatabase();
  [folder, projects] = [
    await mkdtemp(join(tmpdir(), "holdfast-cli-")),
    await mkdtemp(join(tmpdir(), "holdfast-cli-projects-")),
  ];
});
afterAll(async () => {
  await scratch.close();
  for (const made of [folder, projects]) await rm(made, { recursive: true, force: true });
});

const GRAPHS_FILE = join(process.cwd(), "test/fixtures/graphs.ts");
const GRAPHS = ["--config", "test/fixtures/langgraph.json"];
const urlOf = (out: string): string => /http:\/\/\S+/.exec(out)?.[0] ?? "";

test("help names every command and the exit codes", async () => {
  const { code, out } = await holdfast(["--help"]);
  expect(code).toBe(0);
  for (const word of ["dev", "serve", "migrate", "index", "doctor", "Exit codes"])
    expect(out).toContain(word);
});

test("--version says which one it is", async () => {
  const { version } = JSON.parse(await readFile("package.json", "utf8")) as { version: string };
  expect(await holdfast(["--version"])).toMatchObject({ code: 0, out: `${version}\n` });
});

test.each([
  [["no-such-command"]],
  [["serve", "--no-such-option"]],
  [["index"]],
  [["index", "docs", "--collection", ""]],
  [["serve", "--port", "many"]],
  [["serve", "--port", "99999"]],
  [["chaos", "--graph", "echo", "--runs", "abc"]],
])("wrong usage %j exits with 2 and says what is wrong", async (args) => {
  const { code, err } = await holdfast(args);
  expect(code).toBe(2);
  expect(err).toMatch(/^error: /);
});

test.each([
  [{ HOLDFAST_PROT: "1" }, "HOLDFAST_PROT is not a setting; did you mean"],
  [{ PORT: "eighty" }, "PORT must be a whole number"],
  [{ DATABASE_URL: "mysql://secret@host/db" }, "DATABASE_URL must look like postgresql://"],
  [{ DATABASE_URL: "postgresql://root:secret@127.0.0.1:1/none" }, "PostgreSQL did not answer"],
  [{ DATABASE_URL: "MISSING_DATABASE" }, /PostgreSQL refused the connection: .*Check DATABASE_URL/],
  [{ DATABASE_URL: "postgresql://root:sec#secret@127.0.0.1/db" }, "DATABASE_URL is no valid address"],
  [{ HOLDFAST_CACHE_URL: "redis://me:secret@h:99999" }, "HOLDFAST_CACHE_URL is no valid address"],
  [{ OPENAI_API_KEY: "sk-secret\nx" }, "OPENAI_API_KEY must be one word"],
  [{ OPENAI_BASE_URL: "https://me:secret@model.example/v1" }, "without a user or password"],
  [
    { HOLDFAST_CONFIG: "./nowhere.json" },
    /nowhere.json, which cannot be read: .* Make one, such as \{"graphs"/,
  ],
])("a wrong setting %j stops the start with one sentence", async (env, sentence) => {
  const given = { DATABASE_URL: scratch.url, ...env };
  const DATABASE_URL = given.DATABASE_URL.replace("MISSING_DATABASE", `${scratch.url}_missing`);
  const { code, err } = await holdfast(["serve"], { ...given, DATABASE_URL });
  expect(code).toBe(1);
  expect(err).toMatch(sentence);
  expect(err.trim().split("\n")).toHaveLength(1);
  expect(err).not.toContain("secret");
});

test.each([
  ["[]", "the file Invalid input: expected object, received array."],
  ['{"graphs":{"":"./a.ts:a"}}', "graphs. must be named."],
  [
    '{"graphs":{"a":"./a.ts:a"},"env":{"LEVEL":1}}',
    "env must be the path of a file, or texts by name such as",
  ],
  ['{"graphs":{"a":"./a.ts:a"},"ui":{"a b":"./a.tsx"}}', "ui.a b must be named with letters, digits, "],
])("langgraph.json as %s is told with what is wrong in it", async (text, sentence) => {
  const config = join(folder, "langgraph.json");
  await writeFile(config, text);
  const { code, err } = await holdfast(["serve", "--config", config], { DATABASE_URL: scratch.url });
  expect([code, err]).toEqual([1, expect.stringContaining(`${config}: ${sentence}`)]);
});

test("an env file that is not there is said, one that cannot be read is refused", async () => {
  const config = join(folder, "langgraph.json");
  const graphs = { echo: `${GRAPHS_FILE}:echo` };
  const doctor = async (env: string): Promise<string> => {
    await writeFile(config, JSON.stringify({ graphs, env }));
    return (await holdfast(["doctor", "--config", config], { DATABASE_URL: scratch.url })).out;
  };
  const out = await doctor(".env");
  expect(out).toContain(`Env file .env, which ${config} names, is not there; going on without it.`);
  expect(out).toContain("ok      graphs: echo");
  expect(await doctor(".")).toContain(`${config}: env names ., which cannot be read: `);
});

test("a graph that cannot be loaded is named with its file and the reason", async () => {
  const config = join(folder, "langgraph.json");
  await writeFile(config, JSON.stringify({ graphs: { mine: "./missing.ts:graph" } }));
  const { code, err } = await holdfast(["serve", "--config", config], { DATABASE_URL: scratch.url });
  expect([code, err]).toEqual([
    1,
    expect.stringContaining("Graph mine (./missing.ts:graph) cannot be loaded: there is no such file."),
  ]);
});

test.each([
  ["throws", { "graph.ts": "\nimport './own.ts';", "own.ts": "\n\nthrow new Error('no key')" }, "own.ts:3"],
  ["is no TypeScript", { "graph.ts": "const a = {\n  b: 1\n  c: 2,\n};" }, "graph.ts:3"],
  ["is no JavaScript", { "graph.ts": "import './own.mjs';", "own.mjs": "\nconst b = {;" }, "own.mjs:2"],
  [
    "asks for what is not there",
    { "graph.ts": "import { b } from './own.ts'; b()", "own.ts": "" },
    "graph.ts:1",
  ],
  ["fails in a package", { "graph.ts": "import { z } from 'zod';\nz.string().parse(1)" }, "graph.ts:2"],
])("a graph whose module %s is told with file and line", async (what, files, place) => {
  const project = await projectOf(what, files);
  const config = join(project, "langgraph.json");
  const { code, err } = await holdfast(["serve", "--config", config], { DATABASE_URL: scratch.url });
  expect(code).toBe(1);
  expect(err).toContain("Graph mine (./graph.ts:graph) cannot be loaded: ");
  expect(err.trimEnd().endsWith(` (${join(project, place)}).`)).toBe(true);
});

test.each([
  ["while it is imported", "\nprocess.exit(0);"],
  ["later", "\nsetTimeout(() => process.exit(), 50);\nawait new Promise(() => {});"],
])("a module that ends the process %s is named, and that is a failure", async (when, text) => {
  const project = await projectOf(`ends ${when}`, { "graph.ts": text });
  const config = join(project, "langgraph.json");
  for (const command of ["serve", "doctor"]) {
    const { code, err } = await holdfast([command, "--config", config], { DATABASE_URL: scratch.url });
    expect([code, err]).toEqual([
      1,
      expect.stringContaining(`exit code 0 at ${join(project, "graph.ts")}:2.`),
    ]);
  }
});

test("a graph of a project searches documents without saying more than what for", async () => {
  const door = join(process.cwd(), "server/index.ts");
  const project = await projectOf("searching", {
    "graph.ts": `
      import { START, StateGraph, StateSchema } from "@langchain/langgraph";
      import { z } from "zod";
      import { servicesOf } from ${JSON.stringify(door)};
      export const graph = new StateGraph(new StateSchema({ found: z.number().optional() }))
        .addNode("look", async (_state, config) => ({ found: (await servicesOf(config).search("word")).length }))
        .addEdge(START, "look")
        .compile();`,
    "word.md": "# One\n\nA word.",
  });
  const database = { DATABASE_URL: scratch.url, HOLDFAST_COLLECTION: "searching" };
  expect((await holdfast(["index", join(project, "word.md")], database)).code).toBe(0);
  const config = join(project, "langgraph.json");
  const server = startHoldfast(["serve", "--port", "0", "--config", config], database);
  await server.says("Ready on");
  const client = new Client({ apiUrl: urlOf(server.out()) });
  expect(await client.runs.wait(null, "mine", { input: {} })).toEqual({ found: 1 });
  server.process.kill("SIGTERM");
  await server.ended;
});

async function projectOf(name: string, files: Record<string, string>): Promise<string> {
  const project = join(projects, name);
  await mkdir(project);
  await symlink(join(process.cwd(), "node_modules"), join(project, "node_modules"));
  const graphs = { mine: "./graph.ts:graph" };
  const all = { "package.json": '{"type":"module"}', "langgraph.json": JSON.stringify({ graphs }), ...files };
  for (const [file, text] of Object.entries(all)) await writeFile(join(project, file), text);
  return project;
}

test("a taken port is one sentence that names it", async () => {
  const holder = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => holder.once("listening", resolve));
  const port = String((holder.address() as AddressInfo).port);
  const { code, err } = await holdfast(["serve", "--port", port, ...GRAPHS], { DATABASE_URL: scratch.url });
  holder.close();
  expect([code, err]).toEqual([1, expect.stringContaining(`Port ${port} on 127.0.0.1 is taken`)]);
});

test("migrate --check finds what is pending, migrate applies it, once", async () => {
  const empty = await emptyDatabase();
  const env = { DATABASE_URL: empty.url };
  try {
    expect(await holdfast(["migrate", "--check"], env)).toMatchObject({ code: 3 });
    expect(await empty.database.query("select 1 from pg_namespace where nspname = 'holdfast'")).toEqual([]);
    const { code, out } = await holdfast(["migrate", "--json"], env);
    expect(code).toBe(0);
    expect(JSON.parse(out).applied).toContain("0001_checkpoints");
    expect(await holdfast(["migrate", "--check"], env)).toMatchObject({ code: 0 });
  } finally {
    await empty.close();
  }
});

test("index reads what it can, names what it cannot, and then exits with 1", async () => {
  await writeFile(join(folder, "good.md"), "# Herons\n\nHerons stand still for hours.");
  await writeFile(join(folder, "bad.txt"), Buffer.from([0xff, 0xfe, 0x00, 0x41]));
  const args = ["index", folder, "--collection", "birds", "--json"];
  const { code, out } = await holdfast(args, { DATABASE_URL: scratch.url });
  expect(code).toBe(1);
  const result = JSON.parse(out);
  expect(result).toMatchObject({ collection: "birds", indexed: 1 });
  expect(result.failed[0]).toMatchObject({
    source: expect.stringContaining("bad.txt"),
    code: "document_unreadable",
  });
  await rm(join(folder, "bad.txt"));
  const again = await holdfast(args, { DATABASE_URL: scratch.url });
  expect([again.code, JSON.parse(again.out)]).toEqual([
    0,
    expect.objectContaining({ unchanged: 1, indexed: 0 }),
  ]);
});

test("doctor exits with 0 when all is well, and says how many documents there are", async () => {
  const env = { DATABASE_URL: scratch.url, HOLDFAST_COLLECTION: "frogs" };
  const none = await holdfast(["doctor", ...GRAPHS], env);
  expect([none.code, none.out]).toEqual([0, expect.stringMatching(/ok +documents: none .*holdfast index/)]);
  await writeFile(join(folder, "frogs.md"), "# Frogs\n\nFrogs jump.");
  await holdfast(["index", folder, "--collection", "frogs"], env);
  const well = await holdfast(["doctor", "--json", ...GRAPHS], env);
  expect([well.code, JSON.parse(well.out).ok]).toEqual([0, true]);
});

test.each([
  [{}, { privacy: { rules: [{ kind: "BAD", pattern: "(" }] } }, "privacy.rules"],
  [{ HOLDFAST_KEYS: "" }, { privacy: { mode: "tokenise" } }, "HOLDFAST_KEYS_FILE"],
  [{ HOLDFAST_MODELS: "/nope.json" }, {}, "/nope.json"],
  [{ HOLDFAST_TLS_CERT: "/nope", HOLDFAST_TLS_KEY: "/nope" }, {}, "HOLDFAST_TLS_CERT"],
  [{ HOLDFAST_EGRESS_ALLOW: "10.0.0.0/99" }, {}, "HOLDFAST_EGRESS_ALLOW"],
  [{ HOLDFAST_TRUSTED_PROXIES: "bad" }, {}, "HOLDFAST_TRUSTED_PROXIES"],
  [{ HOLDFAST_HTTPS: "on" }, {}, "HOLDFAST_TLS_CERT"],
  [{ HOLDFAST_LIMIT_STORE: "redis" }, {}, "HOLDFAST_CACHE_URL"],
  [{}, { graphs: 7 }, "langgraph.json"],
])("doctor finds what serve would stop for: %j %j", async (settings, parts, word) => {
  const config = join(folder, "ill.langgraph.json");
  const graphs = { echo: `${GRAPHS_FILE}:echo` };
  await writeFile(config, JSON.stringify({ graphs, ...parts }));
  const env = { DATABASE_URL: scratch.url, ...settings };
  const { code, out } = await holdfast(["doctor", "--json", "--config", config], env);
  const { findings } = JSON.parse(out) as { findings: { check: string; isFine: boolean; detail: string }[] };
  const found = findings.find(({ check }) => check === "settings");
  expect([code, found?.isFine, found?.detail]).toEqual([3, false, expect.stringContaining(word)]);
});

test("a graph with a timer of its own keeps no command from ending", async () => {
  const config = join(folder, "busy.langgraph.json");
  await writeFile(
    join(folder, "busy.mjs"),
    `setInterval(() => undefined, 1000); export { echo } from ${JSON.stringify(GRAPHS_FILE)};`,
  );
  await writeFile(config, JSON.stringify({ graphs: { busy: "./busy.mjs:echo" } }));
  const env = { DATABASE_URL: scratch.url };
  expect((await holdfast(["doctor", "--config", config], env)).code).toBe(0);
  const holder = createServer().listen(0, "127.0.0.1");
  await new Promise((resolved) => holder.once("listening", resolved));
  const port = String((holder.address() as AddressInfo).port);
  expect((await holdfast(["serve", "--port", port, "--config", config], env)).code).toBe(1);
  holder.close();
});

test("doctor finds a database that takes no writes, and a user who may not write", async () => {
  const reader = `reader_${process.pid}`;
  const standby = `${scratch.url}?options=-c%20default_transaction_read_only=on`;
  await scratch.database.query(`create role ${reader} login password 'r'`);
  await scratch.database.query(`grant usage on schema holdfast to ${reader}`);
  await scratch.database.query(`grant select on all tables in schema holdfast to ${reader}`);
  const url = Object.assign(new URL(scratch.url), { username: reader, password: "r" });
  const [still, foreign] = await Promise.all(
    [standby, url.href].map((address) => holdfast(["doctor", ...GRAPHS], { DATABASE_URL: address })),
  );
  expect(still).toMatchObject({ code: 3, out: expect.stringContaining("PROBLEM database: it takes no") });
  expect(foreign).toMatchObject({ code: 3, out: expect.stringContaining("PROBLEM schema: the user of") });
  await scratch.database.query(`drop owned by ${reader}`);
  await scratch.database.query(`drop role ${reader}`);
});

test("doctor tells a schema that is not there once, and what to do", async () => {
  const empty = await emptyDatabase();
  const { code, out } = await holdfast(["doctor", ...GRAPHS], { DATABASE_URL: empty.url });
  await empty.close();
  expect([code, out.match(/PROBLEM .*/g)]).toEqual([
    3,
    [expect.stringMatching(/schema: pending: .*run holdfast migrate/)],
  ]);
});

test("what env of langgraph.json gives is not hidden by an empty variable", async () => {
  const config = join(folder, "given.langgraph.json");
  const graphs = { echo: `${GRAPHS_FILE}:echo` };
  await writeFile(config, JSON.stringify({ graphs, env: { OPENAI_BASE_URL: "http://127.0.0.1:1/v1" } }));
  const env = { DATABASE_URL: scratch.url, OPENAI_BASE_URL: "" };
  const { out } = await holdfast(["doctor", "--config", config], env);
  expect(out).toContain("PROBLEM model");
});

test.each([
  ["budget", "set", "--scope", "tenant", "--per", "day", "--usd", "5"],
  ["audit", "list"],
  ["webhooks", "list"],
])("%s %s wants the schema that it knows", async (...args) => {
  const empty = await emptyDatabase();
  const { code, err } = await holdfast(args, { DATABASE_URL: empty.url });
  await empty.close();
  expect([code, err]).toEqual([1, expect.stringContaining("run holdfast migrate first")]);
});

test("a limit that is empty is no limit of nothing", async () => {
  const args = ["budget", "set", "--scope", "tenant", "--per", "day", "--usd", ""];
  expect(await holdfast(args, { DATABASE_URL: scratch.url })).toMatchObject({
    code: 2,
    out: expect.stringMatching(/^--usd: /),
  });
});

test("two servers share one database, and each ends in order on SIGTERM", async () => {
  const args = ["serve", "--port", "0", ...GRAPHS];
  const servers = [1, 2].map(() => startHoldfast(args, { DATABASE_URL: scratch.url }));
  await Promise.all(servers.map((server) => server.says("Ready on")));
  const [one, two] = servers.map((server) => new Client({ apiUrl: urlOf(server.out()) }));
  const thread = await one?.threads.create();
  await one?.runs.wait(thread?.thread_id ?? "", "topical", { input: { messages: "hi", topic: "tea" } });
  expect(await two?.threads.getHistory(thread?.thread_id ?? "")).toHaveLength(3);
  for (const server of servers) server.process.kill("SIGTERM");
  const ends = await Promise.all(servers.map((server) => server.ended));
  expect(ends.map(({ code, err }) => [code, err])).toEqual([
    [0, ""],
    [0, ""],
  ]);
});

test("what a killed server was running goes on at the other one", async () => {
  const args = ["serve", "--port", "0", ...GRAPHS];
  const [victim, witness] = [1, 2].map(() => startHoldfast(args, { DATABASE_URL: scratch.url }));
  await Promise.all([victim?.says("Ready on"), witness?.says("Ready on")]);
  const [killed, alive] = [victim, witness].map(
    (server) => new Client({ apiUrl: urlOf(server?.out() ?? "") }),
  );
  const thread = (await killed?.threads.create())?.thread_id ?? "";
  let runId = "";
  const stream = killed?.runs.stream(thread, "endless", {
    input: {},
    onRunCreated: (run) => void (runId = run.run_id),
  });
  await stream?.next();
  victim?.process.kill("SIGKILL");
  const attempts = [];
  for await (const { event, data } of alive?.runs.joinStream(thread, runId) ?? []) {
    if (event === "metadata") attempts.push(data);
    if (event === "metadata" && attempts.length === 2) await alive?.runs.cancel(thread, runId);
  }
  expect(attempts).toEqual([
    { run_id: runId, attempt: 1 },
    { run_id: runId, attempt: 2 },
  ]);
  await stream?.return(undefined).catch(() => undefined);
  witness?.process.kill("SIGTERM");
  await witness?.ended;
});
