// How long the main loop stood still while something ran, in CPU time of its own thread: a busy machine
// that gives the thread no turn is not counted as a stall.
import { setImmediate as nextTurn } from "node:timers/promises";

export async function longestStall<T>(run: () => Promise<T>): Promise<{ stallMs: number; result: T }> {
  const stopped = new AbortController();
  let stallMs = 0;
  const watch = async (): Promise<void> => {
    for (let last = busyMs(); !stopped.signal.aborted;) {
      await nextTurn();
      const at = busyMs();
      stallMs = Math.max(stallMs, at - last);
      last = at;
    }
  };
  const watching = watch();
  try {
    const result = await run();
    return { stallMs, result };
  } finally {
    stopped.abort();
    await watching;
  }
}

function busyMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
