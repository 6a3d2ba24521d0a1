// The same client as the rig's own, but the official SDK does the work: it streams, comes back and resumes by itself.
// Under it a fetch that goes to another instance each time and cuts streams at random.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "@langchain/langgraph-sdk";
import type { StreamMode } from "@langchain/langgraph-sdk";
import { asking } from "../server/commands/chaos/ask.ts";
import type { Asked, Asker, Question } from "../server/commands/chaos/ask.ts";
import { Sight } from "../server/commands/chaos/sight.ts";
import { messageOf } from "../server/errors.ts";

const PATIENCE_MS = 90_000;
const PAUSE_MS = 300;

export const askWithSdk = asking(converse);

async function converse(
  asker: Asker,
  question: Question & { threadId: string },
  onAccepted: () => void,
): Promise<Asked> {
  const { threadId, assistant, modes } = question;
  const sight = new Sight(asker, modes);
  const client = new Client({
    apiUrl: "http://any-instance",
    apiKey: null,
    defaultHeaders: { "idempotency-key": randomUUID() },
    callerOptions: { fetch: wandering(asker, (step) => sight.note(step)), maxRetries: 2 },
  });
  const troubles: string[] = [];
  let runId: string | undefined;
  const late = new AbortController();
  const { signal } = late;
  const open = (): AsyncGenerator<{ id?: string; event: string; data: unknown }> => {
    if (runId !== undefined) {
      return client.runs.joinStream(threadId, runId, { lastEventId: String(sight.lastId), signal });
    }
    const onRunCreated = (created: { run_id: string }): void => {
      runId = created.run_id;
      onAccepted();
    };
    const payload = {
      input: question.input as Record<string, unknown>,
      streamMode: [...modes] as StreamMode[],
      ifNotExists: "create",
      onRunCreated,
      signal,
      ...(question.config ? { config: question.config } : {}),
      ...(question.webhook ? { webhook: question.webhook } : {}),
      ...(question.multitask ? { multitaskStrategy: question.multitask } : {}),
    } as const;
    return client.runs.stream(threadId, assistant, payload);
  };
  const { patienceMs = PATIENCE_MS } = asker;
  const watchdog = setTimeout(() => late.abort(), patienceMs);
  while (!late.signal.aborted) {
    try {
      for await (const { id, event, data } of open()) {
        watchdog.refresh();
        sight.take({ id: id === undefined ? undefined : Number(id), event, data });
      }
      break;
    } catch (error) {
      if (isRefusal(error)) troubles.push(messageOf(error));
      if (isRefusal(error)) break;
      await delay(asker.random.between(0, PAUSE_MS));
    }
  }
  if (late.signal.aborted) troubles.push(`Nothing came for ${patienceMs / 1000} s.`);
  clearTimeout(watchdog);
  return { threadId, runId, sight, troubles };
}

/** The server answered, and with something that trying again does not change. */
function isRefusal(error: unknown): boolean {
  const status: unknown = error instanceof Error ? Reflect.get(error, "status") : undefined;
  return typeof status === "number" && status >= 400 && status < 500 && status !== 429;
}

function wandering({ address, random, cutChance }: Asker, note: (step: string) => void): typeof fetch {
  return async (input, init) => {
    const { pathname, search } = new URL(input instanceof Request ? input.url : input);
    const url = new URL(pathname + search, address());
    const response = await fetch(url, init);
    const after = new Headers(init?.headers).get("last-event-id");
    note(`SDK: ${url.origin} ${response.status}${after === null ? "" : ` after ${after}`}`);
    const isStream = response.headers.get("content-type")?.startsWith("text/event-stream");
    if (!isStream || !response.body) return response;
    const { status, headers } = response;
    return new Response(
      cutting(response.body, () => random.chance(cutChance), note),
      { status, headers },
    );
  };
}

/** Passes on what comes and breaks off between two pieces, in the way a lost connection shows in undici. */
function cutting(
  body: ReadableStream<Uint8Array>,
  isTime: () => boolean,
  note: (step: string) => void,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await reader.read();
        if (done) {
          note("SDK: ended in order");
          return controller.close();
        }
        controller.enqueue(value);
        if (!isTime()) return;
        note("SDK: cut by the client");
        void reader.cancel().catch(() => undefined); // broken already
        controller.error(new TypeError("terminated"));
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  );
}
