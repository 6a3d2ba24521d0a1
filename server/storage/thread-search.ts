// Finding threads: one statement for a page in any order, one for its count. Both have the same filter, so that the count
// is that of all pages.
//
// The statements are planned anew for the values of each request: their tags have words after the name, and so they are
// not prepared. The planner then sees constants, drops the filters that are not asked for and is left with one plain
// column to order by, which is that of an index. A prepared statement would in time get one plan for all values, and that
// one reads and sorts the whole table. For metadata it also has to know the value: threads of one user come from the
// index of metadata, while those of the one graph there is are met soon enough in the order asked for.
import type { AuthFilter } from "./auth-filter.ts";
import { AppError } from "../errors.ts";
import type { Queryable } from "./database.ts";
import { holds } from "./json-match.ts";
import { openThreads } from "./threads.ts";
import type { StatefulThread, ThreadRow } from "./threads.ts";

export interface ThreadFilter {
  /** Only threads whose metadata holds all of this. */
  readonly metadata?: object | undefined;
  /** Only threads whose stored values hold all of this. */
  readonly values?: object | undefined;
  readonly ids?: readonly string[] | undefined;
  readonly status?: ThreadRow["status"] | undefined;
  /** Only threads that the caller may see. */
  readonly auth?: AuthFilter | undefined;
}

export interface ThreadPage extends ThreadFilter {
  readonly sortBy: "thread_id" | "status" | "created_at" | "updated_at" | "state_updated_at";
  readonly sortOrder: "asc" | "desc";
  readonly limit: number;
  readonly offset: number;
  /** Whether the states are wanted too: they may be large. */
  readonly withState: boolean;
}

// Values have no index. It would have to hold every message of every conversation, and each end of a run would take the
// whole state apart to write to it, while searches by values are rare and mostly narrowed by metadata. So this condition
// comes last and looks at what the others leave. The state is json, which keeps what jsonb refuses: a NUL or half a
// surrogate pair, always written as an escape. Neither can be asked for; here they count as U+FFFD.
const VALUES = `((case when state::text ~ '\\\\u(0000|d[89a-f])'
         then regexp_replace(state::text, '(?<!\\\\)((?:\\\\\\\\)*)\\\\u(?:0000|d[89a-f][0-9a-f]{2})', '\\1\\ufffd', 'g')::json
         else state end) -> 'values')::jsonb`;

// The rows keep their order: nothing is joined to them. State and checkpoints are looked at only for the page itself.
export const LIST_THREADS = `/* listThreads: planned for its values */
select thread_id, status, metadata, config, error, is_temporary, created_at, updated_at, state_updated_at,
       case when $10::boolean then state::text end as state,
       exists (select from public.checkpoints c where c.thread_id = page.thread_id) as has_checkpoints
  from (
    select * from holdfast.threads
     where not is_temporary and ($1::jsonb is null or metadata @> $1) and ($2::text[] is null or thread_id = any ($2))
       and ($3::text is null or status = $3) and ($5::jsonb is null or metadata @> $5)
       and ($4::jsonb is null or ${VALUES} @> $4)
     order by
      case when $7 = 'asc' and $6 = 'status' then status end asc,
      case when $7 = 'desc' and $6 = 'status' then status end desc,
      case when $7 = 'asc' then case $6 when 'created_at' then created_at when 'updated_at' then updated_at
        when 'state_updated_at' then state_updated_at when 'status' then created_at end end asc,
      case when $7 = 'desc' then case $6 when 'created_at' then created_at when 'updated_at' then updated_at
        when 'state_updated_at' then state_updated_at when 'status' then created_at end end desc,
      case when $7 = 'asc' then thread_id end asc, case when $7 = 'desc' then thread_id end desc
     limit $8 offset $9) as page`;

export const COUNT_THREADS = `/* countThreads: planned for its values */
select count(*) as count from holdfast.threads
 where not is_temporary and ($1::jsonb is null or metadata @> $1) and ($2::text[] is null or thread_id = any ($2))
   and ($3::text is null or status = $3) and ($5::jsonb is null or metadata @> $5)
   and ($4::jsonb is null or ${VALUES} @> $4)`;

const SCANNED = 200;

export async function listThreads(on: Queryable, page: ThreadPage): Promise<StatefulThread[]> {
  if (!asksSealed(on, page))
    return openEach(on, await on.query<StatefulThread>(LIST_THREADS, pageValues(page)));
  const { limit, offset, withState } = page;
  const found: StatefulThread[] = [];
  for await (const thread of threadsWith(on, page)) {
    found.push(withState ? thread : { ...thread, state: null });
    if (found.length === offset + limit) break;
  }
  return found.slice(offset);
}

/** Whether values are asked for that PostgreSQL cannot see. */
const asksSealed = (on: Queryable, { values }: ThreadFilter): boolean =>
  on.seals.isOn && jsonOf(values) !== null;

/** All threads of a filter in the order of the page, found by opening the states of those that the rest of it leaves. */
async function* threadsWith(on: Queryable, { values, ...page }: ThreadPage): AsyncGenerator<StatefulThread> {
  for (let offset = 0; ; offset += SCANNED) {
    const asked = pageValues({ ...page, limit: SCANNED, offset, withState: true });
    const rows = await openEach(on, await on.query<StatefulThread>(LIST_THREADS, asked));
    for (const thread of rows) if (hasValues(thread, values)) yield thread;
    if (rows.length < SCANNED) return;
  }
}

function hasValues({ state }: StatefulThread, wanted: object | undefined): boolean {
  if (state === null) return false;
  const { values } = JSON.parse(state, asStorable) as { values?: unknown };
  return holds(values, wanted);
}

// As VALUES has it.
const asStorable = (_: string, value: unknown): unknown =>
  typeof value === "string" ? value.toWellFormed().replaceAll("\0", "\ufffd") : value;

/** Opens what can be opened: a state that was altered is read from the checkpoints again, and hides no other thread. */
const openEach = (on: Queryable, rows: StatefulThread[]): Promise<StatefulThread[]> =>
  Promise.all(
    rows.map(async (row) => {
      try {
        const [opened = row] = await openThreads(on, [row]);
        return opened;
      } catch (error) {
        if (!(error instanceof AppError) || error.retryable) throw error;
        return { ...row, state: null, error: null };
      }
    }),
  );

const ANY_ORDER = { sortBy: "thread_id", sortOrder: "asc", limit: 0, offset: 0, withState: true } as const;

/** Reads all that match, most often from an index alone: ask only when a page does not tell it. */
export async function countThreads(on: Queryable, filter: ThreadFilter): Promise<number> {
  if (asksSealed(on, filter)) {
    let count = 0;
    for await (const _ of threadsWith(on, { ...filter, ...ANY_ORDER })) count += 1;
    return count;
  }
  const [row] = await on.query<{ count: number }>(COUNT_THREADS, filterValues(filter));
  return row?.count ?? 0;
}

/** The parameters of LIST_THREADS. */
export const pageValues = (page: ThreadPage): unknown[] => [
  ...filterValues(page),
  page.sortBy,
  page.sortOrder,
  page.limit,
  page.offset,
  page.withState,
];

/** The parameters of COUNT_THREADS. Everything holds an empty object, which is no filter then. */
export const filterValues = ({ metadata, values, ids, status, auth }: ThreadFilter): unknown[] => [
  jsonOf(metadata),
  ids ?? null,
  status ?? null,
  jsonOf(values),
  auth ?? null,
];

const jsonOf = (value: object | undefined): string | null =>
  value === undefined || Object.keys(value).length === 0 ? null : JSON.stringify(value);
