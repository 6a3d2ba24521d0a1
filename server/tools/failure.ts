// What a model is told of a call that gave no result: a stable code and a plain sentence. Nothing of it was said by
// somebody else, and nothing repeats what the model or a user wrote.

/** How a call of a tool ended, as the audit log has it. */
export type Ending = "done" | "error" | "refused" | "timeout";

/**
 * Thrown by a tool that cannot do what was asked: its code and sentence are told to the model. Anything else that a tool
 * throws is told as `tool_failed`, without its words. The tool counts as well, so its breaker stays closed.
 * @example throw new ToolError("order_unknown", "There is no order of this number.")
 */
export class ToolError extends Error {
  override readonly name = "ToolError";
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export interface Failure {
  readonly ending: Exclude<Ending, "done">;
  readonly code: string;
  readonly sentence: string;
}

const refused = (code: string, sentence: string): Failure => ({ ending: "refused", code, sentence });

export const failures = {
  unknown: () => refused("tool_unknown", "There is no tool of this name. Use one of those you were given."),
  tooMany: (most: number) =>
    refused("tool_too_many", `At most ${most} tools are called at once. Call the rest in the next turn.`),
  wrong: (what: string) =>
    refused("tool_arguments_invalid", `The arguments do not fit the tool's schema: ${what}.`),
  forbidden: () => refused("tool_forbidden", "The user who asks may not use this tool. Go on without it."),
  rejected: () =>
    refused("tool_rejected", "A person was asked and did not allow this call. Do not try again."),
  shut: () => refused("tool_unavailable", "The tool has failed several times and rests. Go on without it."),
  overRate: (ms: number) =>
    refused(
      "tool_rate_limited",
      `The tool was used as often as it may be in a minute. It can be used again in ${Math.max(1, Math.ceil(ms / 1000))} s.`,
    ),
  late: (ms: number): Failure => ({
    ending: "timeout",
    code: "tool_timeout",
    sentence: `The tool did not answer within ${ms} ms. What it was asked for may have been done or not.`,
  }),
  failed: (): Failure => ({
    ending: "error",
    code: "tool_failed",
    sentence: "The tool failed. What it was asked for may have been done or not.",
  }),
  said: ({ code, message }: ToolError): Failure => ({ ending: "error", code, sentence: message }),
  /** The run was stopped meanwhile; nobody is told but the audit log. */
  stopped: (): Failure => ({ ending: "error", code: "run_stopped", sentence: "The run was stopped." }),
};
