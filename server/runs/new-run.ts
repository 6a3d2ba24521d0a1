// What is written of a run when it is accepted: from what a client asks, the assistant, and what of the thread is known.
import { asFields } from "../fields.ts";
import type { Fields } from "../fields.ts";
import { uuidv7 } from "../ids.ts";
import type { AssistantRow } from "../storage/assistants.ts";
import type { ThreadKey } from "../storage/keys/seals.ts";
import type { NewRun } from "../storage/runs.ts";
import type { ThreadConfig } from "../storage/threads.ts";
import { hasSlot } from "./engine.ts";
import type { Engine } from "./engine.ts";
import { lastingConfig } from "./input.ts";
import { metadataOf, wholeLine } from "./log/lines.ts";
import type { CreateOptions, RunKwargs, RunRequest } from "./request.ts";
import { guardThreadText } from "./vault.ts";

export function newRun(
  engine: Engine,
  given: {
    threadId: string;
    assistant: AssistantRow;
    request: RunRequest;
    options: CreateOptions;
    asked: Fields;
    threadKey: ThreadKey | undefined;
    /** What the thread's runs are configured with so far. */
    before: ThreadConfig;
  },
): NewRun {
  const { threadId, assistant, request, options, asked, threadKey, before } = given;
  const { runId = uuidv7(), by } = options;
  const kept = { graph_id: assistant.graph_id, assistant_id: assistant.assistant_id };
  const isDelayed = (request.after_seconds ?? 0) > 0;
  const state = isDelayed ? "delayed" : hasSlot(engine) ? "running" : "ready";
  const isTemporary = options.isStateless && request.on_completion !== "keep";
  const creates = request.if_not_exists === "create" || options.isStateless ? "thread" : "no";
  const { guard, vault } = guardThreadText(engine, assistant.graph_id, {
    threadId,
    key: threadKey?.key,
    identity: by?.auth.user.identity,
  });
  // Its metadata was looked at before the handlers of auth said in it whose it is.
  const kwargs = guard.value(
    kwargsOf(request, assistant, { ...asked, ...kept, run_id: runId, thread_id: threadId }),
  );
  return {
    runId,
    threadId,
    threadKey,
    vault: vault?.takeNew(),
    assistantId: assistant.assistant_id,
    assistantRevision: assistant.revision,
    workerId: state === "running" ? engine.workerId : null,
    state,
    multitask: request.multitask_strategy,
    metadata: { ...request.metadata, ...kept },
    assistantMetadata: assistant.metadata,
    kwargs,
    threadMetadata: kept,
    threadConfig: isTemporary ? undefined : lastingConfig(before.config, kwargs.config),
    configBefore: before.stored,
    // By what the run says of itself the thread is found, and whose it is, as a handler of auth has it.
    madeMetadata: request.metadata ?? {},
    ...(by ? { auth: by.auth, filter: by.filter } : {}),
    idemKey: options.idemKey,
    isWatched: options.isWatched,
    afterSeconds: request.after_seconds ?? 0,
    timeoutMs: engine.limits.runTimeoutMs,
    threadTtl: engine.limits.threadTtl,
    webhook: request.webhook ?? undefined,
    answersStateOf: options.answersStateOf,
    creates: isTemporary ? "temporary" : options.answersStateOf ? "no" : creates,
    firstLine: wholeLine(metadataOf(runId, 1)),
  };
}

function kwargsOf(request: RunRequest, assistant: AssistantRow, identity: Fields): RunKwargs {
  const config = request.config ?? {};
  const strict = request.strict_resume ? { __pregel_strict_resume: true } : {};
  const configurable = { ...asFields(config["configurable"]), ...identity, ...strict };
  return {
    input: request.input ?? null,
    command: request.command ?? null,
    ...(Object.keys(assistant.config).length > 0 ? { defaults: assistant.config } : {}),
    config: { ...config, configurable },
    context: { ...assistant.context, ...request.context },
    stream_mode: request.stream_mode,
    stream_subgraphs: request.stream_subgraphs,
    interrupt_before: request.interrupt_before ?? null,
    interrupt_after: request.interrupt_after ?? null,
    durability: request.durability ?? "async",
  };
}
