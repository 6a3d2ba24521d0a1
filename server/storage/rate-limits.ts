// Counts what callers use of limits per minute, in PostgreSQL, so that all servers together allow exactly what a limit
// says. A caller is kept under a pseudonym. Who has used up his minute is refused from memory until it ends.
import { RateLimiterPostgres, RateLimiterRes } from "rate-limiter-flexible";
import type { RateLimiterStoreAbstract } from "rate-limiter-flexible";
import { now } from "../clock.ts";
import type { Database, Queryable } from "./database.ts";
import { pseudonymOf } from "./keys/pseudonyms.ts";

declare module "rate-limiter-flexible" {
  interface RateLimiterStoreAbstract {
    // Left out of the library's types.
    getInMemoryBlockMsBeforeExpire(prefixedKey: string): number;
  }
}

export interface Usage {
  readonly isAllowed: boolean;
  /** What is left in this minute. */
  readonly remaining: number;
  /** When the minute ends, in milliseconds from now. */
  readonly endsInMs: number;
}

export interface CounterOptions {
  /** Of the limit; counters of the same name count together. */
  readonly name: string;
  /** How much each caller has in `seconds`, from his first request on. */
  readonly most: number;
  readonly seconds?: number;
}

/** Where limits are counted. */
export interface CounterStore {
  counter(options: CounterOptions): Counter;
  close(): Promise<void>;
}

export interface Counter {
  readonly most: number;
  /**
   * Takes `count` of what is left to `who`, all or nothing.
   * @throws DatabaseUnavailable
   */
  take(who: string, count: number): Promise<Usage>;
  /** How long this process knows `who` to have nothing left, in milliseconds. */
  emptyForMs(who: string): Promise<number>;
}

interface Statement {
  readonly name: string;
  readonly values: readonly unknown[];
}

// The library's statements, by the clock of the database: it would have each server count by its own, and one that was ahead
// would begin a new minute whenever it is asked. What ends later than a minute can was written before that clock was set.
const NOW = "(extract(epoch from now()) * 1000)::bigint";
const isOver = `(r.expire <= ${NOW} or r.expire > ${NOW} + 2 * $3::bigint)`;
const takeRow = `/* takeOfLimit */
insert into holdfast.rate_limits as r (key, points, expire) values ($1, $2::integer, ${NOW} + $3::bigint)
on conflict (key) do update set
  points = case when ${isOver} then excluded.points else r.points + excluded.points end,
  expire = case when ${isOver} then excluded.expire else r.expire end
returning points, expire - ${NOW} + $4::bigint as expire`;
const findTakenRow = `/* findTakenOfLimit */
select points, expire - ${NOW} + $2::bigint as expire from holdfast.rate_limits r where key = $1 and not ${isOver}`;

// Older servers count by their own clocks, which differ by less than this minute.
const deleteOldRows = `/* deleteOldRateLimits */
delete from holdfast.rate_limits where key in (
  select key from holdfast.rate_limits where expire < (extract(epoch from now()) * 1000)::bigint - 60000
   limit $1 for update skip locked)
returning 1`;

export function openCounter(database: Database, { name, most, seconds = 60 }: CounterOptions): Counter {
  const limiter = new RateLimiterPostgres({
    storeClient: clientOf(database, seconds * 1000),
    storeType: "client",
    schemaName: "holdfast",
    tableName: "rate_limits",
    tableCreated: true,
    clearExpiredByTimeout: false,
    keyPrefix: name,
    points: most,
    duration: seconds,
    inMemoryBlockOnConsumed: most,
  });
  return counterOf(database, most, () => limiter);
}

/** @param limiterNow the one that counts at the moment */
export const counterOf = (
  database: Database,
  most: number,
  limiterNow: () => RateLimiterStoreAbstract,
): Counter => ({
  most,
  emptyForMs: async (who) => blockedForMs(limiterNow(), await pseudonymOf(database, who)),
  take: async (who, count) => {
    const limiter = limiterNow();
    const key = await pseudonymOf(database, who);
    blockedForMs(limiter, key);
    // What is refused counts too: several that do not fit must not use up what others still could.
    const before = count > 1 ? await limiter.get(key) : null;
    const left = before?.remainingPoints ?? most;
    if (left < count)
      return { isAllowed: false, remaining: left, endsInMs: before?.msBeforeNext ?? limiter.duration * 1000 };
    try {
      return usageOf(await limiter.consume(key, count), true);
    } catch (error) {
      if (!(error instanceof RateLimiterRes)) throw error;
      // Another of his may have come between. Who is refused from memory has taken nothing.
      if (count > 1 && error.consumedPoints > 0) return await givenBack(limiter, key, count);
      return usageOf(error, false);
    }
  },
});

/** The library remembers until when, by the clock of this server: that was set back where it would be too long. */
function blockedForMs(limiter: RateLimiterStoreAbstract, key: string): number {
  const ms = limiter.getInMemoryBlockMsBeforeExpire(limiter.getKey(key));
  if (ms <= limiter.duration * 1000) return ms;
  limiter.deleteInMemoryBlockedAll();
  return 0;
}

async function givenBack(limiter: RateLimiterStoreAbstract, key: string, count: number): Promise<Usage> {
  const usage = usageOf(await limiter.reward(key, count), false);
  limiter.deleteInMemoryBlockedAll();
  return usage;
}

/** Forgets up to `limit` minutes that are over. */
export const deleteOldRateLimits = async (transaction: Queryable, limit: number): Promise<number> =>
  (await transaction.query(deleteOldRows, [limit])).length;

const usageOf = ({ remainingPoints, msBeforeNext }: RateLimiterRes, isAllowed: boolean): Usage => ({
  isAllowed,
  remaining: remainingPoints,
  endsInMs: msBeforeNext,
});

/** Our database as the library takes one. Times are told in the clock of this server, as the library reads them. */
const clientOf = (database: Database, durationMs: number): object => ({
  query: async ({ name, values: [key, ...values] }: Statement) => {
    const isRead = name === "rate_limits:rlflx-get";
    if (!isRead && name !== "rate_limits:rlflx-upsert") throw new Error(`No statement is known for ${name}.`);
    const rows = isRead
      ? await database.query(findTakenRow, [key, now(), durationMs])
      : await database.query(takeRow, [key, values[0], durationMs, now()]);
    return { rows, rowCount: rows.length };
  },
});
