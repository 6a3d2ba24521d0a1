// Where limits per minute are counted: PostgreSQL, or the Redis that is named.
import type { Config } from "../config.ts";
import { ConfigInvalid } from "../errors.ts";
import type { Log } from "../telemetry/log.ts";
import type { Database } from "./database.ts";
import { openCounter } from "./rate-limits.ts";
import type { CounterStore } from "./rate-limits.ts";
import { openRedisCounters } from "./rate-redis.ts";

/** @throws ConfigInvalid when Redis is to count and none is named */
export function checkCounters({ limitStore, cacheUrl }: Pick<Config, "limitStore" | "cacheUrl">): void {
  if (limitStore === "redis" && cacheUrl === undefined)
    throw new ConfigInvalid("HOLDFAST_LIMIT_STORE is redis: set HOLDFAST_CACHE_URL to one.");
}

/** @throws ConfigInvalid as checkCounters does */
export async function openCounters(
  { limitStore, cacheUrl, cacheFail }: Pick<Config, "limitStore" | "cacheUrl" | "cacheFail">,
  database: Database,
  log: Log,
): Promise<CounterStore> {
  checkCounters({ limitStore, cacheUrl });
  if (limitStore === "postgres" || cacheUrl === undefined)
    return { counter: (options) => openCounter(database, options), close: async () => undefined };
  return openRedisCounters(cacheUrl, { database, log, fail: cacheFail });
}
