// Values of a graph as protocol v2 shows them: messages are plain objects with a closed set of fields, and what a
// provider left in `additional_kwargs` stays inside.
import type { Fields } from "../../fields.ts";
import { everyField, isMessage } from "../../privacy/envelopes.ts";
import { toWireJson } from "../stream/wire-json.ts";

const TYPES: Readonly<Record<string, string>> = { assistant: "ai", user: "human" };

/** JSON text of a value, its messages in the protocol's form. */
export const toProtocolJson = (value: unknown): string => toWireJson(messagesPlain(value, new Set()));

/** The same of a value as legacy clients are told it: of what is JSON already, messages are known by their fields. */
export const wireToProtocol = (value: unknown): string =>
  toWireJson(messagesPlain(value, new Set(), isWireMessage));

type Known = (value: object) => value is Fields & { readonly type: string };

const isWireMessage: Known = (value): value is Fields & { readonly type: string } =>
  "type" in value &&
  typeof value.type === "string" &&
  ["content", "additional_kwargs", "response_metadata"].every((key) => Object.hasOwn(value, key));

/** Replaces messages within arrays and plain objects; whatever else there is stays as it is. */
function messagesPlain(value: unknown, above: Set<object>, isKnown?: Known): unknown {
  if (typeof value !== "object" || value === null || above.has(value)) return value;
  if (isMessage(value)) return plainMessage({ ...everyField(value), type: value.type });
  if (isKnown?.(value)) return plainMessage(value);
  const isPlain = Array.isArray(value) || [Object.prototype, null].includes(Object.getPrototypeOf(value));
  if (!isPlain) return value;
  above.add(value);
  const made = Array.isArray(value)
    ? value.map((item) => messagesPlain(item, above, isKnown))
    : Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, messagesPlain(item, above, isKnown)]),
      );
  above.delete(value);
  return made;
}

/** Values without the questions that are asked beside them. */
export function withoutInterrupts(values: unknown): unknown {
  if (typeof values !== "object" || values === null || !("__interrupt__" in values)) return values;
  const { __interrupt__: _asked, ...rest } = values;
  return rest;
}

/** Whether values are none, but questions alone. */
export const asksOnly = (values: unknown): boolean =>
  typeof values === "object" &&
  values !== null &&
  "__interrupt__" in values &&
  Object.keys(values).length === 1;

function plainMessage(fields: Fields): Fields {
  const type = String(fields["type"]);
  const message: Fields = { type: TYPES[type] ?? type, content: blocksOf(fields["content"]) };
  for (const key of ["id", "name"])
    if (fields[key] !== undefined && fields[key] !== null) message[key] = fields[key];
  for (const key of ["response_metadata", "usage_metadata", "tool_calls", "invalid_tool_calls"])
    if (isFilled(fields[key])) message[key] = fields[key];
  if (type === "tool")
    for (const key of ["tool_call_id", "status", "artifact"])
      if (fields[key] !== undefined) message[key] = fields[key];
  return message;
}

/** Content as the protocol names it. */
function blocksOf(content: unknown): unknown {
  if (!Array.isArray(content)) return content ?? "";
  return content.map((block: unknown) =>
    typeof block === "object" && block !== null ? blockOf({ ...block }) : block,
  );
}

const DATA_BLOCKS = new Set<unknown>(["image", "audio", "video", "file"]);

/** One block: older names of a data block's fields become the protocol's. */
export function blockOf(block: Fields): Fields {
  if (!DATA_BLOCKS.has(block["type"])) return block;
  const { mimeType, data, ...rest } = block;
  return {
    ...rest,
    ...(mimeType === undefined ? {} : { mime_type: mimeType }),
    ...(data === undefined ? {} : { base64: data }),
  };
}

const isFilled = (value: unknown): boolean =>
  typeof value === "object" && value !== null && Object.keys(value).length > 0;
