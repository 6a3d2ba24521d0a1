// Caches over the database of a test, or over a Redis, and what they log.
import { Caches } from "../../server/storage/caches/caches.ts";
import type { CachesOptions } from "../../server/storage/caches/caches.ts";
import { openCacheTable } from "../../server/storage/caches/entries.ts";
import { openRedis } from "../../server/storage/caches/redis.ts";
import type { Database } from "../../server/storage/database.ts";
import { defaultScope } from "../../server/storage/scope.ts";

export interface TestCaches {
  readonly caches: Caches;
  /** The names of what was logged. */
  readonly logged: string[];
}

/** @param redis its address; undefined for PostgreSQL */
export async function openTestCaches(
  database: Database,
  redis?: string,
  options: Partial<Pick<CachesOptions, "fail" | "scope">> = {},
): Promise<TestCaches> {
  const logged: string[] = [];
  const note = (event: string): void => void logged.push(event);
  const { scope = defaultScope, fail = "open" } = options;
  const store = redis === undefined ? openCacheTable(database, scope) : await openRedis(redis, scope);
  const log = { debug: note, info: note, warn: note, error: note };
  return { caches: new Caches({ database, scope, store, fail, log }), logged };
}
