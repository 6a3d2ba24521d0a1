// The runs of a thread in the order in which they began, whether or not somebody follows it by protocol v2.
// There is no index for that order: the run that is asked for is the live one, as a rule, and that is found by the index
// that keeps a thread from having two. Only who is behind it makes a statement read the thread's other runs.
import type { Queryable } from "./database.ts";

/** Where a thread stands. */
export interface ThreadPlace {
  /** Tells the thread from another one that was made under its id later. */
  readonly life: string;
  /** How many of its runs have begun. */
  readonly begun: number;
  /** The ordinal of the live run. */
  readonly live: number | null;
}

/** A run that has begun. */
export interface BegunRun {
  readonly run_id: string;
  readonly ordinal: number;
  /** Number of its first event that is shown under this ordinal. */
  readonly told_from: number;
}

/** An answer: one row for a thread that is there, at least; its run is null when none has begun yet. */
export interface BegunRow extends Pick<ThreadPlace, "life"> {
  /** The place of the question, from 1. */
  readonly n: number;
  readonly run_id: string | null;
  readonly ordinal: number;
  readonly told_from: number;
}

const findPlaceRow = `/* findThreadPlace */
select t.created_at::text as life, t.begun, r.ordinal as live
  from holdfast.threads t
  left join holdfast.runs r on r.thread_id = t.thread_id and r.state in ('ready', 'running')
 where t.thread_id = $1 and (not t.is_temporary or t.status = 'busy')`;

// The conditions on the thread stand inside: so a thread without news costs one look into its own row.
export const listBegunSql = `/* listBegun */
select q.n::int as n, t.created_at::text as life, r.run_id, r.ordinal, r.told_from
  from unnest($1::text[], $2::int[]) with ordinality as q (thread_id, ordinal, n)
  join holdfast.threads t using (thread_id)
  left join lateral (
    select run_id, ordinal, told_from from holdfast.runs
     where thread_id = q.thread_id and state in ('ready', 'running') and ordinal = q.ordinal and t.begun >= q.ordinal
    union all (
    select run_id, ordinal, told_from from holdfast.runs
     where thread_id = q.thread_id and ordinal >= q.ordinal and t.begun >= q.ordinal
       and not exists (select from holdfast.runs l
         where l.thread_id = q.thread_id and l.state in ('ready', 'running') and l.ordinal = q.ordinal)
     order by ordinal limit 100)) r on true
 order by q.n, r.ordinal`;

/** Undefined when there is no such thread, or when it was one run's alone and that is over. */
export async function findThreadPlace(on: Queryable, threadId: string): Promise<ThreadPlace | undefined> {
  const [row] = await on.query<ThreadPlace>(findPlaceRow, [threadId]);
  return row;
}

/** For each question the runs with this ordinal or a later one, up to 100, the earliest first. */
export const listBegun = (
  on: Queryable,
  questions: readonly { threadId: string; ordinal: number }[],
): Promise<BegunRow[]> =>
  on.query(listBegunSql, [
    questions.map(({ threadId }) => threadId),
    questions.map(({ ordinal }) => ordinal),
  ]);
