// How a run ends: what it came to, or what stopped it.
import { BudgetExceeded, saidOf } from "../errors.ts";
import type { Guard } from "../privacy/guard.ts";
import type { RunEnd } from "../storage/finish.ts";
import type { RunError } from "../storage/runs.ts";

export interface Outcome {
  readonly state: RunEnd["state"] | "rolled back" | "handed over";
  readonly error: RunError | null;
  readonly threadStatus: RunEnd["threadStatus"];
  readonly threadState: string | null;
  /** The last values that the run told, where the thread's state does not hold all of them. */
  readonly values?: unknown;
  /** What the graph threw. */
  readonly cause?: unknown;
}

/** Why a run was stopped by its client. */
export class RunCancelled extends Error {
  override readonly name = "RunCancelled";
  readonly action: "interrupt" | "rollback";
  constructor(action: "interrupt" | "rollback") {
    super("The run was cancelled.");
    this.action = action;
  }
}

export class RunTimedOut extends Error {
  override readonly name = "RunTimedOut";
  constructor() {
    super("The run took longer than a run may take (HOLDFAST_RUN_TIMEOUT_MS) and was stopped.");
  }
}

/** The server stops: another one is to go on with the run. */
export class HandOver extends Error {
  override readonly name = "HandOver";
}

/** What becomes of a run that was stopped by `reason`, or failed with it. @param guard says what of the error may be kept */
export function outcomeOf(reason: unknown, guard: Guard): Outcome {
  const quiet = { error: null, threadStatus: "idle", threadState: null } as const;
  if (reason instanceof HandOver) return { ...quiet, state: "handed over" };
  if (reason instanceof RunCancelled) {
    return { ...quiet, state: reason.action === "rollback" ? "rolled back" : "interrupted" };
  }
  const name = reason instanceof Error ? reason.name : "Error";
  const error = guard.value({ error: name, message: saidOf(reason), ...budgetOf(reason) });
  const state = reason instanceof RunTimedOut ? "timeout" : "error";
  // An answer to a question that was not asked changes nothing: the one that was asked, if one was, stays open.
  const { pendingIds: open }: { pendingIds?: unknown } = Object(reason);
  const isAsking = name === "UnknownInterruptError" && Array.isArray(open) && open.length > 0;
  const threadStatus = isAsking ? "interrupted" : "error";
  return { state, error, threadStatus, threadState: null, cause: reason };
}

/** Of a budget that was too small: what a program needs to decide what to do. */
const budgetOf = (reason: unknown): Pick<RunError, "code" | "budget"> =>
  reason instanceof BudgetExceeded && reason.details ? { code: reason.code, budget: reason.details } : {};
