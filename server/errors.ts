// Every failure a caller can meet: a stable code, an HTTP status, and whether trying again can help.
// Messages say what, which and what to do; they never hold user text.
import { AppError } from "./app-error.ts";

export { AppError, messageOf, saidOf } from "./app-error.ts";
export * from "./access-errors.ts";
export * from "./model-errors.ts";

/** A setting is missing, unknown or wrong. The message is one sentence that names it. */
export class ConfigInvalid extends AppError {
  readonly code = "config_invalid";
  readonly status = 500;
}

/** Postgres cannot be reached, is shutting down, or did not answer in time. */
export class DatabaseUnavailable extends AppError {
  readonly code = "database_unavailable";
  readonly status = 503;
  override readonly retryable = true;
  readonly #inFull: string;
  /** @param options `inFull`: the same in PostgreSQL's own words, which name hosts and roles, and what to do */
  constructor(message: string, { inFull = message, ...options }: ErrorOptions & { inFull?: string } = {}) {
    super(message, options);
    this.#inFull = inFull;
  }
  override get inFull(): string {
    return this.#inFull;
  }
}

/** What this server wrote to a thread would count as older than what is there. */
export class ClockBehind extends AppError {
  readonly code = "clock_behind";
  readonly status = 503;
  override readonly retryable = true;
}

/** The cache does not answer, and HOLDFAST_CACHE_FAIL says that nothing is done without it. */
export class CacheUnavailable extends AppError {
  readonly code = "cache_unavailable";
  readonly status = 503;
  override readonly retryable = true;
  constructor(store: string) {
    super(
      `The cache (${store}) does not answer, and HOLDFAST_CACHE_FAIL is closed. Nothing was sent: try again later.`,
    );
  }
}

/** The schema is newer, altered or foreign: this server must not touch it. */
export class SchemaUnknown extends AppError {
  readonly code = "schema_unknown";
  readonly status = 500;
}

/** A port, a directory or a lock is held by somebody else. */
export class ResourceTaken extends AppError {
  readonly code = "resource_taken";
  readonly status = 500;
}

export class AssistantNotFound extends AppError {
  readonly code = "assistant_not_found";
  readonly status = 404;
}

export class AssistantExists extends AppError {
  readonly code = "assistant_exists";
  readonly status = 409;
  constructor() {
    super("Assistant already exists");
  }
}

/** A graph's own assistant cannot be deleted, and runs its graph only. */
export class AssistantFixed extends AppError {
  readonly code = "assistant_fixed";
  readonly status = 409;
}

/** The assistant was changed again and again while a run of it was accepted. */
export class AssistantChanged extends AppError {
  readonly code = "assistant_changed";
  readonly status = 409;
  override readonly retryable = true;
  constructor() {
    super(
      "The assistant was changed while the run was accepted. Nothing was accepted: send the request again.",
    );
  }
}

/** langgraph.json does not name the graph. */
export class GraphNotFound extends AppError {
  readonly code = "graph_not_found";
  readonly status = 404;
  constructor(graphId: string) {
    super(`Graph "${graphId}" is not served here. Name a graph of langgraph.json, or add it there.`);
  }
}

/** langgraph.json names a graph that cannot be loaded. */
export class GraphUnloadable extends AppError {
  readonly code = "graph_unloadable";
  readonly status = 500;
}

export class ThreadNotFound extends AppError {
  readonly code = "thread_not_found";
  readonly status = 404;
  constructor(threadId: string) {
    super(`Thread with ID ${threadId} not found`);
  }
}

export class ThreadExists extends AppError {
  readonly code = "thread_exists";
  readonly status = 409;
  constructor() {
    super("Thread already exists");
  }
}

/** The thread that is to be copied is missing; official servers answer 409 here, not 404. */
export class CopySourceMissing extends AppError {
  readonly code = "copy_source_missing";
  readonly status = 409;
  constructor(threadId: string) {
    super(`Thread with ID ${threadId} not found: there is nothing to copy.`);
  }
}

/** A run is pending or running on the thread; the wording is the one official clients match. */
export class ThreadBusy extends AppError {
  readonly code = "thread_busy";
  readonly status: 409 | 422;
  override readonly retryable = true;
  private constructor(status: 409 | 422, message: string) {
    super(message);
    this.status = status;
  }
  static forRun(): ThreadBusy {
    return new ThreadBusy(
      422,
      "Thread is already running a task. Wait for it to finish or choose a different multitask strategy.",
    );
  }
  static forUpdate(): ThreadBusy {
    return new ThreadBusy(409, "Thread is busy");
  }
}

/** The thread has never been run or updated, so there is no graph to read its state with. */
export class ThreadWithoutGraph extends AppError {
  readonly code = "thread_without_graph";
  readonly status = 400;
  constructor(threadId: string) {
    super(`Thread ${threadId} has no graph yet: run an assistant on it before updating its state.`);
  }
}

export class RunNotFound extends AppError {
  readonly code = "run_not_found";
  readonly status = 404;
  constructor() {
    super("Run not found");
  }
}

/** As many runs wait on the thread as may. */
export class QueueFull extends AppError {
  readonly code = "queue_full";
  readonly status = 429;
  override readonly retryable = true;
  constructor(threadId: string, most: number) {
    super(
      `${most} runs wait on thread ${threadId} already (HOLDFAST_MAX_QUEUED_RUNS). Wait until some have ended, or cancel them.`,
    );
  }
}

/** The run is over: there is nothing to cancel. */
export class RunEnded extends AppError {
  readonly code = "run_ended";
  readonly status = 409;
  constructor(runId: string, state: string) {
    super(`Run ${runId} has already ended (${state}): there is nothing to cancel.`);
  }
}

/** This process stops: another one takes the request when it is sent again. */
export class ServerStopping extends AppError {
  readonly code = "server_stopping";
  readonly status = 503;
  override readonly retryable = true;
  constructor() {
    super("This server is stopping. Send the request again: another one will take it.");
  }
}

/** The run has not ended, so it cannot be deleted. */
export class RunLive extends AppError {
  readonly code = "run_live";
  readonly status = 409;
  constructor(runId: string) {
    super(`Run ${runId} has not ended. Cancel it first.`);
  }
}

/** Only a run that failed can be tried again. */
export class RunNotFailed extends AppError {
  readonly code = "run_not_failed";
  readonly status = 409;
  constructor(runId: string, state: string) {
    super(`Run ${runId} did not fail (${state}): only runs that ended in error or timeout can be retried.`);
  }
}

export class CheckpointNotFound extends AppError {
  readonly code = "checkpoint_not_found";
  readonly status = 404;
  constructor(checkpointId: string) {
    super(`Checkpoint ${checkpointId} not found in this thread. Use an id from the thread's history.`);
  }
}

/** This process may no longer write for the run or thread: it was deleted, or another owner has it. */
export class LeaseLost extends AppError {
  readonly code = "lease_lost";
  readonly status = 409;
}

/** The body, query or path is not what the route takes. `issues` is in zod's form. */
export class InputInvalid extends AppError {
  readonly code = "input_invalid";
  readonly status = 400;
  readonly issues: readonly unknown[];
  constructor(message: string, issues: readonly unknown[] = []) {
    super(message);
    this.issues = issues;
  }
}

/** A graph's own code, a reducer or an edge, does not take values that were to be written to a thread. */
export class UpdateRefused extends AppError {
  readonly code = "update_refused";
  readonly status = 422;
  constructor(error: Error) {
    super(`The graph does not take this update (${error.name}: ${error.message}). Nothing was changed.`, {
      cause: error,
    });
  }
}

/** Input that would be stored but could never be read back safely. */
export class InputPoisoned extends AppError {
  readonly code = "poisoned_input";
  readonly status = 422;
}

export class BodyTooLarge extends AppError {
  readonly code = "body_too_large";
  readonly status = 413;
  constructor(maxBytes: number) {
    super(`The request body is larger than ${maxBytes} bytes (HOLDFAST_MAX_BODY_BYTES). Send less.`);
  }
}

/** A value in graph state has a type that cannot be stored without loss. */
export class ValueUnserialisable extends AppError {
  readonly code = "value_unserialisable";
  readonly status = 500;
}

/** A stored value cannot be read: foreign, damaged, or written by a newer version. */
export class ValueUnreadable extends AppError {
  readonly code = "value_unreadable";
  readonly status = 500;
}

/** What is stored is not what was sealed there: altered, moved from another row, or not sealed at all. */
export class SealedValueInvalid extends AppError {
  readonly code = "sealed_value_invalid";
  readonly status = 500;
  constructor([table, column, ...row]: readonly string[], what: string, options?: ErrorOptions) {
    super(`${table}.${column} of ${row.join(" ")} ${what}. Nothing of it was used.`, options);
  }
}

/** The key of sealed data is gone (shredded), or is wrapped by a key that this server was not given. */
export class DataKeyUnusable extends AppError {
  readonly code = "data_key_unusable";
  readonly status = 500;
}

/** A call would go over a ceiling or a budget. Nothing was sent to the provider. */
export class BudgetExceeded extends AppError {
  readonly code = "budget_exceeded";
  readonly status = 422;
  /** Of a budget: which, how much is left, when it begins anew. */
  readonly details: object | undefined;
  constructor(message: string, options: { cause?: unknown; details?: object } = {}) {
    super(message, options);
    this.details = options.details;
  }
}

export class BudgetNotFound extends AppError {
  readonly code = "budget_not_found";
  readonly status = 404;
  constructor() {
    super("Budget not found");
  }
}

/** A budget of the same scope, unit and period is there: its limit can be changed. */
export class BudgetExists extends AppError {
  readonly code = "budget_exists";
  readonly status = 409;
  constructor() {
    super("There is a budget of this scope, unit and period already. Change its limit, or delete it first.");
  }
}

/** A document cannot be read for the index; the others are not affected. */
export class DocumentUnreadable extends AppError {
  readonly code = "document_unreadable";
  readonly status = 422;
}

export class CollectionNotFound extends AppError {
  readonly code = "collection_not_found";
  readonly status = 404;
}

export class CronNotFound extends AppError {
  readonly code = "cron_not_found";
  readonly status = 404;
  constructor() {
    super("Cron not found");
  }
}

/** A schedule that cannot be understood, or never comes. */
export class CronInvalid extends AppError {
  readonly code = "cron_invalid";
  readonly status = 422;
}

/** A call-back address that this server will not connect to. */
export class WebhookRefused extends AppError {
  readonly code = "webhook_refused";
  readonly status = 422;
}

/** A name that things are found by, and that must not be changed, holds what must not be kept. */
export class PersonalIdentifier extends AppError {
  readonly code = "pii_in_identifier";
  readonly status = 422;
  /** @param what the name of the field */
  constructor(what: string, kinds: readonly string[]) {
    super(
      `${what} holds what looks like personal data or a secret (${[...new Set(kinds)].join(", ")}) and cannot be redacted, because things are found by it. Use an id that says nothing.`,
    );
  }
}

/** A label of a store's namespace that is empty or holds a dot. */
export class StoreNamespaceInvalid extends AppError {
  readonly code = "store_namespace_invalid";
  readonly status = 422;
  constructor() {
    super("A label of a namespace is empty or holds a dot. Name the labels one by one, without dots.");
  }
}

/** A search by meaning, which needs an embedder in langgraph.json. */
export class StoreSearchUnavailable extends AppError {
  readonly code = "store_search_unavailable";
  readonly status = 422;
  constructor() {
    super(
      "The store does not search by meaning: langgraph.json names no embedder in store.index. Name one, or leave out `query` and use `filter`.",
    );
  }
}
