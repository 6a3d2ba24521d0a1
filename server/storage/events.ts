// Rows of holdfast.run_events: what a run's stream shows. One row holds the events seq … last as lines of text;
// the form of a line belongs to runs/lines.ts.
import { DatabaseUnavailable, LeaseLost, messageOf } from "../errors.ts";
import type { AppError } from "../errors.ts";
import type { DataKey } from "../privacy/seal.ts";
import type { Queryable } from "./database.ts";
import { isOwn } from "./fence.ts";
import { openRows, placeOf, sealText } from "./keys/sealed.ts";
import type { RunState } from "./run-states.ts";

/** Consecutive events of one run, as one row. */
export interface Segment {
  readonly runId: string;
  readonly attempt: number;
  readonly seq: number;
  readonly last: number;
  readonly body: string;
  /** Nothing of this attempt comes before it. */
  readonly isFirst: boolean;
  /** Under which it is sealed when it is written. */
  readonly key?: DataKey | undefined;
}

export interface SegmentRow {
  /** Position of the question this row answers. */
  readonly n: number;
  /** Null when there is no such run. */
  readonly state: RunState | null;
  /** Null in the only row of a run without further events. */
  readonly seq: number | null;
  readonly last: number;
  readonly body: string;
  /** There may be more than what was asked for at a time. */
  readonly is_more?: boolean;
}

// A batch whose commit was not confirmed is sent again, and finds its rows.
const insertSegmentRows = `/* insertSegments */
with held as (
  select r.run_id, r.attempt, s.seq, s.last, s.body
    from json_to_recordset($1::json) as s (run_id uuid, attempt int, seq int, last int, body text)
   cross join lateral (
    select run_id, attempt from holdfast.runs o
     where o.run_id = s.run_id and ${isOwn("o", { attempt: "s.attempt", worker: "$2" })} for share) r),
put as (
  insert into holdfast.run_events (run_id, seq, last, attempt, body)
  select run_id, seq, last, attempt, body from held
  on conflict (run_id, seq) do nothing)
select run_id, attempt from held`;

// State and events in one snapshot: a run seen as ended has shown all its events.
const listSegmentRows = `/* listSegments */
select q.n::int as n, r.state, e.seq, e.last, e.body, e.is_more
  from unnest($1::uuid[], $2::int[]) with ordinality as q (run_id, after, n)
  left join holdfast.runs r using (run_id)
  left join lateral (
    select seq, last, body, count(*) over () = $3 or row_number() over (order by seq) < count(*) over () as is_more,
           sum(octet_length(body)) over (order by seq) - octet_length(body) as before
      from (
        select seq, last, body from holdfast.run_events e
         where e.run_id = r.run_id and e.last > q.after and e.seq >= coalesce((
           select max(f.seq) from holdfast.run_events f where f.run_id = r.run_id and f.seq <= q.after), 0)
         order by e.seq limit $3) few) e on e.before < $4
 order by q.n, e.seq`;

const findSegmentRow = `/* findSegment */
select 1 as n, null as state, seq, last, body from holdfast.run_events
 where run_id = $1 and seq <= $2 order by seq desc limit 1`;

const findLastRow = `/* findLastEvent */
select last, attempt from holdfast.run_events where run_id = $1 order by seq desc limit 1`;

const relaxSession = `/* commitWithoutWaiting */ select set_config('synchronous_commit', 'off', false)`;

const deleteRunEventRows = `/* deleteRunEvents */ delete from holdfast.run_events where run_id = any ($1::uuid[])`;

/** Lets the session's commits return before they are on disk. A crash of the database may then lose the last of them. */
export async function commitWithoutWaiting(session: Queryable): Promise<void> {
  await session.query(relaxSession);
}

/** Segments as they are sent, sealed. */
export type Packed = string & { readonly packed: true };

export const pack = (segments: readonly Segment[]): Packed =>
  JSON.stringify(
    segments.map((one) => {
      const { runId, attempt, seq, last } = one;
      return { run_id: runId, attempt, seq, last, body: sealedBody(one) };
    }),
  ) as Packed;

/** One for all of them; none may be empty. */
export const packedAsOne = (all: readonly Packed[]): Packed =>
  `[${all.map((one) => one.slice(1, -1)).join(",")}]` as Packed;

/** Writes segments of runs that `workerId` owns. Returns the runs, with their attempts, that it does own. */
export const insertPacked = (
  on: Queryable,
  workerId: string,
  packed: Packed,
): Promise<{ run_id: string; attempt: number }[]> => on.query(insertSegmentRows, [packed, workerId]);

/** The same for segments that are written once. */
export const insertSegments = (
  on: Queryable,
  workerId: string,
  segments: readonly Segment[],
): ReturnType<typeof insertPacked> => insertPacked(on, workerId, pack(segments));

/** Why a run whose events could not be written must stop: the database is away, or it refuses these events. */
export const unwritten = (error: unknown): AppError =>
  error instanceof DatabaseUnavailable
    ? error
    : new LeaseLost(`Its events could not be written: ${messageOf(error)}`);

/** The events of a segment as they are stored. */
export const sealedBody = ({ runId, seq, body, key }: Segment): string =>
  sealText(key, placeOf("run_events.body", [runId, seq]), body);

/** Segments of one run as they were read, opened. @throws SealedValueInvalid, DataKeyUnusable */
export const openSegments = (on: Queryable, runId: string, rows: SegmentRow[]): Promise<SegmentRow[]> =>
  openRows(on, rows, {
    body: { name: "run_events.body", as: "text", row: ({ seq }) => [runId, seq ?? -1] },
  });

/**
 * Segments with events after each cursor, oldest first, as they are stored; at least one row for each question, and no
 * more than `limit`, or than it takes to have `bytes`.
 */
export const listSegments = (
  on: Queryable,
  cursors: readonly { runId: string; after: number }[],
  { limit, bytes }: { limit: number; bytes: number },
): Promise<SegmentRow[]> =>
  on.query(listSegmentRows, [
    cursors.map(({ runId }) => runId),
    cursors.map(({ after }) => after),
    limit,
    bytes,
  ]);

/** The segment that holds event `seq` of a run. */
export async function findSegment(
  on: Queryable,
  runId: string,
  seq: number,
): Promise<SegmentRow | undefined> {
  const [row] = await openSegments(on, runId, await on.query<SegmentRow>(findSegmentRow, [runId, seq]));
  return row;
}

/** The number of a run's last event, -1 when it has none, and the attempt that wrote it. */
export async function findLastEvent(
  on: Queryable,
  runId: string,
): Promise<{ last: number; attempt: number }> {
  const [row] = await on.query<{ last: number; attempt: number }>(findLastRow, [runId]);
  return row ?? { last: -1, attempt: 1 };
}

export async function deleteRunEvents(on: Queryable, runIds: readonly string[]): Promise<void> {
  await on.query(deleteRunEventRows, [runIds]);
}
