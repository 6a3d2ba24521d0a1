// A heap that grew, while graphs were loaded or under load, is mostly garbage; a server that then waits for requests
// would keep it. Requests that come all at once after a quiet time find room then: a collection in the midst of hundreds of
// runs that start holds up every open stream for a tenth of a second or two, so the first one comes late.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { every } from "./clock.ts";

const EVERY_MS = 5000;
/** So much of one processor at most is work that can wait for a tenth of a second: the heartbeats of idle readers. */
const QUIET_SHARE = 0.05;
/** It is not worth the while for less. */
const LEAST_BYTES = 32 * 1024 * 1024;
/** What long-lived objects may take before they are collected for the first time after that. */
const ROOM_BYTES = 144 * 1024 * 1024;
/** What a server has loaded when it has started. */
const LOADED_BYTES = 40 * 1024 * 1024;
/** By how much the heap may grow from one collection to the next: as the process was started; 0 leaves it to V8. */
const GROWTH = Number(
  process.execArgv.map((option) => /^--heap-growing-percent=(\d+)$/.exec(option)?.[1]).find(Boolean) ?? 0,
);

/**
 * Collects all garbage once and gives the memory back to the system. Takes about a tenth of a second.
 * @param isAll with what was compiled: it is needed again after load, and not after a start
 * @param live bytes that were left the last time
 * @returns bytes that are left
 */
function releaseMemory(isAll: boolean, live: number): number {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  const flavor = isAll ? "last-resort" : "regular";
  const growth = Math.max(GROWTH, Math.round((ROOM_BYTES / live - 1) * 100));
  setFlagsFromString(`--heap-growing-percent=${growth}`);
  if (typeof collect === "function") collect({ type: "major", execution: "sync", flavor });
  setFlagsFromString(`--heap-growing-percent=${GROWTH}`);
  return process.memoryUsage().heapUsed;
}

/**
 * Gives memory back now, and whenever the process has grown and then has had nothing to do for a while.
 * @returns ends it
 */
export function tendMemory({ everyMs = EVERY_MS, leastBytes = LEAST_BYTES } = {}): () => void {
  let live = releaseMemory(true, LOADED_BYTES);
  let settled = process.memoryUsage.rss();
  let last = process.cpuUsage();
  return every(everyMs, () => {
    const used = process.cpuUsage(last);
    last = process.cpuUsage();
    const isQuiet = used.user + used.system < everyMs * 1000 * QUIET_SHARE;
    if (!isQuiet || process.memoryUsage.rss() < settled + leastBytes) return;
    live = releaseMemory(false, live);
    settled = process.memoryUsage.rss();
    last = process.cpuUsage(); // its own work is none
  });
}
