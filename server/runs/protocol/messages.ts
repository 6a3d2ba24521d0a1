// Messages of protocol v2: a message starts, its content blocks start, grow and finish one after the other, and the
// message finishes. LangGraph tells a message in pieces that can be put together, or whole; neither says that a message
// is complete, so it is when its node is.
import type { Fields } from "../../fields.ts";
import { isMessage } from "../../privacy/envelopes.ts";
import type { Message } from "../../privacy/envelopes.ts";
import type { Entry, Template } from "../log/lines.ts";
import { isPulled } from "../stream/modes.ts";
import { partsOf, toWireJson } from "../stream/wire-json.ts";
import { Blocks } from "./blocks.ts";
import type { BlockEvent } from "./blocks.ts";
import { addressOf, entryOf, eventOf, headOf, isOfThread } from "./entries.ts";
import type { ProtocolEvent } from "./entries.ts";

interface Open {
  readonly id: string;
  readonly namespace: readonly string[];
  readonly node: string | undefined;
  /** Whether no other task of the node can be at work: what it wrote names the node alone. */
  readonly isOnly: boolean;
  readonly blocks: Blocks;
  usage: unknown;
  metadata: unknown;
  /** For deltas of the block that is open: only their text differs. */
  template: { readonly index: number; readonly of: Template } | undefined;
}

const ROLES: Readonly<Record<string, string>> = { human: "human", system: "system" };

export class MessageEvents {
  readonly #now: () => number;
  /** Some servers of models give each message the same id: those of two tasks at a time are two all the same. */
  readonly #open = new Map<string, Open>();
  readonly #broken: Open[] = [];

  /** @param now the time of the next event, in milliseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** A chunk of LangGraph's mode `messages`: a piece of a message, or a whole one, and where it comes from. */
  entriesOf(payload: unknown): Entry[] {
    const [message, about]: unknown[] = Array.isArray(payload) ? payload : [];
    if (typeof message !== "object" || message === null || !isMessage(message)) return [];
    // The channel `tools` tells it, as LangGraph's own stream does. Under the task of the call it would be, to clients,
    // one more message of the agent that the tool runs.
    if (message.type === "tool") return [];
    const {
      langgraph_checkpoint_ns: ns,
      langgraph_node: node,
      langgraph_path: path,
    } = Object(about) as Fields;
    const place = {
      namespace: typeof ns === "string" && ns !== "" ? ns.split("|") : [],
      node: typeof node === "string" ? node : undefined,
      isOnly: isPulled(path),
    };
    const { content, rest } = partsOf(message);
    const fields = rest as Fields; // its own fields
    const id = String(fields["id"]);
    const key = keyOf({ ...place, id });
    const known = this.#open.get(key);
    const open = known ?? {
      ...place,
      id,
      blocks: new Blocks(),
      usage: undefined,
      metadata: undefined,
      template: undefined,
    };
    const entries = known ? [] : [this.#entry(open, startOf(message, id))];
    this.#open.set(key, open);
    open.usage = added(open.usage, fields["usage_metadata"]);
    if (isFilled(fields["response_metadata"])) open.metadata = fields["response_metadata"];
    for (const event of open.blocks.take(content, fields, isPiece(message)))
      entries.push(this.#blockEntry(open, event));
    if (!isPiece(message)) entries.push(...this.#finish(open));
    return entries;
  }

  /** Ids of messages of the thread itself that have begun and not finished, and nobody finishes any more. */
  openIds(): string[] {
    const open = [...this.#open.values(), ...this.#broken].filter(({ namespace }) => isOfThread(namespace));
    return [...new Set(open.map(({ id }) => id))];
  }

  /**
   * Finishes the messages of a task that has ended; of every task when none is named. A task that another one has called
   * ends beside that one, and speaks within it.
   */
  finish(namespace: readonly string[] = [], task?: string): Entry[] {
    return this.#finishAll((open) => task === undefined || isOfTask(open, namespace, task));
  }

  /** Ends the messages of a task that has failed: clients that keep what is finished would keep what no state holds. */
  breakOff(namespace: readonly string[], task: string): Entry[] {
    const all = [...this.#open.values()].filter((open) => isOfTask(open, namespace, task));
    for (const open of all) this.#open.delete(keyOf(open));
    this.#broken.push(...all);
    return all.map((open) =>
      entryOf(brokenOff(open, "The node failed that said this message."), this.#now()),
    );
  }

  /** Finishes the messages of a node that has written, if that says which task of it has ended. */
  finishNode(namespace: readonly string[], node: string): Entry[] {
    return this.#finishAll(
      (open) =>
        open.isOnly &&
        open.node === node &&
        open.namespace.length === namespace.length + 1 &&
        isWithin(open, namespace),
    );
  }

  #finishAll(isMeant: (open: Open) => boolean): Entry[] {
    return [...this.#open.values()].filter(isMeant).flatMap((open) => this.#finish(open));
  }

  #finish(open: Open): Entry[] {
    this.#open.delete(keyOf(open));
    const entries = open.blocks.finish().map((event) => this.#blockEntry(open, event));
    const usage = open.usage === undefined ? {} : { usage: open.usage };
    const metadata = open.metadata === undefined ? {} : { responseMetadata: open.metadata };
    entries.push(this.#entry(open, { event: "message-finish", ...usage, ...metadata }));
    return entries;
  }

  #blockEntry(open: Open, told: BlockEvent): Entry {
    const { event, text } = told;
    if (text === undefined) return this.#entry(open, event);
    const index = Number(event["index"]);
    const known = open.template;
    const of = known?.index === index ? known.of : templateOf(open, told);
    open.template = { index, of };
    return { template: of, text: JSON.stringify(text), at: this.#now() };
  }

  #entry({ id, namespace, node }: Open, data: Fields): Entry {
    const text = toWireJson({ ...data, run_id: id });
    return entryOf({ name: "messages", namespace, node, data: text }, this.#now());
  }
}

const keyOf = ({ id, namespace }: Pick<Open, "id" | "namespace">): string => [id, ...namespace].join("|");

const isWithin = (open: Open, graph: readonly string[]): boolean =>
  graph.every((segment, index) => open.namespace[index] === segment);

const isOfTask = (open: Open, graph: readonly string[], task: string): boolean =>
  isWithin(open, graph) && open.namespace.includes(task, graph.length);

/** A delta of a block without its text. Messages of one node that come at the same time are told apart by `run_id`. */
function templateOf({ id, namespace, node }: Open, { event, field = "" }: BlockEvent): Template {
  const { delta, ...rest } = event;
  const before = JSON.stringify(rest).slice(0, -1);
  const type = JSON.stringify(Object(delta).type);
  return {
    event: eventOf("messages", namespace),
    prefix: `${headOf(node)}${before},"delta":{"type":${type},${JSON.stringify(field)}:`,
    suffix: `},"run_id":${JSON.stringify(id)}}}`,
  };
}

const startOf = (message: Message, id: string): Fields => ({
  event: "message-start",
  id,
  role: ROLES[message.type] ?? "ai",
});

const isPiece = (message: object): boolean => "concat" in message && typeof message.concat === "function";

const isFilled = (value: unknown): boolean =>
  typeof value === "object" && value !== null && Object.keys(value).length > 0;

/** Usage comes once, or in parts that add up. */
function added(before: unknown, now: unknown): unknown {
  if (typeof now !== "object" || now === null) return before;
  if (typeof before !== "object" || before === null) return now;
  const sum: Fields = { ...before };
  for (const [key, value] of Object.entries(now)) {
    const old = sum[key];
    sum[key] = typeof value === "number" && typeof old === "number" ? old + value : value;
  }
  return sum;
}

const BOUND = /"event":"(?:message-start|message-finish|error)"/;

/** Messages of a run's log that have begun and not ended. Whoever reads one after the other waits for its end. */
export class HalfTold {
  readonly #open = new Map<string, ProtocolEvent>();

  see(entry: Entry): void {
    const { name, namespace } = addressOf(entry);
    if (name !== "messages" || !("data" in entry) || !BOUND.test(entry.data)) return;
    const { node, data } = JSON.parse(entry.data) as { node?: string; data: Fields }; // our own line
    const id = String(data["run_id"]);
    const key = keyOf({ id, namespace });
    const why = "The server went away in the midst of this message.";
    if (data["event"] === "message-start") this.#open.set(key, brokenOff({ id, namespace, node }, why));
    else if (data["event"] === "message-finish" || data["event"] === "error") this.#open.delete(key);
  }

  /** Their ends, when nobody goes on with them: what is said again is another message, perhaps under the same id. */
  ends(): ProtocolEvent[] {
    return [...this.#open.values()];
  }
}

function brokenOff(
  { id, namespace, node }: Pick<Open, "id" | "namespace" | "node">,
  message: string,
): ProtocolEvent {
  // The code that official clients give a message whose run ends before it.
  const data = JSON.stringify({ event: "error", message, code: "aborted", run_id: id });
  return { name: "messages", namespace, node, data };
}

/** The id of the message that an entry of the log begins. */
export function begunBy(entry: Entry): string | undefined {
  if (!("data" in entry) || !entry.data.includes('"event":"message-start"')) return undefined;
  const { data } = JSON.parse(entry.data) as { data: { event: string; id: string } }; // our own line
  return data.event === "message-start" ? data.id : undefined;
}
