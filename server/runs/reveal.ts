// Puts back what tokens stand for, in memory and for one reader: who gave a value is shown it again, and so is who has
// the permission vault:reveal. Each showing is in the audit log before it is shown. Tokens of others stay as they are.
import { createHmac } from "node:crypto";
import type { DataKey } from "../privacy/seal.ts";
import { TOKEN } from "../privacy/vault.ts";
import { insertAudit } from "../storage/audit.ts";
import type { Database } from "../storage/database.ts";
import { findVaultEntries } from "../storage/keys/vault.ts";

/** Lets its holder see what others gave. */
const PERMISSION = "vault:reveal";

/** Who is shown what. */
export interface Reader {
  /** Undefined for a node of a graph, which works for the thread and sees all that was given on it. */
  readonly identity: string | undefined;
  readonly permissions: readonly string[];
  /** The only thread whose tokens are resolved; undefined for all. */
  readonly threadId?: string;
}

// In a JSON text, or one inside another, a value is put in as it is.
const isPlainInJson = (value: string): boolean => JSON.stringify(value) === `"${value}"`;

export class Reveal {
  readonly #database: Database;
  readonly #reader: Reader;
  /** What each token that was met is shown as. */
  readonly #shown = new Map<string, string>();
  #turn: Promise<void> = Promise.resolve();

  constructor(database: Database, reader: Reader) {
    this.#database = database;
    this.#reader = reader;
  }

  /** The text with what its reader may see. @throws SealedValueInvalid, DataKeyUnusable */
  async text(text: string): Promise<string> {
    if (!text.includes(":")) return text;
    const tokens = new Set(text.match(TOKEN));
    if (tokens.size === 0) return text;
    if ([...tokens].some((token) => !this.#shown.has(token))) {
      // Nodes that run at the same time ask for the same tokens: each waits until it is known what they stand for.
      const resolved = this.#turn.then(() => this.#resolve([...tokens]));
      this.#turn = resolved.catch(() => undefined); // who asked is told
      await resolved;
    }
    return text.replaceAll(TOKEN, (token) => this.#shown.get(token) ?? token);
  }

  async #resolve(asked: readonly string[]): Promise<void> {
    const tokens = asked.filter((token) => !this.#shown.has(token));
    if (tokens.length === 0) return;
    const { identity, permissions, threadId } = this.#reader;
    const entries = await findVaultEntries(this.#database, tokens, threadId);
    const isForAll = permissions.includes(PERMISSION) || (identity === undefined && threadId !== undefined);
    const mine = entries.filter(
      (entry) => isPlainInJson(entry.value) && (isForAll || (identity ?? null) === entry.identity),
    );
    for (const [thread, some] of Map.groupBy(mine, (entry) => entry.threadId)) {
      const isOwner = some.every((entry) => entry.identity === identity);
      const key = await this.#database.seals.ofLocked(this.#database, thread);
      await insertAudit(this.#database, {
        actorKind: identity === undefined ? "server" : "caller",
        actorHash: identity === undefined || !key ? undefined : hashOf(key, identity),
        action: "vault.revealed",
        object: `thread:${thread}`,
        outcome: "done",
        detail: {
          as: identity === undefined ? "graph" : isOwner ? "owner" : "permission",
          tokens: some.map(({ token }) => token),
        },
      });
    }
    for (const token of tokens) this.#shown.set(token, token);
    for (const { token, value } of mine) this.#shown.set(token, value);
  }
}

/** Says nothing of who it is without the thread's key, and nothing at all when that is shredded. */
const hashOf = (key: DataKey, identity: string): string =>
  createHmac("sha256", key.secret).update(`audit\0${identity}`).digest("hex");
