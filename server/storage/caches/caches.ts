// What was worked out once and can be had again, in PostgreSQL or Redis: sealed where there are keys, found by a pseudonym
// of what was asked. A store that is down or slow costs a bounded wait and never a run, unless the operator wants it so;
// an entry that was altered, or that nobody can open any more, is none.
import { Late, now, uptime, within } from "../../clock.ts";
import { AppError, CacheUnavailable, SealedValueInvalid, messageOf } from "../../errors.ts";
import { keyIdOf, unseal } from "../../privacy/seal.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Database } from "../database.ts";
import { pseudonymOf } from "../keys/pseudonyms.ts";
import { placeOf, sealBytes } from "../keys/sealed.ts";
import type { Scope } from "../scope.ts";
import { CACHE_PATH } from "./entries.ts";
import type { CacheKind, CacheStore, StoredEntry } from "./store.ts";

export interface Hit {
  readonly value: Buffer;
  /** How long ago it was stored, in milliseconds. */
  readonly ageMs: number;
}

/** What a cache did since the process began. */
export interface CacheStats {
  hits: number;
  misses: number;
  /** Answers that came from a call that somebody else had under way. */
  shared: number;
  stored: number;
  /** Of all hits together. */
  age_ms: number;
}

export interface CachesOptions {
  readonly database: Database;
  readonly scope: Scope;
  readonly store: CacheStore;
  /** `closed`: what would be looked up is refused while the store does not answer. */
  readonly fail: "open" | "closed";
  readonly log: Log;
}

const WAIT_MS = 500;
/** A store that failed is left alone for so long. */
const REST_MS = 1000;
/** Larger values are not kept. */
const MOST_BYTES = 1_000_000;
const DAY_MS = 86_400_000;

// Before what is stored: 0 where it is not sealed, which no sealed value begins with; then when it was stored.
const PLAIN = Buffer.of(0);
const STAMP_BYTES = 8;

export class Caches {
  readonly stats: Readonly<Record<CacheKind, CacheStats>> = {
    responses: fresh(),
    embeddings: fresh(),
    nodes: fresh(),
    passages: fresh(),
  };
  readonly #options: CachesOptions;
  #restsUntil = 0;
  #isDown = false;
  #isFull = false;

  constructor(options: CachesOptions) {
    this.#options = options;
  }

  get storeName(): string {
    return this.#options.store.name;
  }

  /** The key for what is asked; undefined: there is no cache at the moment. @throws CacheUnavailable */
  keyOf(...parts: readonly string[]): Promise<string | undefined> {
    const { database, scope } = this.#options;
    // It is worked out here, and says nothing of the store.
    return this.#try(() => pseudonymOf(database, JSON.stringify([scope.tenantId, ...parts])), {
      asksStore: false,
    });
  }

  /**
   * Entries that are there, by key.
   * @param renewMs an entry that is used is kept for so long from then on
   * @throws CacheUnavailable
   */
  async get(
    kind: CacheKind,
    keys: readonly string[],
    { renewMs }: { renewMs?: number } = {},
  ): Promise<ReadonlyMap<string, Hit>> {
    const { store } = this.#options;
    const found = await this.#try(async () => this.#opened(kind, await store.get(kind, keys)));
    const hits = found ?? new Map<string, Hit>();
    const stats = this.stats[kind];
    stats.hits += hits.size;
    stats.misses += keys.length - hits.size;
    for (const { ageMs } of hits.values()) stats.age_ms += ageMs;
    const old = [...hits].flatMap(([key, { ageMs }]) => (ageMs > DAY_MS ? [key] : []));
    if (renewMs !== undefined && old.length > 0) await this.#quietly(() => store.renew(kind, old, renewMs));
    return hits;
  }

  /** Stores what is not too large. It never fails: what could not be stored is worked out again. */
  async put(kind: CacheKind, entries: readonly StoredEntry[]): Promise<void> {
    const { store } = this.#options;
    const small = entries.filter(({ value }) => value.length <= MOST_BYTES);
    if (small.length === 0) return;
    const isDone = await this.#quietly(async () => {
      await store.put(kind, await this.#closed(kind, small));
      return true;
    });
    if (isDone) this.stats[kind].stored += small.length;
  }

  /** @throws CacheUnavailable */
  async clear(kind: CacheKind, prefix: string): Promise<void> {
    await this.#try(() => this.#options.store.clear(kind, prefix));
  }

  close(): Promise<void> {
    this.#restsUntil = Infinity;
    return this.#options.store.close();
  }

  async #closed(kind: CacheKind, entries: readonly StoredEntry[]): Promise<StoredEntry[]> {
    const { database, scope } = this.#options;
    const key = (await database.seals.ofNamespaces(database, [CACHE_PATH])).get(CACHE_PATH);
    const stamp = Buffer.alloc(STAMP_BYTES);
    stamp.writeDoubleBE(now());
    return entries.map((one) => {
      const place = placeOf("cache_entries.value", [scope.tenantId, kind, one.key]);
      const value = Buffer.concat([stamp, one.value]);
      return { ...one, value: key ? sealBytes(key, place, value) : Buffer.concat([PLAIN, value]) };
    });
  }

  async #opened(kind: CacheKind, found: ReadonlyMap<string, Uint8Array>): Promise<ReadonlyMap<string, Hit>> {
    const hits = new Map<string, Hit>();
    for (const [key, bytes] of found) {
      const plain = await this.#open(kind, key, bytes);
      if (!plain || plain.length < STAMP_BYTES) continue;
      const ageMs = Math.max(0, now() - plain.readDoubleBE());
      hits.set(key, { value: plain.subarray(STAMP_BYTES), ageMs });
    }
    return hits;
  }

  async #open(kind: CacheKind, key: string, bytes: Uint8Array): Promise<Buffer | undefined> {
    const { database, scope, log } = this.#options;
    if (!database.seals.isOn) return bytes[0] === PLAIN[0] ? Buffer.from(bytes).subarray(1) : undefined;
    const place = placeOf("cache_entries.value", [scope.tenantId, kind, key]);
    try {
      return unseal(await database.seals.key(database, keyIdOf(place, bytes)), place, bytes);
    } catch (error) {
      if (!(error instanceof AppError) || error.retryable) throw error;
      // That a key was shredded is no reason to look after anything.
      if (error instanceof SealedValueInvalid) log.warn("cache.unreadable", { kind, code: error.code });
      return undefined;
    }
  }

  /** @throws CacheUnavailable where the operator wants no work without a cache */
  async #try<T>(work: () => Promise<T>, { asksStore = true, isWrite = false } = {}): Promise<T | undefined> {
    const { fail, store } = this.#options;
    if (uptime() >= this.#restsUntil) {
      try {
        const done = await within(work(), WAIT_MS);
        if (asksStore) this.#tell(false);
        if (isWrite) this.#isFull = false;
        return done;
      } catch (error) {
        // A store that is full, or may only be read, still answers: what is there can be used.
        if (isWrite && !(error instanceof Late)) return this.#tellFull(error);
        this.#restsUntil = Math.max(this.#restsUntil, uptime() + REST_MS);
        if (this.#restsUntil !== Infinity) store.reopen(error instanceof Late);
        this.#tell(true, error);
      }
    }
    if (fail === "closed") throw new CacheUnavailable(store.name);
    return undefined;
  }

  #quietly<T>(work: () => Promise<T>): Promise<T | undefined> {
    return this.#try(work, { isWrite: true }).catch(() => undefined);
  }

  #tellFull(error: unknown): undefined {
    const { log, store } = this.#options;
    if (!this.#isFull) log.warn("cache.unwritable", { store: store.name, reason: messageOf(error) });
    this.#isFull = true;
  }

  /** One line when it begins, one when it is over. */
  #tell(isDown: boolean, error?: unknown): void {
    if (isDown === this.#isDown || this.#restsUntil === Infinity) return;
    this.#isDown = isDown;
    const { log, store } = this.#options;
    if (isDown) log.warn("cache.unavailable", { store: store.name, reason: messageOf(error) });
    else log.info("cache.available", { store: store.name });
  }
}

function fresh(): CacheStats {
  return { hits: 0, misses: 0, shared: 0, stored: 0, age_ms: 0 };
}

/** What is late is left alone. */
