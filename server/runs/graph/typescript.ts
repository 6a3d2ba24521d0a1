// TypeScript of projects, run as the official development server runs it: by tsx, which knows enums, decorators and
// imports of types without a word that says so, finds `./x.ts` behind `./x.js`, and reads the paths of tsconfig.json.
import { existsSync } from "node:fs";
import { setSourceMapsSupport } from "node:module";
import { dirname, extname, join, relative, resolve } from "node:path";
import { addToEnvironment } from "../../config.ts";

// The clone, whose code Node.js runs without help, or dist/ in the package.
const OWN = join(import.meta.dirname, "../../..");
const TYPESCRIPT = new Set([".ts", ".tsx", ".mts", ".cts"]);

// How esbuild, by which tsx has TypeScript read, says that it cannot.
const UNREAD = /^Transform failed with .*\n(.+:\d+):\d+: ERROR: (.+)/;

let ready: Promise<void> | undefined;

/**
 * To be called before code of a project is imported; from then on every import of the process is looked at.
 * @param base the langgraph.json, whose folder or one above it may hold a tsconfig.json
 * @param file what is to be imported
 */
export async function readyFor(base: string, file: string): Promise<void> {
  const isForeign = relative(OWN, file).startsWith("..");
  if (TYPESCRIPT.has(extname(file)) && isForeign) await (ready ??= register(dirname(base)));
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
