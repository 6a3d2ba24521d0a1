// Graph state to bytes and back. Written in JsonPlus form, so that the stock saver can read our rows.
// Invariant: what is read equals what was written, or the write was refused; stored data never runs code.
// Beyond JsonPlus: BigInt, Date, NaN and Infinity survive, and an object that looks like an envelope is data.
import { ValueUnreadable, ValueUnserialisable } from "../errors.ts";
import type { Fields } from "../fields.ts";
import { fieldsOf, isMessage, messageFrom } from "./envelopes.ts";

/** How LangGraph's savers name what they stored: "json" or "bytes". */
export type Typed = readonly [type: string, bytes: Uint8Array];

type Trail = (string | number)[];

// Deeper nesting is an attack or a cycle; both would end in a stack overflow at some later read.
const MAX_DEPTH = 400;
const OWN = { enumerable: true, writable: true, configurable: true };
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * A value as bytes. A bare Uint8Array stays as it is, anything else becomes JSON.
 * @throws ValueUnserialisable naming the path of what cannot be stored without loss
 */
export function dump(value: unknown): Typed {
  if (value instanceof Uint8Array) return ["bytes", value];
  return ["json", encoder.encode(JSON.stringify(encode(value, [])))];
}

/**
 * The value of stored bytes; also reads every row that JsonPlus wrote.
 * @throws ValueUnreadable when the bytes are not JSON or the type is unknown
 */
export function load(type: string, bytes: Uint8Array): unknown {
  if (type === "bytes") return bytes;
  if (type !== "json") throw new ValueUnreadable(`A stored value has the unknown type ${type}.`);
  try {
    return decode(JSON.parse(decoder.decode(bytes)), false);
  } catch (error) {
    throw new ValueUnreadable("A stored value is not valid JSON; the row is damaged.", { cause: error });
  }
}

/** `trail`: the keys that lead from the whole value to this one. */
function encode(value: unknown, trail: Trail): unknown {
  switch (typeof value) {
    case "number":
      return Number.isFinite(value) && !Object.is(value, -0) ? value : record("number", numberText(value));
    case "bigint":
      return record("bigint", String(value));
    case "undefined":
      return { lc: 2, type: "undefined" };
    case "object":
      return value === null ? null : encodeObject(value, trail);
    case "string":
    case "boolean":
      return value;
    default:
      throw refusal(`a ${typeof value}`, trail);
  }
}

function encodeAt(key: string | number, value: unknown, trail: Trail): unknown {
  trail.push(key);
  const encoded = encode(value, trail);
  trail.pop();
  return encoded;
}

function encodeObject(value: object, trail: Trail): unknown {
  if (trail.length > MAX_DEPTH) throw refusal(`a cycle or more than ${MAX_DEPTH} levels`, trail);
  if (Array.isArray(value)) return Array.from(value, (item, index) => encodeAt(index, item, trail));
  if (isMessage(value)) {
    const { name, fields } = fieldsOf(value);
    const kwargs = encodeFields(fields, trail);
    return { lc: 1, type: "constructor", id: ["langchain_core", "messages", name], kwargs };
  }
  return encodeBuiltIn(value, trail) ?? encodePlain(value, trail);
}

function encodeBuiltIn(value: object, trail: Trail): unknown {
  if (value instanceof Date)
    return record("date", Number.isNaN(value.getTime()) ? null : value.toISOString());
  if (value instanceof Map || value instanceof Set) {
    return constructed(value instanceof Map ? "Map" : "Set", [encode([...value], trail)]);
  }
  if (value instanceof Uint8Array) return constructed("Uint8Array", [[...value]], "from");
  if (value instanceof RegExp) return constructed("RegExp", [value.source, value.flags]);
  if (value instanceof Error)
    return { ...constructed("Error", [value.message]), kwargs: { name: value.name } };
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer)
    throw refusal(`a ${value.constructor.name}`, trail);
  if (!("lg_name" in value)) return undefined;
  if (value.lg_name === "DeltaSnapshot" && "value" in value) {
    return { lc: 2, type: "delta_snapshot", value: encodeAt("value", value.value, trail) };
  }
  if (value.lg_name === "Send" && "node" in value && "args" in value) {
    const { node, args } = value;
    const timeout = "timeout" in value && value.timeout !== undefined ? { timeout: value.timeout } : {};
    return encodeFields({ node, args, ...timeout }, trail);
  }
  return undefined;
}

function encodePlain(value: object, trail: Trail): unknown {
  if ("lc_serializable" in value) throw refusal("a LangChain object that is no message", trail);
  if ("toJSON" in value && typeof value.toJSON === "function") {
    return encodeAt("toJSON()", value.toJSON(), trail);
  }
  const fields = encodeFields(value as Fields, trail); // own enumerable keys only
  if (!looksLikeEnvelope(fields)) return fields;
  return { lc: 2, type: "data", entries: Object.entries(fields) };
}

/** Whether JSON has the same value. */
const isJsonItself = (value: unknown): boolean =>
  typeof value === "string" || typeof value === "boolean" || value === null;

// A function is behaviour, not state: like JSON, a plain object loses it.
function encodeFields(fields: Fields, trail: Trail): Fields {
  const encoded: Fields = {};
  for (const key of Object.keys(fields)) {
    const value = fields[key];
    if (typeof value === "function" || typeof value === "symbol") continue;
    const part = isJsonItself(value) ? value : encodeAt(key, value, trail);
    // Assigning to __proto__ would set the prototype and lose the value.
    if (key === "__proto__") Object.defineProperty(encoded, key, { value: part, ...OWN });
    else encoded[key] = part;
  }
  return encoded;
}

/** `inMessage`: JsonPlus escapes objects with an `lc` key there, as {__lc_escaped__: object}. */
function decode(value: unknown, inMessage: boolean): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index += 1) {
      const item: unknown = value[index];
      if (typeof item === "object" && item !== null) value[index] = decode(item, inMessage);
    }
    return value;
  }
  // JSON.parse makes plain objects only.
  const fields = value as Fields;
  if (inMessage && "__lc_escaped__" in fields && Object.keys(fields).length === 1)
    return fields["__lc_escaped__"];
  const isEnvelope = fields["lc"] === 1 && fields["type"] === "constructor" && Array.isArray(fields["id"]);
  for (const key of Object.keys(fields)) {
    const item = fields[key];
    if (typeof item === "object" && item !== null) fields[key] = decode(item, inMessage || isEnvelope);
  }
  if (isEnvelope) return decodeMessage(fields) ?? fields;
  return fields["lc"] === 2 ? decodeRecord(fields) : fields;
}

function decodeMessage(fields: Fields): object | undefined {
  const { id, kwargs } = fields;
  if (!Array.isArray(id) || typeof kwargs !== "object" || kwargs === null) return undefined;
  return messageFrom(id, { ...kwargs });
}

function decodeRecord(fields: Fields): unknown {
  const { type, value } = fields;
  switch (type) {
    case "undefined":
      return undefined;
    case "number":
      return Number(value);
    case "bigint":
      return typeof value === "string" && /^-?\d+$/.test(value) ? BigInt(value) : fields;
    case "date":
      return new Date(typeof value === "string" ? value : Number.NaN);
    case "delta_snapshot":
      return { lg_name: "DeltaSnapshot", value };
    case "data":
      // Entries were checked by Array.isArray; a foreign shape stays inert.
      return Array.isArray(fields["entries"])
        ? Object.fromEntries(fields["entries"] as [string, unknown][])
        : fields;
    case "constructor":
      return decodeBuiltIn(fields) ?? fields;
    default:
      return fields;
  }
}

function decodeBuiltIn({ id, args, kwargs }: Fields): unknown {
  const name: unknown = Array.isArray(id) && id.length === 1 ? id[0] : undefined;
  if (!Array.isArray(args)) return undefined;
  const [first, second]: unknown[] = args;
  if (name === "Error" && typeof first === "string") return namedError(first, kwargs);
  if (name === "RegExp" && typeof first === "string" && typeof second === "string")
    return regExp(first, second);
  if (!Array.isArray(first)) return undefined;
  if (name === "Set") return new Set(first);
  if (name === "Map" && first.every((entry) => Array.isArray(entry) && entry.length === 2))
    return new Map(first);
  if (name === "Uint8Array" && first.every((byte) => Number.isInteger(byte))) return Uint8Array.from(first);
  return undefined;
}

function namedError(message: string, kwargs: unknown): Error {
  const error = new Error(message);
  const name: unknown =
    typeof kwargs === "object" && kwargs !== null ? Reflect.get(kwargs, "name") : undefined;
  if (typeof name === "string" && name !== "Error") {
    Object.defineProperty(error, "name", { value: name, configurable: true, writable: true });
  }
  return error;
}

function regExp(source: string, flags: string): RegExp | undefined {
  try {
    return new RegExp(source, flags);
  } catch {
    return undefined; // not a pattern of ours: the record stays data
  }
}

const record = (type: string, value: unknown): Fields => ({ lc: 2, type, value });
const numberText = (value: number): string => (Object.is(value, -0) ? "-0" : String(value));

function constructed(name: string, args: unknown[], method: string | null = null): Fields {
  return { lc: 2, type: "constructor", id: [name], method, args, kwargs: {} };
}

function looksLikeEnvelope(fields: Fields): boolean {
  return "lc" in fields || "__lc_escaped__" in fields;
}

function refusal(what: string, trail: Trail): ValueUnserialisable {
  const path = trail.map((key) => (typeof key === "number" ? `[${key}]` : `.${key}`)).join("");
  return new ValueUnserialisable(
    `The graph's state${path} holds ${what}, which cannot be stored without loss. Keep it out of state or convert it.`,
  );
}
