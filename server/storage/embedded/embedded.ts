// A PostgreSQL of our own for DATABASE_URL unset. One postmaster per data directory, whoever starts it: processes
// that come later share it, and one left behind by a killed process is used on. The process that owns it stops it;
// the others then meet DatabaseUnavailable until a process starts it again, on the same port and password.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { access, chmod, constants, mkdir, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { sleep, uptime } from "../../clock.ts";
import { ConfigInvalid, DatabaseUnavailable, ResourceTaken, messageOf } from "../../errors.ts";
import { codeOf } from "../postgres.ts";
import {
  MAJOR_VERSION,
  SHARED_HOME,
  createCluster,
  exists,
  findBarrier,
  findPrograms,
  findUser,
  isAlive,
  linkLibraries,
  reachablePrograms,
  urlOf,
} from "./cluster.ts";
import type { SystemUser } from "./cluster.ts";
import { findRunning, isPostmaster, launchPostmaster, logOf, readPostmaster } from "./postmaster.ts";
import type { Place } from "./postmaster.ts";

export interface EmbeddedOptions {
  readonly dataDir: string;
  /** A root process may keep the data elsewhere when the user postgres cannot enter `dataDir`. */
  readonly mayMove?: boolean;
  readonly onProgress?: (text: string) => void;
}

export interface Embedded {
  readonly url: string;
  /** True when it ran already. */
  readonly reused: boolean;
  /** Shuts it down and waits, unless another process owns it. */
  readonly stop: () => Promise<void>;
}

const START_MS = 60_000;
const STOP_MS = 15_000;
const POLL_MS = 10;

/**
 * Starts or joins the PostgreSQL of `dataDir`, on 127.0.0.1 only. Nothing is locked: each round looks at what is
 * there, and whoever loses a race finds the winner's server in the next.
 * @throws ConfigInvalid for a directory that cannot be used, ResourceTaken when no port can be had,
 *   DatabaseUnavailable when PostgreSQL does not start
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const place = await preparePlace(options);
  const until = uptime() + START_MS;
  let port = await rememberedPort(place);
  while (uptime() < until) {
    const running = await findRunning(place);
    if (running?.ready) return share(place, running.port);
    if (running) {
      await sleep(POLL_MS);
      continue;
    }
    if (await mustCreate(place)) {
      place.report(`Preparing PostgreSQL ${MAJOR_VERSION} in ${place.root} (first start).`);
      await createCluster(place.programs, place.user, place.cluster);
    }
    // Before it is ready, so that whoever finds it ready also finds its owner; once more in own(), after a race. Who
    // loses that must not call itself the owner of what another process has started.
    const claimed = await readNumber(ownerFileOf(place));
    if (claimed === undefined || !isAlive(claimed)) await writeFile(ownerFileOf(place), `${process.pid}\n`);
    const outcome = await launchPostmaster(place, port);
    if (outcome === "ready") return own(place, port);
    if (outcome === "port taken") {
      place.report(`Port ${port} is taken; choosing another for PostgreSQL.`);
      port = await freePort();
    }
  }
  throw new DatabaseUnavailable(`The embedded PostgreSQL did not start in time; see ${logOf(place)}.`);
}

/** Shares what runs already; takes it over when its owner is gone, so that somebody stops it in the end. */
async function share(place: Place, port: number): Promise<Embedded> {
  const url = await urlOf(place.cluster, port);
  const owner = await readNumber(ownerFileOf(place));
  const abandoned = owner === undefined || !isAlive(owner);
  if (abandoned) await writeFile(ownerFileOf(place), `${process.pid}\n`);
  place.report(`PostgreSQL ${MAJOR_VERSION} runs already on 127.0.0.1:${port}.`);
  return { url, reused: true, stop: () => (abandoned ? stopOwned(place) : Promise.resolve()) };
}

async function own(place: Place, port: number): Promise<Embedded> {
  await writeFile(ownerFileOf(place), `${process.pid}\n`);
  await writeFile(portFileOf(place), `${port}\n`);
  try {
    // Asks it once: data that somebody else made does not take our password.
    await findRunning(place);
  } catch (error) {
    await stopOwned(place);
    throw error;
  }
  place.report(`PostgreSQL ${MAJOR_VERSION} runs on 127.0.0.1:${port}.`);
  return { url: await urlOf(place.cluster, port), reused: false, stop: () => stopOwned(place) };
}

/** Fast shutdown: running transactions roll back. After `STOP_MS` at once, which recovery at the next start makes good. */
async function stopOwned(place: Place): Promise<void> {
  const owner = await readNumber(ownerFileOf(place));
  const postmaster = await readPostmaster(place);
  if (owner !== process.pid || !postmaster || !(await isPostmaster(place, postmaster.pid))) return;
  for (const signal of ["SIGINT", "SIGQUIT"] as const) {
    if (await endedBy(postmaster.pid, signal)) {
      await rm(ownerFileOf(place), { force: true });
      return;
    }
  }
  throw new DatabaseUnavailable(`The embedded PostgreSQL (process ${postmaster.pid}) does not stop.`);
}

async function endedBy(pid: number, signal: "SIGINT" | "SIGQUIT"): Promise<boolean> {
  const until = uptime() + STOP_MS;
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (isAlive(pid)) throw error;
  }
  while (isAlive(pid) && uptime() < until) await sleep(POLL_MS);
  return !isAlive(pid);
}

async function preparePlace({ dataDir, mayMove, onProgress }: EmbeddedOptions): Promise<Place> {
  const [found, user] = await Promise.all([findPrograms(), findUser()]);
  const report = onProgress ?? (() => undefined);
  let root = await makeRoot(resolve(dataDir), user);
  const barrier = await findBarrier(root, user);
  if (barrier !== undefined && mayMove) {
    await mkdir(SHARED_HOME, { recursive: true, mode: 0o755 });
    const name = createHash("sha256").update(root).digest("hex").slice(0, 12);
    root = await makeRoot(join(SHARED_HOME, name), user);
    report(`PostgreSQL runs as user postgres, which may not enter ${barrier}; its data is in ${root}.`);
  } else if (barrier !== undefined) {
    throw new ConfigInvalid(
      `PostgreSQL does not run as root, and its user postgres may not enter ${barrier}; set HOLDFAST_DATA_DIR to a directory elsewhere, such as ${SHARED_HOME}, start as another user, or set DATABASE_URL.`,
    );
  }
  const programs = await reachablePrograms(found, user);
  await linkLibraries(programs);
  return { root, cluster: join(root, "postgres"), programs, user, report };
}

/** Makes the directory and tries to write in it. Only a root process lets another user through. */
async function makeRoot(path: string, user: SystemUser): Promise<string> {
  try {
    const mode = user.uid === undefined ? 0o700 : 0o711;
    const made = await mkdir(path, { recursive: true, mode });
    if (made) await chmod(path, mode); // whatever the umask took
    await access(path, constants.W_OK | constants.X_OK);
    // PostgreSQL knows its directory by its true path.
    return await realpath(path);
  } catch (error) {
    throw new ConfigInvalid(
      `HOLDFAST_DATA_DIR (${path}) is not a directory this process can write to (${codeOf(error) ?? messageOf(error)}); choose another.`,
      { cause: error },
    );
  }
}

/** True when there is no cluster yet; refuses one that another version, or something else, made. */
async function mustCreate({ cluster }: Place): Promise<boolean> {
  if (!(await exists(cluster))) return true;
  const version = await readFile(join(cluster, "PG_VERSION"), "utf8").catch(() => undefined);
  if (version?.trim() === MAJOR_VERSION) return false;
  const what = version ? `data of PostgreSQL ${version.trim()}` : "something that is not PostgreSQL data";
  throw new ConfigInvalid(
    `${cluster} holds ${what}, and this is PostgreSQL ${MAJOR_VERSION}; move it away or set HOLDFAST_DATA_DIR to another directory.`,
  );
}

/** The port of the last start, so that an address in somebody's notes stays true. */
async function rememberedPort(place: Place): Promise<number> {
  return (await readNumber(portFileOf(place))) ?? freePort();
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  try {
    await once(server, "listening");
    // A listening TCP server has an address with a port.
    return (server.address() as AddressInfo).port;
  } catch (error) {
    throw new ResourceTaken(`No port on 127.0.0.1 is free for PostgreSQL: ${messageOf(error)}.`, {
      cause: error,
    });
  } finally {
    server.close();
  }
}

async function readNumber(file: string): Promise<number | undefined> {
  const text = await readFile(file, "utf8").catch(() => "");
  return Number(text) || undefined;
}

const ownerFileOf = ({ root }: Place): string => join(root, "owner");
const portFileOf = ({ root }: Place): string => join(root, "port");
