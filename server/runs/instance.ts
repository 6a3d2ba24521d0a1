// This process among the others: a worker id for its life, a heartbeat each second, a session lock that ends with it.
// The heartbeat also tells what hints may have missed: cancels, ready runs, dead instances.
import { sleep } from "../clock.ts";
import { LeaseLost, messageOf } from "../errors.ts";
import type { Queryable, Session } from "../storage/database.ts";
import { beat, deleteInstances, insertInstance, lockInstance } from "../storage/instances.ts";
import type { Pulse } from "../storage/instances.ts";
import { listen, notify } from "../storage/notifications.ts";
import { RunCancelled } from "./end.ts";
import type { Engine } from "./engine.ts";
import { reap } from "./reap.ts";
import { promoteWaiting } from "./worker.ts";
import type { Worker } from "./worker.ts";

const BEAT_MS = 1000;
// While another instance seems to be gone.
const SUSPICIOUS_MS = 250;
// Whatever fails, the loop lets everything else go on.
const LEAST_MS = 50;
// Every so many heartbeats: runs that are ours only here, or only in the database.
const COMPARE_EVERY = 5;

interface Held {
  readonly engine: Engine;
  readonly worker: Worker;
  readonly hasSessions: boolean;
  /** Undefined behind a transaction pooler, or while a lost one is opened again. */
  session: Session | undefined;
  /** The lock may still be held by the backend of a connection that broke. */
  isLocked: boolean;
}

/**
 * Registers the process and keeps it registered.
 * @param hasSessions false behind a transaction pooler: no lock, no notifications, only heartbeats
 * @throws DatabaseUnavailable when the first registration fails
 */
export async function startInstance(
  engine: Engine,
  worker: Worker,
  hasSessions: boolean,
): Promise<{ stop(): Promise<void> }> {
  const over = new AbortController();
  const held: Held = { engine, worker, hasSessions, session: undefined, isLocked: false };
  await register(held);
  worker.start(engine);
  const live = async (): Promise<void> => {
    for (let count = 1; !over.signal.aborted; count += 1) {
      let pause = BEAT_MS;
      try {
        if (hasSessions && !held.session) await register(held);
        const isCalm = await pulse(held, count);
        if (!isCalm) pause = SUSPICIOUS_MS;
      } catch (error) {
        engine.log.warn("heartbeat.failed", { reason: messageOf(error) });
      }
      // A lost session is opened again at once: soon the others may take this process for dead.
      await sleep(LEAST_MS, over.signal);
      const rest = sleep(pause - LEAST_MS, over.signal);
      await Promise.race([rest, held.session?.closed ?? rest]);
    }
  };
  const living = live();
  return {
    stop: async () => {
      over.abort();
      await living;
      await deleteInstances(engine.database, [engine.workerId]).catch(() => undefined); // a reaper removes it
      await held.session?.close().catch(() => undefined); // already gone: the lock is free either way
    },
  };
}

/** Beats, and does what the answer asks for. Returns false when another instance may be about to be found dead. */
async function pulse(held: Held, count: number): Promise<boolean> {
  const { engine, worker, session } = held;
  // On its own connection: a pool that is all in use is no reason to seem dead.
  const on: Queryable = session ?? engine.database;
  if (session && !held.isLocked) held.isLocked = await lockInstance(session, engine.workerId);
  const told = await beat(on, engine.workerId, engine.stopping.aborted);
  engine.hints.hasOthers = told.others > 0;
  if (!told.is_known) {
    engine.log.warn("instance.forgotten", { worker_id: engine.workerId });
    engine.live.abortAll(new LeaseLost("This server was silent for so long that others have its runs."));
    await insertInstance(on, engine.workerId, rowOf(held));
  }
  for (const { run_id: runId, cancel } of told.cancelled) engine.live.abort(runId, new RunCancelled(cancel));
  await act(engine, told);
  if (told.has_ready) worker.poke();
  if (count % COMPARE_EVERY === 0) await worker.compare();
  return !told.has_suspects;
}

async function act(engine: Engine, told: Pulse): Promise<void> {
  if (told.has_suspects) await reap(engine);
  if (told.has_waiting) await promoteWaiting(engine);
  if (told.has_crons) engine.hints.due("crons");
  if (told.has_webhooks) engine.hints.due("webhooks");
}

const rowOf = ({ hasSessions, engine }: Held): { hasLock: boolean; isDraining: boolean } => ({
  hasLock: hasSessions,
  isDraining: engine.stopping.aborted,
});

async function register(held: Held): Promise<void> {
  const { engine, worker } = held;
  if (!held.hasSessions) return insertInstance(engine.database, engine.workerId, rowOf(held));
  const session = await engine.database.session();
  try {
    held.isLocked = await lockInstance(session, engine.workerId);
    await insertInstance(session, engine.workerId, rowOf(held));
    await listen(session, (notification) => {
      engine.hints.hasOthers = true; // perhaps only this process itself: the next heartbeat knows
      if (notification.kind === "ready") worker.poke();
      else if (notification.kind === "events") engine.hints.wake(notification.runIds);
      // Which kind of cancel it is stands in the row.
      else void hearCancel(engine, session, notification.runIds);
    });
    await notify(session, [{ kind: "ready" }]); // so that the others know of this process
  } catch (error) {
    await session.close().catch(() => undefined); // the first error is the one to tell
    throw error;
  }
  held.session = session;
  void forgetClosed(held, session);
  worker.poke();
}

async function forgetClosed(held: Held, session: Session): Promise<void> {
  await session.closed;
  if (held.session === session) held.session = undefined;
  held.engine.log.warn("instance.unlocked", { worker_id: held.engine.workerId });
}

async function hearCancel(engine: Engine, session: Session, runIds: readonly string[]): Promise<void> {
  if (!runIds.some((runId) => engine.live.get(runId))) return;
  try {
    const { cancelled } = await beat(session, engine.workerId, engine.stopping.aborted);
    for (const { run_id: runId, cancel } of cancelled) engine.live.abort(runId, new RunCancelled(cancel));
  } catch (error) {
    engine.log.warn("cancel.unheard", { reason: messageOf(error) }); // the next heartbeat tells it again
  }
}
