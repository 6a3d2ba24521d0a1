// Protocol v2 as bytes over HTTP: what a thread's stream shows, and commands.
import { expect } from "vitest";
import { until } from "./until.ts";

const CHANNELS = [
  "values",
  "updates",
  "messages",
  "tools",
  "lifecycle",
  "input",
  "checkpoints",
  "tasks",
  "custom",
];

export interface Event {
  readonly event_id: string;
  readonly seq: number;
  readonly method: string;
  readonly params: {
    readonly namespace: string[];
    readonly timestamp: number;
    readonly node?: string;
    readonly data: Record<string, unknown>;
  };
}

/** Where requests go; a fleet is one. */
export interface Place {
  readonly url: string;
  readonly fetch: typeof fetch;
}

/**
 * A thread's events, growing as they come, from a stream that is open when this resolves.
 * @param gone ends the stream
 */
export async function watch(
  { url, fetch: send }: Place,
  threadId: string,
  gone: AbortSignal,
  body: object = {},
): Promise<Event[]> {
  const events: Event[] = [];
  const response = await send(`${url}/threads/${threadId}/stream/events`, {
    method: "POST",
    body: JSON.stringify({ channels: CHANNELS, ...body }),
    signal: gone,
  });
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  void read(response, (event) => events.push(event)).catch(() => undefined); // until the signal ends it
  return events;
}

async function read({ body }: Response, seen: (event: Event) => void): Promise<void> {
  if (!body) throw new Error("The response has no body.");
  let text = "";
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const frame = text.slice(0, end).replaceAll(": heartbeat\n", "");
      text = text.slice(end + 2);
      const parts = /^event: (\S+)\ndata: (.*)\nid: (\d+)-(\d+)$/.exec(frame);
      if (!parts) throw new Error(`Not a frame: ${frame}`);
      const event = JSON.parse(parts[2] ?? "") as Event;
      if (event.method !== parts[1] || event.seq !== Number(parts[4]))
        throw new Error(`Not one event: ${frame}`);
      seen(event);
    }
  }
}

/** What a command is answered. */
export async function command(
  { url, fetch: send }: Place,
  threadId: string,
  method: string,
  params: object,
  id = 1,
): Promise<Record<string, unknown>> {
  const body = JSON.stringify({ id, method, params });
  const response = await send(`${url}/threads/${threadId}/commands`, { method: "POST", body });
  expect(response.status).toBe(200);
  return (await response.json()) as Record<string, unknown>;
}

export const startRun = (
  place: Place,
  threadId: string,
  assistant: string,
  input: unknown,
  more: object = {},
): ReturnType<typeof command> =>
  command(place, threadId, "run.start", { assistant_id: assistant, input, ...more });

/** What the lifecycle of the thread itself says. */
export const roots = (events: readonly Event[]): unknown[] =>
  events
    .filter(({ method, params }) => method === "lifecycle" && params.namespace.length === 0)
    .map(({ params }) => params.data["event"]);

/** Resolves when so many runs have ended. */
export const ended = (events: readonly Event[], count = 1): Promise<void> =>
  until(() => roots(events).filter((event) => event !== "running").length >= count, "the run to end");
