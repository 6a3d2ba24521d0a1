// One call of a tool from the look at who asks to the line in the audit log. It always ends: with a result, or with a
// failure that the model is told. Only what is not the tool's own passes through: the end of the run, a lost lease, an
// interrupt of LangGraph, a database that is away.
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { deadline, uptime } from "../clock.ts";
import { LeaseLost } from "../errors.ts";
import { servicesOf } from "../services.ts";
import { permissionsOf } from "./approval.ts";
import type { Fitting, Tool, ToolContext } from "./define.ts";
import { failures, ToolError } from "./failure.ts";
import type { Failure } from "./failure.ts";
import { pageReader } from "./page.ts";
import { takeOne } from "./rate.ts";
import { tallyOf } from "./tally.ts";

export interface Call {
  readonly callId: string;
  readonly key: string;
  /** Undefined: the model made its name up. */
  readonly tool: Tool | undefined;
  /** What is to be executed, or why nothing is. */
  readonly work: Fitting | Failure;
}

/** What became of a call. */
export type Result = { readonly text: string } | Failure;

/** @throws whatever ended the run, GraphInterrupt, DatabaseUnavailable */
export async function execute(call: Call, config: LangGraphRunnableConfig): Promise<Result> {
  const startedAt = uptime();
  const result = await attempt(call, config).catch(async (error: unknown) => {
    // It may have done something before it was stopped.
    if (config.signal?.aborted && !(error instanceof LeaseLost))
      await audit(call, failures.stopped(), startedAt, config).catch(() => undefined);
    throw error;
  });
  await audit(call, result, startedAt, config);
  return result;
}

async function attempt({ tool, work, callId, key }: Call, config: LangGraphRunnableConfig): Promise<Result> {
  if (!tool) return failures.unknown();
  if ("code" in work) return work;
  if (!mayUse(tool, config)) return failures.forbidden();
  const tally = tallyOf(tool.name);
  const pass = tally.breaker.enter();
  if (!pass) return failures.shut();
  try {
    const waitMs = await takeOne(tool, servicesOf(config).tools);
    if (waitMs > 0) return failures.overRate(waitMs);
    const startedAt = uptime();
    const result = await bounded(tool, work, { callId, key, config });
    tally.count(uptime() - startedAt, "text" in result ? "done" : result.ending);
    if ("text" in result || result.isOwn) pass.succeed();
    else pass.fail();
    return result;
  } finally {
    pass.drop();
  }
}

function mayUse({ permission, isAnonymous }: Tool, config: LangGraphRunnableConfig): boolean {
  const permissions = permissionsOf(config);
  if (!permissions) return isAnonymous;
  return permission === undefined || permissions.includes(permission);
}

async function bounded(
  { name, timeoutMs }: Tool,
  work: Fitting,
  { callId, key, config }: { callId: string; key: string; config: LangGraphRunnableConfig },
): Promise<Result & { readonly isOwn?: boolean }> {
  config.signal?.throwIfAborted();
  const signal = deadline(timeoutMs, config.signal);
  const { search, tools } = servicesOf(config);
  const context: ToolContext = {
    signal,
    callId,
    idempotencyKey: key,
    config,
    search: (query, options = {}) => search(query, options),
    fetchPage: pageReader(tools?.egress, signal),
  };
  try {
    const text: unknown = await Promise.race([work.run(context), aborted(signal)]);
    // Its type says so, and nobody checks that of code in JavaScript.
    if (typeof text !== "string") throw new TypeError(`It returned no text but ${describe(text)}.`);
    return { text };
  } catch (error) {
    config.signal?.throwIfAborted();
    if (isPassedOn(error)) throw error;
    if (signal.aborted) return failures.late(timeoutMs);
    if (error instanceof ToolError) return { ...failures.said(error), isOwn: true };
    tools?.tellFailure(name, error);
    return failures.failed();
  }
}

const describe = (value: unknown): string => (value === null ? "null" : typeof value);

/** A tool that does not look at its signal is not waited for. */
const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });

/** What LangGraph, of whatever copy, and the engine throw for themselves. */
const isPassedOn = (error: unknown): boolean =>
  error instanceof LeaseLost || Object(error)["is_bubble_up"] === true;

async function audit(
  { tool, callId }: Call,
  result: Result,
  startedAt: number,
  config: LangGraphRunnableConfig,
): Promise<void> {
  await servicesOf(config).tools?.audit({
    action: "tool.called",
    tool: tool?.name,
    callId,
    outcome: "text" in result ? "done" : result.ending,
    ms: uptime() - startedAt,
    ...("code" in result ? { code: result.code } : {}),
  });
}
