// A run that began before anybody followed its thread is written to the log for legacy clients alone. If it tells them its
// values, who comes in its midst gets these in the form of protocol v2: it needs no word to the server that executes it.
import { timeOf } from "../../storage/checkpoints/clock.ts";
import { nameOf } from "../log/lines.ts";
import type { Numbered, Whole } from "../log/lines.ts";
import { entryOf } from "./entries.ts";
import { asksOnly, wireToProtocol, withoutInterrupts } from "./plain.ts";

/** An event that tells legacy clients the values of a checkpoint of the graph itself. */
export interface ToldValues extends Numbered {
  readonly entry: Whole & { readonly checkpoint: string };
}

export const isToldValues = (event: Numbered): event is ToldValues =>
  event.entry.at === undefined && nameOf(event.entry) === "values" && "checkpoint" in event.entry;

/** When that checkpoint was made, in milliseconds since 1970. */
export const madeAt = ({ entry }: ToldValues): number => timeOf(entry.checkpoint);

/** The same event for who follows the thread, at the same place; undefined when it tells questions alone. */
export function asProtocol(event: ToldValues): Numbered | undefined {
  const given: unknown = JSON.parse(event.entry.data);
  if (asksOnly(given)) return undefined;
  const told = { name: "values", namespace: [], data: wireToProtocol(withoutInterrupts(given)) };
  return { seq: event.seq, entry: entryOf(told, madeAt(event)) };
}
