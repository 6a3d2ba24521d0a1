// Rows of holdfast.instances: which server processes exist. One that lives holds a session advisory lock,
// so that its death, however it comes, frees the lock at once.
import type { Queryable } from "./database.ts";

const insertInstanceRow = `/* insertInstance */
insert into holdfast.instances (worker_id) values ($1) on conflict do nothing`;
const lockInstanceRow = `/* lockInstance */ select pg_advisory_lock(hashtextextended($1::uuid::text, 7))`;
const lockDeadRows = `/* lockDeadInstances */
select worker_id from holdfast.instances where pg_try_advisory_xact_lock(hashtextextended(worker_id::text, 7))`;
const deleteInstanceRows = `/* deleteInstances */ delete from holdfast.instances where worker_id = any ($1::uuid[])`;

/** Registers the instance; its session must already hold the lock, or a reaper would take it for dead. */
export async function insertInstance(on: Queryable, workerId: string): Promise<void> {
  await on.query(insertInstanceRow, [workerId]);
}

/** Takes the instance's lock for the life of the session. */
export async function lockInstance(session: Queryable, workerId: string): Promise<void> {
  await session.query(lockInstanceRow, [workerId]);
}

/** Instances whose process is gone; locked until the transaction ends, so that one reaper acts. */
export async function lockDeadInstances(transaction: Queryable): Promise<string[]> {
  const rows = await transaction.query<{ worker_id: string }>(lockDeadRows);
  return rows.map(({ worker_id: workerId }) => workerId);
}

export async function deleteInstances(on: Queryable, workerIds: readonly string[]): Promise<void> {
  await on.query(deleteInstanceRows, [workerIds]);
}
