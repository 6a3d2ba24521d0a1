// The commands of protocol v2 that begin runs: new input, an answer to a question, a branch from an older checkpoint.
import { createHash } from "node:crypto";
import { QuestionsChanged } from "../../access-errors.ts";
import { CommandRefused, ThreadNotFound, ThreadWithoutGraph } from "../../errors.ts";
import { asFields } from "../../fields.ts";
import type { Fields } from "../../fields.ts";
import type { Queryable } from "../../storage/database.ts";
import { findLastEvent } from "../../storage/events.ts";
import { readClock } from "../../storage/instances.ts";
import { findRunByKey } from "../../storage/runs.ts";
import { findNewestWatched } from "../../storage/watched.ts";
import { createRun } from "../create.ts";
import type { Engine } from "../engine.ts";
import { guardAsked, guardOfAssistant } from "../guards.ts";
import type { CreateOptions, RunRequest } from "../request.ts";
import { getStateText, getThread } from "../state.ts";
import { askingTasks } from "../state-shape.ts";
import type { ThreadState } from "../state-shape.ts";
import { threadSeq } from "./entries.ts";

// Official clients send a command again whose answer was lost: the same bytes, within seconds.
const REPEAT_MS = 30_000;

export interface RunStart {
  readonly assistant_id: string;
  readonly input: unknown;
  readonly config?: Fields | undefined;
  readonly metadata?: Fields | undefined;
  readonly multitask_strategy: RunRequest["multitask_strategy"];
  readonly strict_resume: boolean;
}

export interface Answers {
  readonly responses: readonly { readonly interrupt_id: string; readonly response: unknown }[];
  readonly update?: unknown;
  readonly goto?: unknown;
  readonly config?: Fields | undefined;
  readonly metadata?: Fields | undefined;
  readonly strict_resume: boolean;
}

/** Where a command came from, so that a repeat of it is known. */
export interface Origin {
  readonly threadId: string;
  /** The client's number of the command, unique within a page. */
  readonly id: number;
  /** The whole command as it came. */
  readonly text: string;
  /** Who sent it; undefined if nobody was asked who he is. */
  readonly identity: string | undefined;
  /** The key under which a repeat of the command is known; undefined if the client gave none. */
  readonly idemKey: () => string | undefined;
  /** Asks whether the caller may start a run; what is returned goes on. */
  readonly permit: (request: RunRequest) => Promise<Permitted>;
}

interface Permitted {
  readonly request: RunRequest;
  readonly options: Pick<CreateOptions, "runId" | "by">;
}

/** What a command answers: a run, and the number up to which the thread's events are older than it. */
export interface Begun {
  readonly runId: string;
  readonly appliedThroughSeq: number;
}

// Somebody else who is first each time is no reason to look for ever.
const MOST_LOOKS = 10;

/**
 * Starts a run. While a question is open, input is the answer to it, unless a checkpoint is named.
 * @throws what `createRun` throws; QuestionsChanged when the thread is another one at each look
 */
export async function startRun(
  engine: Engine,
  origin: Origin,
  asked: RunStart,
  looks = MOST_LOOKS,
): Promise<Begun> {
  const { input, config, metadata = {}, multitask_strategy, strict_resume } = asked;
  const place = asFields(asFields(config)["configurable"]);
  const fork = place["checkpoint_id"];
  const rest = { config, metadata, multitask_strategy, strict_resume };
  const open =
    input === null || typeof fork === "string" ? NONE : await openQuestions(engine, origin.threadId);
  const isAnswer = open.ids.length > 0;
  const request = {
    assistant_id: asked.assistant_id,
    ...(isAnswer ? { command: { resume: input } } : { input }),
    ...(typeof fork === "string" ? { checkpoint_id: fork } : {}),
    ...rest,
  };
  try {
    return await begin(engine, origin, request, { since: isAnswer ? open.since : undefined });
  } catch (error) {
    if (!(error instanceof QuestionsChanged) || looks <= 1) throw error;
    return startRun(engine, origin, asked, looks - 1); // somebody else has answered: it is input, or answers what is asked next
  }
}

/**
 * Answers questions, all in one run.
 * @throws CommandRefused when nothing is asked, or a question is not open and `strict_resume` does not leave the
 * refusal to the graph
 */
export async function answer(engine: Engine, origin: Origin, asked: Answers): Promise<Begun> {
  const { responses, update, goto, config, metadata = {}, strict_resume } = asked;
  // What it answers is not open any more once it was accepted.
  const { begun, key } = await begunBefore(engine, origin);
  if (begun) return begun;
  const open = await openQuestions(engine, origin.threadId);
  if (open.ids.length === 0 && !strict_resume)
    throw new CommandRefused(
      "invalid_argument",
      "No question is open on this thread: there is nothing to answer.",
    );
  const stale = responses.find(({ interrupt_id: id }) => !open.ids.includes(id));
  if (stale && !strict_resume)
    throw new CommandRefused(
      "no_such_interrupt",
      `Question ${stale.interrupt_id} is not open on this thread. Open are: ${open.ids.join(", ")}.`,
    );
  const resume = Object.fromEntries(responses.map(({ interrupt_id: id, response }) => [id, response]));
  const request = {
    assistant_id: await assistantOf(engine, origin.threadId),
    command: { resume, update, goto },
    config,
    metadata,
    multitask_strategy: "enqueue" as const,
    strict_resume,
  };
  return begin(engine, origin, request, { since: stale ? undefined : open.since, key });
}

/** The assistant that ran on a thread last. @throws ThreadNotFound, ThreadWithoutGraph */
export async function assistantOf(engine: Engine, threadId: string): Promise<string> {
  const { metadata } = await getThread(engine, threadId);
  const id = metadata["assistant_id"] ?? metadata["graph_id"];
  if (typeof id !== "string") throw new ThreadWithoutGraph(threadId);
  return id;
}

type Request = Pick<
  RunRequest,
  | "assistant_id"
  | "input"
  | "command"
  | "config"
  | "metadata"
  | "checkpoint_id"
  | "multitask_strategy"
  | "strict_resume"
>;

/**
 * @param since when the state was made whose questions it answers; undefined when it need not answer them
 * @param key by which the command is known, if it has been looked for
 */
async function begin(
  engine: Engine,
  origin: Origin,
  asked: Request,
  { since, key }: { since: Date | undefined; key?: string },
): Promise<Begun> {
  const { threadId, permit } = origin;
  const guard = await guardOfAssistant(engine, asked.assistant_id);
  const { request, options } = await permit({
    ...guardAsked(guard, asked),
    stream_mode: [],
    stream_subgraphs: true,
    if_not_exists: "create",
  });
  // One that has begun meanwhile under the same key is found when the run is made.
  const before = key === undefined ? await begunBefore(engine, origin) : { begun: undefined, key };
  if (before.begun) return before.begun;
  const appliedThroughSeq = await newestSeq(engine, threadId);
  const more = { idemKey: before.key, isWatched: true, answersStateOf: since };
  const made = await createRun(engine, threadId, request, { ...options, ...more });
  return { runId: made.run_id, appliedThroughSeq };
}

/** What the command came to when it was sent before, and its answer was lost; and the key by which it is known now. */
async function begunBefore(
  { database }: Engine,
  origin: Origin,
): Promise<{ begun: Begun | undefined; key: string }> {
  const given = origin.idemKey();
  const { key, earlier, at } = given === undefined ? await ownKeysOf(database, origin) : { key: given };
  const found = (await findRunByKey(database, key)) ?? (earlier && (await findRunByKey(database, earlier)));
  const isBefore = found && !(at && at - found.created_at.getTime() >= REPEAT_MS);
  return { begun: isBefore ? { runId: found.run_id, appliedThroughSeq: 0 } : undefined, key };
}

/**
 * The key of a command whose client gave none, and the one under which the same may have come before. By the clock of
 * the database: it may come again to another server.
 */
async function ownKeysOf(
  on: Queryable,
  { threadId, id, text, identity = "" }: Origin,
): Promise<{ key: string; earlier?: string; at?: number }> {
  const hash = createHash("sha256").update(`${threadId}\n${id}\n${text}\n${identity}`).digest("hex");
  const at = await readClock(on);
  const span = Math.floor(at / REPEAT_MS);
  return { key: `command ${hash} ${span}`, earlier: `command ${hash} ${span - 1}`, at };
}

/** The number of the thread's newest event; 0 when it has none. */
async function newestSeq(engine: Engine, threadId: string): Promise<number> {
  const run = await findNewestWatched(engine.database, threadId);
  if (!run) return 0;
  const { last } = await findLastEvent(engine.database, run.run_id);
  return threadSeq(run, Math.max(0, last));
}

interface Open {
  /** Ids of the questions. */
  readonly ids: readonly string[];
  /** When the state was made that asks them. */
  readonly since: Date | undefined;
}

const NONE: Open = { ids: [], since: undefined };

/** What the newest state of an idle thread asks. */
async function openQuestions(engine: Engine, threadId: string): Promise<Open> {
  try {
    const thread = await getThread(engine, threadId);
    if (thread.status === "busy") return NONE;
    // Stored in this shape, or made just now.
    const state = JSON.parse(await getStateText(engine, threadId)) as ThreadState;
    const asked = askingTasks(state).flatMap(({ interrupts }) => interrupts as { id?: string }[]);
    return { ids: asked.flatMap(({ id }) => id ?? []), since: thread.state_updated_at };
  } catch (error) {
    if (error instanceof ThreadNotFound) return NONE;
    throw error;
  }
}
