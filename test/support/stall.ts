// How long the main loop stood still while something ran.
import { setImmediate as nextTurn } from "node:timers/promises";

export async function longestStall<T>(run: () => Promise<T>): Promise<{ stallMs: number; result: T }> {
  let isRunning = true;
  let stallMs = 0;
  const watch = async (): Promise<void> => {
    for (let last = performance.now(); isRunning;) {
      await nextTurn();
      const at = performance.now();
      stallMs = Math.max(stallMs, at - last);
      last = at;
    }
  };
  const watching = watch();
  try {
    const result = await run();
    return { stallMs, result };
  } finally {
    isRunning = false;
    await watching;
  }
}
