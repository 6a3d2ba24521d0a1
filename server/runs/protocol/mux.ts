// What stream transformers see and make of a run's events: LangGraph's own, which tells when subgraphs start and end,
// and those that a graph was compiled with. Everything happens at once and in order.
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
  readonly #transformers: StreamTransformer[] = [];
  readonly #channels: { readonly channel: Channel; told: number }[] = [];
  readonly #finals: { name: string; value: PromiseLike<unknown> }[] = [];
  #out: Event[] = [];
  #namespace: string[] = [];
  #status: "completed" | "interrupted" = "completed";

  /** @param factories what the graph was compiled with */
  constructor(factories: readonly (() => StreamTransformer)[]) {
    this.#add(
      createLifecycleTransformer({
        emitRootOnRegister: false,
        getTerminalStatusOverride: async () => this.#status,
      }),
    );
    for (const factory of factories) {
      const transformer = factory();
      this.#add(transformer);
      const projection = transformer.init();
      if (!("__native" in transformer)) this.#wire(projection);
    }
  }

  /** What becomes of an event: itself unless a transformer drops it, and what they add. */
  push(event: Event): Event[] {
    this.#push(event);
    return this.#taken();
  }

  /** The run has ended well: last events, those of subgraphs that are still open included. */
  async finish(status: "completed" | "interrupted"): Promise<Event[]> {
    this.#status = status;
    for (const transformer of this.#transformers) await bounded(transformer.finalize?.());
    this.#drain();
    for (const { channel } of this.#channels) channel.close();
    for (const { name, value } of this.#finals) {
      const payload = await bounded(value);
      if (payload !== undefined) this.#out.push(customEvent([], name, payload));
    }
    return this.#taken();
  }

  /** The run has failed. */
  fail(error: unknown): Event[] {
    for (const transformer of this.#transformers) transformer.fail?.(error);
    this.#drain();
    for (const { channel } of this.#channels) channel.fail(error);
    return this.#taken();
  }

  #add(transformer: StreamTransformer): void {
    this.#transformers.push(transformer);
    transformer.onRegister?.({ push: (_namespace, event) => this.#push(event) });
  }

  #push(event: Event): void {
    const outer = this.#namespace;
    this.#namespace = event.params.namespace;
    let isKept = true;
    for (const transformer of this.#transformers) if (!transformer.process(event)) isKept = false;
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

  #wire(projection: unknown): void {
    if (typeof projection !== "object" || projection === null) return;
    for (const [name, value] of Object.entries(projection) as [string, unknown][]) {
      if (isChannel(value)) this.#channels.push({ channel: value, told: 0 });
      else if (isPromise(value)) this.#finals.push({ name, value });
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
