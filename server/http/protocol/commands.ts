// Protocol v2: one command in, one answer out. Over HTTP and over a WebSocket it is the same.
import type { z } from "zod";
import {
  AppError,
  CheckpointNotFound,
  CommandRefused,
  InputInvalid,
  RateLimited,
  RunNotFound,
  ThreadNotFound,
} from "../../errors.ts";
import type { Fields } from "../../fields.ts";
import type { Engine } from "../../runs/engine.ts";
import { answer, assistantOf, startRun } from "../../runs/protocol/commands.ts";
import type { Begun, Origin } from "../../runs/protocol/commands.ts";
import { checkpointsOf, treeOf, valuesOf } from "../../runs/protocol/queries.ts";
import { callerOf } from "../callers/asker.ts";
import type { Asker } from "../callers/asker.ts";
import { guardThread } from "../callers/auth.ts";
import { countRuns } from "../callers/limits.ts";
import {
  agentTree,
  command,
  inputRespond,
  runStart,
  stateFork,
  stateGet,
  stateListCheckpoints,
} from "./schemas.ts";
import { keyOf, permitRun } from "../callers/run-access.ts";
import { check, runCreate } from "../schemas.ts";

export type Command = z.output<typeof command>;

/** What a command comes to: a result, and what is known of its place among the thread's events. */
interface Done {
  readonly result: Fields;
  readonly meta?: Fields;
}

/** Where a command came from: the thread, its text, who sent it, and the key of the request if it has one. */
export interface Sent {
  readonly threadId: string;
  readonly text: string;
  readonly context: Asker;
  readonly idemKey?: string | undefined;
}

/** What a transport offers besides: subscriptions, where there are any. */
export type More = (method: string, params: Fields) => Fields | undefined;

/** @throws InputInvalid when it is no command at all */
export const readCommand = (body: unknown): Command => check(command, body);

/**
 * Does a command. Whatever is wrong with it is an answer too.
 * @throws AppError that says the server cannot do it now, or not for this caller
 */
export async function run(engine: Engine, asked: Command, sent: Sent, more?: More): Promise<Fields> {
  try {
    const { result, meta } = await dispatch(engine, asked, sent, more);
    return { type: "success", id: asked.id, result, meta: { thread_id: sent.threadId, ...meta } };
  } catch (error) {
    if (!(error instanceof AppError) || error.status >= 500) throw error;
    if (error instanceof RateLimited || (error instanceof ThreadNotFound && !more)) throw error;
    return { type: "error", id: asked.id, error: faultOf(error), message: textOf(error) };
  }
}

async function dispatch(engine: Engine, asked: Command, sent: Sent, more?: More): Promise<Done> {
  const { method, params } = asked;
  const { threadId } = sent;
  const origin = originOf(engine, asked, sent);
  const reading = (): Promise<void> => guardThread({ engine, context: sent.context }, "read", threadId);
  switch (method) {
    case "run.start":
      return begun(await startRun(engine, origin, check(runStart, params)));
    case "input.respond": {
      const given = check(inputRespond, params);
      await reading();
      const { meta } = begun(await answer(engine, origin, given));
      return { result: {}, meta };
    }
    case "state.get": {
      const given = check(stateGet, params);
      await reading();
      return { result: await valuesOf(engine, threadId, given) };
    }
    case "state.listCheckpoints": {
      const given = check(stateListCheckpoints, params);
      await reading();
      return { result: await checkpointsOf(engine, threadId, given) };
    }
    case "state.fork": {
      const given = check(stateFork, params);
      await reading();
      return fork(engine, origin, given);
    }
    case "agent.getTree": {
      const given = check(agentTree, params);
      await reading();
      return { result: await treeOf(engine, threadId, given.run_id) };
    }
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

/** A command as the engine takes it: it asks for permission once it knows what run the command comes to. */
function originOf(engine: Engine, { id }: Command, { threadId, text, context, idemKey }: Sent): Origin {
  const permit: Origin["permit"] = async (asked) => {
    await countRuns(context, 1);
    // Whatever a handler may look at is there, as in a request over REST; but legacy clients were promised nothing.
    const whole = { ...check(runCreate, asked), stream_mode: [] };
    const { request, runId, by } = await permitRun({ engine, context }, threadId, whole);
    return { request, options: { runId, by } };
  };
  const identity = callerOf(context)?.user.identity;
  return { threadId, id, text, identity, permit, idemKey: () => keyOf(engine, threadId, idemKey, identity) };
}

/** A run from an older checkpoint of the thread. */
async function fork(engine: Engine, origin: Origin, asked: z.output<typeof stateFork>): Promise<Done> {
  const { checkpoint_id: checkpointId, input, config } = asked;
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
