// The store as nodes of a graph see it: LangGraph's BaseStore over holdfast.store_items. The writes of one batch are one
// statement; while a run makes them it is fenced, so that a run that has lost its lease writes nothing and is stopped.
import { BaseStore } from "@langchain/langgraph-checkpoint";
import type {
  GetOperation,
  Item,
  ListNamespacesOperation,
  Operation,
  OperationResults,
  PutOperation,
  SearchItem,
  SearchOperation,
} from "@langchain/langgraph-checkpoint";
import { LeaseLost, PersonalIdentifier, StoreSearchUnavailable } from "../../errors.ts";
import { faultPoint } from "../../faults.ts";
import { persistently } from "../../persist.ts";
import type { Guard } from "../../privacy/guard.ts";
import { storableOf } from "../../privacy/storable.ts";
import type { Queryable } from "../database.ts";
import type { Owner } from "../fence.ts";
import { conditionsOf, filterAsKept } from "./filter.ts";
import { queryVectors, searchByMeaning, withVectors } from "./meaning.ts";
import type { IndexedWrite, RankedItem } from "./meaning.ts";
import { listNamespaces } from "./namespaces.ts";
import { findItems, searchItems, writeItems } from "./store.ts";
import type { StoreTtl, StoreWrite } from "./store.ts";
import type { Embedder } from "./vectors.ts";

export interface GraphStoreOptions {
  /** The run that writes; a write outside any run is not fenced. */
  readonly owner?: Owner;
  /** Says what of an item may be kept; without one all of it. */
  readonly guard?: Guard;
  /** Who makes vectors; without one nothing is searched by meaning. */
  readonly embedder?: Embedder | undefined;
  /** How long items are kept that a graph writes, which cannot say it; for ever without it. */
  readonly ttl?: StoreTtl;
  /** Called before a refused write throws: whoever drives the graph must stop it. */
  readonly onLost?: (error: LeaseLost) => void;
  /** How long an absence of the database is borne, in milliseconds; 0 fails at once. */
  readonly patienceMs?: number;
  /** Aborts when the run ends, however it does. */
  readonly signal?: AbortSignal;
}

const KEPT: StoreTtl = { minutes: null, refreshesOnRead: true };

type Vectors = ReadonlyMap<string, Float32Array>;
type Result = Item | SearchItem[] | string[][] | null | undefined;

export class GraphStore extends BaseStore {
  readonly #database: Queryable;
  readonly #options: GraphStoreOptions;

  /** @param database the pool, or a transaction that all reads and writes are then part of */
  constructor(database: Queryable, options: GraphStoreOptions = {}) {
    super();
    this.#database = database;
    this.#options = options;
  }

  /** What is read is the store before the batch; LangGraph gathers here what nodes do at the same moment. */
  override async batch<Operations extends Operation[]>(
    operations: Operations,
  ): Promise<OperationResults<Operations>> {
    const { embedder, signal, guard, ttl = KEPT } = this.#options;
    // Before anything is read or written: what cannot be embedded leaves no half of a batch behind.
    const [writes, vectors] = await Promise.all([
      withVectors(
        operations.filter(isPut).map((put) => writeOf(put, ttl.minutes, guard)),
        embedder,
        signal,
      ),
      this.#vectorsOf(operations.filter(isSearch)),
    ]);
    const items = await this.#find(operations.filter(isGet));
    const results: Result[] = [];
    for (const operation of operations) results.push(await this.#resultOf(operation, items, vectors));
    if (writes.length > 0) await this.#write(writes);
    // One result for each operation, of the kind that goes with it: TypeScript cannot follow that through a loop.
    return results as OperationResults<Operations>;
  }

  /** The vectors of what is searched for, in one request. */
  async #vectorsOf(searches: readonly SearchOperation[]): Promise<Vectors> {
    const queries = searches.flatMap(({ query }) => (query ? this.#asKept(query) : []));
    if (queries.length === 0) return new Map();
    const { embedder, signal } = this.#options;
    if (!embedder) throw new StoreSearchUnavailable();
    return queryVectors(embedder, queries, signal);
  }

  async #resultOf(operation: Operation, items: Iterator<Item | null>, vectors: Vectors): Promise<Result> {
    if (isPut(operation)) return undefined;
    if (isGet(operation)) return items.next().value;
    return isSearch(operation) ? this.#search(operation, vectors) : this.#list(operation);
  }

  async #find(operations: readonly GetOperation[]): Promise<Iterator<Item | null>> {
    if (operations.length === 0) return [].values();
    const { refreshesOnRead: refreshes } = this.#options.ttl ?? KEPT;
    const rows = await this.#persist(() => findItems(this.#database, operations, refreshes));
    return rows.map((row) => row && toItem(row)).values();
  }

  async #search(operation: SearchOperation, vectors: Vectors): Promise<SearchItem[]> {
    const search = {
      prefix: operation.namespacePrefix,
      conditions: conditionsOf(filterAsKept(operation.filter, (value) => this.#asKept(value))),
      limit: operation.limit ?? 10,
      offset: operation.offset ?? 0,
      refreshesTtl: (this.#options.ttl ?? KEPT).refreshesOnRead,
    };
    const { embedder } = this.#options;
    const vector = vectors.get(this.#asKept(operation.query ?? ""));
    const find = (): Promise<RankedItem[]> =>
      embedder && vector
        ? searchByMeaning(this.#database, { ...search, embedder, vector })
        : searchItems(this.#database, search);
    return (await this.#persist(find)).map(toItem);
  }

  /** As it became of what is compared with it. */
  #asKept<Value>(value: Value): Value {
    return this.#options.guard?.value(value) ?? value;
  }

  #list(operation: ListNamespacesOperation): Promise<string[][]> {
    const matches = operation.matchConditions?.map(({ matchType: at, path: labels }) => ({ at, labels }));
    const page = {
      matches: matches ?? [],
      maxDepth: operation.maxDepth ?? null,
      limit: operation.limit,
      offset: operation.offset,
    };
    return this.#persist(() => listNamespaces(this.#database, page));
  }

  async #write(writes: readonly StoreWrite[]): Promise<void> {
    const { owner, onLost } = this.#options;
    faultPoint("store.writing");
    const isWritten = await this.#persist(() => writeItems(this.#database, writes, owner));
    faultPoint("store.written");
    if (isWritten) return;
    const lost = new LeaseLost(
      `Run ${owner?.runId} is not this server's any more: its write to the store was refused.`,
    );
    onLost?.(lost);
    throw lost;
  }

  #persist<T>(work: () => Promise<T>): Promise<T> {
    const { patienceMs: forMs = 0, signal } = this.#options;
    return persistently(work, { forMs, ...(signal ? { signal } : {}) });
  }
}

const isPut = (operation: Operation): operation is PutOperation => "value" in operation;
const isSearch = (operation: Operation): operation is SearchOperation => "namespacePrefix" in operation;
const isGet = (operation: Operation): operation is GetOperation => "key" in operation && !isPut(operation);

const toItem = ({
  namespace,
  key,
  value,
  created_at: createdAt,
  updated_at: updatedAt,
  score,
}: RankedItem): SearchItem => ({
  namespace,
  key,
  value,
  createdAt,
  updatedAt,
  ...(score === undefined ? {} : { score }),
});

function writeOf(
  { namespace, key, value, index }: PutOperation,
  ttlMinutes: number | null,
  guard: Guard | undefined,
): IndexedWrite {
  if (value === null) return { namespace, key, value, ttlMinutes: null, index };
  if (guard) requireImpersonal(guard, namespace, key);
  const kept = guard ? guard.value(value) : value;
  return { namespace, key, value: storableOf(kept), ttlMinutes, index };
}

function requireImpersonal(guard: Guard, namespace: readonly string[], key: string): void {
  const kinds: string[] = [];
  for (const label of [...namespace, key]) guard.text(label, (kind) => kinds.push(kind));
  if (kinds.length > 0) throw new PersonalIdentifier("The namespace or key of an item", kinds);
}
