// The content blocks of one message, as they grow. A block finishes before the next one starts.
import type { Fields } from "../../fields.ts";
import { blockOf } from "./plain.ts";

/** What is told of a block. */
export interface BlockEvent {
  readonly event: Fields;
  /** For a delta that appends text: the text alone, and the field of the delta that holds it. */
  readonly text?: string;
  readonly field?: string;
}

interface Block {
  readonly key: string;
  readonly index: number;
  readonly content: Fields;
}

/** How a block grows by text: which of its fields, told by which kind of delta, in which field of that. */
const GROWS = new Map<unknown, { field: string; delta: string; as: string }>([
  ["text", { field: "text", delta: "text-delta", as: "text" }],
  ["reasoning", { field: "reasoning", delta: "reasoning-delta", as: "reasoning" }],
  ["tool_call_chunk", { field: "args", delta: "tool-call-delta", as: "args" }],
  ["image", { field: "base64", delta: "data-delta", as: "data" }],
  ["audio", { field: "base64", delta: "data-delta", as: "data" }],
  ["video", { field: "base64", delta: "data-delta", as: "data" }],
  ["file", { field: "base64", delta: "data-delta", as: "data" }],
]);

export class Blocks {
  #open: Block | undefined;
  #next = 0;

  /** The content of a piece of the message, or of a whole one, and its calls of tools. */
  take(
    content: unknown,
    { tool_call_chunks: pieces, tool_calls: calls }: Fields,
    isPiece: boolean,
  ): BlockEvent[] {
    const events: BlockEvent[] = [];
    if (typeof content === "string" && content !== "")
      this.#grow(events, "text", { type: "text", text: content });
    for (const part of Array.isArray(content) ? content : []) {
      const block = partOf(part);
      // A provider's own form of a call comes a second time among the message's calls.
      if (block && !CALLS.has(block["type"])) this.#grow(events, keyOf(block), block);
    }
    for (const piece of isPiece ? asFieldsList(pieces) : []) {
      const { id, name, args, index } = piece;
      const key = keyOf({ type: "tool_call_chunk", index: index ?? id ?? name });
      this.#grow(events, key, {
        type: "tool_call_chunk",
        id: id ?? null,
        name: name ?? null,
        args: args ?? "",
      });
    }
    for (const call of isPiece ? [] : asFieldsList(calls))
      this.#whole(events, { ...call, type: "tool_call" });
    return events;
  }

  /** The message is complete. */
  finish(): BlockEvent[] {
    const events: BlockEvent[] = [];
    this.#close(events);
    return events;
  }

  #grow(events: BlockEvent[], key: string, block: Fields): void {
    const grows = GROWS.get(block["type"]);
    if (this.#open?.key !== key) {
      this.#close(events);
      const empty = grows && typeof block[grows.field] === "string" ? { [grows.field]: "" } : {};
      this.#open = { key, index: this.#next, content: { ...block, ...empty } };
      this.#next += 1;
      const { index, content } = this.#open;
      events.push({ event: { event: "content-block-start", index, content: { ...content } } });
      if (!grows) return;
    }
    const { index, content } = this.#open;
    if (!grows) {
      Object.assign(content, block);
      events.push({
        event: { event: "content-block-delta", index, delta: { type: "block-delta", fields: block } },
      });
      return;
    }
    for (const field of ["id", "name"]) content[field] = block[field] ?? content[field];
    const text = block[grows.field];
    if (typeof text !== "string" || text === "") return;
    const before = content[grows.field];
    content[grows.field] = (typeof before === "string" ? before : "") + text;
    const delta = { type: grows.delta, [grows.as]: text };
    events.push({ event: { event: "content-block-delta", index, delta }, text, field: grows.as });
  }

  #whole(events: BlockEvent[], block: Fields): void {
    this.#close(events);
    const index = this.#next;
    this.#next += 1;
    events.push({ event: { event: "content-block-start", index, content: block } });
    events.push({ event: { event: "content-block-finish", index, content: block } });
  }

  #close(events: BlockEvent[]): void {
    if (!this.#open) return;
    const { index, content } = this.#open;
    this.#open = undefined;
    events.push({ event: { event: "content-block-finish", index, content: finished(content) } });
  }
}

const CALLS = new Set<unknown>([
  "tool_use",
  "tool_call",
  "tool_call_chunk",
  "function_call",
  "input_json_delta",
]);

const asFieldsList = (value: unknown): Fields[] =>
  Array.isArray(value)
    ? value.filter((item): item is Fields => typeof item === "object" && item !== null)
    : [];

function partOf(part: unknown): Fields | undefined {
  if (typeof part === "string") return { type: "text", text: part };
  if (typeof part !== "object" || part === null) return undefined;
  const { type, thinking, ...rest } = part as Fields; // plain data
  return type === "thinking" ? { ...rest, type: "reasoning", reasoning: thinking } : blockOf({ ...part });
}

/** Parts with one index are one block; without an index, those of one kind. */
const keyOf = ({ type, index }: Fields): string => JSON.stringify([type, index]);

/** A block at its end: the arguments of a call are parsed. */
function finished(content: Fields): Fields {
  if (content["type"] !== "tool_call_chunk") return content;
  const { id, name, args } = content;
  try {
    const parsed: unknown = JSON.parse(args === "" ? "{}" : String(args));
    return { type: "tool_call", id, name, args: parsed };
  } catch {
    return { type: "invalid_tool_call", id, name, args, error: "The arguments are not valid JSON." };
  }
}
