// Values as clients see them, in JSON: messages are flat objects with a `type`, and nothing of them runs.
import { everyField, isMessage } from "../../privacy/envelopes.ts";
import type { Message } from "../../privacy/envelopes.ts";

/** JSON text of any value of a graph. A value that JSON does not know becomes its nearest text. */
export function toWireJson(value: unknown): string {
  // A copy first: JSON.stringify with a replacer of its own takes three times as long.
  return JSON.stringify(plain(value)) ?? "null";
}

/** The same as plain data, for building larger answers. */
export const toWire = (value: unknown): unknown => JSON.parse(toWireJson(value)) as unknown;

/** A message as its content and everything else of it, `type` included. */
export function partsOf(message: Message): { content: unknown; rest: object } {
  const { content, ...rest } = { ...everyField(message), type: message.type } as Record<string, unknown>;
  return { content, rest };
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(plain);
  if (isMessage(value)) return { ...plainFields(everyField(value)), type: value.type };
  if (value instanceof Error) return { error: value.name, message: value.message };
  if (value instanceof Map) return plainFields(Object.fromEntries(value));
  if (value instanceof Set) return [...value].map(plain);
  if (!("toJSON" in value) || typeof value.toJSON !== "function") return plainFields(value);
  const made: unknown = value.toJSON();
  return typeof made === "object" && made !== null && !Array.isArray(made) ? plainFields(made) : plain(made);
}

/** Own enumerable fields, as JSON takes them. */
function plainFields(value: object): object {
  const fields: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(value)) {
    const part = typeof field === "string" ? field : plain(field);
    // Assigning to __proto__ would set the prototype and lose the value.
    if (key !== "__proto__") fields[key] = part;
    else Object.defineProperty(fields, key, { value: part, enumerable: true });
  }
  return fields;
}
