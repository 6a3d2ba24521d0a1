// Rows of holdfast.webhooks, the outbox of call-backs. A row is written in the statement that ends its run; here it is
// claimed, sent again, and let go. Who claims a row holds it until next_at: a sender that dies is followed by another.
import type { Queryable } from "./database.ts";
import { openRows } from "./keys/sealed.ts";

export interface DueWebhook {
  readonly webhook_id: string;
  readonly run_id: string;
  readonly url: string;
  /** Host and port that it goes to, empty for this server itself. */
  readonly origin: string;
  /** One JSON object, as it was stored. */
  readonly payload: string;
  /** This one included; with it a claim can be told from a later one. */
  readonly attempts: number;
}

export interface WebhookRow {
  readonly webhook_id: string;
  readonly run_id: string;
  readonly url: string;
  readonly state: "pending" | "delivered" | "parked";
  readonly attempts: number;
  readonly next_at: Date;
  readonly error: string | null;
  readonly created_at: Date;
  readonly ended_at: Date | null;
}

// Addresses are spelt as their clients did. Who spells one in many ways has as many origins, as with many names.
const originOf = `case when url like '/%' then ''
  else coalesce(nullif(lower(split_part(split_part(split_part(url, '/', 3), '?', 1), '#', 1)), ''), url) end`;

const claimWebhookRows = `/* claimWebhooks */
with due as (
  select webhook_id, ${originOf} as origin from holdfast.webhooks
   where state = 'pending' and next_at <= now() and ($3::boolean or url not like '/%')
     and (cardinality($4::text[]) = 0 or ${originOf} <> all ($4))
   order by next_at limit $1 for update skip locked)
update holdfast.webhooks w set attempts = w.attempts + 1, next_at = now() + $2 * interval '1 ms'
  from due where w.webhook_id = due.webhook_id
returning w.webhook_id, w.run_id, w.url, due.origin, w.payload::text as payload, w.attempts`;

// What was delivered is the receiver's: only the fact is kept.
const finishWebhookRow = `/* finishWebhook */
update holdfast.webhooks set state = 'delivered', payload = '{}', error = null, ended_at = now()
 where webhook_id = $1 and attempts = $2 and state = 'pending'`;

const deferWebhookRow = `/* deferWebhook */
update holdfast.webhooks set next_at = now() + $3 * interval '1 ms', error = $4
 where webhook_id = $1 and attempts = $2 and state = 'pending'`;

const parkWebhookRow = `/* parkWebhook */
update holdfast.webhooks set state = 'parked', error = $3, ended_at = now()
 where webhook_id = $1 and attempts = $2 and state = 'pending'`;

const listWebhookRows = `/* listWebhooks */
select webhook_id, run_id, url, state, attempts, next_at, error, created_at, ended_at from holdfast.webhooks
 where $1::text is null or state = $1 order by webhook_id desc limit $2`;

const replayWebhookRows = `/* replayWebhooks */
update holdfast.webhooks set state = 'pending', attempts = 0, next_at = now(), ended_at = null
 where state = 'parked' and ($1::uuid[] is null or webhook_id = any ($1))
returning webhook_id`;

const deleteOldWebhookRows = `/* deleteOldWebhooks */
delete from holdfast.webhooks where webhook_id in (
  select webhook_id from holdfast.webhooks
   where state <> 'pending' and ended_at < now() - case state when 'delivered' then $1::int else $2::int end * interval '1 day'
   order by ended_at limit $3 for update skip locked)
returning webhook_id`;

/** The row with its payload opened. @throws SealedValueInvalid, DataKeyUnusable */
export async function openWebhook(on: Queryable, row: DueWebhook): Promise<DueWebhook> {
  const [opened = row] = await openRows<DueWebhook>(on, [row], {
    payload: { name: "webhooks.payload", as: "json text", row: (one) => [one.webhook_id] },
  });
  return opened;
}

/**
 * As they are stored: takes up to `limit` due rows for `leaseMs`; those for this server itself only if it has an
 * address, those for an origin in `busy` not at all.
 */
export const claimWebhooks = (
  on: Queryable,
  claim: { limit: number; leaseMs: number; hasLoopback: boolean; busy?: readonly string[] },
): Promise<DueWebhook[]> =>
  on.query(claimWebhookRows, [claim.limit, claim.leaseMs, claim.hasLoopback, claim.busy ?? []]);

/** Ends a row as delivered. A claim that was overtaken changes nothing, here and below. */
export async function finishWebhook(on: Queryable, { webhook_id: id, attempts }: DueWebhook): Promise<void> {
  await on.query(finishWebhookRow, [id, attempts]);
}

export async function deferWebhook(
  on: Queryable,
  { webhook_id: id, attempts }: DueWebhook,
  after: { ms: number; error: string },
): Promise<void> {
  await on.query(deferWebhookRow, [id, attempts, after.ms, after.error]);
}

export async function parkWebhook(
  on: Queryable,
  { webhook_id: id, attempts }: DueWebhook,
  error: string,
): Promise<void> {
  await on.query(parkWebhookRow, [id, attempts, error]);
}

/** Newest first. */
export const listWebhooks = (
  on: Queryable,
  query: { state: WebhookRow["state"] | undefined; limit: number },
): Promise<WebhookRow[]> => on.query(listWebhookRows, [query.state ?? null, query.limit]);

/** Sends parked rows again, under the same ids; all of them when no ids are given. Returns those it found. */
export async function replayWebhooks(on: Queryable, ids: readonly string[] | undefined): Promise<string[]> {
  const rows = await on.query<{ webhook_id: string }>(replayWebhookRows, [ids ?? null]);
  return rows.map(({ webhook_id: id }) => id);
}

/** Removes rows that ended long ago. Returns how many. */
export async function deleteOldWebhooks(
  on: Queryable,
  keep: { deliveredDays: number; parkedDays: number; limit: number },
): Promise<number> {
  return (await on.query(deleteOldWebhookRows, [keep.deliveredDays, keep.parkedDays, keep.limit])).length;
}
