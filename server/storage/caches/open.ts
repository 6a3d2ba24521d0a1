// The cache of a server: PostgreSQL, or the Redis that is named.
import type { Config } from "../../config.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Database } from "../database.ts";
import { defaultScope } from "../scope.ts";
import { Caches } from "./caches.ts";
import { openCacheTable } from "./entries.ts";
import { openRedis } from "./redis.ts";

export async function openCaches(
  { cacheUrl, cacheFail }: Pick<Config, "cacheUrl" | "cacheFail">,
  database: Database,
  log: Log,
): Promise<Caches> {
  const scope = defaultScope;
  const store = cacheUrl === undefined ? openCacheTable(database, scope) : await openRedis(cacheUrl, scope);
  return new Caches({ database, scope, store, fail: cacheFail, log });
}
