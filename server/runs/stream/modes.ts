// One pass over a graph, as the events that legacy clients expect.
// "messages-tuple" is LangGraph's mode "messages" and is sent as event "messages"; what clients call mode "messages" is
// made of it and of the values.
import { asFields } from "../../fields.ts";
import { fieldOf, hasShape, isMessage, shapeOf } from "../../privacy/envelopes.ts";
import type { Shape } from "../../privacy/envelopes.ts";
import type { Chunk } from "../graph/graph-stream.ts";
import type { Entry, Template, Whole } from "../log/lines.ts";
import { debugOf } from "./debug.ts";
import { InnerMessages } from "./inner-messages.ts";
import { Lifecycle } from "./lifecycle.ts";
import type { End } from "./lifecycle.ts";
import { Partials } from "./partials.ts";
import { partsOf, toWireJson } from "./wire-json.ts";

/**
 * Modes a client may ask for, and what each is for LangGraph. Of its own mode checkpoints nothing is read: asked for that,
 * it does not say any more which checkpoint values belong to. Mode debug tells the same.
 */
const GRAPH_MODES = {
  values: "values",
  updates: "updates",
  "messages-tuple": "messages",
  messages: "messages",
  tools: "tools",
  custom: "custom",
  tasks: "tasks",
  checkpoints: "debug",
  debug: "debug",
  lifecycle: "tasks",
} as const;

type GraphMode = (typeof GRAPH_MODES)[keyof typeof GRAPH_MODES];

// Modes that clients of protocol v2 may subscribe to.
const WATCHED_MODES: readonly GraphMode[] = ["values", "updates", "messages", "tools", "custom", "tasks"];

/** Whether a client wants to know of graphs in the graph, whatever else it asked for: mode messages tells of all models. */
export const tellsOfGraphs = (asked: readonly string[]): boolean =>
  asked.includes("lifecycle") || asked.includes("messages");

/** Whether anybody is told what LangGraph's mode tasks says. */
export const tellsTasks = (asked: readonly string[], isWatched: boolean): boolean =>
  isWatched || asked.includes("tasks") || asked.includes("lifecycle");

/** Whether anybody is told the values after each superstep, or what is made of them. */
export const tellsValues = (asked: readonly string[], isWatched: boolean): boolean =>
  isWatched || asked.includes("values") || asked.includes("messages");

/**
 * LangGraph's modes for what clients asked. `updates` and `values` are always read: they tell how the run ends.
 * @param holdsBack whether parts of messages are held back until their tasks are over
 */
export function graphModes(asked: readonly string[], isWatched: boolean, holdsBack: boolean): GraphMode[] {
  const modes = Object.entries(GRAPH_MODES).filter(
    ([client]) => client === "updates" || client === "values" || asked.includes(client),
  );
  const hasMessages = asked.includes("messages") || asked.includes("messages-tuple");
  const tasks: GraphMode[] = holdsBack && hasMessages ? ["tasks"] : [];
  return [...new Set([...modes.map(([, mode]) => mode), ...(isWatched ? WATCHED_MODES : []), ...tasks])];
}

/** Turns the pieces of one run's stream into what its clients asked for. */
export class Projection {
  readonly #asked: ReadonlySet<string>;
  readonly #hasSubgraphs: boolean;
  readonly #partials: Partials | undefined;
  readonly #lifecycle: Lifecycle | undefined;
  readonly #inner: InnerMessages | undefined;
  /** Metadata of a message comes as the same object with each of its tokens. */
  readonly #metadata = new WeakMap<object, string>();
  /** The checkpoint whose values come next. */
  #checkpoint: string | undefined;
  /** The next values are those of the state that was told already. */
  #isResumed = false;
  readonly #templates = new Map<string, Known>();

  /** @param hasSubgraphs whether clients asked for what subgraphs tell */
  constructor(asked: readonly string[], hasSubgraphs: boolean) {
    this.#asked = new Set(asked);
    this.#hasSubgraphs = hasSubgraphs;
    this.#partials = this.#asked.has("messages") ? new Partials() : undefined;
    this.#lifecycle = this.#asked.has("lifecycle") ? new Lifecycle() : undefined;
    this.#inner = this.#asked.has("messages-tuple") && !hasSubgraphs ? new InnerMessages() : undefined;
  }

  /** The graph goes on from a state that was told. It tells it first, without what tasks of its step have done already. */
  resume(): void {
    this.#isResumed = true;
  }

  /** A chunk as entries of the log: none when nobody asked for it. */
  entriesOf(given: Chunk): readonly Entry[] {
    const graphs = this.#lifecycle?.entriesOf(given) ?? [];
    const chunk = this.#hasSubgraphs ? given : rooted(given);
    if (isEnvelope(given)) {
      if (given.namespace.length === 0) this.#checkpoint = given.payload.id;
      return graphs;
    }
    this.#isResumed &&= ["values", "debug", "events"].includes(given.mode);
    const partials = this.#partials ? partialsOf(this.#partials, given) : [];
    const surfaced = this.#inner ? this.#surfaced(this.#inner, given) : [];
    const entry = chunk && this.#entryOf(chunk);
    const own = entry ? [entry, ...partials] : partials;
    const point = chunk?.mode === "debug" ? this.#pointOf(chunk) : undefined;
    if (point) return [...graphs, point, ...own];
    return graphs.length + surfaced.length > 0 ? [...graphs, ...surfaced, ...own] : own;
  }

  #pointOf(debug: Chunk): Entry | undefined {
    const { type, payload } = asFields(debug.payload);
    return type === "checkpoint" ? this.#entryOf({ ...debug, mode: "checkpoints", payload }) : undefined;
  }

  #surfaced(inner: InnerMessages, chunk: Chunk): Entry[] {
    const isInner = chunk.namespace.length > 0;
    if (isInner && chunk.mode === "messages") inner.pass(chunk);
    if (isInner || chunk.mode !== "updates") return [];
    return inner.take(chunk).flatMap((one) => this.#entryOf(one) ?? []);
  }

  /** What is told when the graph has ended. */
  async end(end: End): Promise<readonly Entry[]> {
    return this.#lifecycle ? this.#lifecycle.end(end) : [];
  }

  #entryOf(chunk: Chunk): Entry | undefined {
    const client = chunk.mode === "messages" ? "messages-tuple" : chunk.mode;
    if (!this.#asked.has(client)) return undefined;
    const event = [chunk.mode, ...chunk.namespace].join("|");
    if (chunk.mode === "messages") return this.#token(event, chunk.payload) ?? whole(event, chunk.payload);
    if (chunk.mode === "values" && chunk.namespace.length === 0) return this.#values(chunk.payload);
    const isInternal = ["debug", "checkpoints", "events"].includes(chunk.mode);
    return whole(event, isInternal ? withoutInternals(chunk) : chunk.payload);
  }

  #values(payload: unknown): Entry | undefined {
    const checkpoint = this.#checkpoint;
    this.#checkpoint = undefined;
    const isKnown = this.#isResumed;
    this.#isResumed = false;
    if (isKnown) return undefined;
    return { ...whole("values", payload), ...(checkpoint === undefined ? {} : { checkpoint }) };
  }

  /** A message whose content is text: only that text differs from one token to the next. */
  #token(event: string, payload: unknown): Entry | undefined {
    if (!Array.isArray(payload)) return undefined;
    const [message, metadata]: unknown[] = payload;
    if (typeof message !== "object" || message === null || !isMessage(message)) return undefined;
    const content = fieldOf(message, "content");
    if (typeof content !== "string" || typeof metadata !== "object" || metadata === null) return undefined;
    const id = String(fieldOf(message, "id"));
    const text = JSON.stringify(content);
    const last = this.#templates.get(id);
    if (last?.about === metadata && hasShape(message, last.shape)) return { template: last.template, text };
    const rest = toWireJson(partsOf(message).rest);
    const known = this.#metadata.get(metadata);
    const about = known ?? toWireJson(metadata);
    if (known === undefined) this.#metadata.set(metadata, about);
    const suffix = `,${rest.slice(1)},${about}]`;
    const isSame = last?.template.suffix === suffix && last.template.event === event;
    const template = isSame ? last.template : { event, prefix: '[{"content":', suffix };
    this.#templates.set(id, { shape: shapeOf(message), about: metadata, template });
    return { template, text };
  }
}

/** A message as it was told last, and what its tokens share. */
interface Known {
  readonly shape: Shape;
  readonly about: object;
  readonly template: Template;
}

function partialsOf(partials: Partials, { mode, namespace, payload }: Chunk): Entry[] {
  if (mode === "messages") return partials.token(payload);
  return mode === "values" && namespace.length === 0 ? partials.values(payload) : [];
}

const whole = (event: string, payload: unknown): Whole => ({ event, data: toWireJson(payload) });

/** Whether this chunk says that the graph stopped at an interrupt. */
export function isInterrupt({ mode, namespace, payload }: Chunk): boolean {
  return (
    mode === "updates" &&
    namespace.length === 0 &&
    typeof payload === "object" &&
    payload !== null &&
    "__interrupt__" in payload
  );
}

/**
 * Whether an edge has led to a task, as its place in LangGraph's metadata says: then it is the only one of its node. Those
 * that were sent, or called, may be many at the same time.
 */
export const isPulled = (place: unknown): boolean => Array.isArray(place) && place[0] === "__pregel_pull";

/** What is seen of a chunk without subgraphs: what their nodes write themselves comes as if from the graph. */
function rooted(chunk: Chunk): Chunk | undefined {
  if (chunk.namespace.length === 0) return chunk;
  return chunk.mode === "custom" ? { ...chunk, namespace: [] } : undefined;
}

// LangGraph tells a checkpoint's id before its values.
const isEnvelope = (chunk: Chunk): chunk is Chunk & { payload: { id: string } } =>
  chunk.mode === "checkpoints";

/** The tag of what clients are not to see. */
export const HIDDEN = "langsmith:hidden";

/** Whether a chunk is marked as not to be seen by clients. */
export function isHidden({ mode, payload }: Chunk): boolean {
  if (mode !== "messages" || !Array.isArray(payload)) return false;
  const metadata: unknown = payload[1];
  if (typeof metadata !== "object" || metadata === null || !("tags" in metadata)) return false;
  return Array.isArray(metadata.tags) && metadata.tags.includes(HIDDEN);
}

// Configurables that begin with two underscores are LangGraph's own working parts; who asked for the run is no news to
// the client, and need not stand in the log.
function withoutInternals({ mode, payload }: Chunk): unknown {
  const plain = JSON.parse(toWireJson(payload), (key: string, value: unknown) =>
    key.startsWith("__pregel") || key.startsWith("langgraph_auth_") ? undefined : value,
  ) as unknown;
  if (mode === "debug") return debugOf(plain);
  if (mode !== "checkpoints" || typeof plain !== "object" || plain === null) return plain;
  const { values, metadata, next } = plain as Record<string, unknown>; // just parsed from JSON
  return { values, metadata, next };
}
