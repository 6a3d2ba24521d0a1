// What the engine's parts share: built once by main.ts, handed down.
import type { Gateway } from "../models/gateway/gateway.ts";
import type { Privacy } from "../privacy/guard.ts";
import type { Egress, Services } from "../services.ts";
import type { AssistantRow } from "../storage/assistants.ts";
import type { Caches } from "../storage/caches/caches.ts";
import type { CallNotes } from "../storage/call-notes.ts";
import type { CheckpointBatch } from "../storage/checkpoints/batch.ts";
import type { Database } from "../storage/database.ts";
import type { ThreadTtl } from "../storage/expiry.ts";
import type { StoreTtl } from "../storage/store/store.ts";
import type { Embedder } from "../storage/store/vectors.ts";
import type { Log } from "../telemetry/log.ts";
import type { Graph } from "./graph/graph.ts";
import type { StaticSchemas } from "./graph/static-schemas.ts";
import type { Hints } from "./hints.ts";
import type { LiveRuns } from "./live.ts";
import type { EventReader } from "./log/reader.ts";
import type { Recorder } from "./log/record.ts";
import type { OwnClock } from "./own-clock.ts";
import type { Totals } from "./totals.ts";

/** What bounds a run and the queue. */
interface EngineLimits {
  /** Runs that this process executes at a time; 0 for a process that only serves HTTP. */
  readonly slots: number;
  readonly runTimeoutMs: number;
  readonly maxAttempts: number;
  /** Runs that may wait on one thread. */
  readonly maxQueuedRuns: number;
  /** How long a thread is kept that says nothing of it; null: for ever. */
  readonly threadTtl: ThreadTtl | null;
}

export interface Engine {
  readonly database: Database;
  readonly log: Log;
  readonly workerId: string;
  readonly graphs: ReadonlyMap<string, Graph>;
  /** What the sources of a graph say of its state, read when somebody asks. */
  readonly staticSchemas: (graphId: string) => Promise<StaticSchemas>;
  /** The graphs' own assistants by id, as this process last saw them: assistants.ts says what that is good for. */
  readonly assistants: Map<string, AssistantRow>;
  readonly limits: EngineLimits;
  readonly live: LiveRuns;
  readonly clock: OwnClock;
  readonly hints: Hints;
  readonly recorder: Recorder;
  readonly reader: EventReader;
  readonly checkpoints: CheckpointBatch;
  readonly notes: CallNotes;
  /** How many threads searches find. */
  readonly totals: Totals;
  readonly services: Services;
  /** Makes the vectors by which the store is searched; undefined: it is not searched by meaning. */
  readonly embedder: Embedder | undefined;
  /** How long items of the store are kept that say nothing of it, and whether looking at one begins its time anew. */
  readonly storeTtl: StoreTtl;
  /** What was worked out once and can be had again. */
  readonly caches: Caches;
  /** The way of runs to models. */
  readonly gateway: Gateway;
  /** The way out to addresses that clients name. */
  readonly egress: Egress;
  /** What of which graph may be kept as it comes. */
  readonly privacy: Privacy;
  /** Set once the process is about to stop: it begins no more runs. */
  readonly stopping: AbortSignal;
  /** Looks for ready runs soon. */
  readonly poke: () => void;
  /** A slot has become free. */
  readonly freed: () => void;
  /** Resolves when all that was claimed is among the live runs. */
  readonly claimed: () => Promise<void>;
  /** Gives back what the database says is ours and nobody here executes. */
  readonly compare: () => Promise<void>;
}

/** Whether this process may begin one more run. */
export const hasSlot = ({ live, limits, stopping, clock }: Engine): boolean =>
  !stopping.aborted && live.size < limits.slots && !clock.yields;
