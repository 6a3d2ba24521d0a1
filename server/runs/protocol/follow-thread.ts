// The events of a thread over all its runs, for as long as somebody watches. The log of one run after the other is
// followed, so what is seen is committed, and is the same on every instance and at every later time.
import { now, uptime } from "../../clock.ts";
import { RunNotFound } from "../../errors.ts";
import { persistently, unlessLost } from "../../persist.ts";
import { findThreadPlace } from "../../storage/begun.ts";
import { isTerminal as isOver } from "../../storage/run-states.ts";
import { findRun, findRunFacts } from "../../storage/runs.ts";
import type { RunRow } from "../../storage/runs.ts";
import { findNewestWatched, findUndone, watchThread } from "../../storage/watched.ts";
import type { NextWatched, ToldRun } from "../../storage/watched.ts";
import type { Engine } from "../engine.ts";
import { follow } from "../follow.ts";
import { nameOf } from "../log/lines.ts";
import type { Numbered } from "../log/lines.ts";
import { getState, getThread } from "../state.ts";
import { askingTasks } from "../state-shape.ts";
import { END_PLACE, entryOf, placeOf, shownOf } from "./entries.ts";
import type { ProtocolEvent, Shown } from "./entries.ts";
import { LeftOpen, isGraph, leftOpen } from "./left-open.ts";
import type { End } from "./left-open.ts";
import { toProtocolJson } from "./plain.ts";
import { asProtocol, isToldValues, madeAt } from "./untold.ts";
import type { ToldValues } from "./untold.ts";

// A thread that is not there is forgotten after a day, unless somebody says that he waits for it.
const STILL_HERE_MS = 60 * 60_000;

// What is left without a run that is gone, at places that its log never reaches.
const FIRST_LEFT = END_PLACE - 1000;
// Before those come the ends of what it left open, each as far from there as its begin is from the first event: they are
// the same for who has seen but a part of the run.
const FIRST_END = FIRST_LEFT - 2 ** 25;

const TERMINAL = new Set(["completed", "failed", "interrupted"]);

export interface Following {
  /** The thread-wide number of the last event that the client has. */
  readonly since?: number | undefined;
  /** Looks whether the client still may, as each run begins: the thread may be another one's by now. Throws if not. */
  readonly mayFollow: () => Promise<void>;
  /** Tells this event's run, and ends behind the event, or where it would be: it may be gone with its run. */
  readonly through?: number | undefined;
  readonly signal: AbortSignal;
}

/** From now on the thread's runs are told by protocol v2. Before that a follower may miss some. */
export const watch = ({ database }: Pick<Engine, "database">, threadId: string): Promise<void> =>
  watchThread(database, threadId);

/**
 * The thread's events, in batches, each event once and in order, for ever: until `signal` aborts.
 * Without a cursor they begin with the run that began last, the live one if there is one.
 */
export async function* followThread(
  engine: Engine,
  threadId: string,
  { since, mayFollow, through, signal }: Following,
): AsyncGenerator<Shown[]> {
  let { ordinal, position } = await beginOf(engine, threadId, { since, through, signal });
  let life: string | undefined;
  let saidAt = uptime();
  while (!signal.aborted) {
    if (uptime() - saidAt > STILL_HERE_MS) {
      saidAt = uptime();
      await persistently(() => watch(engine, threadId), { signal });
    }
    const hinted = engine.hints.next(threadId, signal);
    const next = await persistently(() => engine.reader.nextRun(threadId, ordinal), { signal });
    const isOther = !next || (life === undefined ? ordinal > next.begun : life !== next.life);
    life = next?.life;
    if (through !== undefined && (isOther || !hasRun(next) || next.ordinal > placeOf(through).ordinal))
      return;
    // A thread that is made under the id of a deleted one counts its runs from the first again.
    if (isOther) [ordinal, position] = [0, -1];
    if (isOther && next) continue;
    if (!next || !hasRun(next)) {
      await hinted;
      continue;
    }
    await persistently(mayFollow, { signal });
    if (next.ordinal !== ordinal) position = -1;
    yield* eventsOf(engine, { threadId, run: next, position, signal });
    ordinal = next.ordinal + 1;
    position = -1;
  }
}

const hasRun = (next: NextWatched): next is NextWatched & ToldRun => next.run_id !== null;

async function beginOf(
  { database }: Pick<Engine, "database">,
  threadId: string,
  { since, through, signal }: Omit<Following, "mayFollow">,
): Promise<{ ordinal: number; position: number }> {
  if (since !== undefined) return placeOf(since);
  if (through !== undefined) return { ordinal: placeOf(through).ordinal, position: -1 };
  const run = await persistently(() => findNewestWatched(database, threadId), { signal });
  return { ordinal: run?.ordinal ?? 0, position: -1 };
}

interface Rest {
  readonly threadId: string;
  readonly run: ToldRun;
  /** The place of the last event that the client has. */
  readonly position: number;
  readonly signal: AbortSignal;
}

/** The events of one run from after `position` to its end, whether or not its log holds one. */
async function* eventsOf(engine: Engine, rest: Rest): AsyncGenerator<Shown[]> {
  const { run, position, signal } = rest;
  if (position >= END_PLACE) return;
  const logged: Logged = run.undone_at ? { open: new LeftOpen() } : yield* loggedOf(engine, rest);
  const { last, values } = logged;
  if (signal.aborted || (last && isTerminal(last))) return;
  const ending = await persistently(() => endingOf(engine, rest, logged), { signal });
  const at = Math.max(ending.at, last?.entry.at ?? 0, values ? madeAt(values) : 0);
  const told = ending.ends.map((event) => ({ seq: FIRST_LEFT - 1 - event.place, entry: entryOf(event, at) }));
  for (const [index, event] of ending.left.entries())
    told.push({ seq: FIRST_LEFT + index, entry: entryOf(event, at) });
  const end: ProtocolEvent = { name: "lifecycle", namespace: [], data: JSON.stringify(ending.end) };
  told.push({ seq: END_PLACE, entry: entryOf(end, at) });
  const fresh = told.filter(({ seq }) => seq > position);
  if (fresh.length > 0) yield fresh.map((event) => shownOf(run, event));
}

/** Whether the client has seen but a part of what the log holds. */
const isInLog = ({ run, position }: Rest): boolean => position >= run.told_from && position < FIRST_END;

interface Logged {
  /** The last event before the run's end, or the client's own last one. */
  readonly last?: Numbered | undefined;
  /** The last that told values to legacy clients alone, if there is no such event. */
  readonly values?: ToldValues | undefined;
  /** What was begun meanwhile and not ended. */
  readonly open: LeftOpen;
}

/** What stands in a run's log behind `position`. */
async function* loggedOf(engine: Engine, rest: Rest): AsyncGenerator<Shown[], Logged> {
  const { run, position, signal } = rest;
  const has = Math.max(position, run.told_from - 1);
  // What the client has last is read once more: it says whether an end is still to come. All of it says what is left
  // without such an end.
  const after = isInLog(rest) ? position - 1 : run.told_from - 1;
  let last: Numbered | undefined;
  let values: ToldValues | undefined;
  let isLive: boolean | undefined;
  const open = new LeftOpen();
  try {
    for await (const events of follow(engine, run.run_id, { after, signal })) {
      const end = events.findIndex(isTerminal);
      const told = events
        .slice(0, end < 0 ? events.length : end + 1)
        .filter(({ entry }) => entry.at !== undefined);
      last = told.at(-1) ?? last;
      for (const { seq, entry } of told) open.see(entry, seq);
      const fresh = told.filter(({ seq }) => seq > has);
      if (fresh.length > 0) yield fresh.map((event) => shownOf(run, event));
      const newest = last ? undefined : events.findLast(isToldValues);
      if (newest) {
        values = newest;
        // Of one that is over already the end tells all that it left.
        isLive ??= await persistently(() => isAtWork(engine, run.run_id), { signal });
        const shown = isLive && newest.seq > has ? asProtocol(newest) : undefined;
        if (shown) yield [shownOf(run, shown)];
      }
      // What comes behind it is another try of the run, which has an ordinal of its own.
      if (end >= 0) break;
    }
  } catch (error) {
    if (!(error instanceof RunNotFound)) throw error;
  }
  return { last, values, open };
}

async function isAtWork({ database }: Engine, runId: string): Promise<boolean> {
  const facts = await findRunFacts(database, runId);
  return facts !== undefined && !isOver(facts.state);
}

interface Ending {
  /** The ends of what the run left open. */
  readonly ends: readonly End[];
  /** What the thread holds now. */
  readonly left: readonly ProtocolEvent[];
  /** The data of the last event. */
  readonly end: { readonly event: string; readonly error?: string };
  /** When it was over. */
  readonly at: number;
}

/**
 * How a run ended whose log does not say so: it was stopped between two servers or before it began, or deleted while
 * somebody watched; it was rolled back, perhaps while he was away; or it began before anybody watched.
 */
async function endingOf(engine: Engine, rest: Rest, { last, open }: Logged): Promise<Ending> {
  const { threadId, run } = rest;
  const { database } = engine;
  const ended = run.undone_at ? undefined : await unlessLost(() => findRun(database, run.run_id));
  const undone = ended || run.undone_at ? run : await findUndone(database, threadId, run.ordinal);
  const over = (ended?.ended_at ?? undone?.undone_at)?.getTime() ?? now();
  const isNewest = async (): Promise<boolean> =>
    (await findThreadPlace(database, threadId))?.begun === run.ordinal;
  const tellsState = !ended || (!last && (await isNewest()));
  const holds = tellsState ? await unlessLost(() => holdingsOf(engine, threadId)) : undefined;
  const at = Math.max(over, holds?.madeAt ?? 0);
  const end = endingEvent(ended, holds?.asks ?? false);
  // The log of a run that is gone is gone too.
  const isPart = ended !== undefined && isInLog(rest);
  const begun = isPart ? await leftOpen(engine, run.run_id, run.told_from) : open;
  const ends = begun.ends(end.event, (one) => isGraph(one) || !holds?.asks);
  return { ends, left: holds?.events ?? [], end, at };
}

function endingEvent(run: RunRow | undefined, asks: boolean): Ending["end"] {
  if (run?.state === "success" && !asks) return { event: "completed" };
  if (run?.state !== "error" && run?.state !== "timeout") return { event: "interrupted" };
  return { event: "failed", error: run.error?.message ?? "The run failed." };
}

interface Holdings {
  readonly events: readonly ProtocolEvent[];
  readonly asks: boolean;
  /** When its newest checkpoint was made: official clients drop what is older, and a server's clock may be ahead. */
  readonly madeAt: number;
}

/** What a thread holds: its values, and the questions that are open. */
async function holdingsOf(engine: Engine, threadId: string): Promise<Holdings> {
  const [{ status }, state] = await Promise.all([
    getThread(engine, threadId),
    getState(engine, threadId, { subgraphs: false }),
  ]);
  const asked = status === "interrupted" ? askingTasks(state).flatMap(({ interrupts }) => interrupts) : [];
  const questions = (asked as { id?: string; value?: unknown }[]).map(({ id, value }) => ({
    name: "input.requested",
    namespace: [],
    data: toProtocolJson({ interrupt_id: id, payload: value ?? null }),
  }));
  const values = { name: "values", namespace: [], data: toProtocolJson(state.values) };
  return {
    events: [values, ...questions],
    asks: status === "interrupted",
    madeAt: Date.parse(state.created_at ?? "") || 0,
  };
}

function isTerminal({ entry }: Numbered): boolean {
  if (entry.at === undefined || nameOf(entry) !== "lifecycle" || !("data" in entry)) return false;
  const { data } = JSON.parse(entry.data) as { data: { event: string } }; // written by entryOf
  return TERMINAL.has(data.event);
}
