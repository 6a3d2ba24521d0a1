// The process that serves: it stops in order when it is told to, outlives what nobody caught, and gives memory back.
// Next to cli.ts the only file that ends the process.
import { later, uptime } from "./clock.ts";
import { messageOf } from "./errors.ts";
import { privacyOf, startServer } from "./main.ts";
import type { RunningServer, ServerOptions } from "./main.ts";
import { tendMemory } from "./memory.ts";
import { callContext } from "./models/gateway/context.ts";
import { openLog } from "./telemetry/log.ts";

// A Ctrl-C comes twice where the parent passes on what the terminal tells both, as the watcher of `dev --watch` does.
const TWICE_MS = 500;
// Who is to stop while it starts waits no longer for code of the project, or for a migration of somebody else.
const CUT_MS = 3000;

/** Serves until SIGINT or SIGTERM, then stops in order; a second signal ends the process at once. */
export async function serveUntilStopped(
  options: ServerOptions,
  started: (server: RunningServer) => void,
): Promise<never> {
  const stopping = Promise.withResolvers<void>();
  const cut = new AbortController();
  const log = openLog(options.config.logLevel, privacyOf(options).strict);
  // Node.js would print them as text between the lines of the log.
  process.removeAllListeners("warning").on("warning", ({ name, message }) => {
    log.warn("process.warned", { name, reason: message });
  });
  const server = startServer({ ...options, signal: cut.signal });
  let since: number | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (since !== undefined) {
      if (uptime() - since > TWICE_MS) process.exit(130);
      return;
    }
    since = uptime();
    options.say(
      `${signal}: letting runs end or handing them over, then stopping. Press Ctrl-C again to end at once.`,
    );
    stopping.resolve();
    later(CUT_MS, () => cut.abort());
  };
  // A promise that a node forgot is that node's fault, and no reason to end everybody's runs.
  process.on("unhandledRejection", (error) => log.error("promise.unhandled", { reason: messageOf(error) }));
  // Nor is an exception that nobody can catch, such as of a timer: it ends the run whose code it comes from. Of what is
  // nobody's the process does not know what it has left behind.
  process.on("uncaughtException", (error: unknown) => {
    const run = callContext();
    const stack = error instanceof Error ? error.stack : undefined;
    log.error("exception.uncaught", { reason: messageOf(error), stack });
    if (run) run.fail(error);
    else process.exit(1);
  });
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  const running = await server.catch((error: unknown) => {
    if (!cut.signal.aborted) throw error;
  });
  if (running) {
    started(running);
    tendMemory(); // not when a program starts servers of its own: the memory is its whole process
    await stopping.promise;
    await running.stop();
  }
  process.exit(0); // a graph may have left timers of its own
}
