// The postmaster of an embedded cluster: is one alive, does it answer, start one.
// postmaster.pid is PostgreSQL's own lock: however many processes try at once, one postmaster has the directory.
import { open, readFile, rm, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { Client } from "pg";
import { sleep, uptime } from "../../clock.ts";
import { ConfigInvalid, DatabaseUnavailable } from "../../errors.ts";
import { codeOf } from "../postgres.ts";
import { isAlive, launch, urlOf } from "./cluster.ts";
import type { Programs, SystemUser } from "./cluster.ts";

const START_MS = 60_000;
const POLL_MS = 10;
const WRONG_PASSWORD = new Set(["28P01", "28000"]);
const LOG_BYTES = 10_000_000;

export interface Place {
  readonly root: string;
  readonly cluster: string;
  readonly programs: Programs;
  readonly user: SystemUser;
  readonly report: (text: string) => void;
}

export interface Postmaster {
  readonly pid: number;
  readonly port: number;
  readonly ready: boolean;
}

const showDataDirectory = `/* showDataDirectory */ select current_setting('data_directory') as folder`;

/** The postmaster of this cluster, if one lives. It is ready once it answers to our password. */
export async function findRunning(place: Place): Promise<Postmaster | undefined> {
  const postmaster = await readPostmaster(place);
  if (!postmaster || !isAlive(postmaster.pid)) return undefined;
  if (!(await isPostmaster(place, postmaster.pid))) {
    // The number now belongs to another program (a container that restarted), and PostgreSQL would refuse to start.
    await rm(pidFileOf(place), { force: true });
    return undefined;
  }
  return { ...postmaster, ready: postmaster.ready && (await answers(place, postmaster.port)) };
}

async function answers(place: Place, port: number): Promise<boolean> {
  const client = new Client({
    connectionString: await urlOf(place.cluster, port),
    connectionTimeoutMillis: 2000,
  });
  client.on("error", () => {
    // The server went away under the question; the next round looks again.
  });
  try {
    await client.connect();
    const { rows } = await client.query<{ folder: string }>(showDataDirectory);
    return rows[0]?.folder === place.cluster;
  } catch (error) {
    // Starting, stopping or gone: the next round looks again.
    if (!WRONG_PASSWORD.has(codeOf(error) ?? "")) return false;
    throw new ConfigInvalid(
      `The PostgreSQL in ${place.cluster} does not accept the password kept there; set HOLDFAST_DATA_DIR to another directory.`,
      { cause: error },
    );
  } finally {
    await client.end().catch(() => undefined);
  }
}

export async function launchPostmaster(
  place: Place,
  port: number,
): Promise<"ready" | "port taken" | "lost race"> {
  const log = await openLog(place);
  const { size } = await log.stat();
  const args = ["-D", place.cluster, "-p", String(port), "-c", "listen_addresses=127.0.0.1"];
  const child = launch(place.programs.postgres, args, { user: place.user, cwd: place.cluster, log: log.fd });
  const ended = new AbortController();
  child.once("exit", () => ended.abort("it ended without a word"));
  child.once("error", (error) => ended.abort(error.message));
  // The process may end while its PostgreSQL runs on: a crash of ours must not take the database along.
  child.unref();
  try {
    const until = uptime() + START_MS;
    while (!ended.signal.aborted && uptime() < until) {
      const postmaster = await readPostmaster(place);
      if (postmaster?.ready && postmaster.pid === child.pid) return "ready";
      await sleep(POLL_MS, ended.signal);
    }
  } finally {
    await log.close();
  }
  const text = (await readFile(logOf(place))).subarray(size).toString();
  if (text.includes("Address already in use")) return "port taken";
  if (text.includes('lock file "postmaster.pid" already exists')) return "lost race";
  const word = /(?:FATAL|PANIC): +(.*)/.exec(text)?.[1];
  // The reason of an abort is what was passed above: a text.
  const reason = word ?? (ended.signal.aborted ? String(ended.signal.reason) : "it is not ready after 60 s");
  throw new DatabaseUnavailable(`The embedded PostgreSQL does not start: ${reason}; see ${logOf(place)}.`);
}

/** Lines of postmaster.pid: pid, directory, start time, port, socket folder, address, shared memory, status. */
export async function readPostmaster(place: Place): Promise<Postmaster | undefined> {
  const text = await readFile(pidFileOf(place), "utf8").catch(() => "");
  const lines = text.split("\n");
  const [pid, port] = [Number(lines[0]), Number(lines[3])];
  if (!pid || !port) return undefined;
  return { pid, port, ready: lines[7]?.trim() === "ready" };
}

/** Where the system can say so (Linux), asks what the process is; elsewhere believes the file. */
export async function isPostmaster(place: Place, pid: number): Promise<boolean> {
  const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => undefined);
  return command === undefined ? isAlive(pid) : command.includes(place.cluster);
}

async function openLog(place: Place): Promise<FileHandle> {
  const size = await stat(logOf(place)).then(
    (found) => found.size,
    () => 0,
  );
  if (size > LOG_BYTES) await rm(logOf(place));
  return open(logOf(place), "a", 0o600);
}

const pidFileOf = ({ cluster }: Place): string => join(cluster, "postmaster.pid");
export const logOf = ({ root }: Place): string => join(root, "postgres.log");
