// What the attempts before told clients of a run: what of it may have to be taken back, or ended.
import { asFields } from "../fields.ts";
import type { Engine } from "./engine.ts";
import { readLog } from "./follow.ts";
import { dataOf, nameOf } from "./log/lines.ts";
import type { Entry } from "./log/lines.ts";
import { addressOf } from "./protocol/entries.ts";
import { LeftOpen } from "./protocol/left-open.ts";
import { HalfTold, begunBy } from "./protocol/messages.ts";

/** Ids of the tasks in which something was told, those of the graphs around it first. */
export type Tasks = readonly string[];

export const tasksIn = (namespace: readonly string[]): Tasks =>
  namespace.flatMap((part) => part.split(":")[1] ?? []);

const tasksOf = (about: unknown): Tasks => {
  const place: unknown = asFields(about)["langgraph_checkpoint_ns"];
  return typeof place === "string" ? tasksIn(place.split("|")) : [];
};

interface Spoken {
  readonly event: string;
  readonly tasks: Tasks;
  /** What clients have put together; undefined when it is more than text. */
  readonly text: string | undefined;
}

export interface Attempted {
  /** The messages that legacy clients have seen parts of, by id. */
  readonly messages: Map<string, Spoken>;
  /** Those that clients have seen as far as they had come, by id. */
  readonly partials: Map<string, Tasks>;
  /** Where messages were begun for clients of protocol v2, by id. */
  readonly begun: Map<string, readonly string[]>;
  /** What clients of protocol v2 were told the begin of, and not the end. */
  readonly open: LeftOpen;
  readonly half: HalfTold;
  /** Numbers of events have jumped since the run began: a crash of the database may have taken some. */
  readonly hasJumped: boolean;
}

type Noted = Omit<Attempted, "hasJumped">;

/** @param first number of the first event of the attempt that goes on */
export async function toldBefore(
  engine: Pick<Engine, "reader">,
  runId: string,
  first: number,
): Promise<Attempted> {
  const told: Noted = {
    messages: new Map(),
    partials: new Map(),
    begun: new Map(),
    open: new LeftOpen(),
    half: new HalfTold(),
  };
  let hasJumped = false;
  let next = 0;
  for await (const events of readLog(engine.reader, runId)) {
    for (const { seq, entry } of events) {
      if (seq >= first) break;
      hasJumped ||= seq > next;
      next = seq + 1;
      note(seq, entry, told);
    }
  }
  return { ...told, hasJumped: hasJumped || first > next };
}

function note(seq: number, entry: Entry, noted: Noted): void {
  if (entry.at === undefined) {
    noteLegacy(entry, noted);
    return;
  }
  noted.open.see(entry, seq);
  noted.half.see(entry);
  const id = begunBy(entry);
  if (id !== undefined) noted.begun.set(id, addressOf(entry).namespace);
}

function noteLegacy(
  entry: Entry,
  { messages: told, partials }: Pick<Attempted, "messages" | "partials">,
): void {
  const event = nameOf(entry);
  // Once for each message, and before its first piece.
  if (event === "messages/metadata")
    for (const [id, of] of Object.entries(asFields(JSON.parse(dataOf(entry)))))
      partials.set(id, tasksOf(asFields(of)["metadata"]));
  if (event !== "messages" && !event.startsWith("messages|")) return;
  const parsed: unknown = JSON.parse(dataOf(entry));
  const [message, about]: unknown[] = Array.isArray(parsed) ? parsed : [];
  if (typeof message !== "object" || message === null) return;
  const { id, type, content } = message as Record<string, unknown>; // just parsed from JSON
  if (typeof id !== "string") return;
  if (type === "remove") {
    told.delete(id);
    return;
  }
  const before = told.has(id) ? told.get(id)?.text : "";
  const text = before !== undefined && typeof content === "string" ? before + content : undefined;
  told.set(id, { event, text, tasks: tasksOf(about) });
}
