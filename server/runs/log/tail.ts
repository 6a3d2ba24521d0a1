// The newest events of a run that this process executes, kept in memory for those who follow it here.
// Only what is committed is shown. Who falls behind its beginning reads the log instead.
import { MOST_AT_ONCE, sizeOf } from "./lines.ts";
import type { Entry, Numbered } from "./lines.ts";

const MOST = 1024;
const MOST_BYTES = 1_000_000;

export class Tail {
  readonly #waiters = new Set<() => void>();
  /** In order, from number #first on: hundreds are kept of every open stream, so each is one object and no more. */
  readonly #entries: Entry[] = [];
  #first: number;
  #bytes = 0;
  /** Number of the last event that is committed. */
  #committed: number;
  #fate: "live" | "over" | "lost" = "live";

  /** @param next number of the first event this process writes */
  constructor(next: number) {
    this.#first = next;
    this.#committed = next - 1;
  }

  get fate(): "live" | "over" | "lost" {
    return this.#fate;
  }

  /** Takes the next event. */
  push(entry: Entry): void {
    this.#entries.push(entry);
    this.#bytes += keptOf(entry);
  }

  /** Everything up to `last` may be shown. */
  commit(last: number): void {
    this.#committed = last;
    if (this.#entries.length > 2 * MOST || this.#bytes > 2 * MOST_BYTES) this.#trim();
    this.#wake();
  }

  /** The run has ended, with all that was pushed; or it is not this process that executes it any more. */
  close(fate: "over" | "lost"): void {
    if (this.#fate !== "live") return;
    this.#fate = fate;
    if (fate === "over") this.#committed = this.#first + this.#entries.length - 1;
    this.#wake();
  }

  /** Events after number `after`, some at a time; undefined when some of them are in the log only. */
  after(after: number): Numbered[] | undefined {
    if (after < this.#first - 1) return undefined;
    const events: Numbered[] = [];
    for (let size = 0, seq = after + 1; seq <= this.#committed && size < MOST_AT_ONCE; seq += 1) {
      const entry = this.#entries[seq - this.#first];
      if (!entry) break;
      size += sizeOf(entry);
      events.push({ seq, entry });
    }
    return events;
  }

  /** Calls `wake` once: at the next commit, at the end, or at once if that has come. */
  once(wake: () => void): void {
    if (this.#fate === "live") this.#waiters.add(wake);
    else wake();
  }

  forget(wake: () => void): void {
    this.#waiters.delete(wake);
  }

  #trim(): void {
    const shown = this.#committed + 1 - this.#first;
    let gone = 0;
    while (gone < shown && (this.#entries.length - gone > MOST || this.#bytes > MOST_BYTES)) {
      const entry = this.#entries[gone];
      this.#bytes -= entry ? keptOf(entry) : 0;
      gone += 1;
    }
    this.#entries.splice(0, gone);
    this.#first += gone;
  }

  #wake(): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }
}

/** What is kept for an event alone: templates are shared. */
const keptOf = (entry: Entry): number => ("template" in entry ? entry.text : entry.data).length;
