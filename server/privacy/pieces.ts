// One message that a model tells in pieces. Each of its texts (answer, thoughts, arguments of a call) is looked at as
// one, however it is cut; what may still become something is held back and told with a later piece.
import { everyField, fieldOf, hasShape, isMessage, messageFrom, shapeOf, withContent } from "./envelopes.ts";
import type { Fields, Message, Shape } from "./envelopes.ts";
import type { Guard } from "./guard.ts";
import type { RedactionStream } from "./redact.ts";

export type Piece = Message & { readonly id?: string };

/** Whether a value is a piece of a message, which can be put together with the next one. */
export const isPiece = (value: unknown): value is Piece =>
  typeof value === "object" &&
  value !== null &&
  isMessage(value) &&
  "concat" in value &&
  String(value.lc_id.at(-1)).endsWith("Chunk");

// Fields of a content block that providers stream in pieces.
const GROWING = new Set([
  "text",
  "reasoning",
  "thinking",
  "refusal",
  "args",
  "arguments",
  "input",
  "partial_json",
]);
// A model thinks, then answers, then calls: where a later text has begun, those before it are over.
const CONTENT = 1;
const CALLS = 10_000;

interface Growing {
  readonly order: number;
  readonly stream: RedactionStream;
  /** A piece's fields that hold nothing but this text. */
  readonly alone: (text: string) => Fields;
}

/** Looks at one message. */
export class PieceRedactor {
  readonly #guard: Guard;
  readonly #texts = new Map<string, Growing>();
  #last: Piece;
  /** Texts that are over, each as a piece of its own. */
  #over: Piece[] = [];
  #isLast = false;
  /** The last piece that held nothing but text beside what may be kept, and what was told of it. */
  #plain: { readonly given: Shape; readonly told: Piece } | undefined;

  constructor(guard: Guard, first: Piece) {
    this.#guard = guard;
    this.#last = first;
  }

  /** What may be told by now; nothing while all of the piece is held back. */
  take(piece: Piece): Piece[] {
    const isFirst = piece === this.#last;
    this.#last = piece;
    this.#isLast = isEnd(piece);
    const told = this.#redacted(piece);
    if (this.#isLast) this.#finish(() => true);
    const over = this.#over.splice(0);
    const isHeld = !isFirst && !this.#isLast && isSilent(told) && !isSilent(piece);
    return isHeld ? over : [...over, told];
  }

  /** What is still held back when nothing more comes. */
  rest(): Piece[] {
    this.#finish(() => true);
    return this.#over.splice(0);
  }

  #redacted(piece: Piece): Piece {
    const text = fieldOf(piece, "content");
    if (typeof text === "string" && this.#plain && hasShape(piece, this.#plain.given))
      return withContent(this.#plain.told, this.#content(text));
    // The calls are read from the pieces of their arguments again.
    const {
      content,
      tool_call_chunks,
      additional_kwargs,
      tool_calls: _1,
      invalid_tool_calls: _2,
      ...rest
    } = everyField(piece);
    const {
      reasoning_content: thought,
      tool_calls: _3,
      function_call: _4,
      ...more
    } = Object(additional_kwargs) as Fields;
    const kept: Fields = { ...this.#guard.value(rest) };
    const added = { ...this.#guard.value(more) };
    if (typeof thought === "string") {
      added["reasoning_content"] = this.#grow("thought", 0, thought, aloneAsThought);
    }
    kept["additional_kwargs"] = added;
    kept["content"] =
      typeof content === "string"
        ? this.#content(content)
        : this.#blocks(content, "block", CONTENT, (block) => ({ content: [block] }));
    if (Array.isArray(tool_call_chunks) && tool_call_chunks.length > 0)
      kept["tool_call_chunks"] = this.#blocks(tool_call_chunks, "call", CALLS, (call) => ({
        tool_call_chunks: [call],
      }));
    const told = made(piece, kept);
    this.#plain = typeof content === "string" && isPlain(piece) ? { given: shapeOf(piece), told } : undefined;
    return told;
  }

  #content(text: string): string {
    return this.#grow("content", CONTENT, text, (rest) => ({ content: rest }));
  }

  #blocks(given: unknown, kind: string, order: number, alone: (block: Fields) => Fields): unknown {
    if (!Array.isArray(given)) return given;
    return given.map((block: unknown, position) => {
      if (typeof block !== "object" || block === null) return this.#guard.value(block);
      const fields = block as Fields; // any block's own
      const index = Number(fields["index"] ?? position);
      this.#finish((other) => other.order < order + index);
      const still = Object.fromEntries(
        Object.entries(fields).filter(([key, value]) => !isGrowing(key, value)),
      );
      const kept: Fields = { ...this.#guard.value(still) };
      for (const [key, value] of Object.entries(fields)) {
        if (!isGrowing(key, value)) continue;
        const one = (text: string): Fields => alone({ ...kept, index, [key]: text });
        kept[key] = this.#grow(`${kind} ${index} ${key}`, order + index, value, one);
      }
      return kept;
    });
  }

  #grow(place: string, order: number, text: string, alone: Growing["alone"]): string {
    if (text !== "") this.#finish((other) => other.order < order);
    const growing = this.#texts.get(place) ?? this.#begin(order, alone);
    if (!growing) return text;
    this.#texts.set(place, growing);
    return growing.stream.push(text, this.#isLast);
  }

  #begin(order: number, alone: Growing["alone"]): Growing | undefined {
    const stream = this.#guard.stream();
    return stream && { order, stream, alone };
  }

  #finish(isOver: (one: Growing) => boolean): void {
    for (const [place, one] of this.#texts) {
      if (!isOver(one)) continue;
      this.#texts.delete(place);
      const text = one.stream.push("", true);
      if (text === "") continue;
      const { id, name, content } = everyField(this.#last);
      const empty = Array.isArray(content) ? [] : "";
      this.#over.push(
        made(this.#last, { id, ...(name ? { name } : {}), content: empty, ...one.alone(text) }),
      );
    }
  }
}

const aloneAsThought = (text: string): Fields => ({ additional_kwargs: { reasoning_content: text } });

const isGrowing = (key: string, value: unknown): value is string =>
  GROWING.has(key) && typeof value === "string";

/** Whether no field of a piece but its content can hold text that grows. */
const isPlain = (piece: Piece): boolean => GROWERS.every((key) => isEmpty(fieldOf(piece, key)));

const GROWERS = ["tool_call_chunks", "tool_calls", "invalid_tool_calls", "additional_kwargs"] as const;

/** A piece of the same class. */
const made = (piece: Piece, fields: Fields): Piece =>
  messageFrom(["langchain_core", "messages", String(piece.lc_id.at(-1))], fields) as Piece; // of a class in the list

/** Whether the provider says that nothing more comes of its text. */
function isEnd(piece: Piece): boolean {
  const metadata: unknown = fieldOf(piece, "response_metadata");
  const { finish_reason: finish, stop_reason: stop } = Object(metadata) as Fields;
  return typeof finish === "string" || typeof stop === "string";
}

/** Whether a piece tells nothing at all. */
const isSilent = (piece: Piece): boolean => TELLING.every((key) => isEmpty(fieldOf(piece, key)));

const TELLING = [
  "content",
  "tool_call_chunks",
  "additional_kwargs",
  "usage_metadata",
  "response_metadata",
] as const;

const isEmpty = (value: unknown): boolean =>
  value === undefined ||
  value === "" ||
  (typeof value === "object" && Object.values(value ?? {}).every(isEmpty));
