// What nodes with a cachePolicy wrote, as LangGraph asks for it. A graph's entries are its own, and one that its guard
// would change is not kept: a hit gives what the node would have given.
import { BaseCache } from "@langchain/langgraph-checkpoint";
import type { CacheFullKey, CacheNamespace } from "@langchain/langgraph-checkpoint";
import { AppError } from "../../errors.ts";
import type { Guard } from "../../privacy/guard.ts";
import { dump, load } from "../../privacy/serde.ts";
import type { Caches } from "./caches.ts";

/** Without a ttl of its own an entry is kept for so long. */
const LONGEST_MS = 30 * 86_400_000;

/** The run that asks. */
export interface Asking {
  readonly caches: Caches;
  readonly graphId: string;
  readonly guard: Guard;
  /** Nodes that were not executed. */
  nodeHits: number;
}

/** For all runs of a graph: LangGraph takes a cache with the graph and not with the run. */
export class NodeCache extends BaseCache {
  readonly #asking: () => Asking | undefined;
  readonly #place: string;

  /**
   * @param asking undefined outside of a run, where nothing is found or kept
   * @param place where the graph stands in another one: LangGraph names a node by itself, and two graphs may have the
   * same name for different nodes
   */
  constructor(asking: () => Asking | undefined, place: string) {
    super();
    this.#asking = asking;
    this.#place = place;
  }

  /** @throws CacheUnavailable */
  async get(keys: CacheFullKey[]): Promise<{ key: CacheFullKey; value: unknown }[]> {
    const asking = this.#asking();
    if (!asking) return [];
    const wanted = new Map<string, CacheFullKey>();
    for (const key of keys) {
      const stored = await keyOf(asking, this.#at(key));
      if (stored !== undefined) wanted.set(stored, key);
    }
    if (wanted.size === 0) return [];
    const hits = await asking.caches.get("nodes", [...wanted.keys()]);
    const found = [...wanted].flatMap(([stored, key]) => {
      const bytes = hits.get(stored)?.value;
      const writes = bytes && writesIn(bytes);
      return writes && isUnchanged(asking, writes) ? [{ key, value: writes }] : [];
    });
    asking.nodeHits += found.length;
    return found;
  }

  /** Never fails: LangGraph does not wait for it. */
  async set(pairs: { key: CacheFullKey; value: unknown; ttl?: number }[]): Promise<void> {
    const asking = this.#asking();
    if (!asking) return;
    const entries = [];
    for (const { key, value, ttl } of pairs) {
      const bytes = bytesOf(asking, value); // before anybody changes it
      const stored = bytes && (await keyOf(asking, this.#at(key)).catch(() => undefined));
      const ttlMs = ttl === undefined ? LONGEST_MS : Math.min(Math.ceil(ttl * 1000), LONGEST_MS);
      if (stored !== undefined && bytes && ttlMs > 0) entries.push({ key: stored, value: bytes, ttlMs });
    }
    await asking.caches.put("nodes", entries);
  }

  #at([namespace, key]: CacheFullKey): CacheFullKey {
    return [this.#within(namespace), key];
  }

  #within(namespace: CacheNamespace): CacheNamespace {
    return this.#place === "" ? namespace : [...namespace, this.#place];
  }

  /** Of the graph that runs. @throws CacheUnavailable */
  async clear(namespaces: CacheNamespace[]): Promise<void> {
    const asking = this.#asking();
    const graph = asking && (await ofGraph(asking));
    if (!asking || graph === undefined) return;
    if (namespaces.length === 0) await asking.caches.clear("nodes", graph);
    for (const namespace of namespaces) {
      const part = await ofNamespace(asking, this.#within(namespace));
      if (part !== undefined) await asking.caches.clear("nodes", graph + part);
    }
  }
}

/** What is cleared together begins alike. */
async function keyOf(asking: Asking, [namespace, key]: CacheFullKey): Promise<string | undefined> {
  const graph = await ofGraph(asking);
  const part = await ofNamespace(asking, namespace);
  const own = await asking.caches.keyOf("node key", key);
  return graph === undefined || part === undefined || own === undefined ? undefined : graph + part + own;
}

const ofGraph = ({ caches, graphId, guard }: Asking): Promise<string | undefined> =>
  caches.keyOf("node graph", graphId, guard.mode);

const ofNamespace = ({ caches }: Asking, namespace: CacheNamespace): Promise<string | undefined> =>
  caches.keyOf("node namespace", JSON.stringify(namespace));

function bytesOf(asking: Asking, value: unknown): Uint8Array | undefined {
  try {
    return isUnchanged(asking, value) ? dump(value)[1] : undefined;
  } catch (error) {
    if (error instanceof AppError) return undefined; // what cannot be stored without loss is worked out again
    throw error;
  }
}

/** Undefined: somebody has put something else there. */
function writesIn(bytes: Buffer): unknown[] | undefined {
  try {
    const writes = load("json", bytes);
    return Array.isArray(writes) ? writes : undefined;
  } catch (error) {
    if (error instanceof AppError) return undefined;
    throw error;
  }
}

const isUnchanged = ({ guard }: Asking, value: unknown): boolean => guard.value(value) === value;
