// A thread that parses one thing that nobody trusts, with a limit on time and memory: it can waste these, no more.
import { once } from "node:events";
import { Worker } from "node:worker_threads";

const MAX_HEAP_MB = 512;

/**
 * Starts the thread of a file with `data` and waits for the one message that it posts.
 * @param signal bounds it; its abort ends the thread
 * @throws AbortError, or what the thread crashed with
 */
export async function askThread<Answer>(file: URL, data: unknown, signal: AbortSignal): Promise<Answer> {
  const worker = new Worker(file, {
    workerData: data,
    env: {},
    execArgv: [],
    stdout: true,
    stderr: true,
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
  });
  const exited = once(worker, "exit");
  try {
    // A crash rejects through the worker's error event.
    const [answer] = (await once(worker, "message", { signal })) as [Answer];
    return answer;
  } finally {
    await worker.terminate();
    await exited;
  }
}
