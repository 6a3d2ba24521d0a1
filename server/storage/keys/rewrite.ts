// Writes tables anew, so that their files hold nothing of what stood there before. PostgreSQL copies along what an open
// transaction could still see: none may be left that is older than the change.
import { sleep, uptime } from "../../clock.ts";
import { ResourceTaken } from "../../errors.ts";
import type { Database } from "../database.ts";
import { codeOf } from "../postgres.ts";

const findPlace = `/* findTransactionId */ select pg_current_xact_id()::xid::text as place`;

// A vacuum's own snapshot is as old as the oldest transaction that writes, in whatever database: it keeps what that one
// could see. Another vacuum is not counted; what an analyze sees is.
const listOlder = `/* listOlderTransactions */
select concat('session ', pid, ' of ', coalesce(nullif(application_name, ''), usename, backend_type)) as who
  from pg_stat_activity
 where pid <> pg_backend_pid()
   and (age(backend_xid) > age($1::text::xid)
     or (datname is null or datname = current_database()) and age(backend_xmin) > age($1::text::xid)
       and (backend_type <> 'autovacuum worker' or query like '%ANALYZE%'))
union all
select concat('replication slot ', slot_name) from pg_replication_slots where age(xmin) > age($1::text::xid)
union all
select concat('prepared transaction ', gid) from pg_prepared_xacts where age(transaction) > age($1::text::xid)`;

const LOCK_NOT_AVAILABLE = "55P03";
const POLL_MS = 200;
const PATIENCE_MS = 30_000;

export interface RewriteOptions {
  /** Told of each table before it is written. */
  readonly onTable?: (table: string) => void;
  /** How long others may take to end what stands in the way, in milliseconds. */
  readonly patienceMs?: number;
}

/** @throws ResourceTaken naming what stands in the way: an older transaction, or somebody who uses a table */
export async function rewriteTables(
  database: Database,
  tables: Iterable<string>,
  { onTable = () => {}, patienceMs = PATIENCE_MS }: RewriteOptions = {},
): Promise<void> {
  await untilUnseen(database, patienceMs);
  const session = await database.session();
  try {
    await session.query(`set lock_timeout = ${patienceMs}`);
    for (const table of tables) {
      onTable(table);
      await session.query(`vacuum full ${table}`).catch((error: unknown) => {
        if (codeOf(error) !== LOCK_NOT_AVAILABLE) throw error;
        throw new ResourceTaken(`Somebody uses ${table}. End that, and run the command again.`, {
          cause: error,
        });
      });
    }
  } finally {
    await session.close();
  }
}

/**
 * Waits until nobody can see any more what was there before, so that a vacuum takes it away.
 * @throws ResourceTaken naming who still can
 */
export async function untilUnseen(database: Database, patienceMs = PATIENCE_MS): Promise<void> {
  const [row] = await database.query<{ place: string }>(findPlace);
  for (const until = uptime() + patienceMs; ; await sleep(POLL_MS)) {
    const older = await database.query<{ who: string }>(listOlder, [row?.place]);
    if (older.length === 0) return;
    if (uptime() >= until)
      throw new ResourceTaken(
        `What was there before is still seen by ${older.map(({ who }) => who).join(", ")}, and would stay in the files. End that, and run the command again.`,
      );
  }
}
