// Where caches keep what they remember.

/** Answers of models, vectors of texts, what nodes wrote, which passages a search found. */
export type CacheKind = "responses" | "embeddings" | "nodes" | "passages";

export interface StoredEntry {
  readonly key: string;
  readonly value: Uint8Array;
  readonly ttlMs: number;
}

/** Where entries are kept, as bytes that say nothing. */
export interface CacheStore {
  readonly name: "postgres" | "redis";
  get(kind: CacheKind, keys: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>>;
  put(kind: CacheKind, entries: readonly StoredEntry[]): Promise<void>;
  /** Begins the time of entries anew; once a day is enough. */
  renew(kind: CacheKind, keys: readonly string[], ttlMs: number): Promise<void>;
  /** Takes all away whose key begins so. */
  clear(kind: CacheKind, prefix: string): Promise<void>;
  /** Something failed: a connection that is held may be dead. @param isLate there was no answer at all */
  reopen(isLate: boolean): void;
  close(): Promise<void>;
}
