// Content blocks of a message: however a provider cuts it into pieces, they are told one after the other, and together
// they are the message.
import { AIMessage, AIMessageChunk, HumanMessage, ToolMessage } from "@langchain/core/messages";
import fc from "fast-check";
import { expect, test } from "vitest";
import { dataOf } from "../../server/runs/log/lines.ts";
import { Blocks } from "../../server/runs/protocol/blocks.ts";
import { addressOf } from "../../server/runs/protocol/entries.ts";
import { toProtocolJson, wireToProtocol } from "../../server/runs/protocol/plain.ts";
import { ProtocolProjection } from "../../server/runs/protocol/project.ts";
import { ToolPlaces } from "../../server/runs/protocol/tool-places.ts";
import { toWireJson } from "../../server/runs/stream/wire-json.ts";

type Fields = Record<string, unknown>;

interface Piece {
  readonly content: unknown;
  readonly tool_call_chunks?: readonly Fields[];
}

function mustBe(holds: boolean, rule: string): void {
  if (!holds) throw new Error(`Broken: ${rule}.`);
}

/** What a client has put together, block by block; fails where the order of the protocol is broken. */
function assembled(pieces: readonly Piece[]): Fields[] {
  const blocks = new Blocks();
  const told = pieces.flatMap(({ content, ...fields }) => blocks.take(content, { ...fields }, true));
  const finished: Fields[] = [];
  let open: { index: unknown; content: Fields } | undefined;
  for (const { event } of [...told, ...blocks.finish()]) {
    if (event["event"] === "content-block-start") {
      mustBe(open === undefined && event["index"] === finished.length, "one block at a time, in order");
      open = { index: event["index"], content: { ...(event["content"] as Fields) } };
    } else if (event["event"] === "content-block-delta") {
      mustBe(event["index"] === open?.index, "a delta or an end belongs to the block that is open");
      const delta = event["delta"] as Fields;
      const field = { "text-delta": "text", "reasoning-delta": "reasoning", "tool-call-delta": "args" }[
        String(delta["type"])
      ];
      if (open && field) open.content[field] = String(open.content[field]) + String(delta[field]);
    } else {
      mustBe(event["index"] === open?.index, "a delta or an end belongs to the block that is open");
      finished.push({ told: event["content"], grown: open?.content });
      open = undefined;
    }
  }
  expect(open).toBeUndefined();
  return finished;
}

const word = fc.string({ minLength: 1, maxLength: 5 });
const run = (kind: "text" | "parts" | "thinking" | "call"): fc.Arbitrary<{ kind: string; words: string[] }> =>
  fc.array(word, { minLength: 1, maxLength: 5 }).map((words) => ({ kind, words }));
const runs = fc.array(fc.oneof(run("text"), run("parts"), run("thinking"), run("call")), { maxLength: 6 });

test("blocks never interleave, and their pieces make what the block holds at its end", () => {
  fc.assert(
    fc.property(runs, (given) => {
      // Two runs of one kind are one block, unless they are calls.
      const merged = given.filter(
        ({ kind }, index) => index === 0 || kind === "call" || kind !== given[index - 1]?.kind,
      );
      const pieces = merged.flatMap(({ kind, words }, index): Piece[] =>
        words.map((text) => {
          if (kind === "text") return { content: text };
          if (kind === "parts") return { content: [{ type: "text", text, index }] };
          if (kind === "thinking") return { content: [{ type: "thinking", thinking: text, index }] };
          return { content: "", tool_call_chunks: [{ id: `call-${index}`, name: "any", args: text, index }] };
        }),
      );
      const finished = assembled(pieces);
      expect(finished.length).toBe(merged.length);
      for (const [index, { kind, words }] of merged.entries()) {
        const whole = words.join("");
        const { told, grown } = finished[index] as { told: Fields; grown: Fields };
        const field = { call: "args", thinking: "reasoning" }[kind] ?? "text";
        expect(grown[field]).toBe(whole);
        // Arguments are parsed at the end.
        expect(kind === "call" ? told["id"] : told[field]).toBe(kind === "call" ? `call-${index}` : whole);
      }
    }),
    { numRuns: 300 },
  );
});

test.each([{ toString: 1 }, "constructor", ["text"], 5, null])(
  "a block of a kind that nobody knows (%j) is told as it is",
  (type) => {
    const known = { type: "text", text: "known", index: 1 };
    const told = assembled([{ content: [{ type, text: "any", index: 0 }, known] }]).map((one) => one["told"]);
    expect(told).toEqual([{ type, text: "any", index: 0 }, known]);
  },
);

test("arguments that are no JSON are told as a call that is not valid", () => {
  const piece = { content: "", tool_call_chunks: [{ id: "c", name: "any", args: '{"a":', index: 0 }] };
  expect(assembled([piece])[0]?.["told"]).toEqual({
    type: "invalid_tool_call",
    id: "c",
    name: "any",
    args: '{"a":',
    error: "The arguments are not valid JSON.",
  });
});

test("data comes under the protocol's names, and what a provider keeps beside a message stays inside", () => {
  const [image] = assembled([{ content: [{ type: "image", data: "QUJD", mimeType: "image/png" }] }]);
  expect(image?.["told"]).toEqual({ type: "image", base64: "QUJD", mime_type: "image/png" });
  const message = new AIMessageChunk({
    id: "m",
    content: [{ type: "image", data: "QUJD", mimeType: "image/png" }],
    additional_kwargs: { secret: 1 },
    response_metadata: { model_name: "any" },
  });
  expect(JSON.parse(toProtocolJson({ messages: [message] }))).toEqual({
    messages: [
      {
        type: "ai",
        id: "m",
        content: [{ type: "image", base64: "QUJD", mime_type: "image/png" }],
        response_metadata: { model_name: "any" },
      },
    ],
  });
});

const fields = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<Record<string, T>> => fc.dictionary(fc.string(), of);

test("values that legacy clients were told are the same for followers of the thread", () => {
  const value = fc.oneof(fc.string(), fc.integer(), fc.constant(null), fc.constant("ai"));
  const image = fc.record({ type: fc.constant("image"), mimeType: fc.string(), data: fc.string() });
  const content = fc.oneof(fc.string(), fc.array(image, { minLength: 1, maxLength: 2 }));
  const base = {
    id: fc.string({ minLength: 1 }),
    content,
    additional_kwargs: fields(value),
  };
  const call = fc.record({ id: fc.string(), name: fc.string(), args: fields(value) });
  const message = fc.oneof(
    fc.record(base).map((given) => new HumanMessage(given as never)),
    fc
      .record({ ...base, tool_calls: fc.array(call, { maxLength: 2 }) })
      .map((given) => new AIMessage(given as never)),
    fc
      .record({ ...base, tool_call_id: fc.string(), name: fc.string() })
      .map((given) => new ToolMessage(given as never)),
  );
  const like = fc.record({ type: fc.constant("human"), content: fc.string() });
  const values = fields(fc.oneof(value, message, like, fc.array(message), fc.record({ deep: message })));
  fc.assert(
    fc.property(values, (given) => {
      expect(wireToProtocol(JSON.parse(toWireJson(given)))).toBe(toProtocolJson(given));
    }),
  );
});

test.each([
  ["of one node", "write", "write", "a", "b"],
  ["under one id", "left", "right", "same", "same"],
])("messages %s that come at the same time are told apart, each to the end of its task", (_, ...given) => {
  const [left, right, leftId, rightId] = given;
  const projection = new ProtocolProjection(
    "fan",
    () => 0,
    () => undefined,
    new ToolPlaces(),
  );
  const take = (mode: string, payload: unknown): string[][] =>
    projection.entriesOf({ namespace: [], mode, payload }).flatMap((entry) => {
      const { name, namespace } = addressOf(entry);
      const { event, delta } = (JSON.parse(dataOf(entry)) as { data: Fields }).data;
      return name === "messages" ? [[namespace.join("|"), String(Object(delta).text ?? event)]] : [];
    });
  const says = (node: string, task: string, id: string, content: string): string[][] => {
    const about = { langgraph_node: node, langgraph_checkpoint_ns: `${node}:${task}` };
    return take("messages", [new AIMessageChunk({ id, content }), about]);
  };
  const ends = (name: string, id: string): string[][] =>
    [
      { mode: "updates", payload: { [name]: {} } },
      { mode: "tasks", payload: { id, name, result: {} } },
    ].flatMap(({ mode, payload }) => take(mode, payload));
  const told = [
    ...says(left, "1", leftId, "ask "),
    ...ends(right, "3"),
    ...says(right, "2", rightId, "never"),
    ...says(right, "2", rightId, " mind"),
    ...ends(right, "2"),
    ...says(left, "1", leftId, "me"),
    ...ends(left, "1"),
  ];
  const of = (task: string): unknown[] => told.filter(([at]) => at === task).map(([, one]) => one);
  const [begin, end] = [
    ["message-start", "content-block-start"],
    ["content-block-finish", "message-finish"],
  ] as const;
  expect(of(`${left}:1`)).toEqual([...begin, "ask ", "me", ...end]);
  expect(of(`${right}:2`)).toEqual([...begin, "never", " mind", ...end]);
});
