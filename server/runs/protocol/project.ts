// One pass over a graph, as the events that clients of protocol v2 expect. The same chunks make the events of legacy
// clients, so a run executes once, whoever watches.
import { convertToProtocolEvent, isCheckpointEnvelope } from "@langchain/langgraph/web";
import type { StreamMode, StreamTransformer } from "@langchain/langgraph/web";
import type { Fields } from "../../fields.ts";
import type { Chunk } from "../graph/graph-stream.ts";
import { dataOf } from "../log/lines.ts";
import type { Entry } from "../log/lines.ts";
import { AtWork } from "../stream/at-work.ts";
import { Mux } from "../stream/mux.ts";
import type { Event } from "../stream/mux.ts";
import { addressOf, entryOf, eventOf } from "./entries.ts";
import type { ProtocolEvent } from "./entries.ts";
import { LeftOpen, isCall, isGraph } from "./left-open.ts";
import type { Begun } from "./left-open.ts";
import { MessageEvents, begunBy } from "./messages.ts";
import { asksOnly, toProtocolJson, withoutInterrupts } from "./plain.ts";
import type { ToolPlaces } from "./tool-places.ts";

/** How a run ended, in the protocol's words. */
export interface Terminal {
  readonly event: "completed" | "failed" | "interrupted";
  /** It waits for an answer, and goes on then. */
  readonly asks?: boolean;
  /** What else its clients are told: the error and, for an answer that was refused, why. */
  readonly about?: Fields;
  readonly error?: unknown;
}

// Asked for by other clients of the same run. They come between what ends and what tells so.
const LEGACY_ONLY: ReadonlySet<string> = new Set(["events", "debug"]);

export class ProtocolProjection {
  readonly #graphName: string;
  readonly #now: () => number;
  readonly #onFailure: (error: unknown) => void;
  readonly #places: ToolPlaces;
  #mux: Mux;
  readonly #messages: MessageEvents;
  readonly #atWork = new AtWork();
  #hasTransformers = false;
  /** The next values are those of the state that was told already. */
  #isResumed = false;
  /** A task has ended, and LangGraph's transformer tells so with the next event that it sees. */
  #hasEnded = false;
  readonly #asked = new Set<string>();
  /** What has begun and is not over. LangGraph itself ends the graphs that it has begun. */
  readonly #open = new LeftOpen();
  /** The newest values of the graph itself. */
  #last: unknown;
  /** A checkpoint by namespace, until the values come that belong to it. */
  readonly #checkpoints = new Map<string, Event>();

  /**
   * @param now the time of the next event, in milliseconds, never before the last one's
   * @param onFailure told when a transformer of the graph fails: the run goes on without it
   * @param places sees the tools of the graph when they are called
   */
  constructor(graphName: string, now: () => number, onFailure: (error: unknown) => void, places: ToolPlaces) {
    this.#graphName = graphName;
    this.#now = now;
    this.#onFailure = onFailure;
    this.#places = places;
    this.#mux = new Mux([], onFailure);
    this.#messages = new MessageEvents(now);
  }

  /** What the graph was compiled with to add to its stream; before its first chunk. */
  use(transformers: readonly (() => StreamTransformer)[]): void {
    this.#mux = new Mux(transformers, this.#onFailure);
    this.#hasTransformers = transformers.length > 0;
  }

  /** An attempt begins. @param answered ids of the questions that the run was started to answer */
  begin(answered: readonly string[]): Entry[] {
    const running = this.#root({ event: "running", graph_name: this.#graphName });
    if (answered.length === 0) return [running];
    const data = JSON.stringify({ interrupt_ids: answered });
    return [running, entryOf({ name: "input.answered", namespace: [], data }, this.#now())];
  }

  /**
   * Before an attempt begins that takes over: what makes clients drop half messages with the state they see next.
   * @param lost ids of messages that the lost attempt has begun to tell and not kept
   */
  withdraw(values: unknown, lost: readonly string[]): Entry[] {
    return this.#withdrawal(withoutInterrupts(values), lost).slice(0, 1);
  }

  /** What is known without the graph. */
  tell(events: readonly ProtocolEvent[]): Entry[] {
    return events.map((event) => entryOf(event, this.#now()));
  }

  /** What goes on under the name it had, the first first: what tells nothing more of itself ends with the run. */
  expect(begun: readonly Begun[]): void {
    this.#open.expect(begun);
  }

  /** The state that a takeover goes on from, for who has missed what the lost attempt told last. */
  snapshot(values: unknown, checkpoint: Fields): Entry[] {
    const kept = withoutInterrupts(values);
    this.#last = kept;
    return [this.#entry("checkpoints", checkpoint), this.#entry("values", kept)];
  }

  /** The graph goes on from that state. It tells it first, without what tasks of its step have done already. */
  resume(): void {
    this.#isResumed = true;
  }

  entriesOf(chunk: Chunk): Entry[] {
    const { mode, namespace, payload } = chunk;
    if (LEGACY_ONLY.has(mode)) return [];
    if (mode === "messages") return inOrder(this.#seen(this.#messages.entriesOf(payload)));
    if (mode === "checkpoints") {
      const [event] = eventsOf(chunk);
      if (event) this.#checkpoints.set(eventOf("", namespace), event);
      return [];
    }
    this.#isResumed &&= mode === "values";
    const questions = mode === "values" || mode === "updates" ? this.#questions(chunk) : [];
    const entries = this.#seen(this.#finished(chunk));
    this.#hasEnded = mode === "updates" || mode === "tasks";
    for (const event of mode === "values" ? this.#values(chunk) : eventsOf(this.#places.placed(chunk)))
      for (const made of this.#mux.push(event)) entries.push(...this.#entriesFrom(made));
    return inOrder([...entries, ...questions]);
  }

  /** The run has ended. */
  async end({ event, asks = false, about = {}, error }: Terminal): Promise<Entry[]> {
    const open = event === "completed" ? this.#messages.finish() : [];
    // Also of a run that went on without a task that has failed.
    const entries = this.#withdrawal(this.#last, this.#messages.openIds());
    try {
      entries.push(...this.#seen(open), ...this.tell(asks ? [] : this.#open.ends(event, isCall)));
      const last = event === "failed" ? this.#mux.fail(error) : await this.#mux.finish(event);
      entries.push(...last.flatMap((made) => this.#entriesFrom(made)));
      entries.push(...this.tell(this.#open.ends(event, isGraph)));
    } catch (failure) {
      this.#onFailure(failure);
    }
    return inOrder([...entries, this.#root({ event, graph_name: this.#graphName, ...about })]);
  }

  /** Lets transformers see messages. LangGraph's own wants to know where they begin, and when a task was the last to tell. */
  #seen(entries: readonly Entry[]): Entry[] {
    return entries.flatMap((entry) => {
      if (!this.#hasTransformers && !this.#hasEnded && begunBy(entry) === undefined) return [entry];
      this.#hasEnded = false;
      const { namespace } = addressOf(entry);
      const params = { ...(JSON.parse(dataOf(entry)) as Pick<Event["params"], "data" | "node">), namespace };
      const event: Event = { type: "event", seq: 0, method: "messages", params: { ...params, timestamp: 0 } };
      return this.#mux.push(event).flatMap((made) => (made === event ? entry : this.#entriesFrom(made)));
    });
  }

  /**
   * Takes half messages back. Clients from 1.15 on drop them when an attempt begins or a run ends; older ones keep what
   * they have put together until it was in the values once and then is not.
   */
  #withdrawal(values: unknown, ids: readonly string[]): Entry[] {
    const fields = Object(values) as Fields;
    const messages: unknown = fields["messages"];
    if (ids.length === 0 || !Array.isArray(messages)) return [];
    const half = ids.map((id) => ({ type: "ai", id, content: "" }));
    return [
      this.#entry("values", { ...fields, messages: [...messages, ...half] }),
      this.#entry("values", values),
    ];
  }

  #values({ namespace, payload }: Chunk): Event[] {
    const key = eventOf("", namespace);
    const checkpoint = this.#checkpoints.get(key);
    this.#checkpoints.delete(key);
    const isKnown = this.#isResumed && namespace.length === 0;
    this.#isResumed &&= !isKnown;
    if (isKnown || asksOnly(payload)) return [];
    const values = withoutInterrupts(payload);
    if (namespace.length === 0) this.#last = values;
    const shown = eventsOf({ mode: "values", namespace, payload: values });
    return checkpoint ? [checkpoint, ...shown] : shown;
  }

  /** Questions that the graph asks; those of a subgraph are told once, where they are seen first. */
  #questions({ namespace, payload }: Chunk): Entry[] {
    const asked = (Object(payload) as Fields)["__interrupt__"];
    const entries: Entry[] = [];
    for (const { id, value } of Array.isArray(asked) ? (asked as { id?: unknown; value?: unknown }[]) : []) {
      if (typeof id !== "string" || this.#asked.has(id)) continue;
      this.#asked.add(id);
      const data = toProtocolJson({ interrupt_id: id, payload: value ?? null });
      entries.push(entryOf({ name: "input.requested", namespace, data }, this.#now()));
    }
    return entries;
  }

  /** What ends with a task: its messages. */
  #finished(chunk: Chunk): Entry[] {
    const { mode, namespace, payload } = chunk;
    const fields = Object(payload) as Fields;
    this.#atWork.see(chunk);
    if (mode === "updates")
      return Object.keys(fields)
        .filter((node) => !this.#atWork.isShared(namespace, node))
        .flatMap((node) => this.#messages.finishNode(namespace, node));
    if (mode !== "tasks" || !("result" in fields)) return [];
    const task = `${String(fields["name"])}:${String(fields["id"])}`;
    return hasFailed(fields["error"])
      ? this.#messages.breakOff(namespace, task)
      : this.#messages.finish(namespace, task);
  }

  #root(data: Fields): Entry {
    return this.#entry("lifecycle", data);
  }

  #entry(name: string, data: unknown): Entry {
    return entryOf({ name, namespace: [], data: toProtocolJson(data) }, this.#now());
  }

  /** None for what a transformer or a node tells and JSON cannot hold, and for what was told before. */
  #entriesFrom(event: Event): Entry[] {
    try {
      const entry = this.#entryOf(event);
      return this.#open.see(entry) ? [] : [entry];
    } catch (error) {
      this.#onFailure(error);
      return [];
    }
  }

  #entryOf({ method, params }: Event): Entry {
    const { namespace, data, node } = params;
    const name: unknown = method === "custom" ? Object(data).name : undefined;
    // The log divides names by these; such an event is found under `custom` alone.
    const isNamed = typeof name === "string" && !/[|\t\n]/.test(name);
    const shown = isNamed ? `custom:${name}` : method;
    return entryOf({ name: shown, namespace, node, data: toProtocolJson(data) }, this.#now());
  }
}

/** LangGraph reports it as an error also when a task hands over to a node of the graph around its own. */
const hasFailed = (error: unknown): boolean =>
  (error ?? null) !== null && Object(error).name !== "ParentCommand";

/** The protocol's events for a chunk: one for each node of an update, none for what is LangGraph's own. */
function eventsOf({ mode, namespace, payload }: Chunk): Event[] {
  if (mode === "checkpoints" && !isCheckpointEnvelope(payload)) return [];
  // A mode that it does not know makes no event.
  const at = { namespace: [...namespace], mode: mode as StreamMode, seq: 0 };
  if (mode !== "updates") return convertToProtocolEvent({ ...at, payload });
  return Object.entries(Object(payload) as Fields)
    .filter(([node]) => node !== "__interrupt__")
    .flatMap(([node, update]) => convertToProtocolEvent({ ...at, payload: { [node]: update } }));
}

/** Some are made before others that are told before them: none is told as older than what came before. */
function inOrder(entries: readonly Entry[]): Entry[] {
  let last = 0;
  return entries.map((entry) => {
    const { at = last } = entry;
    last = Math.max(last, at);
    return at < last ? { ...entry, at: last } : entry;
  });
}
