// Objects that a runnable tells one after the other: a parser tells one anew whenever it has grown, a map tells parts of
// a text under their name. One alone may hold the beginning of something, so each waits for the next.
import { isPlainObject } from "./envelopes.ts";
import type { Guard } from "./guard.ts";
import { labelOf } from "./labels.ts";
import type { RedactionStream } from "./redact.ts";

/** Objects that each hold the next part of one text, and nothing else. */
interface Parts {
  readonly stream: RedactionStream;
  /** Those that are held back, what they say together, and what may be told of that. */
  held: unknown[];
  given: string;
  told: string;
}

/** Looks at what one runnable tells. */
export class ObjectRedactor {
  readonly #guard: Guard;
  readonly #parts = new Map<string, Parts>();
  #last: unknown;
  #count = 0;

  constructor(guard: Guard) {
    this.#guard = guard;
  }

  /** What may be told by now. */
  take(given: unknown): readonly unknown[] {
    const before = this.#last;
    this.#last = given;
    this.#count += 1;
    if (this.#count === 1) return [];
    const isPart = this.#parts.has(textIn(before)?.place ?? "");
    const isGrowing = !isPart && isBeginning(before, given) && !isBeginning(given, before);
    return isGrowing ? [this.#beginning(before, given)] : this.#whole(before);
  }

  /** What is held back when nothing more comes. */
  rest(): readonly unknown[] {
    const last = this.#count === 0 ? [] : this.#whole(this.#last);
    const ends = [...this.#parts.values()].flatMap((parts) => {
      parts.told += parts.stream.push("", true);
      return this.#release(parts);
    });
    this.#count = 0;
    return [...last, ...ends];
  }

  #whole(given: unknown): readonly unknown[] {
    const part = this.#count > 1 ? textIn(given) : undefined;
    const stream = part && this.#guard.stream();
    if (!stream) return [this.#guard.value(given)];
    const parts = this.#parts.get(part.place) ?? { stream, held: [], given: "", told: "" };
    this.#parts.set(part.place, parts);
    parts.held.push(given);
    parts.given += part.text;
    parts.told += parts.stream.push(part.text);
    return parts.stream.held === 0 ? this.#release(parts) : [];
  }

  /** As they came, if nothing was found in them together. */
  #release(parts: Parts): readonly unknown[] {
    const { held, given, told } = parts;
    Object.assign(parts, { held: [], given: "", told: "" });
    const all = given === told ? held : held.slice(-1).map((one) => withText(one, told));
    return all.map((one) => this.#guard.value(one));
  }

  #under(name: string, value: unknown): unknown {
    return Object.values(this.#guard.value({ [name]: value }))[0];
  }

  /** What may be told of a value that has grown since. */
  #beginning(value: unknown, next: unknown, name = ""): unknown {
    if (typeof value === "string") {
      if (value === next) return this.#under(name, value);
      return labelOf(name) === undefined ? this.#guard.stream()?.push(value) : "";
    }
    if (typeof value === "number" && value !== next) return null;
    if (Array.isArray(value))
      return value.map((item, index) => this.#beginning(item, Object(next)[index], name));
    if (!isPlainObject(value)) return this.#under(name, value);
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [
        this.#guard.text(key),
        this.#beginning(item, Object(next)[key], key),
      ]),
    );
  }
}

/** Whether a value may be an object that grows; a message, for example, is none. */
export const mayGrow = (value: unknown): boolean => isPlainObject(value) || Array.isArray(value);

/** Whether `next` may be `value` at a later time. */
function isBeginning(value: unknown, next: unknown): boolean {
  if (value === next || value === null || value === undefined) return true;
  if (typeof value !== typeof next || Array.isArray(value) !== Array.isArray(next)) return false;
  if (typeof value === "string" || typeof value === "number") return String(next).startsWith(String(value));
  return mayGrow(value) && Object.entries(value).every(([key, item]) => isBeginning(item, Object(next)[key]));
}

/** The only text in a value that holds nothing else, and the names under which it stands. */
function textIn(value: unknown, place = ""): { readonly place: string; readonly text: string } | undefined {
  if (typeof value === "string") return { place, text: value };
  if (!isPlainObject(value)) return undefined;
  const [only, ...others] = Object.entries(value);
  return only && others.length === 0 ? textIn(only[1], `${place}/${only[0]}`) : undefined;
}

function withText(value: unknown, text: string): unknown {
  if (!isPlainObject(value)) return text;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withText(item, text)]));
}
