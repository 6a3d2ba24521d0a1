// What a graph tells while it runs, without what must not be kept. Messages come in pieces; everything else is whole, and
// looked at as it is. What was held back of a message is told at the latest when its node has ended.
import { PieceRedactor, isPiece } from "../privacy/pieces.ts";
import type { Piece } from "../privacy/pieces.ts";
import type { Guard } from "../privacy/guard.ts";
import { asFields } from "./input.ts";
import type { Chunk } from "./modes.ts";

const ENDS = "on_chat_model_end";
const STREAMS = "on_chat_model_stream";

interface Open {
  readonly pieces: PieceRedactor;
  /** The chunk that a piece makes. */
  readonly told: (piece: Piece) => Chunk;
  /** Where the message comes from: the path of its task, and the node; empty for one of the events. */
  readonly path: readonly string[];
  readonly node: string;
}

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

  /** LangGraph's own events tell the same pieces, under the id of the model's run. */
  #event(chunk: Chunk): Chunk[] {
    const event = asFields(chunk.payload);
    const { data, ...rest } = event;
    const key = `run ${String(event["run_id"])}`;
    const { chunk: piece } = asFields(data);
    if (event["event"] === STREAMS && isPiece(piece))
      return this.#take(key, piece, () => this.#ofEvent(chunk, rest, piece));
    const held = event["event"] === ENDS ? this.#rest((_, other) => other === key) : [];
    return [...held, { ...chunk, payload: this.#guard.value(event) }];
  }

  #take(key: string, piece: Piece, begin: () => Open): Chunk[] {
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

  #ofEvent(chunk: Chunk, rest: object, piece: Piece): Open {
    const kept = this.#guard.value(rest);
    return {
      pieces: new PieceRedactor(this.#guard, piece),
      told: (one) => ({ ...chunk, payload: { ...kept, data: { chunk: one } } }),
      path: [],
      node: "",
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
