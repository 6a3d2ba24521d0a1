// Where in a project's code something went wrong: `file:line` out of a stack. Frames of this server and of Node.js say
// nothing to somebody who looks for a mistake in code of his own, and those of packages only if there are no others.
import { execFile } from "node:child_process";
import { registerHooks } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

// server/ in a clone, dist/server/ in the package.
const OWN = pathToFileURL(join(import.meta.dirname, "../../")).href;
// `at name (file:///a.ts:1:2)`, `at async file:///a.ts:1:2`, and `/a.ts:1` above a piece of source.
const FRAME = /^(?:at (?:async )?(?:.*\()?)?((?:file:\/\/)?\/.+?):(\d+)(?::\d+)?\)?$/;
const CHECK_MS = 10_000;

/** Where the code stands that a stack leads to; undefined when it is none of a project. */
export function placeIn(stack = ""): string | undefined {
  const places = placesIn(stack).filter(({ isOwn }) => !isOwn);
  const [first] = [...places.filter(({ text }) => !text.includes("/node_modules/")), ...places];
  return first?.text;
}

function placesIn(stack: string): { text: string; isOwn: boolean }[] {
  return stack.split("\n").flatMap((line) => {
    const [, file = "", number = ""] = FRAME.exec(line.trim()) ?? [];
    if (file === "") return [];
    const url = file.startsWith("/") ? pathToFileURL(file).href : file;
    return [{ text: `${fileURLToPath(url)}:${number}`, isOwn: url.startsWith(OWN) }];
  });
}

/**
 * Of a module that is no JavaScript Node.js tells nothing but what is wrong.
 * @param url what was imported and failed; nothing of it has run, so it is read once more to see how far that goes
 */
export async function placeOfSyntaxError(url: string): Promise<string | undefined> {
  let last = url;
  const hooks = registerHooks({
    load: (module, context, next) => {
      last = module;
      return next(module, context);
    },
  });
  await (import(url) as Promise<unknown>).catch(() => undefined).finally(() => hooks.deregister());
  const file = fileURLToPath(last);
  return new Promise((resolve) => {
    execFile(process.execPath, ["--check", file], { timeout: CHECK_MS }, (error, _out, told) =>
      resolve(error ? placeIn(told) : undefined),
    );
  });
}

/** For the end of the process: says whose code ended it, if that is none of this server. */
export function tellStrangeExit(code: number): void {
  Error.stackTraceLimit = 50;
  const { stack = "" } = new Error("exit");
  // The first is here, the next is who asked for the end.
  if (placesIn(stack)[1]?.isOwn !== false) return;
  console.error(
    `holdfast: Code of the project ended the process with exit code ${code} at ${placeIn(stack)}. Throw an error there instead.`,
  );
  process.exitCode = 1;
}
