// The same client as the rig's own, over protocol v2: it starts its run by a command and follows its thread, with the
// number of the last event it saw as the cursor wherever it comes back.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { asking, converse as askLegacy } from "../server/commands/chaos/ask.ts";
import type { Asked, Asker, Question } from "../server/commands/chaos/ask.ts";
import { Sight } from "../server/commands/chaos/sight.ts";
import type { Message } from "../server/commands/chaos/sight.ts";
import { answerOf, framesOf } from "../server/commands/chaos/stream.ts";
import { messageOf } from "../server/errors.ts";
import { placeOf } from "../server/runs/protocol/entries.ts";

const PATIENCE_MS = 90_000;
const PAUSE_MS = 300;
// A run goes on a million numbers further after a crash of PostgreSQL: no run of this rig tells so many events.
const LEAST_JUMP = 900_000;
const CHANNELS = [
  "lifecycle",
  "messages",
  "values",
  "updates",
  "checkpoints",
  "tasks",
  "custom",
  "tools",
  "input",
];

interface Event {
  readonly event_id: string;
  readonly seq: number;
  readonly method: string;
  readonly params: {
    readonly namespace: readonly string[];
    readonly data: Readonly<Record<string, unknown>>;
  };
}

export const askOverProtocol = asking(converse);

async function converse(
  asker: Asker,
  question: Question & { threadId: string },
  onAccepted: () => void,
): Promise<Asked> {
  const { threadId } = question;
  const sight = new Sight(asker);
  const window = new Window(sight);
  const troubles: string[] = [];
  const { patienceMs = PATIENCE_MS, random } = asker;
  const key = randomUUID();
  let runId: string | undefined;
  let until = Date.now() + patienceMs;
  while (Date.now() < until) {
    try {
      runId ??= await start(asker, question, key);
      onAccepted();
      for await (const event of eventsOf(asker, threadId, window.last, sight)) {
        until = Date.now() + patienceMs;
        const isOver = window.take(event);
        if (sight.troubles.length > 0) return { threadId, runId, sight, troubles };
        if (!isOver) {
          if (random.chance(asker.cutChance)) throw new Error("The client cut the line.");
          continue;
        }
        const differs = await differenceTo(asker, threadId, window);
        return { threadId, runId, sight, troubles: [...troubles, ...differs] };
      }
      troubles.push("a thread's stream was ended in order");
    } catch (error) {
      sight.note(`v2: ${messageOf(error)}`);
      if (error instanceof Refused)
        return { threadId, runId, sight, troubles: [...troubles, messageOf(error)] };
    }
    await delay(random.between(0, PAUSE_MS));
  }
  return { threadId, runId, sight, troubles: [...troubles, `Nothing came for ${patienceMs / 1000} s.`] };
}

/** A legacy client on a thread that somebody else follows: its run is told both ways. */
export const askWhereFollowed = asking(async (asker, question, onAccepted) => {
  for (let tries = 0; tries < 100; tries += 1) {
    try {
      const path = `${asker.address()}/threads/${question.threadId}/stream/events`;
      const body = JSON.stringify({ channels: CHANNELS });
      const response = await answerOf(path, { method: "POST", body });
      await response.body?.cancel();
      if (response.ok) break;
    } catch {
      await delay(PAUSE_MS); // the line is what is broken here
    }
  }
  return { ...(await askLegacy(asker, question, onAccepted)), isFollowed: true };
});

class Refused extends Error {}

async function start(
  { address }: Asker,
  question: Question & { threadId: string },
  key: string,
): Promise<string> {
  const { threadId, assistant, input, config } = question;
  const params = { assistant_id: assistant, input, config };
  const response = await answerOf(`${address()}/threads/${threadId}/commands`, {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": key },
    body: JSON.stringify({ id: 1, method: "run.start", params }),
  });
  const text = await response.text();
  if (!response.ok) throw response.status < 500 ? new Refused(text) : new Error(text);
  const { type, result } = JSON.parse(text) as { type: string; result?: { run_id: string } };
  if (type !== "success" || !result) throw new Refused(text);
  return result.run_id;
}

async function* eventsOf(
  { address, patienceMs = PATIENCE_MS }: Asker,
  threadId: string,
  since: number | undefined,
  sight?: Sight,
): AsyncGenerator<Event> {
  const base = address();
  sight?.note(`v2: ${base} since ${since ?? "the last run"}`);
  const response = await answerOf(`${base}/threads/${threadId}/stream/events`, {
    method: "POST",
    body: JSON.stringify({ channels: CHANNELS, ...(since === undefined ? {} : { since }) }),
  });
  if (!response.ok)
    throw new Error(`The stream was refused with ${response.status}: ${await response.text()}`);
  let until = Date.now() + patienceMs;
  for await (const { data } of framesOf(response, () => Date.now() > until)) {
    yield data as Event;
    until = Date.now() + patienceMs;
  }
}

/** How what the client saw differs from what the thread tells afterwards, from its first event on. */
async function differenceTo(asker: Asker, threadId: string, { ids }: Window): Promise<string[]> {
  const until = Date.now() + (asker.patienceMs ?? PATIENCE_MS);
  while (Date.now() < until) {
    try {
      const told: string[] = [];
      for await (const event of eventsOf(asker, threadId, 0)) {
        told.push(event.event_id);
        if (event.event_id === ids.at(-1)) break;
      }
      const seen = withoutLost(ids, new Set(told));
      const at = told.findIndex((id, index) => id !== seen[index]);
      if (at < 0 && told.length === seen.length) return [];
      return [
        `it saw ${ids.length} events, ${told.length} are told now; number ${at} is another: ${ids[at]}`,
      ];
    } catch {
      await delay(PAUSE_MS); // the line is what is broken here
    }
  }
  return ["nobody told the thread's events again"];
}

/**
 * Without the events that a crash of PostgreSQL took from its log. They were shown before they were on disk, and are the
 * last before the numbers of their run jump far ahead.
 */
function withoutLost(ids: readonly string[], told: ReadonlySet<string>): string[] {
  let isBeforeJump = false;
  const kept = ids.toReversed().filter((id, index, later) => {
    const next = later[index - 1];
    if (next !== undefined && told.has(next)) isBeforeJump = isJump(numberOf(id), numberOf(next));
    return told.has(id) || !isBeforeJump;
  });
  return kept.toReversed();
}

const numberOf = (id: string): number => Number(/\d+$/.exec(id)?.[0]);

function isJump(from: number, to: number): boolean {
  const [before, behind] = [placeOf(from), placeOf(to)];
  return before.ordinal === behind.ordinal && behind.position - before.position > LEAST_JUMP;
}

/** Applies events as a chat window does, and looks at their numbers. */
class Window {
  readonly #sight: Sight;
  readonly ids: string[] = [];
  /** Pieces of messages go to the message that was begun under the same name. */
  readonly #streamed = new Set<string>();
  readonly #kept = new Set<string>();
  #attempts = 0;
  last: number | undefined;

  constructor(sight: Sight) {
    this.#sight = sight;
  }

  /** @returns whether the run is over */
  take({ event_id: id, seq, method, params }: Event): boolean {
    const { namespace, data } = params;
    this.ids.push(id);
    this.last = seq;
    const { position } = placeOf(seq);
    const isRoot = method === "lifecycle" && namespace.length === 0;
    if (isRoot && data["event"] === "running") this.#begin(position);
    const isBrokenOff = method === "messages" && data["event"] === "error";
    if (method === "values" || isBrokenOff) this.#attempt(position);
    this.#sight.take({
      id: position,
      event: method === "values" && namespace.length === 0 ? "values" : "v2",
      data,
    });
    if (method === "values") this.#keep(data);
    if (method === "messages") this.#grow(data);
    return isRoot && data["event"] !== "running";
  }

  /** What was not kept of the last attempt is gone. */
  #begin(position: number): void {
    this.#attempt(position);
    for (const id of this.#streamed) if (!this.#kept.has(id)) this.#remove(id);
  }

  /**
   * Attempts begin with an event for legacy clients, some with nothing else, others with the ends of half messages or
   * with values that take messages back.
   */
  #attempt(position: number): void {
    for (let id = this.#sight.lastId + 1; id < position; id += 1) {
      this.#attempts += 1;
      this.#sight.take({ id, event: "metadata", data: { attempt: this.#attempts } });
    }
  }

  /** Values are the whole truth: what they held before and do not hold now is gone. */
  #keep({ messages = [] }: { messages?: Message[] }): void {
    const held = new Set(messages.map(({ id }) => id));
    for (const id of this.#kept) if (!held.has(id)) this.#remove(id);
    for (const message of messages) {
      if (message.id === undefined || message.type !== "ai") continue;
      this.#remove(message.id);
      this.#kept.add(message.id);
      this.#streamed.add(message.id);
      this.#sight.apply(message);
    }
  }

  #grow(data: Event["params"]["data"]): void {
    const { event, run_id: id, delta } = data as { event: string; run_id: string; delta?: { text?: string } };
    // A message that is kept is as it is, whatever is told of it again.
    if (event !== "content-block-delta" || this.#kept.has(id)) return;
    this.#streamed.add(id);
    this.#sight.apply({ id, type: "ai", content: delta?.text ?? "" });
  }

  #remove(id: string): void {
    this.#kept.delete(id);
    this.#streamed.delete(id);
    this.#sight.apply({ id, type: "remove", content: "" });
  }
}
