// The components of graphs as bundles for browsers, made by the official @langchain/langgraph-ui, if the project of the
// graphs has it: it brings a bundler, and is never needed to run them. It works in a process of its own, which can be
// stopped, and leaves nothing in the memory of this one but the files.
import { spawn } from "node:child_process";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { messageOf } from "../../errors.ts";
import type { GraphsFile, UiSection } from "../../runs/graph/graphs.ts";

const PACKAGE = "@langchain/langgraph-ui";
const WITHIN_MS = 60_000;
const MOST_SAID = 4000;
// What the package exports.
const SCRIPT = `const [main, options] = process.argv.slice(1);
const { build } = await import(main);
await build(JSON.parse(options));`;

/** Files by name, by the key of `ui` in langgraph.json that they are the components of. */
export type UiBundles = ReadonlyMap<string, ReadonlyMap<string, Uint8Array<ArrayBuffer>>>;

/**
 * Builds what `ui` of langgraph.json names, in a minute at most.
 * @param say told in one sentence why there is nothing to serve
 * @returns undefined when langgraph.json names none; empty when it cannot be built
 */
export async function buildUi(
  { path, ui }: Pick<GraphsFile, "path" | "ui">,
  say: (text: string) => void,
): Promise<UiBundles | undefined> {
  if (!ui) return undefined;
  try {
    return await build(path, ui);
  } catch (error) {
    const isMissing = Object(error).code === "MODULE_NOT_FOUND";
    const reason = isMissing ? `${PACKAGE} is not installed in its project` : messageOf(error);
    say(`Generative UI: what ui in ${path} names is not served: ${reason}.`);
    return new Map();
  }
}

async function build(path: string, { defs, config }: UiSection): Promise<UiBundles> {
  const main = createRequire(path).resolve(PACKAGE);
  const output = await mkdtemp(join(tmpdir(), "holdfast-ui-"));
  try {
    await run(pathToFileURL(main).href, { output, cwd: dirname(path), defs, config });
    const files = Object.keys(defs).map(
      async (key) => [key, await read(join(output, "public", key))] as const,
    );
    return new Map(await Promise.all(files));
  } finally {
    await rm(output, { recursive: true, force: true });
  }
}

/** @throws Error with what the package says */
async function run(main: string, options: UiSection & { output: string; cwd: string }): Promise<void> {
  const args = ["--input-type=module", "--eval", SCRIPT, main, JSON.stringify(options)];
  const child = spawn(process.execPath, args, {
    cwd: options.cwd,
    // The keys of the model provider are none of its business.
    env: { LC_ALL: "C", PATH: "/usr/local/bin:/usr/bin:/bin" },
    stdio: ["ignore", "ignore", "pipe"],
    timeout: WITHIN_MS,
    killSignal: "SIGKILL",
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(0, MOST_SAID)));
  const ended = Promise.withResolvers<void>();
  child.once("error", (error) => ended.reject(error));
  child.once("close", (code, signal) => {
    if (code === 0) ended.resolve();
    else ended.reject(new Error(signal ? `it takes longer than ${WITHIN_MS / 1000} s` : firstError(said)));
  });
  await ended.promise;
}

const firstError = (said: string): string =>
  (said.split("\n").find(isReason) ?? "it cannot be built").trim().replace(/\.$/, "");

/** Whether this line says what is wrong; a bundler says so in the line after the error's own. */
const isReason = (line: string): boolean => /\berror:/i.test(line) && !/with \d+ errors?:/.test(line);

async function read(folder: string): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const names = await readdir(folder);
  return new Map(
    await Promise.all(
      names
        .toSorted()
        .map(async (name) => [name, new Uint8Array(await readFile(join(folder, name)))] as const),
    ),
  );
}
