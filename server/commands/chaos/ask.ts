// One client with one question: it makes a thread, starts a run and follows it to its end, whatever breaks meanwhile.
// A request whose answer was lost is sent again under the same idempotency key, as a careful client does.
import { now, sleep } from "../../clock.ts";
import { messageOf } from "../../errors.ts";
import { uuidv7 } from "../../ids.ts";
import type { Random } from "./random.ts";
import { Sight } from "./sight.ts";
import { answerOf, follow } from "./stream.ts";

export interface Question {
  readonly assistant: string;
  readonly input: unknown;
  readonly modes: readonly string[];
  readonly config?: Readonly<Record<string, unknown>>;
  /** What happens when the thread is busy; refused by default. */
  readonly multitask?: "reject" | "enqueue" | "interrupt" | "rollback";
  /** Where the end of the run is reported to. */
  readonly webhook?: string;
}

export interface Asker {
  /** The base address of an instance to try next. */
  readonly address: () => string;
  readonly random: Random;
  readonly cutChance: number;
  readonly mayJump: boolean;
  /** How long the client waits for the next event before it complains. */
  readonly patienceMs?: number;
  /** What the client does after each event before it reads the next; it is gone when this throws. */
  readonly pause?: () => Promise<void>;
}

/** What became of a question. */
export interface Asked {
  readonly threadId: string;
  /** Undefined when no answer ever said that the run was accepted. */
  readonly runId: string | undefined;
  readonly sight: Sight;
  /** What the client met that no fault excuses. */
  readonly troubles: readonly string[];
  /** The run's log holds events for followers of its thread too, which this client does not see. */
  readonly isFollowed?: boolean;
}

export interface Asking {
  readonly threadId: string;
  /** Resolves when the run was accepted, or never will be. */
  readonly accepted: Promise<void>;
  readonly done: Promise<Asked>;
}

// Longer than any outage that is made here on purpose.
const ACCEPT_MS = 60_000;
const PAUSE_MS = 300;

type Converse = (
  asker: Asker,
  question: Question & { threadId: string },
  onAccepted: () => void,
) => Promise<Asked>;

/** A way to ask: what it does, from the request to the end of the run. */
export const asking =
  (speak: Converse) =>
  (asker: Asker, question: Question, threadId: string = uuidv7()): Asking => {
    const accepted = Promise.withResolvers<void>();
    const done = speak(asker, { ...question, threadId }, accepted.resolve).finally(accepted.resolve);
    return { threadId, accepted: accepted.promise, done };
  };

export const ask = asking(converse);

export async function converse(
  asker: Asker,
  question: Question & { threadId: string },
  onAccepted: () => void,
): Promise<Asked> {
  const { threadId } = question;
  const sight = new Sight(asker, question.modes);
  const troubles: string[] = [];
  let runId: string | undefined;
  try {
    const first = await request(asker, question);
    sight.note(`${new URL(first.url).origin} from the first`);
    runId = runIdIn(first);
    onAccepted();
    const frames = follow({ threadId, runId }, first, {
      ...asker,
      onShortened: (status) => troubles.push(`its stream was ended in order while the run was ${status}`),
      note: (step) => sight.note(step),
    });
    for await (const frame of frames) {
      sight.take(frame);
      await asker.pause?.();
    }
  } catch (error) {
    troubles.push(messageOf(error));
  }
  return { threadId, runId, sight, troubles };
}

/** Sends until some instance answers. @throws when one refuses, or none answers in time */
async function request(asker: Asker, question: Question & { threadId: string }): Promise<Response> {
  const headers = { "content-type": "application/json", "idempotency-key": uuidv7() };
  const { assistant, input, modes, config, multitask, webhook, threadId } = question;
  const body = JSON.stringify({
    assistant_id: assistant,
    input,
    stream_mode: modes,
    if_not_exists: "create",
    config,
    multitask_strategy: multitask,
    webhook,
  });
  const until = now() + ACCEPT_MS;
  let reason = "no instance lives";
  while (now() < until) {
    try {
      const url = `${asker.address()}/threads/${threadId}/runs/stream`;
      const response = await answerOf(url, { method: "POST", headers, body });
      if (response.ok) return response;
      const text = await response.text();
      if (response.status < 500)
        throw new RequestRefused(`POST was refused with ${response.status}: ${text}`);
      reason = `${response.status}: ${text}`;
    } catch (error) {
      if (error instanceof RequestRefused) throw error;
      reason = messageOf(error);
    }
    await sleep(asker.random.between(0, PAUSE_MS));
  }
  throw new Error(`No instance accepted the run in ${ACCEPT_MS / 1000} s: ${reason}`);
}

class RequestRefused extends Error {}

function runIdIn(response: Response): string {
  const path = response.headers.get("content-location") ?? "";
  const runId = /\/runs\/([0-9a-f-]{36})/.exec(path)?.[1];
  if (!runId) throw new Error(`The answer names no run: content-location is "${path}".`);
  return runId;
}
