// Stream mode "messages" of legacy clients: each message of a model from its beginning, as far as it has come, and every
// message of the state once, when it is complete.
import { asFields } from "../../fields.ts";
import { isMessage } from "../../privacy/envelopes.ts";
import type { Entry, Template } from "../log/lines.ts";
import { partsOf, toWireJson } from "./wire-json.ts";

/** A piece of a message, which can be put together with the next one. */
interface Piece {
  readonly id?: string;
  readonly content: unknown;
  concat(next: Piece): Piece;
}

interface Growing {
  readonly rest: string;
  readonly template: Template;
  /** Whether the text holds no half of a surrogate pair, so that its JSON grows at the end only. */
  readonly isWellFormed: boolean;
}

export class Partials {
  /** Some servers of models give each message the same id: those of two tasks are two all the same. */
  readonly #messages = new Map<string, Piece>();
  /** Those that are text. */
  readonly #growing = new Map<string, Growing>();
  readonly #complete = new Set<string>();

  /** A chunk of LangGraph's mode `messages`. */
  token(payload: unknown): Entry[] {
    const [piece, metadata]: unknown[] = Array.isArray(payload) ? payload : [];
    if (!isPiece(piece) || !piece.id) return [];
    const key = `${String(asFields(metadata)["langgraph_checkpoint_ns"])} ${piece.id}`;
    const before = this.#messages.get(key);
    const message = before ? together(before, piece) : piece;
    this.#messages.set(key, message);
    const about = { event: "messages/metadata", data: toWireJson({ [piece.id]: { metadata } }) };
    return [...(before ? [] : [about]), this.#partial(key, message, piece.content)];
  }

  /** The values of the graph after a superstep. */
  values(values: unknown): Entry[] {
    const all: unknown = typeof values === "object" && values !== null ? Reflect.get(values, "messages") : [];
    const fresh = [all].flat().filter((one) => {
      if (typeof one !== "object" || one === null || !isMessage(one)) return false;
      const id: unknown = Reflect.get(one, "id");
      if (typeof id !== "string" || this.#complete.has(id)) return false;
      this.#complete.add(id);
      return true;
    });
    return fresh.length > 0 ? [{ event: "messages/complete", data: toWireJson(fresh) }] : [];
  }

  #partial(key: string, message: Piece, fresh: unknown): Entry {
    const event = "messages/partial";
    if (!isMessage(message)) return { event, data: toWireJson([message]) };
    const { content, rest: fields } = partsOf(message);
    if (typeof content !== "string") return { event, data: toWireJson([message]) };
    const before = this.#growing.get(key);
    const rest = toWireJson(fields);
    const isSame = before?.rest === rest;
    const template = isSame
      ? before.template
      : { event, prefix: '[{"content":', suffix: `,${rest.slice(1)}]` };
    const isWellFormed = content.isWellFormed();
    this.#growing.set(key, { rest, template, isWellFormed });
    const grows = isSame && before.isWellFormed && isWellFormed && typeof fresh === "string";
    const added = grows ? JSON.stringify(fresh).slice(1, -1) : undefined;
    return { template, text: JSON.stringify(content), added };
  }
}

/** Of two messages of one id LangChain may refuse that: then the next one begins. The run must not fail for who looks on. */
function together(before: Piece, piece: Piece): Piece {
  try {
    return before.concat(piece);
  } catch {
    return piece;
  }
}

const isPiece = (value: unknown): value is Piece =>
  typeof value === "object" &&
  value !== null &&
  isMessage(value) &&
  "concat" in value &&
  typeof value.concat === "function";
