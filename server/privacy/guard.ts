// What of a graph's text may be kept, and who looks at it: one guard for each mode, asked at every way to the disk.
import { ConfigInvalid, messageOf } from "../errors.ts";
import { Redactor } from "./redact.ts";
import type { Own, RedactionStream } from "./redact.ts";
import { redactValue } from "./values.ts";
import type { Vault } from "./vault.ts";

/**
 * `redact`: what is found becomes a placeholder before it is kept. `tokenise`: on a thread it becomes a token, for which
 * its owner is shown what it stands for; elsewhere a placeholder. `off`: everything is kept as it comes.
 */
export type PrivacyMode = "redact" | "tokenise" | "off";

/** Told the kind of each finding that nobody had taken out before. */
type OnFound = (kind: string) => void;

export interface Guard {
  readonly mode: PrivacyMode;
  text(text: string, onFound?: OnFound): string;
  /** The same object when nothing was found in it, else a copy; the given one is never changed. */
  value<Value>(value: Value, onFound?: OnFound): Value;
  /** For a text that comes in pieces; undefined when nothing is to be done. */
  stream(): RedactionStream | undefined;
}

const OPEN: Guard = {
  mode: "off",
  text: (text) => text,
  value: (value) => value,
  stream: () => undefined,
};

// A state is looked at again with each superstep, and most of its texts are the same as before; names of fields always
// are. To look at a short text costs a hundred times as much as to find it here.
const REMEMBERED = 4_000_000;
const OF_AN_ENTRY = 64;
/** Each run on a thread with a vault remembers texts of its own. */
const REMEMBERED_OF_THREAD = 200_000;

interface Seen {
  readonly text: string;
  readonly kinds: readonly string[];
}

/** Looks for what is always looked for. */
export const plainGuard = (): Guard => new Closed(new Redactor());

interface Closing {
  readonly mode?: "redact" | "tokenise";
  /** Of the thread whose texts these are. */
  readonly vault?: Vault;
  /** How many characters of texts are remembered. */
  readonly most?: number;
}

class Closed implements Guard {
  readonly mode: "redact" | "tokenise";
  readonly #redactor: Redactor;
  readonly #vault: Vault | undefined;
  readonly #most: number;
  readonly #seen = new Map<string, Seen>();
  #size = 0;

  constructor(redactor: Redactor, { mode = "redact", vault, most = REMEMBERED }: Closing = {}) {
    this.mode = mode;
    this.#redactor = redactor;
    this.#vault = vault;
    this.#most = most;
  }

  text(text: string, onFound?: OnFound): string {
    const seen = this.#seen.get(text) ?? this.#lookAnew(text);
    if (onFound) for (const kind of seen.kinds) onFound(kind);
    return seen.text;
  }

  value<Value>(value: Value, onFound?: OnFound): Value {
    const look = (text: string): string => this.text(text);
    return redactValue(value, onFound ? (text) => this.text(text, onFound) : look, look);
  }

  stream(onFound?: OnFound): RedactionStream {
    return this.#vault ? this.#redactor.tokenising(this.#vault, onFound) : this.#redactor.stream(onFound);
  }

  #lookAnew(text: string): Seen {
    const kinds: string[] = [];
    const redacted = this.stream((kind) => kinds.push(kind)).push(text, true);
    const seen = { text: redacted, kinds };
    if (text.length > this.#most / 4) return seen;
    this.#size += text.length + OF_AN_ENTRY;
    this.#seen.set(text, seen);
    for (const old of this.#seen.keys()) {
      if (this.#size <= this.#most) break;
      this.#size -= old.length + OF_AN_ENTRY;
      this.#seen.delete(old);
    }
    return seen;
  }
}

export interface PrivacyPolicy {
  readonly mode: PrivacyMode;
  /** Graphs that are treated otherwise. */
  readonly graphs: Readonly<Record<string, PrivacyMode>>;
  /** Whether names of persons are looked for. */
  readonly names: boolean;
}

export const TOKENISES_UNSEALED =
  'langgraph.json: privacy "tokenise" keeps what is found sealed: set HOLDFAST_KEYS_FILE (holdfast keys new makes a key), or say "redact".';

/** @throws ConfigInvalid for a rule that cannot be kept to */
export function openPrivacy({
  mode,
  graphs,
  names,
  rules,
}: PrivacyPolicy & { readonly rules: readonly Own[] }): Privacy {
  try {
    const redactor = new Redactor({ names, own: rules });
    // The first use of each rule compiles it, which takes longer than a token may.
    const stream = redactor.stream();
    for (const piece of ["Of Ada at 1, ", "a@b.c; key=1 -----BEGIN ", "x://y:z@"]) stream.push(piece);
    stream.push("", true);
    return new Privacy({ mode, graphs, names }, redactor);
  } catch (error) {
    throw new ConfigInvalid(`langgraph.json: privacy.rules: ${messageOf(error)}`, { cause: error });
  }
}

const SAID: Readonly<Record<PrivacyMode, string>> = {
  redact: "personal data and secrets that are found are redacted before anything is kept",
  tokenise:
    "personal data that is found on a thread is kept sealed and apart, and shown to its owner only; secrets are redacted",
  off: "everything is kept as it comes",
};

export class Privacy {
  readonly policy: PrivacyPolicy;
  readonly #redactor: Redactor;
  readonly #guards: Readonly<Record<PrivacyMode, Guard>>;

  constructor(policy: PrivacyPolicy, redactor: Redactor) {
    this.policy = policy;
    this.#redactor = redactor;
    const tokenise = new Closed(redactor, { mode: "tokenise" });
    this.#guards = { redact: new Closed(redactor), tokenise, off: OPEN };
  }

  /** For what is never shown to a client, such as the log: looks for all that is known, whatever graphs are allowed. */
  get strict(): Guard {
    return this.#guards.redact;
  }

  /** Whether some graph keeps what is found apart. */
  get tokenises(): boolean {
    const { mode, graphs } = this.policy;
    return mode === "tokenise" || Object.values(graphs).includes("tokenise");
  }

  /** In words for the operator. */
  describe(): string {
    const { mode, graphs } = this.policy;
    const others = Object.entries(graphs).filter(([, other]) => other !== mode);
    const exceptions = others.map(([id, other]) => `${id}: ${SAID[other]}`);
    return [SAID[mode], ...exceptions].join("; ");
  }

  /**
   * The guard of a graph; without one, of what belongs to none, such as items of the store.
   * @param graphId what metadata says; anything but the id of a graph is none
   */
  of(graphId?: unknown): Guard {
    return this.#guards[this.#modeOf(graphId)];
  }

  /**
   * The guard of a graph for what is said on one thread.
   * @param vaultOf the thread's vault; asked for only if the graph keeps what is found there
   */
  onThread(graphId: unknown, vaultOf: () => Vault | undefined): { guard: Guard; vault: Vault | undefined } {
    const vault = this.#modeOf(graphId) === "tokenise" ? vaultOf() : undefined;
    if (!vault) return { guard: this.of(graphId), vault };
    const closing = { mode: "tokenise", vault, most: REMEMBERED_OF_THREAD } as const;
    return { guard: new Closed(this.#redactor, closing), vault };
  }

  #modeOf(graphId: unknown): PrivacyMode {
    const { graphs, mode: usual } = this.policy;
    const own = typeof graphId === "string" && Object.hasOwn(graphs, graphId) ? graphs[graphId] : undefined;
    return own ?? usual;
  }
}
