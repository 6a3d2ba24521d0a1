// What a graph tells while it runs, without what must not be kept. Messages come in pieces; everything else is whole, and
// looked at as it is. What was held back of a message is told at the latest when its node has ended.
import { PieceRedactor, isPiece } from "../privacy/pieces.ts";
import type { Piece } from "../privacy/pieces.ts";
import type { Guard } from "../privacy/guard.ts";
import type { RedactionStream } from "../privacy/redact.ts";
import { asFields } from "./input.ts";
import type { Chunk } from "./modes.ts";

// What happens to a runnable, at the end of an event's name.
const STEP = /_(?:start|stream|end|error)$/;

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

const pairOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

export class ChunkRedactor {
  readonly #guard: Guard;
  readonly #open = new Map<string, Open>();

  constructor(guard: Guard) {
    this.#guard = guard;
  }

  /** A chunk as it may be told, after what was held back until now; nothing while it is held back itself. */
  take(chunk: Chunk): Chunk[] {
    if (this.#guard.mode === "off") return [chunk];
    const { mode, payload } = chunk;
    if (mode === "messages" && Array.isArray(payload) && isPiece(payload[0])) {
      const [piece, about] = payload as [Piece, unknown];
      return this.#take(`message ${piece.id}`, piece, () => this.#ofMessage(chunk, piece, about));
    }
    if (mode === "events") return this.#event(chunk);
    const held = this.#rest((open) => isOver(open, chunk));
    return [...held, { ...chunk, payload: this.#guard.value(payload) }];
  }

  /** What is still held back when nothing more comes. */
  end(): Chunk[] {
    return this.#rest(() => true);
  }

  /** LangGraph's own events tell the same pieces, each runnable that passes them on anew, under the id of its run. */
  #event(chunk: Chunk): Chunk[] {
    const event = asFields(chunk.payload);
    const name = String(event["event"]);
    const key = `${name.replace(STEP, "")} ${String(event["run_id"])}`;
    const { data, ...rest } = event;
    if (!name.endsWith("_stream")) {
      const held = this.#rest((_, other) => other.startsWith(`${key} `));
      return [...held, { ...chunk, payload: this.#guard.value(event) }];
    }
    const told = (given: unknown): Chunk => ({
      ...chunk,
      payload: { ...this.#guard.value(rest), data: { ...this.#guard.value(data as object), chunk: given } },
    });
    const { chunk: given } = asFields(data);
    const place = { path: [], node: "" };
    if (typeof given === "string") {
      const open = (): Open => ({ pieces: new TextRedactor(this.#guard), told, ...place });
      return this.#take(`${key} text`, given, open);
    }
    if (isPiece(given)) {
      const open = (): Open => ({ pieces: new PieceRedactor(this.#guard, given), told, ...place });
      return this.#take(`${key} ${given.id}`, given, open);
    }
    const { text } = asFields(given);
    if (typeof text === "string" && "concat" in Object(given)) {
      const open = (): Open => ({
        pieces: new TextRedactor(this.#guard),
        told: (one) => told({ ...this.#guard.value({ ...asFields(given), text: "" }), text: one }),
        ...place,
      });
      return this.#take(`${key} text`, text, open);
    }
    const [piece, about] = Array.isArray(given) && given.at(-2) === "messages" ? pairOf(given.at(-1)) : [];
    if (!Array.isArray(given) || !isPiece(piece)) return [{ ...chunk, payload: this.#guard.value(event) }];
    const kept = this.#guard.value(about);
    const wrapped = (one: unknown): Chunk => told([...given.slice(0, -1), [one, kept]]);
    const open = (): Open => ({ pieces: new PieceRedactor(this.#guard, piece), told: wrapped, ...place });
    return this.#take(`${key} ${piece.id}`, piece, open);
  }

  #take(key: string, piece: unknown, begin: () => Open): Chunk[] {
    const open = this.#open.get(key) ?? begin();
    this.#open.set(key, open);
    return open.pieces.take(piece).map(open.told);
  }

  #ofMessage(chunk: Chunk, piece: Piece, about: unknown): Open {
    const { langgraph_node: node, langgraph_checkpoint_ns: ns } = asFields(about);
    const kept = this.#guard.value(about);
    return {
      pieces: new PieceRedactor(this.#guard, piece),
      told: (one) => ({ ...chunk, payload: [one, kept] }),
      path: typeof ns === "string" && ns !== "" ? ns.split("|") : [],
      node: String(node),
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

/** Whether a message is over when a chunk comes: its node has told what it wrote, or a whole message. */
function isOver({ path, node }: Open, { namespace, mode, payload }: Chunk): boolean {
  if (mode === "messages") {
    const { langgraph_node: other, langgraph_checkpoint_ns: ns } = asFields(asFields(payload)[1]);
    return other === node && ns === path.join("|");
  }
  if (mode !== "updates") return false;
  if (!namespace.every((segment, index) => path[index] === segment)) return false;
  const [task = ""] = (path[namespace.length] ?? node).split(":", 1);
  return Object.hasOwn(Object(payload) as object, task);
}
