// What a graph tells while it runs, without what must not be kept. Messages come in pieces, and so does what runnables
// tell in events; everything else is whole, and looked at as it is. What was held back of a message is told at the latest
// when its node has ended.
import { asFields } from "../../fields.ts";
import { ObjectRedactor, mayGrow } from "../../privacy/growing.ts";
import type { Guard } from "../../privacy/guard.ts";
import { PieceRedactor, isPiece, withoutTokens } from "../../privacy/pieces.ts";
import type { Piece } from "../../privacy/pieces.ts";
import type { RedactionStream } from "../../privacy/redact.ts";
import type { Chunk } from "../graph/graph-stream.ts";
import { AtWork } from "./at-work.ts";
import { isPulled } from "./modes.ts";

// What happens to a runnable, at the end of an event's name.
const STEP = /_(?:start|stream|end|error)$/;
const ONE_MESSAGE = "on_chat_model_stream";

/** One message or text in pieces. */
interface Pieces {
  take(piece: unknown): readonly unknown[];
  rest(): readonly unknown[];
}

interface Open {
  readonly pieces: Pieces;
  /** The chunk that a piece makes. */
  readonly told: (piece: unknown) => Chunk;
  /** Where the message comes from: the path of its task, and the node; empty for one of the events. */
  readonly path: readonly string[];
  readonly node: string;
  /** Whether no other task of the node can be at work: what it wrote names the node alone. */
  readonly isOnly: boolean;
  /** What was taken last. */
  last?: unknown;
}

/** A piece in the data of an event. */
interface Part {
  /** What it is a piece of, among those of one runnable. */
  readonly name: string;
  readonly piece: unknown;
  /** For all of it, from this piece on. */
  readonly begin: () => Pieces;
  /** The data that tells a piece. */
  readonly wrap: (one: unknown) => unknown;
}

/** A text that a runnable, such as a parser, passes on in pieces. */
class TextRedactor implements Pieces {
  readonly #stream: RedactionStream | undefined;

  constructor(guard: Guard) {
    this.#stream = guard.stream();
  }

  take(piece: unknown): readonly string[] {
    return this.#told(this.#stream?.push(String(piece)) ?? String(piece));
  }

  rest(): readonly string[] {
    return this.#told(this.#stream?.push("", true) ?? "");
  }

  #told(text: string): readonly string[] {
    return text === "" ? [] : [text];
  }
}

export class ChunkRedactor {
  readonly #guard: Guard;
  readonly #tellsTasks: boolean;
  readonly #tellsValues: boolean;
  /** The newest values of the graph itself, if nobody is told any. */
  #values: Chunk | undefined;
  readonly #open = new Map<string, Open>();
  readonly #atWork = new AtWork();
  readonly #callOf: CallOf;
  /** Pieces with which a message is over, and that are still to come. */
  readonly #ends = new WeakSet<object>();

  /**
   * @param tellsTasks whether anybody is told what mode tasks says; else it only serves to know when a message is over
   * @param tellsValues whether anybody is told the values after each superstep; else only the last ones are of use, and
   * come at the end: to look through a long conversation takes longer than all else that a superstep needs
   * @param callOf the call of a model that a piece is of, if that is known
   */
  constructor(
    guard: Guard,
    {
      tellsTasks = true,
      tellsValues = true,
      callOf = () => undefined,
    }: { readonly tellsTasks?: boolean; readonly tellsValues?: boolean; readonly callOf?: CallOf } = {},
  ) {
    this.#guard = guard;
    this.#tellsTasks = tellsTasks;
    this.#tellsValues = tellsValues;
    this.#callOf = callOf;
  }

  /** A chunk as it may be told, after what was held back until now; nothing while it is held back itself. */
  take(chunk: Chunk): Chunk[] {
    if (this.#guard.mode === "off") return [chunk];
    const { mode, payload } = chunk;
    if (mode === "messages" && Array.isArray(payload) && isPiece(payload[0])) {
      const [piece, about] = payload as [Piece, unknown];
      // Some servers of models give each message the same id: those of two calls at a time are two all the same.
      const { langgraph_checkpoint_ns: ns } = Object(about) as { langgraph_checkpoint_ns?: unknown };
      return this.#take(`message ${String(ns)} ${piece.id} ${this.#callOf(piece)}`, piece, () =>
        this.#ofMessage(chunk, piece, about),
      );
    }
    if (mode === "events") return this.#event(chunk);
    const { namespace } = chunk;
    const held = this.#rest(
      (open) => isOver(open, chunk) && !(mode === "updates" && this.#atWork.isShared(namespace, open.node)),
    );
    this.#atWork.see(chunk);
    if (mode === "tasks" && !this.#tellsTasks) return held;
    if (mode === "values" && !this.#tellsValues) {
      if (namespace.length === 0) this.#values = chunk;
      return held;
    }
    return [...held, { ...chunk, payload: this.#guard.value(payload) }];
  }

  /** What is still held back of a message whose last piece this is. */
  over(last: object): Chunk[] {
    this.#ends.add(last);
    return this.#rest((open) => open.last === last);
  }

  /** What is still held back when nothing more comes. */
  end(): Chunk[] {
    const values = this.#values;
    return [
      ...this.#rest(() => true),
      ...(values ? [{ ...values, payload: this.#guard.value(values.payload) }] : []),
    ];
  }

  /** LangGraph's own events tell the same pieces, each runnable that passes them on anew, under the id of its run. */
  #event(chunk: Chunk): Chunk[] {
    const event = asFields(chunk.payload);
    const name = String(event["event"]);
    const key = `${name.replace(STEP, "")} ${String(event["run_id"])}`;
    const whole = (): Chunk => ({ ...chunk, payload: this.#guard.value(event) });
    if (!name.endsWith("_stream")) return [...this.#rest((_, other) => other.startsWith(`${key} `)), whole()];
    const { chunk: given, ...data } = asFields(event["data"]);
    const part = this.#partOf(given);
    if (!part) return [whole()];
    // One call of a model tells one message, though not each piece of it has the id.
    const place = name === ONE_MESSAGE ? "message" : part.name;
    return this.#take(`${key} ${place}`, part.piece, () => {
      const kept = this.#guard.value({ ...event, data });
      const told = (one: unknown): Chunk => ({
        ...chunk,
        payload: { ...kept, data: { ...kept.data, chunk: part.wrap(one) } },
      });
      return { pieces: part.begin(), told, path: [], node: "", isOnly: false };
    });
  }

  /** What grows in the data of an event: a text, a message, an object, or one of them as a runnable passes it on. */
  #partOf(given: unknown): Part | undefined {
    const guard = this.#guard;
    const text = (piece: string, wrap: Part["wrap"]): Part => ({
      name: "text",
      piece,
      begin: () => new TextRedactor(guard),
      wrap,
    });
    const message = (piece: Piece, wrap: Part["wrap"]): Part => ({
      name: `message ${piece.id}`,
      piece,
      begin: () => new PieceRedactor(guard, piece),
      wrap,
    });
    if (typeof given === "string") return text(given, same);
    if (isPiece(given)) return message(given, same);
    const object: Part = {
      name: "object",
      piece: given,
      begin: () => new ObjectRedactor(guard),
      wrap: same,
    };
    if (Array.isArray(given) && typeof given.at(-2) !== "string") return object;
    if (Array.isArray(given)) {
      // A graph's own chunk: its namespace, if that was asked for, the mode, and what the mode tells.
      const [mode, payload]: unknown[] = given.slice(-2);
      const [piece, about]: unknown[] = mode === "messages" && Array.isArray(payload) ? payload : [];
      if (!isPiece(piece)) return undefined;
      return message(piece, (one) => [...guard.value(given.slice(0, -1)), [one, guard.value(about)]]);
    }
    const fields = asFields(given);
    if (typeof fields["text"] !== "string" || !("concat" in Object(given)))
      return mayGrow(given) ? object : undefined;
    const others = { ...withoutTokens(fields, "generationInfo"), text: "" };
    return text(fields["text"], (one) => ({ ...guard.value(others), text: one }));
  }

  #take(key: string, piece: unknown, begin: () => Open): Chunk[] {
    const open = this.#open.get(key) ?? begin();
    open.last = piece;
    this.#open.set(key, open);
    const told = open.pieces.take(piece).map(open.told);
    const isLast = typeof piece === "object" && piece !== null && this.#ends.has(piece);
    return isLast ? [...told, ...this.#rest((_, other) => other === key)] : told;
  }

  #ofMessage(chunk: Chunk, piece: Piece, about: unknown): Open {
    const { langgraph_node: node, langgraph_checkpoint_ns: ns, langgraph_path: place } = asFields(about);
    const kept = this.#guard.value(about);
    return {
      pieces: new PieceRedactor(this.#guard, piece),
      told: (one) => ({ ...chunk, payload: [one, kept] }),
      path: typeof ns === "string" && ns !== "" ? ns.split("|") : [],
      node: String(node),
      isOnly: isPulled(place),
    };
  }

  #rest(isMeant: (open: Open, key: string) => boolean): Chunk[] {
    const chunks: Chunk[] = [];
    for (const [key, open] of this.#open) {
      if (!isMeant(open, key)) continue;
      this.#open.delete(key);
      chunks.push(...open.pieces.rest().map(open.told));
    }
    return chunks;
  }
}

type CallOf = (piece: object) => string | undefined;

const same = (one: unknown): unknown => one;

/** Whether a message is over when a chunk comes: its task has told what it wrote, or a whole message. */
function isOver({ path, node, isOnly }: Open, { namespace, mode, payload }: Chunk): boolean {
  if (node === "") return false;
  const fields = asFields(payload);
  if (mode === "messages") {
    const { langgraph_node: other, langgraph_checkpoint_ns: ns } = asFields(fields[1]);
    return other === node && ns === path.join("|");
  }
  if (!namespace.every((segment, index) => path[index] === segment)) return false;
  // All tasks are over when the values come; a question is told while others are at work.
  if (mode === "values") return !("__interrupt__" in fields);
  const task = path[namespace.length] ?? node;
  if (mode === "tasks")
    return "result" in fields && task === `${String(fields["name"])}:${String(fields["id"])}`;
  const isOwn = mode === "updates" && path.length <= namespace.length + 1;
  return isOwn && isOnly && Object.hasOwn(fields, node);
}
