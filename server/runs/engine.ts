// What the engine's parts share: built once by main.ts, handed down.
import type { Services } from "../services.ts";
import type { AssistantRow } from "../storage/assistants.ts";
import type { Database } from "../storage/database.ts";
import type { Log } from "../telemetry/log.ts";
import type { Graph } from "./graphs.ts";
import type { LiveRuns } from "./live.ts";
import type { Recorder } from "./record.ts";

export interface Engine {
  readonly database: Database;
  readonly log: Log;
  readonly workerId: string;
  readonly graphs: ReadonlyMap<string, Graph>;
  readonly assistants: readonly AssistantRow[];
  readonly live: LiveRuns;
  readonly recorder: Recorder;
  readonly services: Services;
}
