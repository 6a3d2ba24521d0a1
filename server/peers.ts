// The packages that a project brings along and the server shares with it, and whether their versions fit. With one that
// does not, Node.js would stop in the middle of loading, or a graph would run and miss what the server counts on.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { ConfigInvalid } from "./errors.ts";

const require = createRequire(import.meta.url);
const own = require(import.meta.url.endsWith(".js") ? "../../package.json" : "../package.json") as {
  readonly version: string;
  readonly peerDependencies: Readonly<Record<string, string>>;
};

/** Of this server. */
export const { version: ownVersion } = own;

/** @throws ConfigInvalid when the server would load a package that is missing, or of a version that does not fit */
export function requirePeers(): void {
  const unfit = unfitFrom(import.meta.url, true);
  if (unfit) throw new ConfigInvalid(`This project has ${unfit}.`);
}

/**
 * A file of another project may find other copies than the server. They work side by side, if they are not too old.
 * @throws ConfigInvalid naming the packages that do not fit
 */
export function requirePeersOf(file: string): void {
  const unfit = unfitFrom(file, false);
  if (unfit) throw new ConfigInvalid(`its project has ${unfit} there`);
}

/** What a file would load that does not fit, what is needed instead, and how to get it; undefined if all is well. */
function unfitFrom(from: string, needsAll: boolean): string | undefined {
  const unfit = Object.entries(own.peerDependencies).flatMap(([name, range]) => {
    const version = versionOf(name, from);
    if (version === undefined ? !needsAll : fits(version, range)) return [];
    return [
      {
        found: `${version === undefined ? "no" : ""} ${name} ${version ?? ""}`.trim(),
        needed: `${name}@${range}`,
      },
    ];
  });
  if (unfit.length === 0) return undefined;
  const [has, needs] = [unfit.map(({ found }) => found), unfit.map(({ needed }) => needed)];
  return `${has.join(" and ")}, and Holdfast needs ${needs.join(" and ")}: run npm install ${needs.join(" ")}`;
}

/** Of the package that a file would load; undefined when it finds none. */
export function versionOf(name: string, from: string): string | undefined {
  try {
    const path = createRequire(from).resolve(`${name}/package.json`);
    return String(JSON.parse(readFileSync(path, "utf8")).version);
  } catch {
    return undefined;
  }
}

/** Whether a version is of the same major as a range such as ^1.7.3, and not below it. */
function fits(version: string, range: string): boolean {
  const [has, needs] = [version, range].map((text) => text.replace(/^\^/, "").split("-")[0] ?? "");
  const [major, minor, patch] = numbersOf(has);
  const [least, ...rest] = numbersOf(needs);
  if (major !== least) return false;
  return minor !== rest[0] ? (minor ?? 0) > (rest[0] ?? 0) : (patch ?? 0) >= (rest[1] ?? 0);
}

const numbersOf = (version = ""): number[] => version.split(".").map(Number);
