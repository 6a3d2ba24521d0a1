// The newest events of a run that this process executes, kept in memory for those who follow it here.
// Only what is committed is shown. Who falls behind its beginning reads the log instead.
import { MOST_AT_ONCE, sizeOf } from "./lines.ts";
import type { Numbered } from "./lines.ts";

const MOST = 1024;
const MOST_BYTES = 1_000_000;

export class Tail {
  readonly #waiters = new Set<() => void>();
  #events: Numbered[] = [];
  #bytes = 0;
  /** Number of the last event that is committed. */
  #committed: number;
  #fate: "live" | "over" | "lost" = "live";

  /** @param next number of the first event this process writes */
  constructor(next: number) {
    this.#committed = next - 1;
  }

  get fate(): "live" | "over" | "lost" {
    return this.#fate;
  }

  push(event: Numbered): void {
    this.#events.push(event);
    this.#bytes += keptOf(event);
  }

  /** Everything up to `last` may be shown. */
  commit(last: number): void {
    this.#committed = last;
    if (this.#events.length > 2 * MOST || this.#bytes > 2 * MOST_BYTES) this.#trim();
    this.#wake();
  }

  /** The run has ended, with all that was pushed; or it is not this process that executes it any more. */
  close(fate: "over" | "lost"): void {
    if (this.#fate !== "live") return;
    this.#fate = fate;
    if (fate === "over") this.#committed = this.#events.at(-1)?.seq ?? this.#committed;
    this.#wake();
  }

  /** Events after number `after`, some at a time; undefined when some of them are in the log only. */
  after(after: number): Numbered[] | undefined {
    const first = this.#events[0]?.seq ?? this.#committed + 1;
    if (after < first - 1) return undefined;
    if (after >= this.#committed) return [];
    // Numbers are dense from the first on.
    const [begin, end] = [after + 1 - first, this.#committed + 1 - first];
    let next = begin;
    for (let size = 0; next < end && size < MOST_AT_ONCE; next += 1) {
      const event = this.#events[next];
      size += event ? sizeOf(event.entry) : 0;
    }
    return this.#events.slice(begin, next);
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
    const uncommitted = this.#events.findIndex(({ seq }) => seq > this.#committed);
    const shown = uncommitted < 0 ? this.#events.length : uncommitted;
    let gone = 0;
    while (gone < shown && (this.#events.length - gone > MOST || this.#bytes > MOST_BYTES)) {
      const event = this.#events[gone];
      this.#bytes -= event ? keptOf(event) : 0;
      gone += 1;
    }
    this.#events.splice(0, gone);
  }

  #wake(): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }
}

/** What is kept for an event alone: templates are shared. */
const keptOf = ({ entry }: Numbered): number => ("template" in entry ? entry.text : entry.data).length;
