// One message that a model tells in pieces. Each of its texts (answer, thoughts, arguments of a call) is looked at as
// one, however it is cut; what may still become something is held back and told with a later piece.
import type { Fields } from "../fields.ts";
import {
  everyField,
  fieldOf,
  hasShape,
  isMessage,
  isPlainObject,
  messageFrom,
  shapeOf,
  withContent,
} from "./envelopes.ts";
import type { Message, Shape } from "./envelopes.ts";
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

// Fields that providers stream in pieces, in a block of content or in an object beside it.
const TEXTS = [
  "text",
  "delta",
  "reasoning",
  "reasoning_content",
  "thinking",
  "thought",
  "refusal",
  "summary",
  "transcript",
];
const GROWING = new Set([...TEXTS, "args", "arguments", "code", "content", "input", "partial_json"]);
// Within these all that is no name grows: {reasoningText: {text}}, {reasoning: {summary: [{text}]}}.
const WITHIN = new Set([...TEXTS, "reasoningText", "audio"]);
/** By these a piece finds its place in the message; they are whole in each. */
const PLACE = ["type", "id", "index", "name"] as const;
const WHOLE = new Set<string>([
  ...PLACE,
  "data",
  "encrypted_content",
  "format",
  "role",
  "signature",
  "status",
]);
/** Deeper than providers nest their texts. */
const MAX_DEPTH = 20;
const THOUGHTS = new Set(["reasoning", "reasoning_content", "thinking"]);
// A model thinks, then answers, then calls: where a later text has begun, those before it are over.
const CONTENT = 1;
const CALLS = 10_000;

interface Growing {
  readonly order: number;
  readonly stream: RedactionStream;
  /** A piece's fields that hold nothing but this text. */
  readonly alone: (text: string) => Fields;
  /** The last piece that has a part of it. */
  last: Piece;
}

/** Where a value stands in a message. */
interface Place {
  /** The same for all its pieces. */
  readonly place: string;
  readonly order: number;
  /** Whether all that is no name grows. */
  readonly isWithin: boolean;
  /** A piece's fields that hold nothing but a part of this value. */
  readonly alone: (part: unknown) => Fields;
  readonly depth: number;
}

/** Looks at one message. */
export class PieceRedactor {
  readonly #guard: Guard;
  readonly #texts = new Map<string, Growing>();
  #last: Piece;
  /** Texts that are over, each as a piece of its own. */
  #over: Piece[] = [];
  /** What came after a text that is held back, and says nothing: clients take it for the text's end. */
  #behind: Piece[] = [];
  #lastTold: Piece | undefined;
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
    // Some providers say with each piece that it is the last: what says something may be gone on with.
    this.#isLast = isEnd(piece) && !isSpeaking(piece);
    // The rest of a text never comes in the piece that says its end: clients do not look for text there.
    if (this.#isLast) this.#finish(() => true);
    const told = this.#redacted(piece);
    const over = this.#over.splice(0);
    const isHeld = !isFirst && !this.#isLast && isSilent(told) && !isSilent(piece);
    if (isHeld) return over;
    const isSpoken = isSpeaking(told);
    if (!isFirst && !this.#isLast && !isSpoken && this.#holds()) {
      if (!isSpeaking(piece) || this.#isNews(told)) this.#behind.push(told);
      return over;
    }
    this.#lastTold = told;
    const isOver = this.#isLast || over.length > 0 || !isSpoken;
    return [...over, ...(isOver ? this.#behind.splice(0) : []), told];
  }

  /** What is still held back when nothing more comes. */
  rest(): Piece[] {
    this.#finish(() => true);
    return [...this.#over.splice(0), ...this.#behind.splice(0)];
  }

  #holds(): boolean {
    return [...this.#texts.values()].some(({ stream }) => stream.held > 0);
  }

  /** Whether a piece without its text tells more than the one before: usage is counted, the same model is not. */
  #isNews(told: Piece): boolean {
    if (!isEmpty(fieldOf(told, "usage_metadata"))) return true;
    const about = (piece: Piece | undefined): string =>
      JSON.stringify(piece && fieldOf(piece, "response_metadata"));
    return about(told) !== about(this.#lastTold);
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
    const { tool_calls: _3, function_call: _4, ...more } = Object(additional_kwargs) as Fields;
    const { response_metadata, ...others } = withoutTokens(rest, "response_metadata");
    const kept: Fields = { ...this.#guard.value(others) };
    if (response_metadata) kept["response_metadata"] = this.#beside("response_metadata", response_metadata);
    kept["additional_kwargs"] = this.#beside("additional_kwargs", more);
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

  /** What a piece says beside its content, in one of its fields. */
  #beside(field: string, value: unknown): unknown {
    const alone = (part: unknown): Fields => ({ [field]: part });
    return this.#grown(value, { place: field, order: 0, isWithin: false, alone, depth: 0 });
  }

  #content(text: string): string {
    return this.#grow("content", CONTENT, text, (rest) => ({ content: rest }));
  }

  #blocks(given: unknown, kind: string, order: number, alone: (block: unknown) => Fields): unknown {
    if (!Array.isArray(given)) return given;
    return given.map((block: unknown, position) => {
      const index = indexOf(block, position);
      // Calls may be told in turns.
      const own =
        order === CALLS ? CALLS : order + (typeof index === "number" ? index : position) + late(block);
      this.#finishBefore(own);
      return this.#grown(block, {
        place: `${kind} ${index}`,
        order: own,
        isWithin: false,
        alone: (part) => alone({ ...(part as Fields), index }), // a part of an object is one
        depth: 0,
      });
    });
  }

  /** A value with all that grows in it looked at as one with what stood at the same place of the pieces before. */
  #grown(given: unknown, at: Place): unknown {
    if (Array.isArray(given)) {
      return given.map((item: unknown, position) =>
        this.#grown(item, {
          ...at,
          place: `${at.place}.${indexOf(item, position)}`,
          alone: (part) => at.alone([part]),
          depth: at.depth + 1,
        }),
      );
    }
    if (!isPlainObject(given) || at.depth > MAX_DEPTH) return this.#guard.value(given);
    const all = Object.entries(given);
    const grows = ([key, value]: readonly [string, unknown]): boolean =>
      typeof value === "string" ? GROWING.has(key) || (at.isWithin && !WHOLE.has(key)) : isNested(key, value);
    const kept: Fields = { ...this.#guard.value(Object.fromEntries(all.filter((one) => !grows(one)))) };
    const place = Object.fromEntries(PLACE.filter((key) => key in kept).map((key) => [key, kept[key]]));
    for (const [key, value] of all.filter(grows)) {
      const name = this.#guard.text(key);
      const alone = (part: unknown): Fields => at.alone({ ...place, [name]: part });
      const within = `${at.place} ${key}`;
      kept[name] =
        typeof value === "string"
          ? this.#grow(within, at.order, value, alone)
          : this.#grown(value, {
              place: within,
              order: at.order,
              isWithin: at.isWithin || WITHIN.has(key),
              alone,
              depth: at.depth + 1,
            });
    }
    return kept;
  }

  #grow(place: string, order: number, text: string, alone: Growing["alone"]): string {
    if (text !== "") this.#finishBefore(order);
    const growing = this.#texts.get(place) ?? this.#begin(order, alone);
    if (!growing) return text;
    if (text !== "") growing.last = this.#last;
    this.#texts.set(place, growing);
    return growing.stream.push(text, this.#isLast);
  }

  #begin(order: number, alone: Growing["alone"]): Growing | undefined {
    const stream = this.#guard.stream();
    return stream && { order, stream, alone, last: this.#last };
  }

  /** What this piece has a part of is not over: providers tell the same thought beside the content and in it. */
  #finishBefore(order: number): void {
    this.#finish((other) => other.order < order && other.last !== this.#last);
  }

  #finish(isOver: (one: Growing) => boolean): void {
    for (const [place, one] of this.#texts) {
      if (!isOver(one)) continue;
      this.#texts.delete(place);
      const text = one.stream.push("", true);
      if (text === "") continue;
      // Some providers count the usage in a piece without the id of the message.
      const { id, name, content } = everyField(one.last);
      const kept = this.#guard.value({ id, ...(name ? { name } : {}) });
      const empty = Array.isArray(content) ? [] : "";
      this.#over.push(made(one.last, { ...kept, content: empty, ...one.alone(text) }));
    }
  }
}

/** Some providers give a thought and the answer behind it the same number. */
const late = (block: unknown): number => (THOUGHTS.has(String(Object(block).type)) ? 0 : 0.5);

/** Arguments that are an object came whole. */
const isNested = (key: string, value: unknown): boolean =>
  (isPlainObject(value) || Array.isArray(value)) && (!GROWING.has(key) || WITHIN.has(key));

function indexOf(item: unknown, position: number): string | number {
  const index: unknown = isPlainObject(item) ? item["index"] : undefined;
  return typeof index === "number" || typeof index === "string" ? index : position;
}

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
  return [finish, stop].some((reason) => typeof reason === "string" && reason !== "");
}

/**
 * The same fields without the tokens that the text was made of: nobody can look at a value that they cut in parts.
 * @param place of what the provider says beside the text
 */
export function withoutTokens(fields: Fields, place: string): Fields {
  const { logprobs, ...others } = Object(fields[place]) as Fields;
  return logprobs ? { ...fields, [place]: others } : fields;
}

const SPEAKING = ["content", "tool_call_chunks", "additional_kwargs"] as const;
const TELLING = [...SPEAKING, "usage_metadata", "response_metadata"] as const;

const isSpeaking = (piece: Piece): boolean => !SPEAKING.every((key) => isEmpty(fieldOf(piece, key)));

/** Whether a piece tells nothing at all. */
const isSilent = (piece: Piece): boolean => TELLING.every((key) => isEmpty(fieldOf(piece, key)));

const isEmpty = (value: unknown): boolean =>
  value === undefined ||
  value === "" ||
  (typeof value === "object" && Object.values(value ?? {}).every(isEmpty));
