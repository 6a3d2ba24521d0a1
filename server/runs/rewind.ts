// What clients must take back when a run goes on in another process: the answer that the lost attempt had begun.
// Official clients drop a message that is removed by its id, and take a values frame as the whole truth.
import type { Checkpoints } from "../storage/checkpoints.ts";
import { isNewestOfRun } from "../storage/checkpoint-rows.ts";
import type { AcceptedRun } from "./create.ts";
import type { Engine } from "./engine.ts";
import type { Graph } from "./graphs.ts";
import { dataOf, LineReader, nameOf } from "./lines.ts";
import type { Entry } from "./lines.ts";
import type { Recording } from "./record.ts";
import { PAGE } from "./reader.ts";
import { toWire, toWireJson } from "./wire-json.ts";

interface Rewound {
  readonly graph: Graph;
  readonly checkpointer: Checkpoints;
  readonly recording: Recording;
}

/**
 * Tells clients what no longer counts.
 * @returns whether the newest checkpoint is the run's own: if so it goes on from there, else it begins again
 */
export async function rewind(engine: Engine, run: AcceptedRun, held: Rewound): Promise<boolean> {
  const { graph, checkpointer, recording } = held;
  const hasOwn = await isNewestOfRun(engine.database, run.thread_id, run.run_id);
  const place = { thread_id: run.thread_id, checkpoint_ns: "", __pregel_checkpointer: checkpointer };
  const { values } = await graph.getState({ configurable: place });
  const known = new Set<string>();
  collectIds(toWire(values ?? {}), known);
  for (const [id, event] of await streamedMessages(engine, run.run_id)) {
    if (known.has(id)) continue;
    await recording.append({ event, data: toWireJson([{ type: "remove", id, content: "" }, {}]) });
  }
  if (run.kwargs.stream_mode.includes("values")) {
    await recording.append({ event: "values", data: toWireJson(values ?? {}) });
  }
  return hasOwn;
}

/** Ids of the messages that clients have seen parts of, each with the name of its events. */
async function streamedMessages(engine: Engine, runId: string): Promise<Map<string, string>> {
  const lines = new LineReader((seq) => engine.reader.find(runId, seq));
  const seen = new Map<string, string>();
  let after = -1;
  for (;;) {
    const read = await engine.reader.read(runId, after);
    for (const { seq, last, body } of read) {
      if (seq === null) continue;
      for (const { entry } of await lines.read(seq, body)) note(entry, seen);
      after = last;
    }
    if (read.length < PAGE) return seen;
  }
}

function note(entry: Entry, seen: Map<string, string>): void {
  const event = nameOf(entry);
  if (event !== "messages" && !event.startsWith("messages|")) return;
  const parsed: unknown = JSON.parse(dataOf(entry));
  const message: unknown = Array.isArray(parsed) ? parsed[0] : undefined;
  if (typeof message !== "object" || message === null) return;
  const { id, type } = message as Record<string, unknown>; // just parsed from JSON
  if (typeof id !== "string") return;
  if (type === "remove") seen.delete(id);
  else seen.set(id, event);
}

/** Every `id` of an object with a `type` in a state: messages, wherever a graph keeps them. */
function collectIds(value: unknown, ids: Set<string>): void {
  if (typeof value !== "object" || value === null) return;
  if ("id" in value && "type" in value && typeof value.id === "string") ids.add(value.id);
  for (const item of Object.values(value)) collectIds(item, ids);
}
