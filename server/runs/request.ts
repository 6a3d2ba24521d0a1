// What is asked of a run: by a client, and what the run keeps of it.
import type { Fields } from "../fields.ts";
import type { AuthFilter } from "../storage/auth-filter.ts";
import type { CronAsRead } from "../storage/crons.ts";
import type { OwnedRunRow, RunAuth } from "../storage/runs.ts";

/**
 * When a superstep's checkpoint is on disk. "sync": before the next superstep begins. "async": a few milliseconds later,
 * and the graph runs ahead of no more than one commit. "exit": when the graph stops.
 */
export type Durability = "sync" | "async" | "exit";

/** What a client asks for; the same fields, under the same names, as the body of runs/stream. */
export interface RunRequest {
  readonly assistant_id: string;
  readonly input?: unknown;
  readonly command?: Fields | null | undefined;
  readonly config?: Fields | null | undefined;
  readonly context?: Fields | null | undefined;
  readonly metadata?: Fields | null | undefined;
  readonly stream_mode: readonly string[];
  readonly stream_subgraphs: boolean;
  readonly interrupt_before?: "*" | readonly string[] | null | undefined;
  readonly interrupt_after?: "*" | readonly string[] | null | undefined;
  readonly checkpoint?: Fields | null | undefined;
  readonly checkpoint_id?: string | null | undefined;
  readonly multitask_strategy: "reject" | "enqueue" | "interrupt" | "rollback";
  readonly if_not_exists: "create" | "reject";
  /** "async" by default. */
  readonly durability?: Durability | null | undefined;
  /** Fail, before anything is written, if the command answers a question that is not asked. */
  readonly strict_resume?: boolean;
  /** Seconds until the run may begin. */
  readonly after_seconds?: number | null | undefined;
  readonly webhook?: string | null | undefined;
  /** For a run without a thread of its own: whether its thread stays. */
  readonly on_completion?: "delete" | "keep" | null | undefined;
}

export interface CreateOptions {
  /** The run has no thread yet: one is made for it, which goes soon after the run unless `on_completion` is "keep". */
  readonly isStateless?: boolean;
  /** A second request with the same key gets the run of the first. */
  readonly idemKey?: string | undefined;
  /** Tell the run's events by protocol v2, although nobody may have followed the thread yet. */
  readonly isWatched?: boolean;
  /** When the state was made whose questions it answers; it is refused if the thread is at another one by now. */
  readonly answersStateOf?: Date | undefined;
  /** The id that the run gets; one of its own otherwise. */
  readonly runId?: string | undefined;
  /** Who asks for it; undefined if nobody was asked who he is. */
  readonly by?: RunBy | undefined;
  /** The cron that asks for it. */
  readonly cron?: CronAsRead;
}

export interface RunBy {
  readonly auth: RunAuth;
  /** Which threads the run may be put on. */
  readonly filter?: AuthFilter | undefined;
}

/** What a run keeps of its request: enough to execute it, on any instance. */
export interface RunKwargs {
  readonly input: unknown;
  readonly command: Fields | null;
  /** The assistant's configuration; the thread's and the request's win over it. */
  readonly defaults?: Fields;
  readonly config: Fields;
  readonly context: Fields;
  readonly stream_mode: readonly string[];
  readonly stream_subgraphs: boolean;
  readonly interrupt_before: "*" | readonly string[] | null;
  readonly interrupt_after: "*" | readonly string[] | null;
  readonly durability: Durability;
}

export type AcceptedRun = Omit<OwnedRunRow, "kwargs"> & {
  readonly kwargs: RunKwargs;
  readonly graph_id: string;
};

/** A row as the engine executes it: with the graph that it was accepted for, whatever its assistant runs by now. */
export function acceptedOf(row: OwnedRunRow): AcceptedRun {
  // Written by kwargsOf, in this shape.
  const kwargs = row.kwargs as unknown as RunKwargs;
  return { ...row, kwargs, graph_id: String(row.metadata["graph_id"]) };
}
