// This process among the others: a worker id for its life, and a session lock that ends with it.
// A lost session is opened again; until then another instance may take this one for dead, and the
// fence on its runs keeps both from writing the same end.
import { sleep } from "../clock.ts";
import { messageOf } from "../errors.ts";
import type { Database, Session } from "../storage/database.ts";
import { deleteInstances, insertInstance, lockInstance } from "../storage/instances.ts";
import type { Log } from "../telemetry/log.ts";

const RETRY_MS = 1000;

/**
 * Registers the process and keeps it registered.
 * @throws DatabaseUnavailable when the first registration fails
 */
export async function startInstance(
  database: Database,
  log: Log,
  workerId: string,
): Promise<{ stop(): Promise<void> }> {
  const stopping = new AbortController();
  let session = await register(database, workerId);
  const watch = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await session.closed;
      if (stopping.signal.aborted) return;
      log.warn("instance.unlocked", { worker_id: workerId });
      session = await again(() => register(database, workerId), { signal: stopping.signal, log, session });
    }
  };
  const watching = watch();
  return {
    stop: async () => {
      stopping.abort();
      await session.close().catch(() => undefined); // already gone: the lock is free either way
      await watching;
      await deleteInstances(database, [workerId]).catch(() => undefined); // a reaper removes it
    },
  };
}

async function register(database: Database, workerId: string): Promise<Session> {
  const session = await database.session();
  try {
    await lockInstance(session, workerId);
    await insertInstance(session, workerId);
    return session;
  } catch (error) {
    await session.close().catch(() => undefined); // the first error is the one to tell
    throw error;
  }
}

async function again(
  open: () => Promise<Session>,
  options: { signal: AbortSignal; log: Log; session: Session },
): Promise<Session> {
  while (!options.signal.aborted) {
    try {
      return await open();
    } catch (error) {
      options.log.warn("instance.unregistered", { reason: messageOf(error) });
      await sleep(RETRY_MS, options.signal);
    }
  }
  return options.session;
}
