// What clients must take back when a run goes on in another process: the answer that the lost attempt had begun.
// Official clients drop a message that is removed by its id, and take a values frame as the whole truth.
import { START } from "@langchain/langgraph";
import type { StateSnapshot } from "@langchain/langgraph";
import { asFields } from "../fields.ts";
import { persistently } from "../persist.ts";
import type { Checkpoints } from "../storage/checkpoints/checkpoints.ts";
import { isNewestOfRun, listFinishedTasks, listFirstOfRun } from "../storage/checkpoints/rows.ts";
import { settleAnswers } from "../storage/checkpoints/writes.ts";
import { stopsAtNewest, stopsInside } from "./breakpoints.ts";
import type { Stops } from "./breakpoints.ts";
import type { Engine } from "./engine.ts";
import type { Graph } from "./graph/graph.ts";
import type { Recording } from "./log/record.ts";
import { isOfThread } from "./protocol/entries.ts";
import { endOf, isCall } from "./protocol/left-open.ts";
import type { Begun } from "./protocol/left-open.ts";
import { answeredBy, bringsAnswer } from "./protocol/tell.ts";
import type { Told } from "./protocol/tell.ts";
import type { AcceptedRun } from "./request.ts";
import { configOf } from "./state.ts";
import type { Projection } from "./stream/modes.ts";
import { toWire, toWireJson } from "./stream/wire-json.ts";
import { tasksIn, toldBefore } from "./told-before.ts";
import type { Attempted, Tasks } from "./told-before.ts";

interface State {
  readonly values: unknown;
  readonly results: readonly unknown[];
  readonly next: readonly string[];
  /** Ids of the tasks of the next superstep, done or not. */
  readonly tasks: ReadonlySet<string>;
  readonly seen: Pick<StateSnapshot, "values" | "config" | "parentConfig" | "metadata">;
}

type Messages = ReadonlyMap<string, Readonly<Record<string, unknown>>>;

interface Rewound {
  readonly graph: Graph;
  readonly checkpointer: Checkpoints;
  readonly recording: Recording;
  readonly projection: Projection;
  readonly told: Told | undefined;
}

/** Where a run is taken up. */
export interface TakenUp {
  /** The newest checkpoint is the run's own, or holds its next question: it goes on from there, else it begins again. */
  readonly resumes: boolean;
  /** What is answered then, by the ids of the questions. */
  readonly answers?: Record<string, unknown>;
  /** The lost attempt had come to a breakpoint. */
  readonly isStopped?: boolean;
  /** Graphs in the graph had come to some. */
  readonly stops?: Stops;
}

/** Tells clients what no longer counts, and completes what the lost attempt had kept but not told to its end. */
export async function rewind(engine: Engine, run: AcceptedRun, held: Rewound): Promise<TakenUp> {
  const { graph, checkpointer, recording } = held;
  const protocol = await held.told?.projection;
  // A task that has finished is not run again, even if its superstep was not over: its results count as kept.
  const stateAt = async (checkpointId?: string): Promise<State> => {
    const at = checkpointId === undefined ? {} : { checkpoint_id: checkpointId };
    const place = { thread_id: run.thread_id, checkpoint_ns: "", ...at };
    const config = { configurable: { ...place, __pregel_checkpointer: checkpointer } };
    const { values, tasks, next, ...point } = await graph.getState(config);
    const results = tasks.map(({ result }) => toWire(result ?? null));
    const ids = new Set(tasks.map(({ id }) => id));
    return { values: toWire(values ?? {}), results, next, tasks: ids, seen: { values, ...point } };
  };
  const [first, second] = await persistently(() =>
    listFirstOfRun(engine.database, run.thread_id, run.run_id),
  );
  const fork = asFields(run.kwargs.config["configurable"])["checkpoint_id"];
  const newest = await stateAt(first === undefined && typeof fork === "string" ? fork : undefined);
  const kept = messagesIn(newest.results, messagesIn(newest.values));
  let begun = first === undefined ? undefined : await stateAt(first);
  // Taking the input in is a superstep of its own, and no client is told of it as a message.
  if (begun?.next.includes(START)) begun = second === undefined ? undefined : await stateAt(second);
  const before = begun ? messagesIn(begun.values) : kept;
  const told = await toldBefore(engine, run.run_id, recording.first);
  // What a task has told that is not run again stays, wherever it is kept: a graph that a tool runs keeps its messages to
  // itself, and goes on from its own checkpoint.
  const goesOn = first !== undefined || (bringsNothing(run) && pointOf(newest) !== undefined);
  const finished = goesOn ? await finishedOf(engine, run, told) : new Set();
  const isLost = (id: string, tasks: Tasks): boolean =>
    !kept.has(id) && !tasks.some((task) => finished.has(task));
  await tellLegacy(run, { recording, told, newest, kept, before, isLost });
  await tellFollowers(held, { told, newest, finished, isLost, goesOn });
  const asking = await persistently(() =>
    settleAnswers(engine.database, { ...run, workerId: engine.workerId }),
  );
  const now = await graph.getState(configOf(checkpointer, run.thread_id, undefined), { subgraphs: true });
  const stops = await stopsInside(run, held, now);
  if (stops.isAll) return { resumes: true, isStopped: true };
  // With durability exit a graph in the graph is written before the one around it, which may have begun with an input.
  const hasBegun = first !== undefined || bringsAnswer(run);
  const resume = (): void => {
    held.projection.resume();
    if (goesOn) protocol?.resume();
  };
  if (asking && hasBegun) {
    resume();
    return { resumes: true, answers: answersLeft(run, now, asking), stops };
  }
  if (first === undefined) {
    // Without results the state may lack what a command adds to it.
    if (goesOn && hasResults(newest)) resume();
    return { resumes: false, stops };
  }
  const resumes = await persistently(() => isNewestOfRun(engine.database, run.thread_id, run.run_id));
  if (resumes) resume();
  return { resumes, isStopped: resumes && (await stopsAtNewest(run, held)), stops };
}

/** Whether a run goes on from the state of its thread: what its tasks have done before its first checkpoint counts then. */
const bringsNothing = (run: AcceptedRun): boolean =>
  run.kwargs.command ? bringsAnswer(run) : (run.kwargs.input ?? null) === null;

/** Whether tasks are done whose superstep is not over. */
const hasResults = ({ results }: State): boolean => results.some((result) => result !== null);

/** What clients were told before, and what of it counts. */
interface View {
  readonly told: Attempted;
  readonly newest: State;
  /** Whether what these tasks said under this id is not kept, and will be said again. */
  readonly isLost: (id: string, tasks: Tasks) => boolean;
}

interface LegacyView extends View {
  readonly recording: Recording;
  /** The messages of the newest state, and of that in which the run began. */
  readonly kept: Messages;
  readonly before: Messages;
}

interface FollowersView extends View {
  readonly finished: ReadonlySet<unknown>;
  readonly goesOn: boolean;
}

const pointOf = ({ seen }: State): unknown => seen.config.configurable?.["checkpoint_id"];

/** What clients of this run take back, and what they have missed of what is kept. */
async function tellLegacy(
  run: AcceptedRun,
  { recording, told, newest, kept, before, isLost }: LegacyView,
): Promise<void> {
  const asked = run.kwargs.stream_mode;
  const remove = (id: string, event: string): Promise<void> | undefined =>
    recording.append({ event, data: toWireJson([{ type: "remove", id, content: "" }, {}]) });
  for (const [id, { event, tasks }] of told.messages) if (isLost(id, tasks)) await remove(id, event);
  for (const [id, tasks] of told.partials)
    if (isLost(id, tasks))
      await recording.append({
        event: "messages/partial",
        data: toWireJson([{ type: "remove", id, content: "" }]),
      });
  for (const [id, message] of asked.includes("messages-tuple") ? kept : []) {
    if (before.has(id)) continue;
    const shown = told.messages.get(id);
    if (shown?.text === message["content"]) continue;
    if (shown) await remove(id, shown.event);
    await recording.append({ event: shown?.event ?? "messages", data: JSON.stringify([message, {}]) });
  }
  const point = pointOf(newest);
  // Clients may have seen the beginning of an answer that the log does not know any more: only the whole state, which
  // takes it away without naming it, helps them.
  const isJoined = asked.includes("messages-tuple") || asked.includes("messages");
  if (asked.includes("values") || (told.hasJumped && isJoined))
    await recording.append({
      event: "values",
      data: JSON.stringify(newest.values),
      ...(typeof point === "string" ? { checkpoint: point } : {}),
    });
}

/** The same for those who follow the thread by protocol v2, and the begin of the attempt between the two. */
async function tellFollowers(
  { recording, told: toFollowers }: Rewound,
  { told, newest, finished, isLost, goesOn }: FollowersView,
): Promise<void> {
  const protocol = await toFollowers?.projection;
  // Clients from 1.15 on drop half messages when an attempt begins, and would show them again, empty, with values behind
  // that; older ones drop what stood in values once and then does not.
  const lost = goesOn ? [...told.begun].filter(([id, namespace]) => isLost(id, tasksIn(namespace))) : [];
  const half = lost.filter(([, namespace]) => isOfThread(namespace)).map(([id]) => id);
  for (const entry of protocol?.tell(told.half.ends()) ?? []) await recording.append(entry);
  for (const entry of protocol?.withdraw(newest.seen.values, half) ?? []) await recording.append(entry);
  for (const entry of (await toFollowers?.begin()) ?? []) await recording.append(entry);
  const open = told.open.all();
  const fates = Map.groupBy(open, (begun) => fateOf(begun, { newest, finished, goesOn }));
  // Those within end first.
  const ends = (["completed", "interrupted"] as const).flatMap((event) =>
    (fates.get(event) ?? []).map((graph) => endOf(graph, event)).toReversed(),
  );
  for (const entry of protocol?.tell(ends) ?? []) await recording.append(entry);
  protocol?.expect(fates.get("goes on") ?? []);
  // Before its first checkpoint a run that brings an input has told nothing that could be missed.
  if (!goesOn) return;
  const point = pointOf(newest);
  const { values, parentConfig, metadata } = newest.seen;
  const { step, source } = { ...metadata };
  const parent: unknown = parentConfig?.configurable?.["checkpoint_id"];
  const envelope = { id: point, ...(parent ? { parent_id: parent } : {}), step, source };
  for (const entry of protocol?.snapshot(values, envelope) ?? []) await recording.append(entry);
}

/**
 * What becomes of a graph in the graph that was told to have begun: it is over with its task, it goes on under the name
 * that it had, or nothing more is told under that name. One that remembers its earlier runs has the name of its node alone.
 * Calls of tools are made again, most of them under the id that they had: the begin that was told is theirs.
 */
function fateOf(
  begun: Begun,
  { newest, finished, goesOn }: Pick<FollowersView, "newest" | "finished" | "goesOn">,
): "completed" | "goes on" | "interrupted" {
  if (isCall(begun)) return "goes on";
  const { namespace } = begun;
  if (tasksIn(namespace).some((id) => finished.has(id))) return "completed";
  if (!goesOn) return "interrupted";
  const [node = "", task] = namespace[0]?.split(":") ?? [];
  if (task === undefined) return newest.next.includes(node) ? "goes on" : "completed";
  return newest.tasks.has(task) ? "goes on" : "interrupted";
}

/**
 * The run's answers to questions that stand as they were, by their ids: those that name them are known to the attempt
 * alone until their tasks are done, and one that names none was given to all that were open. A task that has asked its
 * next question keeps its answer itself.
 * @param asking the tasks that have asked a question in this run
 */
function answersLeft(
  run: AcceptedRun,
  now: StateSnapshot,
  asking: ReadonlySet<string>,
): Record<string, unknown> {
  const answer = run.kwargs.command?.["resume"];
  const named = answeredBy(run);
  if (named.length > 0) {
    const open = openIn(now, new Set());
    return Object.fromEntries(named.filter((id) => open.has(id)).map((id) => [id, asFields(answer)[id]]));
  }
  // Of a graph that a function calls, the state shows only the function's task, perhaps with the question before.
  const shown = shownIn(now);
  if (!bringsAnswer(run) || ![...asking].every((task) => shown.has(task))) return {};
  return Object.fromEntries([...openIn(now, asking)].map((id) => [id, answer]));
}

const shownIn = ({ tasks }: StateSnapshot): ReadonlySet<string> =>
  new Set(tasks.flatMap(({ id, state }) => [id, ...(state && "values" in state ? shownIn(state) : [])]));

/** Ids of the questions of a state; a graph in a graph knows its own better than the one around it. */
function openIn({ tasks }: StateSnapshot, but: ReadonlySet<string>): ReadonlySet<string> {
  const ids = tasks.flatMap(({ id: task, state, interrupts, result }) => {
    if (state && "values" in state) return [...openIn(state, but)];
    return result !== undefined || but.has(task) ? [] : interrupts.flatMap(({ id }) => id ?? []);
  });
  return new Set(ids);
}

async function finishedOf(engine: Engine, run: AcceptedRun, told: Attempted): Promise<ReadonlySet<unknown>> {
  const places = [...told.begun.values(), ...told.open.all().map(({ namespace }) => namespace)];
  const spoken = [...told.messages.values()].flatMap(({ tasks }) => tasks);
  const tasks = new Set([...spoken, ...[...told.partials.values()].flat(), ...places.flatMap(tasksIn)]);
  const ids = [...tasks];
  return new Set(await persistently(() => listFinishedTasks(engine.database, run.thread_id, ids)));
}

/** Every object of a state with an `id` and a `type`: messages, wherever a graph keeps them. */
function messagesIn(
  value: unknown,
  found = new Map<string, Record<string, unknown>>(),
): Map<string, Record<string, unknown>> {
  if (typeof value !== "object" || value === null) return found;
  const { id, type, content } = value as Record<string, unknown>; // plain data
  if (typeof id === "string" && typeof type === "string" && content !== undefined)
    found.set(id, { ...value });
  else for (const item of Object.values(value)) messagesIn(item, found);
  return found;
}
