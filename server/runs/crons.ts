// Turns schedules into runs: each fire time makes one run, with any number of instances, whoever dies in between. Times
// that were missed while no server ran make one run together, the latest of them.
import { sleep } from "../clock.ts";
import {
  CronInvalid,
  CronNotFound,
  DatabaseUnavailable,
  ThreadNotFound,
  messageOf,
  saidOf,
} from "../errors.ts";
import { faultPoint } from "../faults.ts";
import type { Fields } from "../fields.ts";
import { uuidv7 } from "../ids.ts";
import {
  advanceCron,
  claimCrons,
  deleteCron,
  findTime,
  insertCron,
  lockCron,
  openCrons,
  updateCron,
} from "../storage/crons.ts";
import type { CronRow, DueCron } from "../storage/crons.ts";
import type { RunAuth } from "../storage/runs.ts";
import { noAssistantFor, requireAssistant } from "./assistants.ts";
import { CronMoved, createRun } from "./create.ts";
import type { Engine } from "./engine.ts";
import type { RunRequest } from "./request.ts";
import { checkSchedule, latestTime, nextTime } from "./schedule.ts";
import { getThread } from "./state.ts";

/** What can be said of a cron, when it is made and later. */
export interface CronFields {
  readonly schedule?: string | undefined;
  /** Null: UTC. */
  readonly timezone?: string | null | undefined;
  /** Null: none. */
  readonly endTime?: Date | null | undefined;
  readonly isEnabled?: boolean | undefined;
  readonly onRunCompleted?: "delete" | "keep" | undefined;
  readonly metadata?: Fields | undefined;
  /** Fields of the run by their names in a request; null takes one away. */
  readonly payload: Fields;
}

// Only if a heartbeat was missed.
const EVERY_MS = 30_000;
const MOST = 20;
// Longer than accepting a run takes; after it another instance fires what a dead one had claimed.
const LEASE_MS = 10_000;

/**
 * Makes a cron, on a thread or with a new thread for each of its runs.
 * @throws AssistantNotFound, GraphNotFound, ThreadNotFound, CronInvalid
 */
export async function createCron(
  engine: Engine,
  given: CronFields & {
    cronId: string;
    assistantId: string;
    threadId: string | null;
    schedule: string;
    auth: RunAuth | undefined;
  },
): Promise<CronRow> {
  const assistant = await requireAssistant(engine, given.assistantId);
  const { schedule, timezone = null, endTime = null, isEnabled = true } = given;
  const at = await findTime(engine.database);
  checkSchedule({ schedule, timezone }, at, endTime);
  const thread = given.threadId === null ? undefined : await getThread(engine, given.threadId);
  if (thread?.is_temporary) {
    throw new CronInvalid(
      `Thread ${given.threadId} belongs to a stateless run and goes with it. Put the cron on a thread that stays, or make one without a thread.`,
    );
  }
  const cron = await insertCron(engine.database, {
    cron_id: given.cronId,
    auth: given.auth ?? null,
    assistant_id: assistant.assistant_id,
    thread_id: given.threadId,
    schedule,
    timezone,
    end_time: endTime,
    on_run_completed: given.onRunCompleted ?? "delete",
    is_enabled: isEnabled,
    payload: withoutNulls(given.payload),
    metadata: given.metadata ?? {},
    next_run_at: isEnabled ? (following({ schedule, timezone, end_time: endTime }, at) ?? null) : null,
  });
  if (!cron)
    throw given.threadId === null ? noAssistantFor(given.assistantId) : new ThreadNotFound(given.threadId);
  return cron;
}

/**
 * Changes what is given and keeps the rest. A change of when it comes counts from now.
 * @throws CronNotFound, CronInvalid
 */
export async function changeCron(engine: Engine, cronId: string, change: CronFields): Promise<CronRow> {
  return engine.database.transaction(async (transaction) => {
    const old = await lockCron(transaction, cronId);
    if (!old) throw new CronNotFound();
    const wanted = {
      ...old,
      schedule: change.schedule ?? old.schedule,
      timezone: change.timezone === undefined ? old.timezone : change.timezone,
      end_time: change.endTime === undefined ? old.end_time : change.endTime,
      is_enabled: change.isEnabled ?? old.is_enabled,
      on_run_completed: change.onRunCompleted ?? old.on_run_completed,
      metadata: { ...old.metadata, ...change.metadata },
      payload: withoutNulls({ ...old.payload, ...change.payload }),
    };
    const at = await findTime(transaction);
    const isMoved =
      wanted.schedule !== old.schedule ||
      wanted.timezone !== old.timezone ||
      wanted.end_time?.getTime() !== old.end_time?.getTime() ||
      wanted.is_enabled !== old.is_enabled;
    // An end in the past is how a cron is stopped; any other change of its time must leave it one.
    if (isMoved && wanted.is_enabled && !(wanted.end_time && wanted.end_time <= at))
      checkSchedule(wanted, at, wanted.end_time);
    // Whoever sets this is the one to be told, not whoever switches the cron on later.
    else if (wanted.schedule !== old.schedule || wanted.timezone !== old.timezone)
      checkSchedule(wanted, at, null);
    const next = wanted.is_enabled ? (following(wanted, at) ?? null) : null;
    const changed = await updateCron(transaction, {
      ...wanted,
      next_run_at: isMoved ? next : old.next_run_at,
    });
    if (!changed) throw new CronNotFound();
    return changed;
  });
}

/** @throws CronNotFound */
export async function removeCron(engine: Engine, cronId: string): Promise<void> {
  if (!(await deleteCron(engine.database, cronId))) throw new CronNotFound();
}

/** Fires what is due, for as long as the server lives: the heartbeat tells when to look. */
export function startCrons(engine: Engine): { stop(): Promise<void> } {
  const stopping = new AbortController();
  let woken = new AbortController();
  engine.hints.whenDue("crons", () => woken.abort());
  const loop = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      woken = new AbortController();
      const fired = await fireDue(engine).catch((error: unknown) => {
        engine.log.warn("crons.unread", { reason: messageOf(error) });
        return 0;
      });
      if (fired < MOST) await sleep(EVERY_MS, AbortSignal.any([stopping.signal, woken.signal]));
    }
  };
  const looping = loop();
  return {
    stop: async () => {
      stopping.abort();
      await looping;
    },
  };
}

/** Fires the crons that are due now, once each. Returns how many. */
async function fireDue(engine: Engine): Promise<number> {
  const graphIds = [...engine.graphs.keys()];
  const due = await claimCrons(engine.database, { graphIds, limit: MOST, leaseMs: LEASE_MS });
  await Promise.all(due.map((cron) => fire(engine, cron)));
  return due.length;
}

async function fire(engine: Engine, cron: DueCron): Promise<void> {
  const facts = { cron_id: cron.cron_id, thread_id: cron.thread_id };
  try {
    const { end_time: end, now: at } = cron;
    const time = latestTime(cron, cron.next_run_at, end && end < at ? end : at);
    let error: string | null = null;
    try {
      faultPoint("cron.firing");
      const [opened = cron] = await openCrons(engine.database, [cron]);
      const run = await createRun(engine, cron.thread_id ?? uuidv7(), requestOf(opened), {
        isStateless: cron.thread_id === null,
        idemKey: `cron:${cron.cron_id}:${time.toISOString()}`,
        // Which threads and assistants its maker may use was asked when it was made.
        by: opened.auth ? { auth: opened.auth } : undefined,
        cron,
      });
      engine.log.info("cron.fired", { ...facts, run_id: run.run_id, at: time });
    } catch (failure) {
      if (failure instanceof DatabaseUnavailable) throw failure;
      // What it is by now decides when it comes next.
      if (failure instanceof CronMoved) {
        engine.log.info("cron.moved", facts);
        return;
      }
      // Refused for good, such as a full queue: this time is passed over, the next one may do.
      error = saidOf(failure);
      engine.log.warn("cron.failed", { ...facts, at: time, reason: error });
    }
    faultPoint("cron.fired");
    await advanceCron(engine.database, cron, { at: following(cron, time), error });
  } catch (failure) {
    // Its claim runs out, and whoever lives then fires it; the key keeps that from being a second run.
    engine.log.warn("cron.undecided", { ...facts, reason: messageOf(failure) });
  }
}

/** The next time after `after`, if the cron has not ended by then. */
function following(cron: Pick<CronRow, "schedule" | "timezone" | "end_time">, after: Date): Date | undefined {
  const next = nextTime(cron, after);
  return next && cron.end_time && next > cron.end_time ? undefined : next;
}

function requestOf(cron: DueCron): RunRequest {
  return {
    stream_mode: ["values"],
    stream_subgraphs: false,
    multitask_strategy: "enqueue",
    if_not_exists: "reject",
    // Checked when they came in, by the same schema as those of a run.
    ...cron.payload,
    metadata: { ...cron.metadata, cron_id: cron.cron_id },
    assistant_id: cron.assistant_id,
    on_completion: cron.on_run_completed,
  };
}

const withoutNulls = (fields: Fields): Fields =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== undefined));
