// Protocol v2: one command in, one answer out. Over HTTP and over a WebSocket it is the same.
import type { z } from "zod";
import { AppError, CheckpointNotFound, CommandRefused, InputInvalid, RunNotFound } from "../errors.ts";
import type { Engine } from "../runs/engine.ts";
import { answer, assistantOf, startRun } from "../runs/protocol/commands.ts";
import type { Begun, Origin } from "../runs/protocol/commands.ts";
import { checkpointsOf, treeOf, valuesOf } from "../runs/protocol/queries.ts";
import { refuseUnstorable } from "./ingress.ts";
import {
  agentTree,
  command,
  inputRespond,
  runStart,
  stateFork,
  stateGet,
  stateListCheckpoints,
} from "./protocol-schemas.ts";
import { check } from "./schemas.ts";

type Fields = Record<string, unknown>;
export type Command = z.output<typeof command>;

/** What a command comes to: a result, and what is known of its place among the thread's events. */
interface Done {
  readonly result: Fields;
  readonly meta?: Fields;
}

/** What a transport offers besides: subscriptions, where there are any. */
export type More = (method: string, params: Fields) => Fields | undefined;

/** @throws InputInvalid when it is no command at all */
export const readCommand = (body: unknown): Command => check(command, body);

/**
 * Does a command. Whatever is wrong with it is an answer too.
 * @throws AppError that says the server cannot do it now
 */
export async function run(
  engine: Engine,
  asked: Command,
  origin: Omit<Origin, "id">,
  more?: More,
): Promise<Fields> {
  try {
    const { result, meta } = await dispatch(engine, asked, { ...origin, id: asked.id }, more);
    return { type: "success", id: asked.id, result, meta: { thread_id: origin.threadId, ...meta } };
  } catch (error) {
    if (!(error instanceof AppError) || error.status >= 500) throw error;
    return { type: "error", id: asked.id, error: faultOf(error), message: textOf(error) };
  }
}

async function dispatch(
  engine: Engine,
  { method, params }: Command,
  origin: Origin,
  more?: More,
): Promise<Done> {
  const { threadId } = origin;
  switch (method) {
    case "run.start": {
      const asked = check(runStart, params);
      refuseUnstorable("metadata", asked.metadata);
      return begun(await startRun(engine, origin, asked));
    }
    case "input.respond": {
      const asked = check(inputRespond, params);
      refuseUnstorable("metadata", asked.metadata);
      const { result: _none, meta } = begun(await answer(engine, origin, asked));
      return { result: {}, meta };
    }
    case "state.get":
      return { result: await valuesOf(engine, threadId, check(stateGet, params)) };
    case "state.listCheckpoints":
      return { result: await checkpointsOf(engine, threadId, check(stateListCheckpoints, params)) };
    case "state.fork":
      return fork(engine, origin, params);
    case "agent.getTree":
      return { result: await treeOf(engine, threadId, check(agentTree, params).run_id) };
    case "input.inject":
    case "subscription.reconnect":
      throw new CommandRefused("not_supported", `${method} is not supported by this server.`);
    default: {
      const result = more?.(method, params);
      if (result) return { result };
      throw new CommandRefused("unknown_command", `Unknown protocol command: ${method}`);
    }
  }
}

/** A run from an older checkpoint of the thread. */
async function fork(engine: Engine, origin: Origin, params: Fields): Promise<Done> {
  const { checkpoint_id: checkpointId, input, config } = check(stateFork, params);
  const configurable = { ...Object(config["configurable"]), checkpoint_id: checkpointId };
  const started = await startRun(engine, origin, {
    assistant_id: await assistantOf(engine, origin.threadId),
    input,
    config: { ...config, configurable },
    multitask_strategy: "enqueue",
    strict_resume: false,
  });
  const { result, meta } = begun(started);
  return { result: { ...result, thread_id: origin.threadId }, ...(meta ? { meta } : {}) };
}

const begun = ({ runId, appliedThroughSeq }: Begun): Done & { meta: Fields } => ({
  result: { run_id: runId },
  meta: { applied_through_seq: appliedThroughSeq },
});

function faultOf(error: AppError): string {
  if (error instanceof CommandRefused) return error.fault;
  if (error instanceof CheckpointNotFound) return "no_such_checkpoint";
  if (error instanceof RunNotFound) return "no_such_run";
  return error.status === 403 || error.status === 401 ? "permission_denied" : "invalid_argument";
}

function textOf(error: AppError): string {
  if (!(error instanceof InputInvalid) || error.issues.length === 0) return error.message;
  const issues = error.issues as { path?: PropertyKey[]; message?: string }[]; // zod's
  const [first] = issues;
  return `${(first?.path ?? []).map(String).join(".") || "params"}: ${first?.message ?? "is wrong"}`;
}
