// What stream transformers see and make of a run's events: LangGraph's own, which tells when subgraphs start and end,
// and those that a graph was compiled with. Everything happens at once and in order. One that fails is left out from then
// on: a run's result must not depend on whether anybody watches it.
import { createLifecycleTransformer } from "@langchain/langgraph/web";
import type { ProtocolEvent as Event, StreamTransformer } from "@langchain/langgraph/web";
import { sleep } from "../../clock.ts";

// A transformer may promise a last value; a run does not wait for it for ever.
const FINAL_MS = 5000;

/** A StreamChannel, of any copy of LangGraph: what a transformer has put into it. */
interface Channel {
  readonly channelName?: string;
  readonly size: number;
  get(index: number): unknown;
  close(): void;
  fail(error: unknown): void;
}

export type { Event };

export class Mux {
  readonly #onFailure: (error: unknown) => void;
  #transformers: readonly StreamTransformer[] = [];
  readonly #channels: { readonly channel: Channel; told: number }[] = [];
  readonly #finals: { of: StreamTransformer; name: string; value: PromiseLike<unknown> }[] = [];
  #out: Event[] = [];
  #namespace: string[] = [];
  #status: "completed" | "interrupted" = "completed";

  /**
   * @param factories what the graph was compiled with
   * @param onFailure told why one is left out
   */
  constructor(factories: readonly (() => StreamTransformer)[], onFailure: (error: unknown) => void) {
    this.#onFailure = onFailure;
    this.#add(
      createLifecycleTransformer({
        emitRootOnRegister: false,
        getTerminalStatusOverride: async () => this.#status,
      }),
    );
    for (const factory of factories) this.#open(factory);
  }

  /** What becomes of an event: itself unless a transformer drops it, and what they add. */
  push(event: Event): Event[] {
    this.#push(event);
    return this.#taken();
  }

  /** The run has ended well: last events, those of subgraphs that are still open included. */
  async finish(status: "completed" | "interrupted"): Promise<Event[]> {
    this.#status = status;
    for (const transformer of this.#transformers)
      await bounded(this.#guarded(transformer, () => transformer.finalize?.()));
    this.#drain();
    for (const { channel } of this.#channels) channel.close();
    for (const { of, name, value } of this.#finals) {
      if (!this.#transformers.includes(of)) continue;
      const payload = await bounded(value);
      if (payload !== undefined) this.#out.push(customEvent([], name, payload));
    }
    return this.#taken();
  }

  /** The run has failed. */
  fail(error: unknown): Event[] {
    for (const transformer of this.#transformers) this.#guarded(transformer, () => transformer.fail?.(error));
    this.#drain();
    for (const { channel } of this.#channels) channel.fail(error);
    return this.#taken();
  }

  #open(factory: () => StreamTransformer): void {
    try {
      const transformer = factory();
      this.#add(transformer);
      const projection = this.#guarded(transformer, () => transformer.init());
      if (!("__native" in transformer)) this.#wire(transformer, projection);
    } catch (error) {
      this.#onFailure(error);
    }
  }

  #add(transformer: StreamTransformer): void {
    this.#transformers = [...this.#transformers, transformer];
    this.#guarded(transformer, () =>
      transformer.onRegister?.({ push: (_namespace, event) => this.#push(event) }),
    );
  }

  /** What code of the graph comes to; undefined when it fails, and it is not asked again. */
  #guarded<T>(transformer: StreamTransformer, work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      this.#transformers = this.#transformers.filter((other) => other !== transformer);
      this.#onFailure(error);
      return undefined;
    }
  }

  #push(event: Event): void {
    const outer = this.#namespace;
    this.#namespace = event.params.namespace;
    let isKept = true;
    for (const transformer of this.#transformers)
      if (this.#guarded(transformer, () => !transformer.process(event))) isKept = false;
    this.#drain();
    this.#namespace = outer;
    if (isKept) this.#out.push(event);
  }

  /** What transformers have put into their channels since. */
  #drain(): void {
    for (const one of this.#channels) {
      const { channelName, size } = one.channel;
      for (; one.told < size; one.told += 1) {
        if (channelName === undefined) continue; // for who runs the graph himself
        this.#out.push(customEvent(this.#namespace, channelName, one.channel.get(one.told)));
      }
    }
  }

  #wire(of: StreamTransformer, projection: unknown): void {
    if (typeof projection !== "object" || projection === null) return;
    for (const [name, value] of Object.entries(projection) as [string, unknown][]) {
      if (isChannel(value)) this.#channels.push({ channel: value, told: 0 });
      else if (isPromise(value)) this.#finals.push({ of, name, value });
    }
  }

  #taken(): Event[] {
    const out = this.#out;
    this.#out = [];
    return out;
  }
}

function customEvent(namespace: string[], name: string, payload: unknown): Event {
  const params = { namespace, timestamp: 0, data: { name, payload } };
  return { type: "event", seq: 0, method: "custom", params };
}

/** What a promise comes to; undefined when it fails or takes too long. */
async function bounded(value: unknown): Promise<unknown> {
  if (!isPromise(value)) return undefined;
  const over = new AbortController();
  const settled = Promise.resolve(value).catch(() => undefined);
  const first = await Promise.race([settled, sleep(FINAL_MS, over.signal)]);
  over.abort();
  return first;
}

const BRAND = Symbol.for("langgraph.stream_channel");

const isChannel = (value: unknown): value is Channel =>
  typeof value === "object" && value !== null && BRAND in value && "size" in value;

const isPromise = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
