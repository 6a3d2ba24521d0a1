// Tokens that stand for what was found on a thread: the same value has the same token there, and no two threads share
// one, so that nobody can tell from tokens who appears in both. A token says nothing without the thread's key; the value
// itself is kept apart, sealed, for its owner.
import { createHmac, hkdfSync } from "node:crypto";
import { TOKEN_PATTERN } from "./rules/rule.ts";
import { SAYS_SECRET } from "./rules/secrets.ts";
import type { DataKey } from "./seal.ts";

/** A value that was found, and the token for it. */
export interface VaultEntry {
  readonly token: string;
  readonly kind: string;
  readonly value: string;
  /** Who gave it, and is shown it; null when nobody was asked who he is. */
  readonly identity: string | null;
}

/** 75 bits: no two values of a database will ever share a token. Without digits, no rule takes a token for something. */
const LENGTH = 16;
const LETTERS = 26;

/** A token as it stands in a text. */
export const TOKEN = new RegExp(TOKEN_PATTERN, "g");

/** Secrets are never kept, not even sealed, whatever a rule of an operator calls them; nor is what no rule had decided. */
const NEVER_KEPT = new Set(["SECRET", "UNDECIDED"]);

export class Vault {
  readonly #key: Buffer;
  readonly #identity: string | null;
  readonly #known = new Set<string>();
  #found: VaultEntry[] = [];

  /** @param identity who works with the thread now; undefined when nobody was asked who he is */
  constructor(key: DataKey, identity: string | undefined) {
    this.#key = Buffer.from(hkdfSync("sha256", key.secret.export(), "", "holdfast vault", 32));
    this.#identity = identity ?? null;
  }

  /** The token for a value; undefined for what is never kept. */
  token(kind: string, value: string): string | undefined {
    if (NEVER_KEPT.has(kind) || SAYS_SECRET.test(kind)) return undefined;
    const same = kind === "EMAIL" ? value.toLowerCase() : value;
    const token = `[${kind}:${this.#mark(`${kind}\0${same.normalize()}`)}]`;
    if (!this.#known.has(token)) {
      this.#known.add(token);
      this.#found.push({ token, kind, value, identity: this.#identity });
    }
    return token;
  }

  /** Whether there is something that is not stored yet. */
  get hasNew(): boolean {
    return this.#found.length > 0;
  }

  /** What was found since the last call. Store it before anything is stored that holds its tokens. */
  takeNew(): VaultEntry[] {
    const found = this.#found;
    this.#found = [];
    return found;
  }

  #mark(text: string): string {
    const hash = createHmac("sha256", this.#key).update(text).digest().subarray(0, LENGTH);
    return String.fromCharCode(...hash.map((byte) => 97 + (byte % LETTERS)));
  }
}
