// Values as clients see them, in JSON: messages are flat objects with a `type`, nothing throws, nothing runs.
import { everyField, isMessage } from "../privacy/envelopes.ts";

/** JSON text of any value of a graph. A value that JSON does not know becomes its nearest text. */
export function toWireJson(value: unknown): string {
  return JSON.stringify(value, plain) ?? "null";
}

/** The same as plain data, for building larger answers. */
export const toWire = (value: unknown): unknown => JSON.parse(toWireJson(value)) as unknown;

// `this` holds the value before its own toJSON() has made an envelope of it.
function plain(this: unknown, key: string, value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  const raw: unknown = typeof this === "object" && this !== null ? Reflect.get(this, key) : value;
  if (typeof raw !== "object" || raw === null) return value;
  if (isMessage(raw)) return { ...everyField(raw), type: raw.type };
  if (raw instanceof Error) return { error: raw.name, message: raw.message };
  if (raw instanceof Map) return Object.fromEntries(raw);
  if (raw instanceof Set) return [...raw];
  return value;
}
