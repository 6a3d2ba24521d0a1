// A heap that grew, while graphs were loaded or under load, is mostly garbage; a server that then waits for requests
// would keep it.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { every } from "./clock.ts";

const EVERY_MS = 5000;
/** So much of one processor at most is work that can wait for a tenth of a second: the heartbeats of idle readers. */
const QUIET_SHARE = 0.05;
/** It is not worth the while for less. */
const LEAST_BYTES = 32 * 1024 * 1024;

/**
 * Collects all garbage once and gives the memory back to the system. Takes about a tenth of a second.
 * @param isAll with what was compiled: it is needed again after load, and not after a start
 */
function releaseMemory(isAll: boolean): void {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  const flavor = isAll ? "last-resort" : "regular";
  if (typeof collect === "function") collect({ type: "major", execution: "sync", flavor });
}

/**
 * Gives memory back when the process has had nothing to do for a while: after its start, and whenever it has grown.
 * @returns ends it
 */
export function tendMemory({ everyMs = EVERY_MS, leastBytes = LEAST_BYTES } = {}): () => void {
  let [settled, isStart] = [0, true];
  let last = process.cpuUsage();
  return every(everyMs, () => {
    const used = process.cpuUsage(last);
    last = process.cpuUsage();
    const isAfterStart = isStart;
    isStart = false;
    const isQuiet = used.user + used.system < everyMs * 1000 * QUIET_SHARE;
    if (!isQuiet || process.memoryUsage.rss() < settled + leastBytes) return;
    releaseMemory(isAfterStart);
    settled = process.memoryUsage.rss();
    last = process.cpuUsage(); // its own work is none
  });
}
