// A run that began before anybody followed its thread is written to the log for legacy clients alone. If it tells them its
// values, who comes in its midst gets these in the form of protocol v2: it needs no word to the server that executes it.
import { timeOf } from "../../storage/checkpoint-clock.ts";
import { nameOf } from "../lines.ts";
import type { Entry, Numbered } from "../lines.ts";
import { entryOf } from "./entries.ts";
import { wireToProtocol } from "./plain.ts";

type Told = Entry & { readonly data: string; readonly checkpoint: string };

/** Whether an event tells legacy clients the values of a checkpoint of the graph itself. */
export const tellsValues = ({ entry }: Numbered): boolean => isOfCheckpoint(entry);

const isOfCheckpoint = (entry: Entry): entry is Told =>
  entry.at === undefined && nameOf(entry) === "values" && "checkpoint" in entry;

/** The same event for who follows the thread: at the same place, at the time of its checkpoint. */
export function asProtocol({ seq, entry }: Numbered): Numbered {
  if (!isOfCheckpoint(entry)) throw new TypeError("An event that tells no values of a checkpoint.");
  const { __interrupt__: _asked, ...values } = JSON.parse(entry.data) as Record<string, unknown>;
  const told = { name: "values", namespace: [], data: wireToProtocol(values) };
  return { seq, entry: entryOf(told, timeOf(entry.checkpoint)) };
}
