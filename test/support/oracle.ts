// One graph at two places: behind a server of ours, through the official client, and in this process with LangGraph's
// MemorySaver. Both are asked the same and shown in one form, in which a checkpoint is named by its place among those
// of its thread in the order they were made, because ids differ.
import { isBaseMessage } from "@langchain/core/messages";
import type { RunnableConfig } from "@langchain/core/runnables";
import { Command, MemorySaver, Send } from "@langchain/langgraph";
import type { StateSnapshot } from "@langchain/langgraph";
import { WRITES_IDX_MAP } from "@langchain/langgraph-checkpoint";
import type { PendingWrite } from "@langchain/langgraph-checkpoint";
import type { Client, ThreadState } from "@langchain/langgraph-sdk";
import { ways } from "../fixtures/oracle.ts";
import type { NODES } from "../fixtures/oracle.ts";

const GRAPH = "oracle";
const ALL = 1000;

/** What a run is asked for; `resume` answers what an interrupt asked. Of a command no `update`: LangGraph may apply it twice. */
export interface Ask {
  readonly input?: Record<string, unknown> | null;
  readonly resume?: string;
  readonly command?: Record<string, unknown>;
  readonly interruptBefore?: (typeof NODES)[number][] | "*";
  readonly interruptAfter?: (typeof NODES)[number][] | "*";
  readonly durability: "sync" | "async" | "exit";
}

export interface Change {
  readonly values: Record<string, unknown> | null;
  readonly asNode?: string;
}

interface SeenTask {
  readonly name: string;
  readonly error: string | null;
  readonly interrupts: readonly unknown[];
  readonly result: unknown;
  readonly isSubgraph: boolean;
  /** What was read of the subgraph. */
  readonly inside: Omit<Seen, "place" | "parent"> | null;
}

/** A state in the form that both sides are compared in. */
interface Seen {
  readonly values: unknown;
  readonly next: readonly string[];
  readonly tasks: readonly SeenTask[];
  readonly source: unknown;
  readonly step: unknown;
  /** Place of its checkpoint, and of the one it goes on from; -1 is none. */
  readonly place: number;
  readonly parent: number;
}

export interface View {
  readonly state: Seen;
  /** With what is inside of its subgraphs. */
  readonly whole: Seen;
  /** The same of a checkpoint half way. */
  readonly midway: Seen | null;
  /** Newest first. */
  readonly history: readonly Seen[];
}

export interface Side {
  create(threadId: string): Promise<void>;
  /** @returns how it ended: "done", or the class and message of the error */
  run(threadId: string, ask: Ask, at?: string): Promise<string>;
  /** @returns whether it was taken */
  update(threadId: string, change: Change, at?: string): Promise<boolean>;
  /** @returns the id of the copy; of the oracle it is chosen by who asks */
  copy(threadId: string, copyId?: string): Promise<string>;
  delete(threadId: string): Promise<void>;
  /** @returns the thread as it is, and its checkpoints' ids, oldest first */
  look(threadId: string): Promise<{ view: View; ids: readonly string[] }>;
}

export function holdfastSide(client: Client): Side {
  // Checkpoints may be named in two ways; both are used in turn.
  let isNamedById = false;
  const place = (at: string | undefined): object => {
    isNamedById = !isNamedById;
    if (at === undefined) return {};
    return isNamedById ? { checkpointId: at } : { checkpoint: { checkpoint_id: at, checkpoint_ns: "" } };
  };
  return {
    create: async (threadId) => void (await client.threads.create({ threadId, graphId: GRAPH })),
    run: async (threadId, { resume, ...ask }, at) => {
      const asked = resume === undefined ? ask : { ...ask, command: { resume } };
      const values = await client.runs.wait(threadId, GRAPH, {
        ...asked,
        ...place(at),
        raiseError: false,
      });
      // The answer of a failed run, as the client hands it on.
      const { __error__: failure } = values as { __error__?: { error: string; message: string } };
      return failure ? `${failure.error}: ${failure.message}` : "done";
    },
    update: (threadId, { values, asNode }, at) =>
      client.threads
        .updateState(threadId, { values, ...(asNode ? { asNode } : {}), ...place(at) })
        .then(() => true, refusedBy(/^HTTP 4\d\d/)),
    copy: async (threadId) => (await client.threads.copy(threadId)).thread_id,
    delete: (threadId) => client.threads.delete(threadId),
    look: async (threadId) => {
      const subgraphs = true;
      const [state, whole, history] = await Promise.all([
        client.threads.getState(threadId),
        client.threads.getState(threadId, undefined, { subgraphs }),
        client.threads.getHistory(threadId, { limit: ALL }),
      ]);
      const half = halfOf(history)?.checkpoint;
      const midway = half ? await client.threads.getState(threadId, half, { subgraphs }) : null;
      const ids = history.map(({ checkpoint }) => checkpoint.checkpoint_id ?? "").toReversed();
      const seen = (one: ThreadState): Seen => ({
        ...ofClient(one),
        place: ids.indexOf(one.checkpoint?.checkpoint_id ?? ""),
        parent: ids.indexOf(one.parent_checkpoint?.checkpoint_id ?? ""),
      });
      return {
        view: {
          state: seen(state),
          whole: seen(whole),
          midway: midway && seen(midway),
          history: history.map(seen),
        },
        ids,
      };
    },
  };
}

/**
 * LangGraph's own savers differ in one thing: when a task that was answered before ends, its answers come together with
 * its results. In memory they take the place of the answers that are stored; in PostgreSQL, for LangGraph's saver and
 * for ours, nothing that comes with results replaces anything: so a run that is rolled back leaves the answers of the
 * runs before it. A resume from an older checkpoint shows the difference.
 */
export class Oracle extends MemorySaver {
  override async putWrites(
    config: RunnableConfig,
    writes: PendingWrite[],
    taskId: string,
    taskPath?: string,
  ): Promise<void> {
    const { thread_id: threadId, checkpoint_ns: namespace, checkpoint_id: id } = config.configurable ?? {};
    const key = JSON.stringify([threadId, namespace, id]);
    const stored = Object.entries(this.writes[key] ?? {}).filter(([place]) => place.startsWith(`${taskId},`));
    await super.putWrites(config, writes, taskId, taskPath);
    if (writes.every(([channel]) => channel in WRITES_IDX_MAP)) return;
    Object.assign(this.writes[key] ?? {}, Object.fromEntries(stored));
  }
}

const placeOf = (threadId: string, at?: string): { configurable: Record<string, string> } => ({
  // MemorySaver takes a checkpoint that is named without its namespace for none at all when it is changed.
  configurable: {
    thread_id: threadId,
    checkpoint_ns: "",
    ...(at === undefined ? {} : { checkpoint_id: at }),
  },
});

export function oracleSide(): Side {
  const saver = new Oracle();
  const graph = ways.compile({ checkpointer: saver });
  const writesOf = (threadId: string): [string, unknown[]][] =>
    Object.keys(saver.writes)
      .map((key): [string, unknown[]] => [key, JSON.parse(key) as unknown[]])
      .filter(([, [owner]]) => owner === threadId);
  return {
    create: () => Promise.resolve(),
    run: async (threadId, { input, resume, command, ...ask }, at) => {
      const commanded = resume === undefined ? command : { resume };
      const asked = commanded ? new Command<string, never, never>(sent(commanded)) : (input ?? null);
      return graph.invoke(asked, { ...ask, ...placeOf(threadId, at) }).then(
        () => "done",
        (error: unknown) => String(error),
      );
    },
    update: (threadId, { values, asNode }, at) =>
      graph.updateState(placeOf(threadId, at), values, asNode).then(() => true, refusedBy(/./)),
    // It keeps a thread's checkpoints under its id, and their writes under [thread, namespace, checkpoint] as JSON.
    copy: (threadId, copyId = "") => {
      const checkpoints = saver.storage[threadId];
      if (checkpoints) saver.storage[copyId] = structuredClone(checkpoints);
      for (const [key, [, ...rest]] of writesOf(threadId)) {
        saver.writes[JSON.stringify([copyId, ...rest])] = structuredClone(saver.writes[key] ?? {});
      }
      return Promise.resolve(copyId);
    },
    delete: (threadId) => saver.deleteThread(threadId),
    look: async (threadId) => {
      const config = placeOf(threadId);
      const history = await Array.fromAsync(graph.getStateHistory(config));
      const ids = history.map((one) => idOf(one.config)).toReversed();
      const seen = (one: StateSnapshot): Seen => ({
        ...ofOracle(one),
        place: ids.indexOf(idOf(one.config)),
        parent: ids.indexOf(idOf(one.parentConfig)),
      });
      const half = halfOf(history)?.config;
      const [state, whole, midway] = [
        await graph.getState(config),
        await graph.getState(config, { subgraphs: true }),
        half ? await graph.getState(half, { subgraphs: true }) : null,
      ];
      return {
        view: {
          state: seen(state),
          whole: seen(whole),
          midway: midway && seen(midway),
          history: history.map(seen),
        },
        ids,
      };
    },
  };
}

const place = (one: unknown): unknown =>
  one instanceof Object ? new Send(Reflect.get(one, "node"), Reflect.get(one, "input")) : one;

/** A command as the client sends it, in LangGraph's own form. */
function sent({ goto, ...rest }: Record<string, unknown>): object {
  return { ...rest, ...(goto === undefined ? {} : { goto: Array.isArray(goto) ? goto.map(place) : goto }) };
}

const halfOf = <Item>(list: readonly Item[]): Item | undefined => list[Math.floor(list.length / 2)];

const refusedBy =
  (pattern: RegExp) =>
  (error: unknown): false => {
    const message = error instanceof Error ? error.message : String(error);
    if (pattern.test(message)) return false;
    throw error;
  };

const idOf = (config: StateSnapshot["config"] | undefined): string =>
  String(config?.configurable?.["checkpoint_id"] ?? "none");

function ofClient(state: ThreadState): Omit<Seen, "place" | "parent"> {
  return {
    values: plain(state.values),
    next: state.next,
    tasks: state.tasks.map((task) => ({
      name: task.name,
      error: task.error ?? null,
      interrupts: task.interrupts.map(({ value }) => plain(value)),
      result: plain(task.result ?? null),
      isSubgraph: Boolean(task.checkpoint ?? task.state),
      inside: task.state ? ofClient(task.state) : null,
    })),
    source: state.metadata?.["source"] ?? null,
    step: state.metadata?.["step"] ?? null,
  };
}

function ofOracle(state: StateSnapshot): Omit<Seen, "place" | "parent"> {
  return {
    values: plain(state.values ?? {}),
    next: state.next,
    tasks: state.tasks.map((task) => ({
      name: task.name,
      error: errorText(task.error),
      interrupts: task.interrupts.map(({ value }) => plain(value)),
      result: plain(task.result ?? null),
      isSubgraph: task.state !== undefined,
      inside: task.state && "values" in task.state ? ofOracle(task.state) : null,
    })),
    source: state.metadata?.source ?? null,
    step: state.metadata?.step ?? null,
  };
}

/** LangGraph keeps an error as an object, and clients are told it as JSON. */
const errorText = (error: unknown): string | null =>
  error === undefined || error === null ? null : JSON.stringify(error);

/** As JSON, with messages by what these graphs give them: on the wire they carry empty fields besides. */
function plain(value: unknown): unknown {
  if (isBaseMessage(value)) return { type: value.getType(), id: value.id, content: value.content };
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  if ("type" in value && "id" in value && "content" in value) {
    return { type: value.type, id: value.id, content: value.content };
  }
  const entries = Object.entries(value).filter(([, part]) => part !== undefined);
  return Object.fromEntries(entries.map(([key, part]) => [key, plain(part)]));
}
