// The read side of the event log: rows after a cursor, then a hint, then rows again, until the run is over.
// Replay and live are one path, so a stream can begin at any event, on any instance, at any time.
import { deadline } from "../clock.ts";
import { RunNotFound } from "../errors.ts";
import { persistently } from "../persist.ts";
import type { Queryable } from "../storage/database.ts";
import { listEvents } from "../storage/events.ts";
import type { LiveRuns } from "./live.ts";
import { isTerminal } from "./run.ts";

const PAGE = 500;
// A hint may be lost, and runs of other instances give none.
const POLL_MS = 500;

export interface Followed {
  readonly seq: number;
  readonly event: string;
  /** One JSON document. */
  readonly data: string;
}

/**
 * The events of a run after `after` (-1: from the first), each once and in order, live until the run is over.
 * @throws RunNotFound when there is no such run, or no longer
 */
export async function* follow(
  source: { database: Queryable; live: LiveRuns },
  runId: string,
  options: { after: number; signal: AbortSignal },
): AsyncGenerator<Followed> {
  let { after } = options;
  while (!options.signal.aborted) {
    const hinted = source.live.next(runId, deadline(POLL_MS, options.signal));
    const page = { after, limit: PAGE };
    const rows = await persistently(() => listEvents(source.database, runId, page), {
      signal: options.signal,
    });
    const [first] = rows;
    if (!first) throw new RunNotFound();
    for (const { seq, event, data } of rows) {
      if (seq === null) continue;
      yield { seq, event, data };
      after = seq;
    }
    if (rows.length === PAGE) continue;
    if (isTerminal(first.state)) return;
    await hinted;
  }
}
