// Failures of those who come in: what the user's own app and auth say, limits, and commands that cannot be done.
import { AppError } from "./app-error.ts";

/** Why a command of protocol v2 is refused, in the protocol's words. */
export type CommandFault =
  | "invalid_argument"
  | "unknown_command"
  | "no_such_subscription"
  | "no_such_namespace"
  | "no_such_interrupt"
  | "no_such_checkpoint"
  | "no_such_run"
  | "not_supported";

/** A command of protocol v2 that cannot be done as it was given. */
export class CommandRefused extends AppError {
  readonly code = "command_refused";
  readonly status = 422;
  readonly fault: CommandFault;
  constructor(fault: CommandFault, message: string) {
    super(message);
    this.fault = fault;
  }
}

/** What an answer was given to is not what is asked by now: somebody else was first. */
export class QuestionsChanged extends CommandRefused {
  constructor() {
    super(
      "no_such_interrupt",
      "Somebody else has answered this thread, or changed it, at the same moment. Look at what it asks now, and answer that.",
    );
  }
}

/** The user's own app (http.app) threw. */
export class CustomAppFailed extends AppError {
  readonly code = "custom_app_failed";
  readonly status = 500;
  constructor(cause: unknown) {
    super("The app that langgraph.json names in http.app failed. The server's log says why.", { cause });
  }
}

/** A handler of authorisation says no, or none is there for what was asked. */
export class AccessDenied extends AppError {
  readonly code = "access_denied";
  readonly status = 403;
  constructor() {
    super("Forbidden");
  }
}

/** A call of a tool waits for a person, and this run brings no answer of one who may give it. Nothing was executed. */
export class ToolApprovalRefused extends AppError {
  readonly code = "tool_approval_refused";
  readonly status = 403;
  constructor(tool: string) {
    super(
      `The tool ${tool} waits for the answer of somebody who may give it, and this run brings none. Nothing was executed; the question is open still.`,
    );
  }
}

/** The user's own auth refuses with a status and words of its own, such as 401 for a wrong token. */
export class AuthRefused extends AppError {
  readonly code = "auth_refused";
  readonly status: number;
  readonly headers: Headers;
  constructor(status: number, message: string, headers: Headers) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** The user's own auth answers something that cannot be understood; nobody is let in on it. */
export class AuthInvalid extends AppError {
  readonly code = "auth_invalid";
  readonly status = 500;
  /** @param what a part of a sentence, without its end */
  constructor(what: string, event?: string) {
    super(`Auth of langgraph.json${event ? `, handler of ${event}` : ""}: ${what}.`);
  }
}

/** An item of the store that is not the caller's. */
export class ItemNotFound extends AppError {
  readonly code = "item_not_found";
  readonly status = 404;
  constructor() {
    super("Item not found");
  }
}

/** A path that takes WebSockets was asked for something else. */
export class UpgradeRequired extends AppError {
  readonly code = "upgrade_required";
  readonly status = 426;
  constructor() {
    super("This path takes WebSockets. Upgrade the connection, or POST here for server-sent events.");
  }
}

/** A caller has used up what a limit allows in a minute. Nothing of the request was done. */
export class RateLimited extends AppError {
  readonly code = "rate_limited";
  readonly status = 429;
  override readonly retryable = true;
  /** When there is something left again: whole seconds, at least one. */
  readonly retryAfterSeconds: number;
  /** @param asked how much was asked for at once: more than the limit itself will never be allowed */
  constructor(what: string, { perMinute, asked, ms }: { perMinute: number; asked: number; ms: number }) {
    const seconds = Math.max(1, Math.ceil(ms / 1000));
    super(
      asked > perMinute
        ? `${asked} at once is more than the limit of ${perMinute} ${what} a minute. Send fewer at a time.`
        : `The limit is ${perMinute} ${what} a minute, and it is used up. Come again in ${seconds} s.`,
    );
    this.retryAfterSeconds = seconds;
  }
}

/** A caller holds as many streams open as it may. */
export class TooManyStreams extends AppError {
  readonly code = "too_many_streams";
  readonly status = 429;
  override readonly retryable = true;
  constructor(most: number) {
    super(`${most} streams of this caller are open already. Close one, and come again.`);
  }
}

/** Where limits are counted does not answer, and nothing is to pass uncounted. */
export class LimitsUnavailable extends AppError {
  readonly code = "limits_unavailable";
  readonly status = 503;
  override readonly retryable = true;
  constructor() {
    super(
      "Redis, which counts requests, does not answer, and HOLDFAST_CACHE_FAIL is closed: try again later.",
    );
  }
}
