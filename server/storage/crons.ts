// Rows of holdfast.crons: what is run when. A cron that is due is claimed by one instance for a while; that it is fired
// once, although that instance may die, is up to the key of its run. Its time moves on only from the one that was fired.
import type { AuthFilter } from "./auth-filter.ts";
import type { Queryable } from "./database.ts";
import { openRows, placeOf, sealJson } from "./keys/sealed.ts";
import type { Readings } from "./keys/sealed.ts";
import { codeOf } from "./postgres.ts";
import type { RunAuth } from "./runs.ts";

export interface CronRow {
  readonly cron_id: string;
  readonly assistant_id: string;
  readonly thread_id: string | null;
  readonly schedule: string;
  readonly timezone: string | null;
  readonly end_time: Date | null;
  readonly on_run_completed: "delete" | "keep";
  readonly is_enabled: boolean;
  /** The fields of the run, as the client sent them. */
  readonly payload: Record<string, unknown>;
  readonly metadata: Record<string, unknown>;
  readonly next_run_at: Date | null;
  /** Why the last fire time made no run. */
  readonly error: string | null;
  readonly created_at: Date;
  readonly updated_at: Date;
}

export type NewCron = Omit<CronRow, "error" | "created_at" | "updated_at">;

/** What of a cron never changes and is not shown. */
interface CronOwner {
  /** Who made it, and so asks for its runs; null if nobody was asked who he is. */
  readonly auth: RunAuth | null;
}

export interface DueCron extends CronRow, CronOwner {
  readonly next_run_at: Date;
  /** The database's time of the claim: the one clock that all instances share. */
  readonly now: Date;
}

/** What says whether a cron is still what it was: when it was due, and when it was changed last. */
export type CronAsRead = Pick<DueCron, "cron_id" | "next_run_at" | "updated_at">;

export interface CronFilter {
  readonly assistantId?: string | undefined;
  readonly threadId?: string | undefined;
  readonly isEnabled?: boolean | undefined;
  readonly metadata?: object | undefined;
  /** Only crons that the caller may see. */
  readonly auth?: AuthFilter | undefined;
}

export interface CronPage extends CronFilter {
  readonly sortBy: "cron_id" | "assistant_id" | "thread_id" | "created_at" | "updated_at" | "next_run_date";
  readonly sortOrder: "asc" | "desc";
  readonly limit: number;
  readonly offset: number;
}

const FOREIGN_KEY_VIOLATION = "23503";

const findTimeRow = `/* findTime */ select now() as now`;

const insertCronRow = `/* insertCron */
insert into holdfast.crons (cron_id, assistant_id, thread_id, schedule, timezone, end_time, on_run_completed, is_enabled,
  payload, metadata, next_run_at, auth)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
returning cron_id, assistant_id, thread_id, schedule, timezone, end_time, on_run_completed, is_enabled, payload, metadata,
  next_run_at, error, created_at, updated_at`;

const cronOf = `
select cron_id, assistant_id, thread_id, schedule, timezone, end_time, on_run_completed, is_enabled, payload, metadata,
       next_run_at, error, created_at, updated_at
  from holdfast.crons where cron_id = $1`;
const findCronRow = `/* findCron */ ${cronOf}`;
const lockCronRow = `/* lockCron */ ${cronOf} for update`;

const updateCronRow = `/* updateCron */
update holdfast.crons
   set schedule = $2, timezone = $3, end_time = $4, on_run_completed = $5, is_enabled = $6, payload = $7, metadata = $8,
       next_run_at = $9, claimed_until = null, updated_at = now()
 where cron_id = $1
returning cron_id, assistant_id, thread_id, schedule, timezone, end_time, on_run_completed, is_enabled, payload, metadata,
  next_run_at, error, created_at, updated_at`;

const deleteCronRow = `/* deleteCron */ delete from holdfast.crons where cron_id = $1 returning cron_id`;

const listCronRows = `/* listCrons: planned for its values */
select cron_id, assistant_id, thread_id, schedule, timezone, end_time, on_run_completed, is_enabled, payload, metadata,
       next_run_at, error, created_at, updated_at
  from holdfast.crons
 where ($1::uuid is null or assistant_id = $1) and ($2::text is null or thread_id = $2)
   and ($3::boolean is null or is_enabled = $3) and ($4::jsonb is null or metadata @> $4)
   and ($5::jsonb is null or metadata @> $5)
 order by
  case when $7 = 'asc' then case $6 when 'created_at' then created_at when 'updated_at' then updated_at
    when 'next_run_date' then next_run_at end end asc nulls last,
  case when $7 = 'desc' then case $6 when 'created_at' then created_at when 'updated_at' then updated_at
    when 'next_run_date' then next_run_at end end desc nulls last,
  case when $7 = 'asc' then case $6 when 'assistant_id' then assistant_id::text when 'thread_id' then thread_id
    when 'cron_id' then cron_id::text end end asc nulls last,
  case when $7 = 'desc' then case $6 when 'assistant_id' then assistant_id::text when 'thread_id' then thread_id
    when 'cron_id' then cron_id::text end end desc nulls last,
  cron_id
 limit $8 offset $9`;

const countCronRows = `/* countCrons: planned for its values */
select count(*) as count from holdfast.crons
 where ($1::uuid is null or assistant_id = $1) and ($2::text is null or thread_id = $2)
   and ($3::boolean is null or is_enabled = $3) and ($4::jsonb is null or metadata @> $4)
   and ($5::jsonb is null or metadata @> $5)`;

const claimCronRows = `/* claimCrons */
with due as (
  select cron_id from holdfast.crons
   where is_enabled and next_run_at <= now() and (claimed_until is null or claimed_until <= now())
     and assistant_id in (select a.assistant_id from holdfast.assistants a where a.graph_id = any ($1::text[]))
   order by next_run_at limit $2 for update skip locked)
update holdfast.crons c set claimed_until = now() + $3 * interval '1 ms'
  from due where c.cron_id = due.cron_id
returning c.cron_id, c.assistant_id, c.thread_id, c.schedule, c.timezone, c.end_time, c.on_run_completed, c.is_enabled,
  c.payload, c.metadata, c.next_run_at, c.error, c.created_at, c.updated_at, c.auth, now() as now`;

// Whoever deletes or changes it waits for the run. Nobody is waited for here, because who deletes a thread has locked that
// before its crons: what is being changed counts as changed, and is fired as it then is.
const holdCronRow = `/* holdCron */
select from holdfast.crons
 where cron_id = $1 and next_run_at = $2 and date_trunc('milliseconds', updated_at) = $3 for share skip locked`;

const advanceCronRow = `/* advanceCron */
update holdfast.crons set next_run_at = $3, claimed_until = null, error = $4
 where cron_id = $1 and next_run_at = $2`;

const CRON_READINGS: Readings<CronRow & Partial<CronOwner>> = {
  payload: { name: "crons.payload", as: "json", row: (row) => [row.cron_id] },
  auth: { name: "crons.auth", as: "json", row: (row) => [row.cron_id] },
};

/** Crons as they were read, opened. @throws SealedValueInvalid, DataKeyUnusable */
export const openCrons = <Row extends CronRow>(on: Queryable, rows: Row[]): Promise<Row[]> =>
  openRows(on, rows, CRON_READINGS as Readings<Row>);

/** What time it is for whoever fires crons. */
export async function findTime(on: Queryable): Promise<Date> {
  const [row] = await on.query<{ now: Date }>(findTimeRow);
  if (!row) throw new Error("PostgreSQL did not say what time it is.");
  return row.now;
}

/** The new cron, or undefined when its thread does not exist. */
export async function insertCron(on: Queryable, cron: NewCron & CronOwner): Promise<CronRow | undefined> {
  const key = await on.seals.ofRest(on);
  const auth = cron.auth ? JSON.stringify(cron.auth) : null;
  try {
    const rows = await on.query<CronRow>(insertCronRow, [
      cron.cron_id,
      cron.assistant_id,
      cron.thread_id,
      cron.schedule,
      cron.timezone,
      cron.end_time,
      cron.on_run_completed,
      cron.is_enabled,
      sealJson(key, placeOf("crons.payload", [cron.cron_id]), JSON.stringify(cron.payload)),
      cron.metadata,
      cron.next_run_at,
      auth && sealJson(key, placeOf("crons.auth", [cron.cron_id]), auth),
    ]);
    const [row] = await openCrons(on, rows);
    return row;
  } catch (error) {
    if (codeOf(error) === FOREIGN_KEY_VIOLATION) return undefined;
    throw error;
  }
}

export async function findCron(on: Queryable, cronId: string): Promise<CronRow | undefined> {
  const [row] = await openCrons(on, await on.query<CronRow>(findCronRow, [cronId]));
  return row;
}

export async function lockCron(transaction: Queryable, cronId: string): Promise<CronRow | undefined> {
  const [row] = await openCrons(transaction, await transaction.query<CronRow>(lockCronRow, [cronId]));
  return row;
}

/** Replaces what can be changed. Lock the cron first. */
export async function updateCron(transaction: Queryable, cron: NewCron): Promise<CronRow | undefined> {
  const key = await transaction.seals.ofRest(transaction);
  const rows = await transaction.query<CronRow>(updateCronRow, [
    cron.cron_id,
    cron.schedule,
    cron.timezone,
    cron.end_time,
    cron.on_run_completed,
    cron.is_enabled,
    sealJson(key, placeOf("crons.payload", [cron.cron_id]), JSON.stringify(cron.payload)),
    cron.metadata,
    cron.next_run_at,
  ]);
  const [row] = await openCrons(transaction, rows);
  return row;
}

/** False: there was none. */
export async function deleteCron(on: Queryable, cronId: string): Promise<boolean> {
  return (await on.query(deleteCronRow, [cronId])).length > 0;
}

export async function listCrons(on: Queryable, page: CronPage): Promise<CronRow[]> {
  const values = [...filtered(page), page.sortBy, page.sortOrder, page.limit, page.offset];
  return openCrons(on, await on.query<CronRow>(listCronRows, values));
}

export async function countCrons(on: Queryable, filter: CronFilter): Promise<number> {
  const [row] = await on.query<{ count: number }>(countCronRows, filtered(filter));
  return row?.count ?? 0;
}

/** As they are stored: takes due crons whose assistants run these graphs for `leaseMs`, the longest overdue first. */
export async function claimCrons(
  on: Queryable,
  claim: { graphIds: readonly string[]; limit: number; leaseMs: number },
): Promise<DueCron[]> {
  return on.query<DueCron>(claimCronRows, [claim.graphIds, claim.limit, claim.leaseMs]);
}

/** Keeps a cron as it was read until the transaction ends. False: it was deleted, changed or moved on, or is just being. */
export async function holdCron(transaction: Queryable, cron: CronAsRead): Promise<boolean> {
  const values = [cron.cron_id, cron.next_run_at, cron.updated_at];
  return (await transaction.query(holdCronRow, values)).length > 0;
}

/** Moves a cron on from the time that it was due; one that was moved or changed meanwhile stays as it is. */
export async function advanceCron(
  on: Queryable,
  cron: DueCron,
  next: { at: Date | undefined; error: string | null },
): Promise<void> {
  await on.query(advanceCronRow, [cron.cron_id, cron.next_run_at, next.at ?? null, next.error]);
}

const filtered = ({ assistantId, threadId, isEnabled, metadata, auth }: CronFilter): unknown[] => [
  assistantId ?? null,
  threadId ?? null,
  isEnabled ?? null,
  metadata ? JSON.stringify(metadata) : null,
  auth ?? null,
];
