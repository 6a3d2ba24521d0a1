// Rows of holdfast.run_events: what a run's stream shows, numbered 0, 1, 2 … per run.
import type { RunState } from "../runs/run.ts";
import type { Queryable } from "./database.ts";

export interface RunEvent {
  readonly runId: string;
  readonly seq: number;
  readonly event: string;
  /** One JSON document. */
  readonly data: string;
}

export interface EventRow {
  readonly state: RunState;
  /** Null in the only row of a run without further events. */
  readonly seq: number | null;
  readonly event: string;
  readonly data: string;
}

// A batch whose commit was not confirmed is sent again: what is there already is the same event. A run that was
// deleted drops out; its foreign key would otherwise fail the events of all other runs in the batch.
const insertEventRows = `/* insertEvents */
insert into holdfast.run_events (run_id, seq, event, data)
select e.run_id, e.seq, e.event, e.data
  from unnest($1::uuid[], $2::int[], $3::text[], $4::text[]) as e (run_id, seq, event, data)
  join holdfast.runs r using (run_id)
   for key share of r
on conflict (run_id, seq) do nothing`;

// State and events in one snapshot: a run seen as ended has shown all its events.
const listEventRows = `/* listEvents */
select r.state, e.seq, e.event, e.data
  from holdfast.runs r
  left join lateral (
    select seq, event, data from holdfast.run_events where run_id = r.run_id and seq > $2 order by seq limit $3) e on true
 where r.run_id = $1 order by e.seq`;

export async function insertEvents(on: Queryable, events: readonly RunEvent[]): Promise<void> {
  await on.query(insertEventRows, [
    events.map(({ runId }) => runId),
    events.map(({ seq }) => seq),
    events.map(({ event }) => event),
    events.map(({ data }) => data),
  ]);
}

/** Events after `after`, oldest first, each with the run's state; no row at all when the run does not exist. */
export const listEvents = (
  on: Queryable,
  runId: string,
  page: { after: number; limit: number },
): Promise<EventRow[]> => on.query(listEventRows, [runId, page.after, page.limit]);
