// The many small rows of a run's events, put together once it has ended and its readers are gone.
import type { Queryable } from "./database.ts";
import { openSegments, sealedBody } from "./events.ts";
import type { Segment } from "./events.ts";

const lockUncompactedRow = `/* lockUncompacted */
select r.run_id, t.data_key_id from holdfast.runs r join holdfast.threads t using (thread_id)
 where r.segments > 16 and r.ended_at < now() - $1 * interval '1 ms' and r.state in ('success', 'error', 'timeout', 'interrupted')
 order by r.ended_at limit 1 for no key update of r skip locked`;

const listRowsOfRun = `/* listEventRows */
select seq, last, attempt, body from holdfast.run_events where run_id = $1 and seq > $2 order by seq limit $3`;

// Their place is taken in the same statement, and only if they were there. Counted, because all of them must be gone by
// then: merely looked for, they would be deleted up to the first that is found.
const mergeRows = `/* mergeEventRows */
with gone as (delete from holdfast.run_events where run_id = $1 and seq between $2 and $3 returning 1)
insert into holdfast.run_events (run_id, seq, last, attempt, body)
select $1, $2, $3, $4, $5 where (select count(*) from gone) > 0`;

// A log that keeps more rows than would be looked for again counts as done.
const settleCompactedRow = `/* settleCompacted */
update holdfast.runs set segments = least($2, 16) where run_id = $1`;

/** A run whose events are to be put together. */
export interface ScatteredRun {
  readonly run_id: string;
  readonly data_key_id: string | null;
}

/** A run that ended `afterMs` ago and whose events stand in many rows, locked. */
export async function lockUncompacted(
  transaction: Queryable,
  afterMs: number,
): Promise<ScatteredRun | undefined> {
  const [row] = await transaction.query<ScatteredRun>(lockUncompactedRow, [afterMs]);
  return row;
}

interface EventRow extends Pick<Segment, "seq" | "last" | "attempt" | "body"> {}

/** Some rows are read at a time: a log may be large. */
const ROWS_AT_ONCE = 64;

/**
 * Puts the events of an ended run into few rows of about `maxBytes`; numbers and lines stay as they are. Rows that follow
 * each other in number and attempt become one; a jump in the numbers stays a border. Lock the run first.
 */
export async function compactRun(transaction: Queryable, run: ScatteredRun, maxBytes: number): Promise<void> {
  const key =
    run.data_key_id === null ? undefined : await transaction.seals.key(transaction, run.data_key_id);
  let [after, kept]: [number, number] = [-1, 0];
  let piece: EventRow[] = [];
  const flush = async (): Promise<void> => {
    const [first, last] = [piece[0], piece.at(-1)];
    if (!first || !last) return;
    kept += 1;
    if (piece.length > 1) {
      const merged = { runId: run.run_id, attempt: first.attempt, seq: first.seq, last: last.last, key };
      const body = sealedBody({ ...merged, isFirst: false, body: piece.map((row) => row.body).join("\n") });
      await transaction.query(mergeRows, [run.run_id, first.seq, last.last, first.attempt, body]);
    }
    piece = [];
  };
  for (;;) {
    const stored = await transaction.query<EventRow>(listRowsOfRun, [run.run_id, after, ROWS_AT_ONCE]);
    const rows = await openSegments(
      transaction,
      run.run_id,
      stored.map((row) => Object.assign({ n: 1, state: null }, row)),
    );
    for (const [index, { seq, last, body }] of rows.entries()) {
      const row = { seq: seq ?? 0, last, attempt: stored[index]?.attempt ?? 0, body };
      if (!goesOn(piece, row, maxBytes)) await flush();
      piece.push(row);
    }
    if (rows.length < ROWS_AT_ONCE) break;
    after = stored.at(-1)?.seq ?? after;
  }
  await flush();
  await settleCompacted(transaction, run.run_id, kept);
}

function goesOn(piece: readonly EventRow[], next: EventRow, maxBytes: number): boolean {
  const last = piece.at(-1);
  if (!last) return true;
  const bytes = piece.reduce((sum, { body }) => sum + body.length + 1, 0);
  return next.seq === last.last + 1 && next.attempt === last.attempt && bytes + next.body.length <= maxBytes;
}

/** The run is not looked for again. */
export async function settleCompacted(transaction: Queryable, runId: string, rows: number): Promise<void> {
  await transaction.query(settleCompactedRow, [runId, rows]);
}
