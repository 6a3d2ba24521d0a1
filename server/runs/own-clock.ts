// Whether the clock of this server is behind the database's. Whoever is further behind than anybody waits for leaves
// runs to the others: what he wrote to a thread of theirs would be refused. Where nobody else takes runs, perhaps since
// it is the database that is wrong, he does what he can, and what he cannot do waits.
import { now } from "../clock.ts";
import { messageOf } from "../errors.ts";
import { MOST_BEHIND_MS } from "../storage/checkpoints/clock.ts";
import type { Queryable } from "../storage/database.ts";
import { readClock } from "../storage/instances.ts";
import type { Log } from "../telemetry/log.ts";

export class OwnClock {
  readonly #log: Log;
  #behindMs = 0;
  #hasTakers = false;
  #isNeeded = false;
  #told: "right" | "yields" | "alone" = "right";

  constructor(log: Log) {
    this.#log = log;
  }

  /** Further behind than anybody waits for. */
  get isBehind(): boolean {
    return this.#behindMs > MOST_BEHIND_MS;
  }

  /** Runs are left to others, who are there. */
  get yields(): boolean {
    return this.isBehind && this.#hasTakers && !this.#isNeeded;
  }

  /** In words, for whoever watches the server. */
  get text(): string {
    const seconds = Math.round(this.#behindMs / 1000);
    return `The clock of this server is ${seconds} s behind the database's. Set the clocks of all by NTP.`;
  }

  /** @param at what the database has just said; the way of its answer makes the difference seem smaller, never larger */
  heard(at: number, hasTakers = this.#hasTakers): void {
    this.#behindMs = at - now();
    this.#hasTakers = hasTakers;
    this.#isNeeded &&= this.isBehind;
    this.#tell();
  }

  /** The others do not take what they are left, until our clock is right again: they may serve other graphs. */
  needed(): void {
    this.#isNeeded = true;
    this.#tell();
  }

  /** It may have been set since the last heartbeat. */
  async look(on: Queryable): Promise<void> {
    try {
      this.heard(await readClock(on));
    } catch (error) {
      this.#log.warn("heartbeat.failed", { reason: messageOf(error) }); // what was heard last counts
    }
  }

  #tell(): void {
    const state = this.yields ? "yields" : this.isBehind ? "alone" : "right";
    if (state === this.#told) return;
    this.#told = state;
    if (state === "right") this.#log.info("clock.right");
    else this.#log.warn("clock.behind", { by_ms: Math.round(this.#behindMs), takes_runs: state === "alone" });
  }
}
