// Stands in the way of statements: holds a row or a table of a database, and tells when somebody waits for it.
import type { Database, Session } from "../../server/storage/database.ts";
import { until } from "./until.ts";

/** Holds what the statement locks until it is let go of. */
export async function holding(
  database: Database,
  text: string,
  values: readonly unknown[] = [],
): Promise<Session> {
  const session = await database.session();
  await session.query("begin");
  await session.query(text, values);
  return session;
}

export async function letGo(session: Session): Promise<void> {
  await session.query("rollback");
  await session.close();
}

/** What goes on in `pg_stat_activity` that waits for a lock and begins with $1. */
export const WAITING =
  "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and starts_with(query, $1)";

/** Resolves when a statement that begins so waits for what somebody holds. */
export const waitsFor = (database: Database, statement: string): Promise<void> =>
  until(
    async () => (await database.query(`select ${WAITING}`, [statement])).length > 0,
    `${statement} to wait`,
  );
