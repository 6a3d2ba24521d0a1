// What a run tells followers of its thread by protocol v2, from its begin to its end.
import { AppError, messageOf } from "../../errors.ts";
import { asFields } from "../../fields.ts";
import { persistently } from "../../persist.ts";
import type { Engine } from "../engine.ts";
import type { Entry } from "../log/lines.ts";
import type { Outcome } from "../outcome.ts";
import type { AcceptedRun } from "../request.ts";
import { getState } from "../state.ts";
import { clockFrom, openClock } from "./clock.ts";
import type { ProtocolEvent } from "./entries.ts";
import { leftOpen } from "./left-open.ts";
import { wireToProtocol } from "./plain.ts";
import { ProtocolProjection } from "./project.ts";
import type { Terminal } from "./project.ts";
import { ToolPlaces } from "./tool-places.ts";

export interface Told {
  readonly projection: Promise<ProtocolProjection>;
  /** What its graph has to be called with. */
  readonly callbacks: readonly ToolPlaces[];
  /** The first events of an attempt, once. One that ends without them is told them with its end. */
  begin(): Promise<Entry[]>;
  /** The last ones of the run; none when it goes on elsewhere or leaves no trace. */
  end(outcome: Outcome): Promise<Entry[]>;
}

export function tell(engine: Engine, run: AcceptedRun): Told {
  const { database, log } = engine;
  const failures = new Set<string>();
  const onFailure = (failure: unknown): void => {
    const reason = messageOf(failure);
    // One may fail at each event.
    if (!failures.has(reason)) log.warn("transformer.failed", { run_id: run.run_id, reason });
    failures.add(reason);
  };
  const places = new ToolPlaces();
  const opening = async (): Promise<ProtocolProjection> => {
    // A thread's first run has nothing to be later than.
    const isFirst = run.ordinal === 1 && run.attempt === 1 && !run.has_checkpoints;
    const open = (): Promise<() => number> => openClock(database, run.thread_id, run.ordinal ?? 0);
    const clock = isFirst ? clockFrom(0) : await persistently(open);
    return new ProtocolProjection(run.graph_id, clock, onFailure, places);
  };
  const projection = opening();
  projection.catch(() => undefined); // whoever needs it is told
  let isBegun = false;
  const begin = async (): Promise<Entry[]> => {
    const open = await projection;
    if (isBegun) return [];
    isBegun = true;
    return open.begin(answeredBy(run));
  };
  return {
    projection,
    callbacks: [places],
    begin,
    end: async (outcome) => {
      const terminal = terminalOf(outcome);
      const open = await projection.catch(() => undefined);
      if (!terminal || !open) return [];
      const first = await begin();
      // Such a takeover has not looked at what the attempts before have told.
      const isBlind = first.length > 0 && run.attempt > 1;
      const left = isBlind ? await leftOpen(engine, run.run_id) : undefined;
      const told = isBlind ? await valuesOf(engine, run.thread_id) : [];
      return [
        ...first,
        ...open.tell([...told, ...(left?.ends(terminal.event) ?? [])]),
        ...(await open.end(terminal)),
      ];
    },
  };
}

/** What finished tasks have said is in no values yet, and clients drop that when an attempt begins. */
async function valuesOf(engine: Engine, threadId: string): Promise<ProtocolEvent[]> {
  try {
    const { values } = await getState(engine, threadId, { subgraphs: false });
    return [{ name: "values", namespace: [], data: wireToProtocol(values) }];
  } catch (error) {
    if (error instanceof AppError && error.retryable) throw error;
    return []; // whatever the graph throws: a state that nobody can read keeps no run from its end
  }
}

// LangGraph names a question by a hash.
const QUESTION_ID = /^[0-9a-f]{32}$/;

/** Whether the run answers a question, by its name or not. */
export const bringsAnswer = ({ kwargs }: AcceptedRun): boolean =>
  (kwargs.command?.["resume"] ?? null) !== null;

/** Ids of the questions that the run answers by name. */
export function answeredBy({ kwargs }: AcceptedRun): string[] {
  const ids = Object.keys(asFields(kwargs.command?.["resume"]));
  return ids.every((id) => QUESTION_ID.test(id)) ? ids : [];
}

/** The run goes on from the thread's state, and has no answer for whoever asks first. */
export function goesOnUnanswered(run: AcceptedRun): boolean {
  const { command, input } = run.kwargs;
  return command ? !bringsAnswer(run) || answeredBy(run).length > 0 : (input ?? null) === null;
}

function terminalOf({ state, error, threadStatus, cause }: Outcome): Terminal | undefined {
  if (state === "rolled back" || state === "handed over") return undefined;
  if (state === "success")
    return threadStatus === "interrupted" ? { event: "interrupted", asks: true } : { event: "completed" };
  if (state === "interrupted") return { event: "interrupted" };
  const message = error?.message ?? "The run failed.";
  return { event: "failed", error: cause ?? message, about: { error: message, ...refusalOf(cause) } };
}

/** Why an answer was refused, in the words that official clients read. */
function refusalOf(cause: unknown): object {
  if (!(cause instanceof Error) || cause.name !== "UnknownInterruptError") return {};
  const { reason, interruptIds, pendingIds } = cause as Error & Record<string, unknown>; // read leniently
  return { reason, interrupt_ids: interruptIds ?? [], pending_ids: pendingIds ?? [] };
}
