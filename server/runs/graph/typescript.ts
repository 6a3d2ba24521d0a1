// TypeScript of projects, run as the official development server runs it: by tsx, which knows enums, decorators and
// imports of types without a word that says so, finds `./x.ts` behind `./x.js`, and reads the paths of tsconfig.json.
import { existsSync } from "node:fs";
import { register as registerFile, registerHooks, setSourceMapsSupport } from "node:module";
import { dirname, extname, isAbsolute, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { addToEnvironment } from "../../config.ts";
import { ConfigInvalid, messageOf } from "../../errors.ts";

// The clone, whose code Node.js runs without help, or dist/ in the package.
const OWN = join(import.meta.dirname, "../../..");
// Of other files Node.js knows without a package.json what they are.
const PLAIN = new Set([".mjs", ".cjs"]);

// How esbuild, by which tsx has TypeScript read, says that it cannot.
const UNREAD = /^Transform failed with .*\n(.+:\d+):\d+: ERROR: (.+)/;

let ready: Promise<unknown> | undefined;

/**
 * To be called before code of a project is imported; from then on every import of the process is looked at.
 * @param base the langgraph.json, whose folder or one above it may hold a tsconfig.json
 * @param file what is to be imported
 */
export async function readyFor(base: string, file: string): Promise<void> {
  const isForeign = relative(OWN, file).startsWith("..");
  if (!PLAIN.has(extname(file)) && isForeign) await (ready ??= register(dirname(base)));
}

/**
 * Lets the project's own loader read its code, if langgraph.json names one, instead of tsx.
 * @param base the langgraph.json
 * @param name a package of the project, or a file; as `node_loader` of the official development server
 * @throws ConfigInvalid in one sentence
 */
export async function useLoader(base: string, name: string | undefined): Promise<void> {
  if (name === undefined || name === "tsx") return;
  try {
    const url = locate(base, name === "ts-node" ? "ts-node/esm" : name);
    // That one has no code that sets it up.
    ready ??= name.startsWith("ts-node") ? Promise.resolve(registerFile(url)) : import(url);
    await ready;
  } catch (error) {
    throw new ConfigInvalid(
      `${base}: node_loader names ${name}, which cannot be used: ${messageOf(error)}.`,
      {
        cause: error,
      },
    );
  }
}

/** Where a name leads to that stands in a file of the project. */
function locate(base: string, name: string): string {
  if (isAbsolute(name)) return pathToFileURL(name).href;
  const parentURL = pathToFileURL(base).href;
  const hooks = registerHooks({
    resolve: (asked, context, next) => next(asked, asked === name ? { ...context, parentURL } : context),
  });
  try {
    return import.meta.resolve(name);
  } finally {
    hooks.deregister();
  }
}

async function register(folder: string): Promise<void> {
  const tsconfig = tsconfigOf(folder);
  // What tsx keeps on disk it keeps in a folder of the temporary one that anybody may have made before.
  addToEnvironment({ TSX_DISABLE_CACHE: "1", ...(tsconfig && { TSX_TSCONFIG_PATH: tsconfig }) });
  const [modules, scripts] = await Promise.all([import("tsx/esm/api"), import("tsx/cjs/api")]);
  modules.register();
  scripts.register();
  // Those of packages are not needed, and reading them costs at each import.
  setSourceMapsSupport(true, { nodeModules: false });
}

/** Of a file that cannot be read: what is wrong and where; undefined for other errors. */
export function unreadTypeScript(error: Error): string | undefined {
  const [, place, what] = UNREAD.exec(error.message) ?? [];
  return place === undefined ? undefined : `${what} (${place})`;
}

function tsconfigOf(folder: string): string | undefined {
  const file = join(folder, "tsconfig.json");
  if (existsSync(file)) return file;
  const above = resolve(folder, "..");
  return above === folder ? undefined : tsconfigOf(above);
}
