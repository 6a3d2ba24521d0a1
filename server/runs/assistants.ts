// What may be done with assistants, and which one a run is for.
//
// The graphs' own assistants are remembered, so that a run on one of them costs no statement more; any other is read
// when a run asks for it. Neither is trusted: insertRun looks, in its own statement, whether the row still has the
// revision that the run was made from, and writes nothing if it was changed or deleted by any instance. The run is
// then made anew from what the database says. So what is remembered may be old, but a run never is made from it.
import { isDeepStrictEqual } from "node:util";
import {
  AssistantChanged,
  AssistantExists,
  AssistantFixed,
  AssistantNotFound,
  GraphNotFound,
  ThreadBusy,
} from "../errors.ts";
import { asFields } from "../fields.ts";
import type { Fields } from "../fields.ts";
import { assistantIdOf, isUuid } from "../ids.ts";
import {
  deleteAssistant,
  findAssistant,
  insertAssistant,
  listVersions,
  lockAssistant,
  restoreVersion,
  updateAssistant,
  upsertSystemAssistants,
} from "../storage/assistants.ts";
import type { AssistantRow, AssistantVersionRow } from "../storage/assistants.ts";
import { isAssistantVisible } from "../storage/auth-filter.ts";
import type { AuthFilter } from "../storage/auth-filter.ts";
import { deleteThreads, hasBusyThread, lockPrunable, lockThreadsOf } from "../storage/checkpoints/prune.ts";
import type { Database } from "../storage/database.ts";
import type { Engine } from "./engine.ts";
import { graphOfAssistant } from "./graph-of.ts";
import type { Graph } from "./graph/graph.ts";

/** What can be said of an assistant, when it is made and later. */
export interface AssistantChange {
  readonly graphId?: string | undefined;
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  readonly config?: Fields | undefined;
  readonly context?: Fields | undefined;
  readonly metadata?: Fields | undefined;
}

// Each try reads the row again: it takes as many changes in as many milliseconds to be refused.
const TRIES = 20;
const MOST_THREADS = 50;

/** The id of the assistant that a client names by its id, or by the id of its graph. */
export const assistantIdFor = (engine: Pick<Engine, "graphs">, asked: string): string =>
  isUuid(asked) && !engine.graphs.has(asked) ? asked.toLowerCase() : assistantIdOf(asked);

/** @throws AssistantNotFound */
export async function getAssistant(engine: Engine, asked: string): Promise<AssistantRow> {
  const assistant = await findAssistant(engine.database, assistantIdFor(engine, asked));
  if (!assistant) throw notFound();
  return assistant;
}

/**
 * Makes an assistant.
 * @param given.filter which of those that exist the caller may see
 * @throws GraphNotFound, AssistantExists unless what exists is wanted then
 */
export async function createAssistant(
  engine: Engine,
  given: AssistantChange & {
    graphId: string;
    assistantId: string;
    takesExisting: boolean;
    filter: AuthFilter | undefined;
  },
): Promise<AssistantRow> {
  const { assistantId, takesExisting, filter } = given;
  requireGraph(engine, given.graphId);
  const made = await insertAssistant(engine.database, assistantId, {
    graph_id: given.graphId,
    name: given.name ?? given.graphId,
    description: given.description ?? null,
    config: given.config ?? {},
    context: given.context ?? {},
    metadata: given.metadata ?? {},
  });
  const mayTake =
    !made &&
    takesExisting &&
    (filter === undefined || (await isAssistantVisible(engine.database, assistantId, filter)));
  const assistant = made ?? (mayTake ? await findAssistant(engine.database, assistantId) : undefined);
  if (!assistant) throw new AssistantExists();
  return assistant;
}

/**
 * Makes a new version: what is given replaces what was there, metadata are merged.
 * @throws AssistantNotFound, GraphNotFound, AssistantFixed
 */
export async function changeAssistant(
  engine: Engine,
  asked: string,
  change: AssistantChange,
): Promise<AssistantRow> {
  return engine.database.transaction(async (transaction) => {
    const old = await lockAssistant(transaction, assistantIdFor(engine, asked));
    if (!old) throw notFound();
    const graphId = change.graphId ?? old.graph_id;
    if (graphId !== old.graph_id) {
      requireGraph(engine, graphId);
      if (isOwn(old)) {
        throw new AssistantFixed(
          `Assistant ${old.assistant_id} is graph ${old.graph_id}'s own and runs no other graph. Create another assistant.`,
        );
      }
    }
    const changed = await updateAssistant(transaction, old.assistant_id, {
      graph_id: graphId,
      name: change.name ?? old.name,
      description: change.description ?? old.description,
      config: change.config ?? old.config,
      context: change.context ?? old.context,
      metadata: { ...old.metadata, ...change.metadata },
    });
    if (!changed) throw notFound();
    return changed;
  });
}

/** Goes back, or forward, to a version. @throws AssistantNotFound also when the assistant has no such version */
export async function setLatest(engine: Engine, asked: string, version: number): Promise<AssistantRow> {
  const { assistant_id: assistantId } = await getAssistant(engine, asked);
  const restored = await restoreVersion(engine.database, assistantId, version);
  if (restored) return restored;
  throw new AssistantNotFound(`Assistant ${assistantId} has no version ${version}`);
}

/** @throws AssistantNotFound */
export async function versionsOf(
  engine: Engine,
  asked: string,
  page: { metadata: Fields | undefined; limit: number; offset: number },
): Promise<AssistantVersionRow[]> {
  const { assistant_id: assistantId } = await getAssistant(engine, asked);
  return listVersions(engine.database, assistantId, page);
}

/**
 * Deletes an assistant with its versions and crons. Its runs stay, and those that are live go on: each keeps what it
 * needs. Its threads go only if asked, a few at a time and before it, so that a deletion that was cut short is
 * finished by asking again.
 * @param threads which of them go; undefined: none
 * @returns its id
 * @throws AssistantNotFound, AssistantFixed, ThreadBusy when a run is live on one of the threads
 */
export async function removeAssistant(
  engine: Engine,
  asked: string,
  threads: { readonly filter: AuthFilter | undefined } | undefined,
): Promise<string> {
  const assistant = await getAssistant(engine, asked);
  const { assistant_id: assistantId, graph_id: graphId } = assistant;
  if (isOwn(assistant) && engine.graphs.has(graphId)) {
    throw new AssistantFixed(
      `Assistant ${assistantId} is graph ${graphId}'s own and cannot be deleted while the graph is served.`,
    );
  }
  if (threads) await deleteThreadsOf(engine, assistantId, threads.filter);
  if (!(await deleteAssistant(engine.database, assistantId))) throw notFound();
  return assistantId;
}

async function deleteThreadsOf(
  { database }: Engine,
  assistantId: string,
  filter: AuthFilter | undefined,
): Promise<void> {
  if (await hasBusyThread(database, assistantId, filter)) throw ThreadBusy.forUpdate();
  for (let found = MOST_THREADS; found === MOST_THREADS;) {
    found = await database.transaction(async (transaction) => {
      const threadIds = await lockThreadsOf(transaction, assistantId, MOST_THREADS, filter);
      const { live } = await lockPrunable(transaction, threadIds);
      if (live.length > 0) throw ThreadBusy.forUpdate();
      await deleteThreads(transaction, threadIds);
      return threadIds.length;
    });
  }
}

/** The graph of an assistant. @throws AssistantNotFound, GraphNotFound */
export async function graphOf(engine: Engine, asked: string): Promise<{ graphId: string; graph: Graph }> {
  const assistant = await getAssistant(engine, asked);
  const { graph_id: graphId } = assistant;
  return { graphId, graph: await graphOfAssistant(requireGraph(engine, graphId), assistant) };
}

/** The assistant that a run, or a cron, is to be made for. @throws AssistantNotFound, GraphNotFound */
export async function requireAssistant(engine: Engine, asked: string): Promise<AssistantRow> {
  const id = assistantIdFor(engine, asked);
  const assistant = engine.assistants.get(id) ?? (await readAssistant(engine, id));
  if (!assistant) throw noAssistantFor(asked);
  if (!engine.graphs.has(assistant.graph_id)) throw new GraphNotFound(assistant.graph_id);
  return assistant;
}

/**
 * Makes something for an assistant; again, and from its newest row, if that was changed meanwhile.
 * @param work throws AssistantChanged when it wrote nothing for that reason
 */
export const withAssistant = <T>(
  engine: Engine,
  asked: string,
  work: (assistant: AssistantRow) => Promise<T>,
): Promise<T> => withAssistants(engine, async (assistantFor) => work(await assistantFor(asked)));

/** The same for as many as the work asks for. */
export async function withAssistants<T>(
  engine: Engine,
  work: (assistantFor: (asked: string) => Promise<AssistantRow>) => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    const used = new Set<string>();
    try {
      return await work(async (asked) => {
        const assistant = await requireAssistant(engine, asked);
        used.add(assistant.assistant_id);
        return assistant;
      });
    } catch (error) {
      if (!(error instanceof AssistantChanged) || tries === TRIES) throw error;
      for (const id of used) engine.assistants.delete(id);
    }
  }
}

async function readAssistant(engine: Engine, id: string): Promise<AssistantRow | undefined> {
  const assistant = await findAssistant(engine.database, id);
  if (assistant && isOwn(assistant) && engine.graphs.has(assistant.graph_id)) {
    engine.assistants.set(id, assistant);
  }
  return assistant;
}

/** Whether an assistant is the one that the server makes for a graph, whatever it was changed to. */
const isOwn = (assistant: Pick<AssistantRow, "assistant_id" | "graph_id">): boolean =>
  assistant.assistant_id === assistantIdOf(assistant.graph_id);

function requireGraph(engine: Engine, graphId: string): Graph {
  const graph = engine.graphs.get(graphId);
  if (!graph) throw new GraphNotFound(graphId);
  return graph;
}

/** What somebody is told whose run, or cron, names no assistant; the wording is the one official clients match. */
export const noAssistantFor = (asked: string): AssistantNotFound =>
  new AssistantNotFound(
    `No assistant found for "${asked}". Make sure the assistant ID is for a valid assistant or a valid graph ID.`,
  );

const notFound = (): AssistantNotFound => new AssistantNotFound("Assistant not found");

type Seeds = Readonly<Record<string, Fields>>;

/**
 * Makes the graphs' own assistants that are missing, with what LANGGRAPH_CONFIG says of them.
 * @param say told of what it says in vain
 * @returns all of them, as clients left them
 */
export async function seedAssistants(
  database: Database,
  graphIds: readonly string[],
  seeds: Seeds,
  say: (text: string) => void,
): Promise<AssistantRow[]> {
  const wanted = graphIds.map((graphId) => {
    const { context = {}, ...config } = seeds[graphId] ?? {};
    return { graphId, assistantId: assistantIdOf(graphId), config, context: asFields(context) };
  });
  const rows = await upsertSystemAssistants(database, wanted);
  for (const graphId of Object.keys(seeds)) {
    const row = rows.find((one) => one.assistant_id === assistantIdOf(graphId));
    const seed = wanted.find((one) => one.graphId === graphId);
    if (!row || !seed) say(`LANGGRAPH_CONFIG: ${graphId} is no graph of this server.`);
    else if (!isDeepStrictEqual([row.config, row.context], [seed.config, seed.context]))
      say(`LANGGRAPH_CONFIG: the assistant of ${graphId} exists and keeps its own config and context.`);
  }
  return rows;
}
