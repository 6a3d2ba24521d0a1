// This process among the others: a worker id for its life, a heartbeat each second, a session lock that ends with it.
// The heartbeat also tells what hints may have missed: cancels, ready runs, dead instances.
import { sleep, uptime } from "../clock.ts";
import { LeaseLost, messageOf } from "../errors.ts";
import type { Queryable, Session } from "../storage/database.ts";
import { beat, deleteInstances, insertInstance, lockInstance } from "../storage/instances.ts";
import type { Pulse } from "../storage/instances.ts";
import { listen, notify } from "../storage/notifications.ts";
import { hasLeftRuns } from "../storage/queue.ts";
import type { Engine } from "./engine.ts";
import { RunCancelled } from "./outcome.ts";
import { reap } from "./reap.ts";
import { promoteWaiting } from "./worker.ts";
import type { Worker } from "./worker.ts";

const BEAT_MS = 1000;
// While another instance seems to be gone.
const SUSPICIOUS_MS = 250;
// Whatever fails, the loop lets everything else go on.
const LEAST_MS = 50;
// That heartbeats fail is logged once in this time: a lost session is tried for all the while.
const SILENT_MS = 5000;
// The clock of the database was set where it and ours go apart by more than this between two heartbeats. Nobody is taken
// for dead until whoever lives has beaten by it.
const SET_MS = 1000;
const SETTLED_MS = 3000;
// Who could not beat himself for so long takes nobody for dead until the others have had so long to come back as well.
const ABSENT_MS = 5000;
const GRACE_MS = 5000;
// Where that comes again and again, as each heartbeat is late or loses its session, somebody must go on with the runs of
// the dead all the same.
const MOST_GRACES = 6;
// Every so many heartbeats: runs that are ours only here, or only in the database.
const COMPARE_EVERY = 5;

interface Held {
  readonly engine: Engine;
  readonly worker: Worker;
  readonly hasSessions: boolean;
  /** Undefined behind a transaction pooler, or while a lost one is opened again. */
  session: Session | undefined;
  /** Aborted when the session is lost. */
  lost: AbortController;
  /** What the last heartbeat asked for is being done. */
  duty: Promise<void> | undefined;
  hasBeenKnown: boolean;
  /** Undefined before the first heartbeat. */
  ahead: Ahead | undefined;
  /** The lock may still be held by the backend of a connection that broke. */
  isLocked: boolean;
  beatenAt: number;
  /** When others may be taken for dead. */
  reapsAt: number;
  /** How often in a row that was put off. */
  graces: number;
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
  const held: Held = {
    engine,
    worker,
    hasSessions,
    session: undefined,
    isLocked: false,
    lost: new AbortController(),
    duty: undefined,
    hasBeenKnown: false,
    ahead: undefined,
    beatenAt: uptime(),
    reapsAt: 0,
    graces: 0,
  };
  await register(held);
  let toldAt = -Infinity;
  const tell = (reason: string): void => {
    if (uptime() - toldAt < SILENT_MS) return;
    toldAt = uptime();
    engine.log.warn("heartbeat.failed", { reason });
  };
  const hasBeaten = Promise.withResolvers<void>();
  const live = async (): Promise<void> => {
    for (let count = 1; !over.signal.aborted; count += 1) {
      let pause = BEAT_MS;
      try {
        if (hasSessions && !held.session) await register(held);
        const isCalm = await pulse(held, count);
        if (!isCalm) pause = SUSPICIOUS_MS;
      } catch (error) {
        tell(messageOf(error));
      }
      hasBeaten.resolve();
      // A lost session is opened again at once: soon the others may take this process for dead.
      await sleep(LEAST_MS, over.signal);
      await sleep(pause - LEAST_MS, AbortSignal.any([over.signal, held.lost.signal]));
    }
  };
  const living = live();
  // Before runs are taken: perhaps they are to be left to others.
  await hasBeaten.promise;
  return {
    stop: async () => {
      over.abort();
      await living;
      await held.duty;
      await deleteInstances(engine.database, [engine.workerId]).catch(() => undefined); // a reaper removes it
      const { session } = held;
      held.session = undefined;
      await session?.close().catch(() => undefined); // already gone: the lock is free either way
    },
  };
}

/** Beats, and does what the answer asks for. Returns false when another instance may be about to be found dead. */
async function pulse(held: Held, count: number): Promise<boolean> {
  const { engine, worker, session } = held;
  // On its own connection: a pool that is all in use is no reason to seem dead.
  const on: Queryable = session ?? engine.database;
  if (session && !held.isLocked) held.isLocked = await lockInstance(session, engine.workerId);
  const sentAt = uptime();
  const told = await beat(on, engine.workerId, takesNoRuns(engine));
  engine.clock.heard(told.at, told.has_takers);
  if (engine.clock.yields && (await hasLeftRuns(on, [...engine.graphs.keys()]))) engine.clock.needed();
  if (uptime() - held.beatenAt > ABSENT_MS) grantGrace(held, GRACE_MS);
  else if (uptime() >= held.reapsAt) held.graces = 0;
  held.beatenAt = uptime();
  engine.hints.hasOthers = told.others > 0;
  noteClock(held, { least: told.at - uptime(), most: told.at - sentAt });
  if (!told.is_known) {
    await insertInstance(on, engine.workerId, rowOf(held));
    forgotten(engine);
  }
  for (const { run_id: runId, cancel } of told.cancelled) engine.live.abort(runId, new RunCancelled(cancel));
  if (told.has_ready) worker.poke();
  if (told.has_crons) engine.hints.due("crons");
  if (told.has_webhooks) engine.hints.due("webhooks");
  // Beside the heartbeat, which must not wait for the pool or for locks.
  held.duty ??= act(held, told, count % COMPARE_EVERY === 0).finally(() => (held.duty = undefined));
  return !told.has_suspects;
}

/** Nobody is taken for dead for so long. */
function grantGrace(held: Held, ms: number): void {
  if (held.graces === MOST_GRACES) return;
  held.graces += 1;
  held.reapsAt = Math.max(held.reapsAt, uptime() + ms);
}

/** How far the clock of the database is ahead of uptime, between two bounds: it was read on the way. */
interface Ahead {
  readonly least: number;
  readonly most: number;
}

function noteClock(held: Held, ahead: Ahead): void {
  const before = held.ahead ?? ahead;
  held.ahead = ahead;
  const byMs = ahead.least > before.most ? ahead.least - before.most : Math.min(0, ahead.most - before.least);
  if (Math.abs(byMs) <= SET_MS) return;
  grantGrace(held, SETTLED_MS);
  held.engine.log.warn("clock.set", { by_ms: Math.round(byMs) });
}

async function act({ engine, worker, reapsAt }: Held, told: Pulse, compares: boolean): Promise<void> {
  const duties = [
    ...(told.has_suspects && uptime() >= reapsAt ? [() => reap(engine)] : []),
    ...(told.has_waiting ? [() => promoteWaiting(engine)] : []),
    ...(compares ? [() => worker.compare()] : []),
  ];
  for (const duty of duties) {
    await duty().catch((error: unknown) => engine.log.warn("duty.failed", { reason: messageOf(error) }));
  }
}

const rowOf = ({ hasSessions, engine }: Held): { hasLock: boolean; isDraining: boolean } => ({
  hasLock: hasSessions,
  isDraining: takesNoRuns(engine),
});

/** What others are to know, who may leave runs to this process: as long as they do, it would leave them none. */
const takesNoRuns = ({ stopping, limits, clock }: Engine): boolean =>
  stopping.aborted || limits.slots === 0 || clock.isBehind;

function forgotten(engine: Engine): void {
  engine.log.warn("instance.forgotten", { worker_id: engine.workerId });
  engine.live.abortAll(new LeaseLost("This server was silent for so long that others have its runs."));
}

async function register(held: Held): Promise<void> {
  const { engine, worker } = held;
  if (!held.hasSessions) {
    await insertInstance(engine.database, engine.workerId, rowOf(held));
    return;
  }
  const session = await engine.database.session();
  try {
    held.isLocked = await lockInstance(session, engine.workerId);
    const isNew = await insertInstance(session, engine.workerId, rowOf(held));
    if (isNew && held.hasBeenKnown) forgotten(engine);
    // The database was away: it has let go the locks of all, and each comes back in a moment of its own.
    if (held.hasBeenKnown) grantGrace(held, GRACE_MS);
    held.hasBeenKnown = true;
    await listen(session, (notification) => {
      engine.hints.hasOthers = true; // perhaps only this process itself: the next heartbeat knows
      if (notification.kind === "ready") worker.poke();
      else if (notification.kind === "events") engine.hints.wake(notification.runIds);
      else if (notification.kind === "breaker") engine.gateway.isolate(notification.model, notification.ms);
      // Which kind of cancel it is stands in the row.
      else void hearCancel(engine, session, notification.runIds);
    });
    await notify(session, [{ kind: "ready" }]); // so that the others know of this process
  } catch (error) {
    await session.close().catch(() => undefined); // the first error is the one to tell
    throw error;
  }
  held.session = session;
  held.lost = new AbortController();
  void forgetClosed(held, session);
  worker.poke();
}

async function forgetClosed(held: Held, session: Session): Promise<void> {
  await session.closed;
  if (held.session !== session) return; // closed in order
  held.session = undefined;
  held.lost.abort();
  held.engine.log.warn("instance.unlocked", { worker_id: held.engine.workerId });
}

async function hearCancel(engine: Engine, session: Session, runIds: readonly string[]): Promise<void> {
  if (!runIds.some((runId) => engine.live.get(runId))) return;
  try {
    const { cancelled } = await beat(session, engine.workerId, takesNoRuns(engine));
    for (const { run_id: runId, cancel } of cancelled) engine.live.abort(runId, new RunCancelled(cancel));
  } catch (error) {
    engine.log.warn("cancel.unheard", { reason: messageOf(error) }); // the next heartbeat tells it again
  }
}
