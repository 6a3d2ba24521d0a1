// The log that graphs may write to: what getLogger() of @langchain/langgraph-sdk/logging finds, as on the official
// servers. Each line goes through the guard of the server's own log and says which run and node wrote it.
import { inspect } from "node:util";
import { AsyncLocalStorageProviderSingleton } from "@langchain/core/singletons";
import { messageOf } from "../../errors.ts";
import { asFields } from "../../fields.ts";
import type { Guard } from "../../privacy/guard.ts";
import type { Log } from "../../telemetry/log.ts";

const PLACE = Symbol.for("langgraph.api.sdk-logger");
const MOST_CHARS = 10_000;

// The levels of the SDK's Logger, and what they are here.
const LEVELS = {
  error: "error",
  warn: "warn",
  help: "info",
  data: "info",
  info: "info",
  prompt: "info",
  http: "debug",
  verbose: "debug",
  input: "debug",
  debug: "debug",
  silly: "debug",
} as const;

type Write = (message: unknown, ...meta: readonly unknown[]) => GraphLog;
type GraphLog = Record<keyof typeof LEVELS, Write>;

/**
 * Lets the code of projects find it. Returns what takes it back.
 * @param guard looks at texts that are cut, before they are
 */
export function lendLog(log: Log, guard: Guard): () => void {
  const methods = Object.entries(LEVELS).map(([name, level]) => {
    const write: Write = (message, ...meta) => {
      const text = [message, ...meta].map(textOf).join(" ");
      log[level]("graph.logged", { text: shortened(text, guard), ...whereabouts() });
      return lent;
    };
    return [name, write];
  });
  const lent = Object.fromEntries(methods) as GraphLog;
  Object.assign(globalThis, { [PLACE]: lent });
  return () => {
    if (Reflect.get(globalThis, PLACE) === lent) Reflect.deleteProperty(globalThis, PLACE);
  };
}

/** Half a card number looks like none: of what goes on behind the cut nothing is told. */
function shortened(text: string, guard: Guard): string {
  if (text.length <= MOST_CHARS) return text;
  const head = text.slice(0, MOST_CHARS);
  return guard.stream()?.push(head) ?? head;
}

function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  try {
    // The quotes that inspect puts around texts may stand in an address.
    if (!(value instanceof Error)) return JSON.stringify(value) ?? String(value);
  } catch {
    // A circle, or a number without end.
  }
  try {
    return inspect(value, { depth: 5, breakLength: Infinity });
  } catch (error) {
    // Its own inspection threw, which is no reason to end the run that logs.
    return `[not to be shown: ${messageOf(error)}]`;
  }
}

function whereabouts(): object {
  const config = asFields(AsyncLocalStorageProviderSingleton.getRunnableConfig());
  const { run_id, thread_id, langgraph_node } = asFields(config["metadata"]);
  return { run_id, thread_id, node: langgraph_node };
}
