// One pass over a graph, as the events that legacy clients expect.
// "messages-tuple" is LangGraph's mode "messages" and is sent as event "messages".
import { toWireJson } from "./wire-json.ts";

/** Modes a client may ask for, and what each is for LangGraph. */
const GRAPH_MODES = {
  values: "values",
  updates: "updates",
  "messages-tuple": "messages",
  custom: "custom",
  tasks: "tasks",
  checkpoints: "checkpoints",
  debug: "debug",
} as const;

type GraphMode = (typeof GRAPH_MODES)[keyof typeof GRAPH_MODES];

/** One piece of a graph's stream: where in the graph, which mode, what. */
export interface Chunk {
  readonly namespace: readonly string[];
  readonly mode: string;
  readonly payload: unknown;
}

/** LangGraph's modes for what a client asked. `updates` is always read: it tells of interrupts. */
export function graphModes(asked: readonly string[]): GraphMode[] {
  const modes = Object.entries(GRAPH_MODES).filter(
    ([client]) => client === "updates" || asked.includes(client),
  );
  return modes.map(([, mode]) => mode);
}

/** A chunk as a client's event, or undefined when it did not ask for it or may not see it. */
export function eventOf(chunk: Chunk, asked: readonly string[]): { event: string; data: string } | undefined {
  const client = chunk.mode === "messages" ? "messages-tuple" : chunk.mode;
  if (!asked.includes(client) || isHidden(chunk)) return undefined;
  const event = [chunk.mode, ...chunk.namespace].join("|");
  const payload =
    chunk.mode === "debug" || chunk.mode === "checkpoints" ? withoutInternals(chunk) : chunk.payload;
  return { event, data: toWireJson(payload) };
}

/** Whether this chunk says that the graph stopped at an interrupt. */
export function isInterrupt({ mode, namespace, payload }: Chunk): boolean {
  return (
    mode === "updates" &&
    namespace.length === 0 &&
    typeof payload === "object" &&
    payload !== null &&
    "__interrupt__" in payload
  );
}

function isHidden({ mode, payload }: Chunk): boolean {
  if (mode !== "messages" || !Array.isArray(payload)) return false;
  const metadata: unknown = payload[1];
  if (typeof metadata !== "object" || metadata === null || !("tags" in metadata)) return false;
  return Array.isArray(metadata.tags) && metadata.tags.includes("langsmith:hidden");
}

// Configurables that begin with two underscores are LangGraph's own working parts.
function withoutInternals({ mode, payload }: Chunk): unknown {
  const plain = JSON.parse(toWireJson(payload), (key: string, value: unknown) =>
    key.startsWith("__pregel") ? undefined : value,
  ) as unknown;
  if (mode !== "checkpoints" || typeof plain !== "object" || plain === null) return plain;
  const { values, metadata, next } = plain as Record<string, unknown>; // just parsed from JSON
  return { values, metadata, next };
}
