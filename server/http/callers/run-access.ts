// What a handler of authorisation is asked, and may change, before a run is accepted; and on whose behalf it then runs.
import { createHash } from "node:crypto";
import type { z } from "zod";
import { InputInvalid } from "../../errors.ts";
import { uuidv7 } from "../../ids.ts";
import { assistantIdFor } from "../../runs/assistants.ts";
import { authOf } from "../../runs/auth.ts";
import type { Engine } from "../../runs/engine.ts";
import type { RunBy } from "../../runs/request.ts";
import { findThread } from "../../storage/threads.ts";
import { callerOf } from "./asker.ts";
import type { Asker } from "./asker.ts";
import { authorize, guardAssistantOfRun, requireThread } from "./auth.ts";
import { refuseIdentifier } from "../edge/door.ts";
import { refuseUnstorable } from "../edge/ingress.ts";
import { check, runCreate } from "../schemas.ts";

const MAX_KEY = 255;

type Request = z.output<typeof runCreate>;

export interface PermittedRun<Asked> {
  readonly runId: string;
  readonly request: Asked;
  /** Undefined without auth. */
  readonly by: RunBy | undefined;
}

// What of a request becomes the kwargs of its run.
const KWARGS = [
  "input",
  "command",
  "config",
  "context",
  "stream_mode",
  "stream_subgraphs",
  "interrupt_before",
  "interrupt_after",
  "webhook",
] as const;
const NOTHING = Object.fromEntries(KWARGS.map((key) => [key, undefined]));

/**
 * Asks whether the caller may start a run.
 * @param threadId undefined for a run without a thread
 * @returns the request as the handler left it: it may change metadata and kwargs
 * @throws AccessDenied, AuthRefused, AuthInvalid; AssistantNotFound for an assistant that is not the caller's
 */
export async function permitRun<Asked extends Request>(
  { engine, context }: { engine: Engine; context: Asker },
  threadId: string | undefined,
  request: Asked,
): Promise<PermittedRun<Asked>> {
  const runId = uuidv7();
  const caller = callerOf(context);
  if (!caller) {
    refuseUnstorable("metadata", request.metadata);
    return { runId, request, by: undefined };
  }
  await guardAssistantOfRun({ engine, context }, request.assistant_id);
  await guardOthers({ engine, context }, threadId, request.multitask_strategy);
  const { filter, value } = await authorize(context, "threads", "create_run", {
    thread_id: threadId,
    assistant_id: assistantIdFor(engine, request.assistant_id),
    run_id: runId,
    status: "pending",
    metadata: request.metadata ?? {},
    prevent_insert_if_inflight: request.multitask_strategy === "reject",
    multitask_strategy: request.multitask_strategy,
    if_not_exists: request.if_not_exists,
    after_seconds: request.after_seconds ?? 0,
    kwargs: Object.fromEntries(KWARGS.map((key) => [key, request[key]])),
  });
  const { metadata, kwargs } = value;
  // What he took out is gone, not as the client had it.
  const left = check(runCreate, { ...request, ...NOTHING, ...kwargs, metadata });
  const changed = { ...request, ...NOTHING, ...left };
  refuseUnstorable("metadata", changed.metadata);
  return { runId, request: changed, by: { auth: authOf(caller), filter } };
}

/** A run that stops, or undoes, what others began on the thread needs the permission to do that too. */
async function guardOthers(
  { engine, context }: { engine: Engine; context: Asker },
  threadId: string | undefined,
  action: Request["multitask_strategy"],
): Promise<void> {
  if (threadId === undefined || (action !== "interrupt" && action !== "rollback")) return;
  const { filter } = await authorize(context, "threads", "update", { thread_id: threadId, action });
  // The run may make the thread.
  const isThere = filter !== undefined && (await findThread(engine.database, threadId));
  if (isThere) await requireThread(engine, threadId, filter);
}

/** What the key of a request is kept under: the same key of somebody else is another one. */
export function keyOf(
  { privacy }: Pick<Engine, "privacy">,
  threadId: string,
  key: string | undefined,
  identity: string | undefined,
): string | undefined {
  if (!key) return undefined;
  refuseIdentifier(privacy.of(), "Idempotency-Key", key);
  if (key.length > MAX_KEY)
    throw new InputInvalid(`Idempotency-Key has more than ${MAX_KEY} characters. Use a UUID.`);
  const whose = identity === undefined ? "" : ` ${createHash("sha256").update(identity).digest("hex")}`;
  return `${threadId}${whose} ${key}`;
}
