// Our saver: LangGraph checkpoints in the stock PostgresSaver's tables.
// Versions are unique, so branches of a thread never share a blob; writes come back in live order; a write of a run
// that has another owner, or to a deleted thread, is refused and reported, so that its run stops at once.
import {
  BaseCheckpointSaver,
  TASKS,
  WRITES_IDX_MAP,
  maxChannelVersion,
} from "@langchain/langgraph-checkpoint";
import type {
  ChannelVersions,
  Checkpoint,
  CheckpointListOptions,
  CheckpointMetadata,
  CheckpointTuple,
  DeltaChannelHistory,
  PendingWrite,
} from "@langchain/langgraph-checkpoint";
import type { RunnableConfig } from "@langchain/core/runnables";
import { InputInvalid, InputPoisoned, LeaseLost } from "../../errors.ts";
import type { AppError } from "../../errors.ts";
import { persistently } from "../../persist.ts";
import type { DataKey } from "../../privacy/seal.ts";
import { dump, load } from "../../privacy/serde.ts";
import { isStorable } from "../../privacy/storable.ts";
import type { Database, Queryable } from "../database.ts";
import { Order, findNewestId } from "./clock.ts";
import { listDeltaHistory } from "./deltas.ts";
import type { CheckpointKey, CheckpointWrite, PointWrite, Urgency, Value } from "./form.ts";
import { metadataText } from "./metadata.ts";
import { deleteThreads } from "./prune.ts";
import { Questions } from "./questions.ts";
import { findCheckpointRows, listCheckpointRows, listPendingSendRows } from "./rows.ts";
import type { CheckpointRow } from "./rows.ts";
import { configOf, keyOf, tuplesOf } from "./tuples.ts";
import { putForThread } from "./writes.ts";

const START = "__start__";
const PAGE = 100;

export interface CheckpointsOptions {
  /** Called before a refused write throws: whoever drives the graph must stop it. */
  readonly onLost?: (error: AppError) => void;
  /** How long an absence of the database is borne, in milliseconds; 0 fails at once. */
  readonly patienceMs?: number;
  /** Writes for the run that drives the graph; by default each write is a statement of its own. False: lost. */
  readonly put?: (write: CheckpointWrite, urgency: Urgency) => Promise<boolean>;
  /** Called before a write, for what has to be stored before it; undefined when nothing has. */
  readonly keep?: () => Promise<void> | undefined;
  /** Whether a superstep's checkpoint may be written while the next one begins. */
  readonly mayTrail?: boolean;
  /** Resolves when everything that was put can be read. */
  readonly settled?: () => Promise<void>;
  /** The channels that trigger nodes of the graph; unknown: any may. */
  readonly triggers?: Readonly<Record<string, readonly string[]>> | undefined;
  /** Says what of a value may be kept, and is told of what nobody had taken out before; without it all is kept. */
  readonly redact?: <Kept>(value: Kept, channel: string) => Kept;
  /** What is kept with each checkpoint, of the run that makes it. */
  readonly metadata?: Readonly<Record<string, unknown>>;
  /** Nothing was ever written to the thread: the first read, which would find nothing, is spared. */
  readonly isNew?: boolean;
  /** What is read is gone on from: reading waits until what is written next counts as newer, and writing makes sure. */
  readonly goesOn?: { readonly signal?: AbortSignal };
}

/** The last checkpoint of the thread's own graph that was put, for who wants to know the state without reading. */
export interface LastPut {
  readonly id: string;
  readonly parentId: string | undefined;
  readonly createdAt: string;
  /** JSON text. */
  readonly metadata: string;
  readonly isInput: boolean;
}

export class Checkpoints extends BaseCheckpointSaver {
  readonly #database: Queryable | Database;
  readonly #onLost: (error: AppError) => void;
  readonly #patienceMs: number;
  readonly #put: (write: CheckpointWrite, urgency: Urgency) => Promise<boolean>;
  readonly #urgencyOfStep: Urgency;
  readonly #triggers: Readonly<Record<string, readonly string[]>> | undefined;
  readonly #redact: <Kept>(value: Kept, channel: string) => Kept;
  readonly #settled: () => Promise<void>;
  readonly #keys = new Map<string, Promise<DataKey | undefined>>();
  readonly #order: Order | undefined;
  readonly #ofRun: Readonly<Record<string, unknown>>;
  readonly #questions = new Questions();
  #isNew: boolean;
  /** Undefined before the first put. */
  lastPut: LastPut | undefined;

  /** @param database the pool, or a transaction that all reads and writes are then part of */
  constructor(database: Queryable | Database, options: CheckpointsOptions = {}) {
    super();
    this.#database = database;
    this.#onLost = options.onLost ?? (() => {});
    this.#patienceMs = options.patienceMs ?? 0;
    const putAlone = async (write: CheckpointWrite): Promise<boolean> => {
      await options.keep?.();
      return this.#persist(() => this.#putAlone(write));
    };
    this.#put = options.put ?? putAlone;
    this.#urgencyOfStep = options.mayTrail ? "trailing" : "now";
    this.#triggers = options.triggers;
    this.#redact = options.redact ?? ((value) => value);
    this.#settled = options.settled ?? (() => Promise.resolve());
    this.#isNew = options.isNew ?? false;
    this.#order = options.goesOn && new Order(options.goesOn.signal);
    this.#ofRun = options.metadata ?? {};
  }

  /**
   * A counter and a random fraction: sorts like the stock saver's integers and goes on from them, and no sibling
   * branch repeats it. (LangGraph compares versions with `>`: a string beside an adopted integer would be neither
   * newer nor older, and the input of the next run would be ignored.)
   */
  override getNextVersion(current: number | undefined): number {
    return Math.floor(current ?? 0) + 1 + Math.random();
  }

  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    if (config.configurable?.["thread_id"] === undefined) return undefined;
    const key = keyOf(config);
    if (this.#isNew && !this.lastPut) return undefined;
    await this.#settled();
    const rows = await this.#persist(() => findCheckpointRows(this.#database, key));
    this.#questions.note(rows);
    const [tuple] = await this.#tuples(rows);
    if (!this.#order) return tuple;
    const find = (): Promise<string | undefined> => findNewestId(this.#database, key);
    await this.#order.comeAfter(key.checkpointId ? await this.#persist(find) : tuple?.checkpoint.id, key);
    return tuple;
  }

  override async *list(
    config: RunnableConfig,
    options: CheckpointListOptions = {},
  ): AsyncGenerator<CheckpointTuple> {
    await this.#settled();
    let left = options.limit ?? Number.POSITIVE_INFINITY;
    let after: CheckpointKey | undefined;
    while (left > 0) {
      const limit = Math.min(left, PAGE);
      const rows = await listCheckpointRows(this.#database, {
        threadId: config.configurable?.["thread_id"],
        namespace: config.configurable?.["checkpoint_ns"],
        checkpointId: config.configurable?.["checkpoint_id"],
        metadata: options.filter,
        before: options.before?.configurable?.["checkpoint_id"],
        after,
        limit,
      });
      const tuples = await this.#tuples(rows);
      yield* tuples;
      const last = tuples.at(-1);
      if (!last || tuples.length < limit) return;
      const { threadId, namespace } = keyOf(last.config);
      after = { threadId, namespace, checkpointId: last.checkpoint.id };
      left -= tuples.length;
    }
  }

  override async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    newVersions: ChannelVersions,
  ): Promise<RunnableConfig> {
    const { threadId, namespace, checkpointId: parentId } = keyOf(config);
    const setBack = this.#order?.wrongOf(checkpoint.id, { namespace, parentId });
    if (setBack) {
      await this.#settled(); // what the superstep has brought is gone on from
      this.#stop(setBack);
    }
    const { channel_values: current, ...rest } = checkpoint;
    const values = Object.entries(newVersions)
      .filter(([channel]) => channel in current)
      .map(([channel, version]) => this.#valueOf(channel, current[channel], { version: String(version) }));
    const key = { threadId, namespace, checkpointId: checkpoint.id };
    const about = metadataText(config, this.#redact(metadata, "metadata"), this.#ofRun);
    const isInput = metadata.source === "input";
    const previous = this.lastPut;
    if (namespace === "") {
      this.lastPut = { id: checkpoint.id, parentId, createdAt: checkpoint.ts, metadata: about, isInput };
    }
    const point: PointWrite = {
      ...key,
      parentId,
      checkpoint: JSON.stringify(rest),
      metadata: about,
      values,
      isInput,
    };
    if (!(await this.#put(point, this.#urgencyOf(point, current, previous)))) this.#lose(threadId);
    return configOf(key);
  }

  override async putWrites(
    config: RunnableConfig,
    writes: PendingWrite[],
    taskId: string,
    taskPath = "",
  ): Promise<void> {
    const { threadId, namespace, checkpointId } = keyOf(config);
    if (checkpointId === undefined) throw new InputInvalid("putWrites needs configurable.checkpoint_id.");
    // A command leads where its text says: refused by the database, the write would take the end of its run along.
    if (!isStorable(taskPath) || !writes.every(([channel]) => isStorable(channel)))
      throw new InputPoisoned("The name of a channel or node holds NUL or half a surrogate pair.");
    const at = { threadId, namespace, checkpointId };
    const task = {
      ...at,
      taskId,
      taskPath,
      writes: writes.map(([channel, value], index) =>
        this.#valueOf(channel, value, { idx: placeOf(channel) ?? index }),
      ),
    };
    if (!this.#questions.has(task) && !(await this.#put(task, "soon"))) this.#lose(threadId);
  }

  /** Deletes the thread itself too, so that late writes of a run still going are refused. */
  override async deleteThread(threadId: string): Promise<void> {
    const database = this.#database;
    if ("transaction" in database) await database.transaction((one) => deleteThreads(one, [threadId]));
    else await deleteThreads(database, [threadId]);
  }

  override async getDeltaChannelHistory(options: {
    config: RunnableConfig;
    channels: string[];
  }): Promise<Record<string, DeltaChannelHistory>> {
    await this.#settled();
    const key = keyOf(options.config);
    return this.#persist(() => listDeltaHistory(this.#database, key, options.channels));
  }

  #valueOf<Place extends object>(channel: string, value: unknown, place: Place): Value & Place {
    const [type, bytes] = dump(this.#redact(value, channel));
    return { channel, type, bytes, ...place };
  }

  /** Outside any run, under the key that the thread had when it was first written to. */
  async #putAlone(write: CheckpointWrite): Promise<boolean> {
    const { threadId } = write;
    const finding = this.#keys.get(threadId) ?? this.#database.seals.ofLocked(this.#database, threadId);
    this.#keys.set(threadId, finding);
    return putForThread(this.#database, write, await finding);
  }

  /** Every statement here may run twice: what it writes is the same the second time. */
  #persist<T>(work: () => Promise<T>): Promise<T> {
    return this.#patienceMs > 0 ? persistently(work, { forMs: this.#patienceMs }) : work();
  }

  /**
   * No node has run before the input's checkpoint, nor, in a StateGraph, before the one after it: nothing is lost with
   * them that the run's row does not hold. A checkpoint of the thread's own graph that triggers no node is the last one.
   */
  #urgencyOf(
    { isInput, namespace, values }: PointWrite,
    current: Record<string, unknown>,
    previous: LastPut | undefined,
  ): Urgency {
    const triggers = namespace === "" ? this.#triggers : undefined;
    if (isInput) return "soon";
    if (!triggers) return this.#urgencyOfStep;
    if (previous?.isInput && triggers[START]?.join() === START) return "soon";
    const mayTrigger = ({ channel }: Value): boolean =>
      channel === TASKS || (channel in triggers && !isWaitingForAll(channel, current[channel]));
    return values.some(mayTrigger) ? this.#urgencyOfStep : "the end";
  }

  #lose(threadId: string): never {
    this.#stop(
      new LeaseLost(
        `Thread ${threadId} was deleted, or its run has another owner: nothing more is written to it.`,
      ),
    );
  }

  #stop(error: AppError): never {
    this.#onLost(error);
    throw error;
  }

  async #tuples(rows: readonly CheckpointRow[]): Promise<CheckpointTuple[]> {
    const tuples = tuplesOf(rows);
    await this.#addPendingSends(
      tuples.filter(({ checkpoint, parentConfig }) => checkpoint.v < 4 && parentConfig),
    );
    return tuples;
  }

  /** Checkpoints before version 4 kept a superstep's sends among the writes of their parent. */
  async #addPendingSends(old: readonly CheckpointTuple[]): Promise<void> {
    const groups = Map.groupBy(old, ({ config }) =>
      JSON.stringify([keyOf(config).threadId, keyOf(config).namespace]),
    );
    for (const tuples of groups.values()) {
      const [first] = tuples;
      if (!first) continue;
      const sends = await listPendingSendRows(this.#database, {
        ...keyOf(first.config),
        checkpointIds: tuples.map(parentOf),
        channel: TASKS,
      });
      for (const tuple of tuples) {
        const mine = sends.filter((row) => row.checkpoint_id === parentOf(tuple));
        if (mine.length === 0) continue;
        const { channel_values: values, channel_versions: versions } = tuple.checkpoint;
        values[TASKS] = mine.map(({ type, blob }) => load(type, blob));
        const all = Object.values(versions);
        versions[TASKS] = all.length > 0 ? maxChannelVersion(...all) : this.getNextVersion(undefined);
      }
    }
  }
}

const parentOf = (tuple: CheckpointTuple): string => keyOf(tuple.parentConfig ?? {}).checkpointId ?? "";

/** Where errors, interrupts and resumes stand. A client may name a channel "constructor". */
const placeOf = (channel: string): number | undefined =>
  Object.hasOwn(WRITES_IDX_MAP, channel) ? WRITES_IDX_MAP[channel] : undefined;

/** A channel that triggers when several nodes are done, and none of them is. */
const isWaitingForAll = (channel: string, done: unknown): boolean =>
  channel.startsWith("join:") && Array.isArray(done) && done.length === 0;
