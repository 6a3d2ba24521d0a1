// Chat messages to and from their stored envelope {lc:1, type:"constructor", id, kwargs}.
// The list of classes is closed: nothing read from a row can name a constructor that is not in it.
import {
  AIMessage,
  AIMessageChunk,
  ChatMessage,
  ChatMessageChunk,
  FunctionMessage,
  FunctionMessageChunk,
  HumanMessage,
  HumanMessageChunk,
  RemoveMessage,
  SystemMessage,
  SystemMessageChunk,
  ToolMessage,
  ToolMessageChunk,
} from "@langchain/core/messages";
import type { Fields } from "../fields.ts";

type MessageClass = new (kwargs: never) => object;

const CLASSES = new Map<string, MessageClass>([
  ["HumanMessage", HumanMessage],
  ["AIMessage", AIMessage],
  ["SystemMessage", SystemMessage],
  ["ToolMessage", ToolMessage],
  ["RemoveMessage", RemoveMessage],
  ["ChatMessage", ChatMessage],
  ["FunctionMessage", FunctionMessage],
  ["HumanMessageChunk", HumanMessageChunk],
  ["AIMessageChunk", AIMessageChunk],
  ["SystemMessageChunk", SystemMessageChunk],
  ["ToolMessageChunk", ToolMessageChunk],
  ["ChatMessageChunk", ChatMessageChunk],
  ["FunctionMessageChunk", FunctionMessageChunk],
]);

// For a user's subclass: the class of the message's own type.
const CLASS_OF_TYPE = new Map([
  ["human", "HumanMessage"],
  ["ai", "AIMessage"],
  ["system", "SystemMessage"],
  ["tool", "ToolMessage"],
  ["remove", "RemoveMessage"],
  ["generic", "ChatMessage"],
  ["function", "FunctionMessage"],
]);

// Constructors fill these in by themselves; leaving the empty ones out halves a short message.
const EMPTY_BY_DEFAULT = new Set([
  "additional_kwargs",
  "response_metadata",
  "tool_calls",
  "invalid_tool_calls",
  "tool_call_chunks",
]);

const SETTABLE = [
  "id",
  "name",
  "additional_kwargs",
  "response_metadata",
  "usage_metadata",
  "tool_calls",
  "invalid_tool_calls",
  "status",
  "artifact",
];

/** A plain object: of anything else, such as a message, only itself knows what it holds. */
export const isPlainObject = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && Reflect.getPrototypeOf(value) === Object.prototype;

export interface Message {
  readonly lc_kwargs: Fields;
  readonly lc_id: readonly string[];
  readonly type: string;
}

/** Whether `value` is a chat message, of our copy of LangChain or of another. */
export function isMessage(value: object): value is Message {
  return (
    "lc_serializable" in value &&
    "lc_namespace" in value &&
    Array.isArray(value.lc_namespace) &&
    value.lc_namespace[0] === "langchain_core" &&
    value.lc_namespace[1] === "messages"
  );
}

/** The class name under which a message is stored, and the fields that rebuild it. */
export function fieldsOf(message: Message): { name: string; fields: Fields } {
  const own = message.lc_id.at(-1) ?? "";
  const name = CLASSES.has(own) ? own : (CLASS_OF_TYPE.get(message.type) ?? "");
  // An empty tool_calls beside raw ones says "do not parse them": it must stay.
  const keepsToolCalls = hasKey(fieldOf(message, "additional_kwargs"), "tool_calls");
  const fields = fieldsWithout(
    message,
    (key, value) => EMPTY_BY_DEFAULT.has(key) && isEmpty(value) && !(keepsToolCalls && key === "tool_calls"),
  );
  return { name, fields };
}

/** One of the fields of everyField(), without a copy of the others. */
export const fieldOf = (message: Message, key: string): unknown =>
  key in message ? (message as Message & Fields)[key] : message.lc_kwargs[key];

/** All of a message but its content, as it was at one moment. */
export interface Shape {
  readonly original: object;
  readonly prototype: object | null;
  readonly type: string;
  readonly fields: Fields;
  readonly keys: readonly string[];
  /** What could have been set on the message and was not. */
  readonly unset: readonly string[];
}

// Stands on a message of which withContent() made others, and so on those too: the message itself.
const ORIGINAL = Symbol("original");
const originalOf = (message: object): object => Object(message)[ORIGINAL] ?? message;

/** One with other content that has all else from `message`: there is one for nearly every token. */
export function withContent<M extends Message>(message: M, content: string): M {
  if (!(ORIGINAL in message)) Object.defineProperty(message, ORIGINAL, { value: message });
  return Object.assign(Object.create(message), { content });
}

export function shapeOf(message: Message): Shape {
  const fields = everyField(message);
  return {
    original: originalOf(message),
    prototype: Reflect.getPrototypeOf(message),
    type: message.type,
    fields,
    keys: Object.keys(fields).filter((key) => key !== "content"),
    unset: SETTABLE.filter((key) => !(key in fields)),
  };
}

/** Whether a message differs from another in its content only. */
export function hasShape(message: Message, shape: Shape): boolean {
  if (originalOf(message) === shape.original) return true;
  const { prototype, type, fields, keys, unset } = shape;
  return (
    Reflect.getPrototypeOf(message) === prototype &&
    message.type === type &&
    keys.every((key) => isEqual(fieldOf(message, key), fields[key])) &&
    unset.every((key) => fieldOf(message, key) === undefined) &&
    Object.keys(message.lc_kwargs).every(
      (key) => key in fields || key === "content" || fieldOf(message, key) === undefined,
    )
  );
}

function isEqual(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false;
  const prototype = Reflect.getPrototypeOf(one);
  // Of anything else, such as a Map, its fields do not say what it holds.
  if (prototype !== Object.prototype && prototype !== Array.prototype) return false;
  const keys = Object.keys(one);
  return (
    Reflect.getPrototypeOf(other) === prototype &&
    keys.length === Object.keys(other).length &&
    keys.every((key) => Object.hasOwn(other, key) && isEqual(Reflect.get(one, key), Reflect.get(other, key)))
  );
}

/** What a message was made of, and what was set on it since. */
export const everyField = (message: Message): Fields => fieldsWithout(message, () => false);

function fieldsWithout(message: Message, isLeftOut: (key: string, value: unknown) => boolean): Fields {
  const fields: Fields = {};
  const made = Object.keys(message.lc_kwargs);
  for (const key of made) {
    const value = fieldOf(message, key);
    if (value !== undefined && key !== "contentBlocks" && !isLeftOut(key, value)) fields[key] = value;
  }
  for (const key of SETTABLE) {
    if (Object.hasOwn(message.lc_kwargs, key)) continue;
    const value = fieldOf(message, key);
    if (value !== undefined && !isLeftOut(key, value)) fields[key] = value;
  }
  return fields;
}

/** The message of an envelope, or undefined when its class is not in the list or refuses its fields. */
export function messageFrom(id: readonly unknown[], kwargs: Fields): object | undefined {
  if (id.length !== 3 || id[0] !== "langchain_core" || id[1] !== "messages") return undefined;
  const found = CLASSES.get(String(id[2]));
  if (!found) return undefined;
  try {
    // Each listed class takes its own fields as one object.
    return new found(kwargs as never);
  } catch {
    return undefined; // damaged fields: the envelope stays data, so the thread stays readable
  }
}

function hasKey(value: unknown, key: string): boolean {
  return typeof value === "object" && value !== null && key in value;
}

function isEmpty(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}
