// Code that langgraph.json names as `./file.ts:export`, beside its graphs.
import { dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ConfigInvalid, messageOf } from "../errors.ts";

/**
 * What a module exports under a name.
 * @param base the langgraph.json that the path is relative to
 * @throws Error saying what is there instead, or whatever the module throws
 */
export async function importExport(base: string, path: string, name: string): Promise<unknown> {
  const module: Record<string, unknown> = await import(pathToFileURL(resolve(dirname(base), path)).href);
  if (!(name in module))
    throw new Error(`it exports ${Object.keys(module).join(", ") || "nothing"}, not ${name}`);
  return module[name];
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
