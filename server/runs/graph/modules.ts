// Code that langgraph.json names as `./file.ts:export`, beside its graphs.
import { dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ConfigInvalid, messageOf } from "../../errors.ts";
import { placeIn, placeOfSyntaxError } from "./places.ts";
import { readyFor, unreadTypeScript } from "./typescript.ts";

/**
 * What a module exports under a name.
 * @param base the langgraph.json that the path is relative to
 * @throws Error saying what is there instead, or whatever the module throws
 */
export async function importExport(base: string, path: string, name: string): Promise<unknown> {
  const file = resolve(dirname(base), path);
  await readyFor(base, file);
  const url = pathToFileURL(file).href;
  const module = await (import(url) as Promise<Record<string, unknown>>).catch(async (error: unknown) => {
    throw await located(error, url);
  });
  const exported = exportsOf(module);
  if (!(name in exported))
    throw new Error(`it exports ${Object.keys(exported).join(", ") || "nothing"}, not ${name}`);
  return exported[name];
}

/** Of a module that was compiled to a script Node.js may not see the names, as before 24.11.1 with what tsx reads. */
function exportsOf(module: Record<string, unknown>): Record<string, unknown> {
  const script = module["module.exports"];
  const wasModule = typeof script === "object" && script !== null && "__esModule" in script;
  return wasModule ? script : module;
}

/** The same error, saying where. What is missing names who asked for it already. */
async function located(error: unknown, url: string): Promise<unknown> {
  if (error instanceof Error && "url" in error && error.url === url)
    return new Error("there is no such file");
  if (!(error instanceof Error) || error.message.includes("imported from")) return error;
  const told = unreadTypeScript(error) ?? unrequired(error);
  if (told !== undefined) return new Error(told, { cause: error });
  const isUnread = error instanceof SyntaxError;
  const place = placeIn(error.stack) ?? (isUnread ? await placeOfSyntaxError(url) : undefined);
  return place === undefined ? error : new Error(`${messageOf(error)} (${place})`, { cause: error });
}

/** What a script asks for and is not there is told with all who asked, one below the other. */
function unrequired(error: Error): string | undefined {
  const [what, , first] = error.message.split("\n");
  return error.message.includes("\nRequire stack:") ? `${what} (${first?.slice(2)})` : undefined;
}

/**
 * What a setting of langgraph.json names; without an export, its default one.
 * @param setting where it stands, such as http.app
 * @param convert throws when it is something else than what is wanted
 * @throws ConfigInvalid in one sentence
 */
export async function importSetting<T>(
  base: string,
  setting: { name: string; spec: string },
  convert: (value: unknown) => T,
): Promise<T> {
  const [, path = setting.spec, name = "default"] = /^(.+):(\w+)$/.exec(setting.spec) ?? [];
  try {
    return convert(await importExport(base, path, name));
  } catch (error) {
    throw new ConfigInvalid(
      `${base}: ${setting.name} names ${setting.spec}, which cannot be loaded: ${messageOf(error)}.`,
      { cause: error },
    );
  }
}
