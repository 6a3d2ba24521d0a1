// What a run began for clients of protocol v2 and has not ended: graphs in the graph, and calls of tools. It ends with the
// run at the latest; official clients would show it as at work for ever.
import { AppError, RunNotFound, messageOf } from "../../errors.ts";
import type { Engine } from "../engine.ts";
import { readLog } from "../follow.ts";
import { dataOf, nameOf } from "../log/lines.ts";
import type { Entry } from "../log/lines.ts";
import { addressOf, eventOf } from "./entries.ts";
import type { ProtocolEvent } from "./entries.ts";

/** A graph in the graph, by its name, or the call of a tool, by its id. */
export interface Begun {
  readonly namespace: readonly string[];
  readonly graph?: string;
  readonly call?: string;
  /** What began later has a greater one. */
  readonly place: number;
}

export interface End extends ProtocolEvent {
  /** That of what it ends. */
  readonly place: number;
}

const REASONS: Readonly<Record<string, string>> = {
  failed: "The run failed.",
  interrupted: "The run was stopped.",
};

/** @param event how it ended, in the words of runs */
export function endOf({ namespace, graph, call, place }: Begun, event: string): End {
  const [name, data] =
    call === undefined
      ? ["lifecycle", { event, graph_name: graph }]
      : [
          "tools",
          { event: "tool-error", tool_call_id: call, message: REASONS[event] ?? "The run has ended." },
        ];
  return { place, name, namespace, data: JSON.stringify(data) };
}

export const isCall = ({ call }: Begun): boolean => call !== undefined;
export const isGraph = ({ graph }: Begun): boolean => graph !== undefined;

// What follows may be the output of a tool, which is long.
const CALL =
  /^\{(?:"node":"(?:[^"\\]|\\.)*",)?"data":\{"event":"([a-z-]+)","tool_call_id":("(?:[^"\\]|\\.)*")/;

export class LeftOpen {
  readonly #begun = new Map<string, Begun>();
  /** Places of calls that an attempt before has begun and this one has not made again. */
  readonly #expected = new Map<string, string>();
  #next = 0;

  /**
   * @param place the event's own in the log, if it has one by now
   * @returns whether it says nothing new: a call that an attempt before has begun is made again, and has one begin and
   *   one end to clients, which would wait for the end of each begin
   */
  see(entry: Entry, place = this.#next): boolean {
    this.#next = place + 1;
    const name = nameOf(entry);
    if (entry.at === undefined) return false;
    if (name.startsWith("lifecycle|")) this.#seeGraph(entry, place);
    else if (name === "tools" || name.startsWith("tools|")) return this.#seeCall(entry, place);
    return false;
  }

  /** This was begun by an attempt before, and may go on: the first first. */
  expect(all: readonly Begun[]): void {
    for (const begun of all) {
      this.#begin({ ...begun, place: this.#next++ });
      if (isCall(begun)) this.#expected.set(keyOf(begun), eventOf("tools", begun.namespace));
    }
  }

  /** The first first. */
  all(): Begun[] {
    return [...this.#begun.values()].toSorted((a, b) => a.place - b.place);
  }

  /** The ends of all, of what began last first. */
  ends(event: string, which: (begun: Begun) => boolean = () => true): End[] {
    return this.all()
      .filter(which)
      .map((begun) => endOf(begun, event))
      .toReversed();
  }

  #begin(begun: Begun): void {
    this.#begun.set(keyOf(begun), begun);
  }

  #seeGraph(entry: Entry, place: number): void {
    const { namespace } = addressOf(entry);
    const { data } = JSON.parse(dataOf(entry)) as { data: { event: string; graph_name: string } }; // written by entryOf
    const begun = { namespace, graph: data.graph_name, place };
    if (data.event === "started") this.#begin(begun);
    else this.#begun.delete(keyOf(begun));
  }

  #seeCall(entry: Entry, place: number): boolean {
    const [, event, id] = CALL.exec(dataOf(entry)) ?? [];
    if (id === undefined) return false;
    const begun = { namespace: addressOf(entry).namespace, call: JSON.parse(id) as string, place };
    const isKnown = event === "tool-started" && this.#expected.get(begun.call) === nameOf(entry);
    this.#expected.delete(begun.call);
    if (event === "tool-started" && !isKnown) this.#begin(begun);
    if (event === "tool-finished" || event === "tool-error") this.#begun.delete(keyOf(begun));
    return isKnown;
  }
}

const keyOf = ({ namespace, call }: Begun): string => call ?? eventOf("lifecycle", namespace);

/**
 * What a run's log leaves open; nothing if it cannot be read, since the run ends all the same.
 * @param from number of the first event that counts
 */
export async function leftOpen(
  engine: Pick<Engine, "log" | "reader">,
  runId: string,
  from = 0,
): Promise<LeftOpen> {
  const open = new LeftOpen();
  try {
    for await (const events of readLog(engine.reader, runId))
      for (const { seq, entry } of events) if (seq >= from) open.see(entry, seq);
    return open;
  } catch (error) {
    if (error instanceof AppError && error.retryable) throw error;
    const reason = messageOf(error);
    if (!(error instanceof RunNotFound)) engine.log.warn("log.unreadable", { run_id: runId, reason });
    return new LeftOpen();
  }
}
