// Counts what callers use of limits per minute in Redis. While it does not answer, PostgreSQL counts in its place, from
// nothing, or requests are refused: as the operator wants it. No request waits for it longer than half a second.
import { RateLimiterRedis } from "rate-limiter-flexible";
import { uptime, within } from "../clock.ts";
import { LimitsUnavailable, messageOf } from "../errors.ts";
import type { Log } from "../telemetry/log.ts";
import { connectRedis, untilReady } from "./caches/redis.ts";
import type { RedisClient } from "./caches/redis.ts";
import type { Database } from "./database.ts";
import { counterOf, openCounter } from "./rate-limits.ts";
import type { Counter, CounterOptions, CounterStore } from "./rate-limits.ts";

const WAIT_MS = 500;
/** A Redis that failed is left alone for so long. */
const REST_MS = 1000;

export interface RedisCountersOptions {
  readonly database: Database;
  readonly log: Log;
  readonly fail: "open" | "closed";
}

export async function openRedisCounters(url: string, options: RedisCountersOptions): Promise<CounterStore> {
  const { database, log, fail } = options;
  const open = await connectRedis(url);
  let client = open();
  await untilReady(client);
  let restsUntil = 0;
  let isDown = false;

  const tell = (error?: unknown): void => {
    if (isDown === (error !== undefined)) return;
    isDown = error !== undefined;
    if (isDown) log.warn("limits.unavailable", { reason: messageOf(error) });
    else log.info("limits.available");
  };
  const asking = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    if (uptime() < restsUntil) return undefined;
    try {
      const done = await within(work(), WAIT_MS);
      tell();
      return done;
    } catch (error) {
      // Those that failed together rest together.
      if (uptime() < restsUntil) return undefined;
      restsUntil = uptime() + REST_MS;
      tell(error);
      // A connection whose other end is gone without a word looks alive for minutes, or never comes about.
      client.destroy();
      client = open();
      return undefined;
    }
  };
  return {
    counter: (counted) => {
      const inRedis = redisCounter(database, counted, () => client);
      const inPostgres = openCounter(database, counted);
      return {
        most: counted.most,
        emptyForMs: (who) => inRedis.emptyForMs(who),
        take: async (who, count) => {
          const usage = await asking(() => inRedis.take(who, count));
          if (usage) return usage;
          if (fail === "closed") throw new LimitsUnavailable();
          return inPostgres.take(who, count);
        },
      };
    },
    close: async () => {
      restsUntil = Infinity;
      client.destroy();
    },
  };
}

function redisCounter(
  database: Database,
  { name, most, seconds = 60 }: CounterOptions,
  clientNow: () => RedisClient,
): Counter {
  let made: { readonly client: RedisClient; readonly limiter: RateLimiterRedis } | undefined;
  return counterOf(database, most, () => {
    const client = clientNow();
    if (made?.client !== client) {
      const limiter = new RateLimiterRedis({
        storeClient: client,
        useRedisPackage: true,
        keyPrefix: `holdfast:limit:${name}`,
        points: most,
        duration: seconds,
        inMemoryBlockOnConsumed: most,
      });
      made = { client, limiter };
    }
    return made.limiter;
  });
}
