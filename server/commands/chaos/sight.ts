// What one client saw of a run, applied as a chat window applies it: pieces of a message are joined under its id,
// `remove` takes a message away, `values` is the whole state. It notes what no client may ever see.
import type { Frame } from "./stream.ts";

export interface Message {
  readonly id?: string;
  readonly type: string;
  readonly content: unknown;
}

const TRAIL = 8;

export class Sight {
  /** What was wrong with the stream itself. */
  readonly troubles: string[] = [];
  /** The client's latest connections: where they led and how they ended. */
  readonly trail: string[] = [];
  readonly #streamed = new Map<string, string>();
  readonly #mayJump: boolean;
  readonly #hasValues: boolean;
  #values: (Record<string, unknown> & { messages?: readonly Message[] }) | undefined;
  #lastId = -1;
  /** A crash of the database may have taken what was shown last: the next values tell what is left. */
  #hasJumped = false;
  #attempt = 0;

  /**
   * @param mayJump numbers may jump where an attempt begins: the database itself has crashed
   * @param modes what the client asked for: only where it did, the last values are those of the end
   */
  constructor({ mayJump }: { mayJump: boolean }, modes: readonly string[] = ["values"]) {
    this.#mayJump = mayJump;
    this.#hasValues = modes.includes("values");
  }

  get lastId(): number {
    return this.#lastId;
  }

  /** The last state that was shown; undefined when none was, or the client did not ask for it. */
  get values(): Readonly<Record<string, unknown>> | undefined {
    return this.#values;
  }

  note(step: string): void {
    this.trail.push(step);
    if (this.trail.length > TRAIL) this.trail.shift();
  }

  take({ id, event, data }: Frame): void {
    if (id === undefined) this.troubles.push(`an event ${event} without a number`);
    else this.#number(id, event);
    if (event === "metadata") this.#begin(data as { attempt?: number });
    else if (event === "messages") this.apply((data as [Message, unknown])[0]);
    else if (event === "values") this.#keep(data as Record<string, unknown>);
  }

  /**
   * How what the client shows in the end differs from the thread's messages.
   * @param isOnly no other run has changed the thread
   */
  differences(messages: readonly Message[], { isOnly }: { isOnly: boolean }): string[] {
    const final = new Map(messages.map((message) => [message.id ?? "", textOf(message)]));
    const found: string[] = [];
    for (const [id, text] of this.#streamed) {
      if (!final.has(id)) found.push(`message ${id} is shown and not in the thread: ${brief(text)}`);
      else if (final.get(id) !== text)
        found.push(`message ${id} is shown otherwise than it is: ${contrast(text, final.get(id) ?? "")}`);
    }
    if (!isOnly) return found;
    const unseen = messages.filter(({ id, type }) => type === "ai" && !this.#streamed.has(id ?? ""));
    for (const { id } of unseen) found.push(`message ${id} is in the thread and not shown`);
    const last = this.#values?.messages;
    if (last && JSON.stringify(last.map(shape)) !== JSON.stringify(messages.map(shape)))
      found.push(`the last values hold ${last.length} messages, the thread ${messages.length}, or others`);
    return found;
  }

  #number(id: number, event: string): void {
    if (id <= this.#lastId) this.troubles.push(`event ${id} after event ${this.#lastId}`);
    else if (id > this.#lastId + 1 && !(this.#mayJump && event === "metadata"))
      this.troubles.push(`event ${id} follows ${this.#lastId}: some are missing`);
    this.#hasJumped ||= id > this.#lastId + 1;
    this.#lastId = Math.max(id, this.#lastId);
  }

  #keep(values: Record<string, unknown> & { messages?: readonly Message[] }): void {
    if (this.#hasValues) this.#values = values;
    if (!this.#hasJumped) return;
    this.#hasJumped = false;
    const held = new Set(values.messages?.map(({ id }) => id));
    for (const id of this.#streamed.keys()) if (!held.has(id)) this.#streamed.delete(id);
  }

  #begin({ attempt = 0 }: { attempt?: number }): void {
    if (attempt <= this.#attempt) this.troubles.push(`attempt ${attempt} after attempt ${this.#attempt}`);
    this.#attempt = attempt;
  }

  /** A piece of a message, or its removal. */
  apply(message: Message): void {
    const { id, type } = message;
    if (id === undefined) return;
    if (type === "remove") this.#streamed.delete(id);
    else this.#streamed.set(id, (this.#streamed.get(id) ?? "") + textOf(message));
  }
}

const shape = (message: Message): [string | undefined, string] => [message.id, textOf(message)];

const textOf = ({ content }: Message): string =>
  typeof content === "string" ? content : JSON.stringify(content);

/** Where two texts part, and how they go on. */
function contrast(shown: string, real: string): string {
  let at = 0;
  while (at < shown.length && shown[at] === real[at]) at += 1;
  return `after ${at} characters ${brief(shown.slice(at))} and not ${brief(real.slice(at))}`;
}

const brief = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
