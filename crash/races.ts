// Two hands on one run, in the one order that matters, straight on the storage functions of a copy of the server: what a
// fence has to do can be seen in a moment, without waiting for chance to bring it about.
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import type { Scratch } from "../server/commands/chaos/scratch.ts";
import { uuidv7 } from "../server/ids.ts";
import type * as Assistants from "../server/storage/assistants.ts";
import type * as CheckpointWrites from "../server/storage/checkpoints/writes.ts";
import type { Queryable } from "../server/storage/database.ts";
import type * as Events from "../server/storage/events.ts";
import type { Owner } from "../server/storage/fence.ts";
import type * as Finish from "../server/storage/finish.ts";
import type * as Queue from "../server/storage/queue.ts";
import type * as Runs from "../server/storage/runs.ts";
import type { Violation } from "./report.ts";
import type { Sources } from "./sources.ts";

interface Storage {
  readonly assistants: typeof Assistants;
  readonly runs: typeof Runs;
  readonly events: typeof Events;
  readonly points: typeof CheckpointWrites;
  readonly finish: typeof Finish;
  readonly queue: typeof Queue;
}

/** A write that belongs to an attempt; answers whether it was accepted. */
type Write = (storage: Storage, on: Queryable, owner: Owner) => Promise<boolean>;

const TAKEOVER_MS = 400;
const RUN_MS = 60_000;
const ASSISTANT = { assistantId: uuidv7(), graphId: "race" };

const writes: Readonly<Record<string, Write>> = {
  events: async ({ events }, on, { runId, workerId, attempt }) => {
    const segment = { runId, attempt, seq: 0, last: 0, body: "e\tcustom\t1", isFirst: true };
    const held = await events.insertSegments(on, workerId, [segment]);
    return held.some((one) => one.attempt === attempt);
  },
  checkpoint: async ({ points }, on, owner) => {
    const key = { threadId: owner.threadId, namespace: "", checkpointId: uuidv7() };
    const write = {
      ...key,
      parentId: undefined,
      checkpoint: "{}",
      metadata: "{}",
      values: [],
      isInput: false,
    };
    const held = await points.putForOwners(on, owner.workerId, [{ owner, write }], []);
    return held.size > 0;
  },
  end: async ({ finish }, on, owner) => {
    const nothing = {
      error: null,
      threadState: null,
      rest: undefined,
      points: [],
      segments: 0,
      after: undefined,
      webhook: undefined,
      notes: [],
    };
    const end = { ...nothing, state: "success", threadStatus: "idle" } as const;
    return (await finish.finishRun(on, owner, end)) !== undefined;
  },
};

/** Where its parts stand in server/storage; they are loaded from changed sources, so no import names them. */
export const PARTS = {
  assistants: "assistants.ts",
  runs: "runs.ts",
  events: "events.ts",
  points: "checkpoints/writes.ts",
  finish: "finish.ts",
  queue: "queue.ts",
} as const;

/** Every race against every kind of write. */
export async function race(sources: Sources, scratch: Scratch): Promise<Violation[]> {
  const load = <T>(part: keyof typeof PARTS): Promise<T> =>
    import(pathToFileURL(join(sources.folder, "server", "storage", PARTS[part])).href) as Promise<T>;
  const storage: Storage = {
    assistants: await load("assistants"),
    runs: await load("runs"),
    events: await load("events"),
    points: await load("points"),
    finish: await load("finish"),
    queue: await load("queue"),
  };
  const found: Violation[] = [];
  for (const [name, write] of Object.entries(writes)) {
    if (await isOvertaken(storage, scratch, write))
      found.push({ law: "a takeover waits for a write under way", what: name });
    if (await isHeeded(storage, scratch, write))
      found.push({ law: "an older attempt of the same worker is refused", what: name });
  }
  return found;
}

/** A write is open, not committed, when the run is given back: is it given back before the write is done? */
async function isOvertaken(storage: Storage, { database }: Scratch, write: Write): Promise<boolean> {
  const owner = await begin(storage, database);
  let early: string[] | undefined;
  let requeued: Promise<unknown> = Promise.resolve();
  await database.transaction(async (transaction) => {
    await write(storage, transaction, owner);
    requeued = storage.queue.requeueRuns(database, [owner.workerId]).then((runIds) => (early ??= runIds));
    await delay(TAKEOVER_MS);
    early ??= [];
  });
  await requeued;
  return early?.includes(owner.runId) ?? false;
}

/** The same worker has claimed the run again: is what its older attempt writes accepted? */
async function isHeeded(storage: Storage, { database }: Scratch, write: Write): Promise<boolean> {
  const owner = await begin(storage, database);
  const { runId, workerId, attempt } = owner;
  await storage.queue.releaseRuns(database, workerId, [{ runId, attempt }], false);
  const claim = { workerId, limit: 100, graphIds: [ASSISTANT.graphId], timeoutMs: RUN_MS };
  await storage.queue.claimRuns(database, claim);
  return write(storage, database, owner);
}

/** A run on a thread of its own that a worker of its own executes, in its first attempt. */
async function begin({ runs, assistants }: Storage, on: Queryable): Promise<Owner> {
  await assistants.upsertSystemAssistants(on, [ASSISTANT]);
  const owner = { runId: uuidv7(), threadId: uuidv7(), workerId: uuidv7(), attempt: 1 };
  const nothing = { metadata: { graph_id: ASSISTANT.graphId }, threadMetadata: {}, kwargs: {} };
  const place = { assistantId: ASSISTANT.assistantId, multitask: "reject", timeoutMs: RUN_MS };
  await runs.insertRun(on, { ...owner, ...nothing, ...place, state: "running", creates: "thread" });
  return owner;
}
