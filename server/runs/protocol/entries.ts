// The form of an event of protocol v2, in the log and for clients. Its number grows over all runs of its thread:
// the run's ordinal says where the run's numbers begin, the place in the run's log what is added. Nothing else is
// counted, so the same event has the same number and id on every instance, for ever.
import type { WatchedRun } from "../../storage/watched.ts";
import { dataOf, nameOf } from "../log/lines.ts";
import type { Entry, Numbered } from "../log/lines.ts";

// With 2^26 events a run and 2^27 runs a thread, numbers stay within what JSON numbers can tell apart.
const EVENTS_PER_RUN = 2 ** 26;

// What is told at a run's end and does not stand in its log has places that the log never reaches.
export const STATE_PLACE = EVENTS_PER_RUN - 2;
export const END_PLACE = EVENTS_PER_RUN - 1;

/** What is told: a name such as `values` or `custom:progress`, where in the graph, and the data. */
export interface ProtocolEvent {
  readonly name: string;
  readonly namespace: readonly string[];
  readonly node?: string | undefined;
  /** The JSON text of `params.data`. */
  readonly data: string;
}

/** An event that happened at `at`, in milliseconds, as an entry of the log. */
export function entryOf({ name, namespace, node, data }: ProtocolEvent, at: number): Entry {
  return { event: eventOf(name, namespace), data: headOf(node) + data + "}", at };
}

/** Name and namespace as one text, as the log keeps them. */
export const eventOf = (name: string, namespace: readonly string[]): string => [name, ...namespace].join("|");

/** What stands before an event's data. */
export const headOf = (node: string | undefined): string =>
  node === undefined ? '{"data":' : `{"node":${JSON.stringify(node)},"data":`;

/** The thread-wide number of the event at `position` of a run's log. */
export const threadSeq = ({ ordinal }: Pick<WatchedRun, "ordinal">, position: number): number =>
  ordinal * EVENTS_PER_RUN + position;

/** The run and the position in its log that a thread-wide number names. */
export const placeOf = (seq: number): { ordinal: number; position: number } => ({
  ordinal: Math.floor(seq / EVENTS_PER_RUN),
  position: seq % EVENTS_PER_RUN,
});

/** Name and namespace of an entry. */
export function addressOf(entry: Entry): { name: string; namespace: string[] } {
  const [name = "", ...namespace] = nameOf(entry).split("|");
  return { name, namespace };
}

/**
 * Whether clients show what is said there with the thread itself: its own nodes speak, not graphs in the graph, and no
 * tools, whose agents have places of their own.
 */
export const isOfThread = (namespace: readonly string[]): boolean =>
  namespace.length <= 1 && !/^(?:tools|task):/.test(namespace[0] ?? "");

/** An event as clients get it. */
export interface Shown {
  readonly name: string;
  readonly namespace: readonly string[];
  readonly method: string;
  readonly seq: number;
  /** The id of its server-sent event. */
  readonly sseId: string;
  /** The whole event as JSON text. */
  json(): string;
}

/** An entry of a run's log as an event of its thread. */
export function shownOf(run: WatchedRun, { seq: position, entry }: Numbered): Shown {
  const { name, namespace } = addressOf(entry);
  const seq = threadSeq(run, position);
  const at = entry.at ?? 0;
  const sseId = `${at}-${seq}`;
  // Clients learn from this id which run an event of the thread itself belongs to.
  const eventId = name === "lifecycle" && namespace.length === 0 ? `synth:${run.run_id}:${seq}` : sseId;
  const method = name.startsWith("custom:") ? "custom" : name;
  return {
    name,
    namespace,
    method,
    seq,
    sseId,
    json: () => {
      const params = `{"namespace":${JSON.stringify(namespace)},"timestamp":${at},${dataOf(entry).slice(1)}`;
      return `{"type":"event","event_id":"${eventId}","seq":${seq},"method":"${method}","params":${params}}`;
    },
  };
}

/** Reads a cursor: a number, or any id of an event. Undefined when it is neither. */
export function cursorOf(text: string): number | undefined {
  const seq = Number(/(?:^|[-:])(\d{1,16})$/.exec(text)?.[1]);
  return Number.isSafeInteger(seq) ? seq : undefined;
}
