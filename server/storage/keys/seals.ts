// The keys under which rows are sealed, opened and remembered for a while. What is deleted is forgotten within a minute.
// A row says under which key it is sealed, so rows under an older key can be read beside those under a newer one.
import { createSecretKey, randomBytes } from "node:crypto";
import { uptime } from "../../clock.ts";
import { DataKeyUnusable } from "../../errors.ts";
import { uuidv7 } from "../../ids.ts";
import type { KeyRing } from "../../privacy/key-ring.ts";
import type { DataKey } from "../../privacy/seal.ts";
import type { Queries } from "../queries.ts";
import { defaultScope } from "../scope.ts";
import { findDataKeys, findThreadKey, insertDataKeys, listYoungKeys } from "./data-keys.ts";
import type { DataKeyRow } from "./data-keys.ts";

const REMEMBERED_MS = 60_000;
const MOST_REMEMBERED = 20_000;

/** A key, and its row if that has still to be written: together with what it is for. */
export interface ThreadKey {
  readonly key: DataKey;
  readonly row: DataKeyRow | undefined;
}

interface Remembered<Value> {
  readonly value: Value;
  readonly until: number;
}

export class Seals {
  readonly #ring: KeyRing | undefined;
  readonly #keys = new Map<string, Remembered<DataKey>>();
  /** Ids of the keys of threads and namespaces, as they were lately. */
  readonly #subjects = new Map<string, Remembered<string>>();

  /** @param ring without one nothing is sealed, and nothing that is sealed can be read */
  constructor(ring?: KeyRing) {
    this.#ring = ring;
  }

  get isOn(): boolean {
    return this.#ring !== undefined;
  }

  /** @throws DataKeyUnusable when nothing is sealed here */
  get ring(): KeyRing {
    if (this.#ring) return this.#ring;
    throw new DataKeyUnusable(
      "What is asked for is sealed, and this process has no keys: set HOLDFAST_KEYS_FILE.",
    );
  }

  /** The key with this id. @throws DataKeyUnusable */
  async key(on: Queries, id: string): Promise<DataKey> {
    return got(await this.keys(on, [id]), id);
  }

  /** Keys by their ids. @throws DataKeyUnusable when one is gone, or cannot be opened */
  async keys(on: Queries, ids: readonly string[]): Promise<ReadonlyMap<string, DataKey>> {
    const found = new Map<string, DataKey>();
    const missing = new Set<string>();
    for (const id of ids) {
      const key = recall(this.#keys, id);
      if (key) found.set(id, key);
      else missing.add(id);
    }
    if (missing.size === 0) return found;
    for (const row of await findDataKeys(on, [...missing])) {
      found.set(row.data_key_id, this.#open(row));
      missing.delete(row.data_key_id);
    }
    const [gone] = missing;
    if (gone === undefined) return found;
    throw new DataKeyUnusable(
      `The data key ${gone} is gone: what it sealed was shredded and cannot be read.`,
    );
  }

  /**
   * The key for what is written to a thread; a new one for a thread that is not there. Undefined when nothing is sealed.
   * The thread may have another one by now: statements that use it look.
   */
  async ofThread(on: Queries, threadId: string): Promise<ThreadKey | undefined> {
    if (!this.isOn) return undefined;
    const id = recall(this.#subjects, `thread ${threadId}`);
    const known = id === undefined ? undefined : recall(this.#keys, id);
    if (known) return { key: known, row: undefined };
    const row = await findThreadKey(on, threadId);
    if (!row) return this.newOfThread(threadId);
    this.noteThread(threadId, row.data_key_id);
    return { key: this.#open(row), row: undefined };
  }

  /** The key of a thread that is locked, or was just made: what was remembered of it does not count. */
  async ofLocked(on: Queries, threadId: string): Promise<DataKey | undefined> {
    if (!this.isOn) return undefined;
    const row = await findThreadKey(on, threadId);
    if (!row) throw new DataKeyUnusable(`Thread ${threadId} has no key: it is gone, or was never sealed.`);
    return recall(this.#keys, row.data_key_id) ?? this.#open(row);
  }

  /** A key for a thread that is about to be made. */
  newOfThread(threadId: string): ThreadKey | undefined {
    if (!this.isOn) return undefined;
    return this.#make({ thread_id: threadId, path: null });
  }

  /** The thread exists, and is written to under this key. */
  noteThread(threadId: string, keyId: string): void {
    remember(this.#subjects, `thread ${threadId}`, keyId);
  }

  /** What was remembered of a thread is no longer so. */
  forgetThread(threadId: string): void {
    this.#subjects.delete(`thread ${threadId}`);
  }

  /** Keys for namespaces of the store, by path; made and stored where there is none. Empty when nothing is sealed. */
  async ofNamespaces(on: Queries, paths: readonly string[]): Promise<ReadonlyMap<string, DataKey>> {
    return this.#ofSubjects(on, paths);
  }

  /** The key for what belongs to neither thread nor namespace. Undefined when nothing is sealed. */
  async ofRest(on: Queries): Promise<DataKey | undefined> {
    return (await this.#ofSubjects(on, [null])).get(REST);
  }

  /** Forgets the keys of namespaces: some are gone. */
  forgetNamespaces(paths: readonly string[]): void {
    for (const path of paths) this.#subjects.delete(subjectOf(path));
  }

  async #ofSubjects(on: Queries, paths: readonly (string | null)[]): Promise<ReadonlyMap<string, DataKey>> {
    const found = new Map<string, DataKey>();
    if (!this.isOn) return found;
    const unknown = new Set<string | null>();
    for (const path of paths) {
      const id = recall(this.#subjects, subjectOf(path));
      const key = id === undefined ? undefined : recall(this.#keys, id);
      if (key) found.set(path ?? REST, key);
      else unknown.add(path);
    }
    if (unknown.size === 0) return found;
    const named = [...unknown].filter((path) => path !== null);
    for (const row of await listYoungKeys(on, defaultScope.tenantId, named, unknown.has(null))) {
      found.set(row.path ?? REST, this.#open(row));
      // A key whose making is undone would go on sealing what nobody can ever read.
      if (row.is_lasting) remember(this.#subjects, subjectOf(row.path), row.data_key_id);
      unknown.delete(row.path);
    }
    const made = [...unknown].map((path) => this.#make({ thread_id: null, path }));
    if (made.length > 0)
      await insertDataKeys(
        on,
        made.map(({ row }) => row),
      );
    for (const { key, row } of made) found.set(row.path ?? REST, key);
    return found;
  }

  #make(subject: Pick<DataKeyRow, "thread_id" | "path">): { key: DataKey; row: DataKeyRow } {
    const secret = randomBytes(32);
    const named = { data_key_id: uuidv7(), tenant_id: defaultScope.tenantId, ...subject };
    const row = { ...named, kek_id: this.ring.current, wrapped: this.ring.wrap(secret, boundTo(named)) };
    return { key: this.#remember(row.data_key_id, secret), row };
  }

  #open(row: DataKeyRow): DataKey {
    return this.#remember(row.data_key_id, this.ring.unwrap(row.kek_id, row.wrapped, boundTo(row)));
  }

  #remember(id: string, secret: Buffer): DataKey {
    const key = { id, secret: createSecretKey(secret) };
    remember(this.#keys, id, key);
    return key;
  }
}

/** What a wrapped key is bound to: whose it is. */
export const boundTo = (row: Omit<DataKeyRow, "wrapped" | "kek_id">): readonly unknown[] => [
  row.data_key_id,
  row.tenant_id,
  row.thread_id,
  row.path,
];

const REST = "";
const subjectOf = (path: string | null): string => `path ${path ?? REST}`;

function got(keys: ReadonlyMap<string, DataKey>, id: string): DataKey {
  const key = keys.get(id);
  if (key) return key;
  throw new DataKeyUnusable(`The data key ${id} is gone.`);
}

function remember<Value>(map: Map<string, Remembered<Value>>, name: string, value: Value): void {
  map.delete(name);
  map.set(name, { value, until: uptime() + REMEMBERED_MS });
  for (const oldest of map.keys()) {
    if (map.size <= MOST_REMEMBERED) break;
    map.delete(oldest);
  }
}

function recall<Value>(map: Map<string, Remembered<Value>>, name: string): Value | undefined {
  const found = map.get(name);
  if (!found) return undefined;
  if (found.until > uptime()) return found.value;
  map.delete(name);
  return undefined;
}
