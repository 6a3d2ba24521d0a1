// All runs of a thread as legacy clients see them, one after the other, for as long as somebody looks. The log of one run
// after the other is followed, so each event is committed, and has the same id on every instance, for ever.
import { InputInvalid, RunNotFound, ThreadNotFound } from "../errors.ts";
import { persistently, unlessLost } from "../persist.ts";
import { findThreadPlace } from "../storage/begun.ts";
import type { BegunRow, BegunRun } from "../storage/begun.ts";
import { findLastOfRun } from "../storage/checkpoints/rows.ts";
import type { Engine } from "./engine.ts";
import { follow } from "./follow.ts";
import { nameOf } from "./log/lines.ts";
import type { Numbered } from "./log/lines.ts";
import { END_PLACE as DONE, STATE_PLACE as STATE } from "./protocol/entries.ts";
import { getState } from "./state.ts";

/** A place in what a thread tells: behind the event at `position` of the log of the run with this ordinal. */
export interface Place {
  readonly ordinal: number;
  readonly position: number;
}

/** Where somebody begins, in a thread that was there. */
export interface Begin extends Place {
  readonly life: string;
}

/** Events of one run. */
export interface EventsOfRun {
  readonly ordinal: number;
  readonly events: readonly Numbered[];
}

const BEGINNING: Place = { ordinal: 0, position: DONE };
const MOST_ORDINAL = 2 ** 31 - 2;

/** The id of an event, from which a stream goes on behind it. */
export const idOf = ({ ordinal, position }: Place): string => `${ordinal}-${position}`;

/** Reads an id; `-1`, or `-`, means the whole thread. @throws InputInvalid */
export function readPlace(text: string): Place {
  if (text === "-1" || text === "-") return BEGINNING;
  const [, ordinal, position] = /^(\d{1,10})-(\d{1,8})$/.exec(text) ?? [];
  const place = { ordinal: Number(ordinal), position: Number(position) };
  if (place.ordinal <= MOST_ORDINAL && place.position <= DONE) return place;
  throw new InputInvalid("Last-Event-ID must be the id of an event of this stream, or -1 for all runs.");
}

/**
 * Where to begin: behind the event that the client has, else with the live run, else with the next one.
 * @throws ThreadNotFound
 * @throws InputInvalid for an event of a run that has not begun
 */
export async function findBegin(
  { database }: Pick<Engine, "database">,
  threadId: string,
  cursor: Place | undefined,
): Promise<Begin> {
  const thread = await findThreadPlace(database, threadId);
  if (!thread) throw new ThreadNotFound(threadId);
  const { life, begun, live } = thread;
  if (cursor && cursor.ordinal > begun)
    throw new InputInvalid("Last-Event-ID is the id of an event of another thread.");
  return { life, ...(cursor ?? { ordinal: live === null ? begun : live - 1, position: DONE }) };
}

interface Following {
  readonly begin: Begin;
  /** Whether to tell the thread's state at the end of each run. */
  readonly tellsState: boolean;
  readonly signal: AbortSignal;
}

/** The events of a thread's runs, each once and in order, until `signal` aborts or the thread is deleted. */
export async function* followRuns(
  engine: Engine,
  threadId: string,
  { begin, tellsState, signal }: Following,
): AsyncGenerator<EventsOfRun> {
  let { ordinal, position } = behind(begin);
  while (!signal.aborted) {
    const hinted = engine.hints.next(threadId, signal);
    const rows = await persistently(() => engine.reader.begunRuns(threadId, ordinal), { signal });
    if (rows[0]?.life !== begin.life) return;
    const runs = rows.filter(hasRun);
    if (runs.length === 0) await hinted;
    for (const run of runs) {
      const after = run.ordinal === ordinal ? position : -1;
      yield* eventsOf(engine, { threadId, run, after, tellsState, signal });
      if (signal.aborted) return;
      ordinal = run.ordinal + 1;
      position = -1;
    }
  }
}

const behind = ({ ordinal, position }: Place): Place =>
  position === DONE ? { ordinal: ordinal + 1, position: -1 } : { ordinal, position };

const hasRun = (row: BegunRow): row is BegunRow & BegunRun => row.run_id !== null;

/** The events of one run behind `after`, then its end. */
async function* eventsOf(
  engine: Engine,
  {
    threadId,
    run: { run_id: runId, ordinal, told_from: from },
    after,
    tellsState,
    signal,
  }: {
    threadId: string;
    run: BegunRun;
    after: number;
    tellsState: boolean;
    signal: AbortSignal;
  },
): AsyncGenerator<EventsOfRun> {
  let isKnown = after >= 0;
  try {
    const batches = after < STATE ? follow(engine, runId, { after: Math.max(after, from - 1), signal }) : [];
    for await (const batch of batches) {
      const events = batch.filter(({ entry }) => entry.at === undefined);
      const failed = events.findIndex(({ entry }) => nameOf(entry) === "error");
      isKnown = true;
      yield { ordinal, events: failed < 0 ? events : events.slice(0, failed + 1) };
      // What comes behind it is another try of the run, which has an ordinal of its own.
      if (failed >= 0) break;
    }
  } catch (error) {
    if (!(error instanceof RunNotFound)) throw error;
  }
  // Cancelled before it began, or rolled back or deleted before anybody saw it here.
  if (signal.aborted || !isKnown) return;
  if (tellsState && after < STATE) {
    const state = await persistently(() => stateAfter(engine, threadId, runId), { signal });
    if (state !== undefined) yield { ordinal, events: [entryAt(STATE, "state_update", state)] };
  }
  yield { ordinal, events: [entryAt(DONE, "metadata", { status: "run_done", run_id: runId })] };
}

const entryAt = (seq: number, event: string, data: object): Numbered => ({
  seq,
  entry: { event, data: JSON.stringify(data) },
});

/** What the thread held when a run was over; undefined when the run left nothing, or nothing that can be read here. */
async function stateAfter(engine: Engine, threadId: string, runId: string): Promise<object | undefined> {
  const checkpointId = await findLastOfRun(engine.database, threadId, runId);
  if (checkpointId === undefined) return undefined;
  const checkpoint = { checkpoint_id: checkpointId };
  const state = await unlessLost(() => getState(engine, threadId, { checkpoint, subgraphs: false }));
  return state && { thread_id: threadId, state };
}
