// What clients see of a message does not depend on how the log stores it: whole, or as one string in a template.
import {
  AIMessage,
  AIMessageChunk,
  HumanMessage,
  SystemMessage,
  ToolMessage,
} from "@langchain/core/messages";
import type { BaseMessage } from "@langchain/core/messages";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Chunk } from "../../server/runs/graph/graph-stream.ts";
import { LineReader } from "../../server/runs/log/line-reader.ts";
import { LineWriter, dataOf, nameOf } from "../../server/runs/log/lines.ts";
import { Projection, isHidden } from "../../server/runs/stream/modes.ts";
import { toWireJson } from "../../server/runs/stream/wire-json.ts";

type Metadata = Record<string, unknown>;

const asMessages = (payload: unknown, namespace: readonly string[] = []): Chunk => ({
  mode: "messages",
  namespace,
  payload,
});

/** What a client gets for each piece, after a way through the log. */
async function shown(pieces: readonly Chunk[]): Promise<{ event: string; data: unknown }[]> {
  const projection = new Projection(["messages-tuple"], true);
  const writer = new LineWriter();
  const entries = pieces.flatMap((piece) => projection.entriesOf(piece));
  if (entries.length === 0) return [];
  const lines = entries.map((entry, seq) => writer.line({ seq, entry }));
  const read = await Array.fromAsync(
    new LineReader(() => Promise.resolve(undefined)).read(0, lines.join("\n")),
  );
  return read
    .flat()
    .map(({ entry }) => ({ event: nameOf(entry), data: JSON.parse(dataOf(entry)) as unknown }));
}

const expected = (pieces: readonly Chunk[]): { event: string; data: unknown }[] =>
  pieces.map(({ namespace, payload }) => ({
    event: ["messages", ...namespace].join("|"),
    data: JSON.parse(toWireJson(payload)) as unknown,
  }));

const about = (extra: Metadata = {}): Metadata => ({
  tags: [],
  langgraph_node: "answer",
  langgraph_checkpoint_ns: "answer:1",
  run_id: "r",
  ...extra,
});

const metadata = about();
// Providers send more than the class declares.
const piece = (fields: object): Chunk =>
  asMessages([new AIMessageChunk({ content: "", ...fields }), metadata]);

/** Two subgraphs that stream at the same time, a token from each in turn. */
function alternating(contents: readonly string[]): Chunk[] {
  const sides = ["left", "right"].map((side) => ({ side, place: about({ langgraph_node: side }) }));
  return contents.flatMap((content) =>
    sides.map(({ side, place }) =>
      asMessages([new AIMessageChunk({ id: side, content }), place], ["outer:1", `${side}:2`]),
    ),
  );
}

const CASES: [string, Chunk[]][] = [
  [
    "tokens of text, and the usage that comes last",
    [
      ...["", "Hel", "lo", ' "quoted"\n\t', "\ud83d", "\ude00", "ü"].map((content) =>
        piece({ id: "a", content }),
      ),
      piece({
        id: "a",
        response_metadata: { finish_reason: "stop", model_name: "m" },
        usage_metadata: { input_tokens: 3, total_tokens: 7, output_token_details: { reasoning: 1 } },
      }),
    ],
  ],
  [
    "chunks of tool calls",
    ['{"ci', 'ty":', '"Oslo"}'].map((args, index) =>
      piece({
        id: "a",
        tool_call_chunks: [
          {
            type: "tool_call_chunk",
            index: 0,
            args,
            ...(index === 0 ? { id: "call_1", name: "weather" } : {}),
          },
        ],
      }),
    ),
  ],
  [
    "content in blocks",
    [
      piece({ id: "a", content: [{ type: "text", text: "see" }] }),
      piece({ id: "a", content: [{ type: "image_url", image_url: { url: "data:image/png;base64,AA==" } }] }),
      piece({ id: "a", content: "and text again" }),
      piece({ id: "a", content: [] }),
    ],
  ],
  [
    "a message with fields that come and go between its tokens",
    [
      {},
      { response_metadata: { model_provider: "openai", usage: {} } },
      { response_metadata: { model_provider: "openai", usage: {} } },
      { response_metadata: { model_provider: "openai", usage: { input: 1 } } },
      { response_metadata: { model_provider: "openai" }, name: "Ann" },
      { name: "Ann", additional_kwargs: { refusal: null } },
      {},
      { status: "late" },
      {},
      { additional_kwargs: { seen: new Map([["a", 1]]) } },
      { additional_kwargs: { seen: new Map([["b", 2]]) } },
    ].map((fields, index) => piece({ id: "a", content: String(index), ...fields })),
  ],
  ["two messages whose tokens alternate, each in its own subgraph", alternating(["1", "2", "3", "4"])],
  [
    "messages of every other class, without an id, and without a message at all",
    [
      asMessages([new HumanMessage({ id: "h", content: "hi", name: "Ann" }), metadata]),
      asMessages([new SystemMessage("be kind"), metadata]),
      asMessages([
        new ToolMessage({
          content: "8 degrees",
          tool_call_id: "call_1",
          status: "error",
          artifact: { raw: [1n] },
        }),
        metadata,
      ]),
      asMessages([
        new AIMessage({
          content: "",
          tool_calls: [{ id: "c", name: "weather", args: { city: "Oslo" }, type: "tool_call" }],
          invalid_tool_calls: [{ id: "d", name: "x", args: "{", error: "cut", type: "invalid_tool_call" }],
          additional_kwargs: { refusal: null, nested: new Map([["k", new Set([1])]]) },
        }),
        metadata,
      ]),
      asMessages([{ role: "user", content: "a plain object" }, metadata]),
      asMessages([new AIMessageChunk("no metadata"), null]),
      asMessages("not a tuple"),
    ],
  ],
  [
    "a message whose metadata changes on the way",
    [about(), about({ attempt: 2 }), about()].map((one, index) =>
      asMessages([new AIMessageChunk({ id: "a", content: String(index) }), one]),
    ),
  ],
];

test.each(CASES)("a client sees the same for %s", async (_, pieces) => {
  expect(await shown(pieces)).toEqual(expected(pieces));
});

test("any sequence of messages, in any order and nesting, is the same JSON with and without templates", async () => {
  const text = fc.oneof(
    fc.string({ unit: "binary", maxLength: 6 }),
    fc.constantFrom("", "a", "\ud800", "\t\n\u2028"),
  );
  const content = fc.oneof(
    { weight: 4, arbitrary: text },
    {
      weight: 1,
      arbitrary: fc.array(fc.record({ type: fc.constant("text" as const), text }), { maxLength: 2 }),
    },
  );
  const fields = fc.record(
    {
      content,
      id: fc.constantFrom("a", "b"),
      name: text,
      additional_kwargs: fc.dictionary(fc.constantFrom("content", "type", "x"), fc.jsonValue(), {
        maxKeys: 2,
      }),
      response_metadata: fc.dictionary(fc.constantFrom("content", "finish"), fc.jsonValue(), { maxKeys: 1 }),
      usage_metadata: fc.record({
        input_tokens: fc.nat(9),
        output_tokens: fc.nat(9),
        total_tokens: fc.nat(18),
      }),
    },
    { requiredKeys: ["content"] },
  );
  const message: fc.Arbitrary<BaseMessage> = fields.chain((one) =>
    // fast-check may leave any of the fields out, as their types allow.
    fc.constantFrom<BaseMessage>(new AIMessageChunk(one as never), new HumanMessage(one as never)),
  );
  // The same object for all tokens of a message, as LangGraph gives it; its namespace follows from it.
  const places = fc.uniqueArray(fc.constantFrom("x", "x:1|y", "x:1|z"), { minLength: 1 }).map((all) =>
    all.map((place) => {
      const path = place.split("|").slice(0, -1);
      return { where: about({ langgraph_checkpoint_ns: place }), path };
    }),
  );
  const pieces = places.chain((all) =>
    fc.array(
      fc
        .tuple(message, fc.constantFrom(...all))
        .map(([one, { where, path }]) => asMessages([one, where], path)),
      { maxLength: 12 },
    ),
  );
  await fc.assert(
    fc.asyncProperty(pieces, async (some) => {
      expect(await shown(some)).toEqual(expected(some));
    }),
    { numRuns: 500 },
  );
});

test("what is hidden, and what nobody asked for, is not shown", async () => {
  const hidden = asMessages([new AIMessageChunk("x"), about({ tags: ["langsmith:hidden"] })]);
  expect(isHidden(hidden)).toBe(true);
  const projection = new Projection(["values"], true);
  expect(projection.entriesOf(asMessages([new AIMessageChunk("x"), about()]))).toEqual([]);
  expect(projection.entriesOf({ mode: "updates", namespace: [], payload: {} })).toEqual([]);
});

test("the tokens of one answer share one template, and only the first costs more than its text", () => {
  const projection = new Projection(["messages-tuple"], true);
  const writer = new LineWriter();
  const lines = Array.from({ length: 100 }, (_, seq) => {
    const chunk = asMessages([new AIMessageChunk({ id: "a", content: " word" }), metadata]);
    return projection.entriesOf(chunk).map((entry) => writer.line({ seq, entry }))[0] ?? "";
  });
  expect(lines[0]).toMatch(/^D\tmessages\t/);
  expect(new Set(lines.slice(1))).toEqual(new Set(['d0\t" word"']));
});

test("a message that is changed after it was told does not change what its next tokens tell", () => {
  const projection = new Projection(["messages-tuple"], true);
  const first = new AIMessageChunk({ id: "a", content: "1" });
  const dataOfNext = (message: AIMessageChunk): unknown =>
    projection.entriesOf(asMessages([message, metadata])).map((entry) => JSON.parse(dataOf(entry))[0]);
  dataOfNext(first);
  first.response_metadata = { note: "late" };
  expect(
    dataOfNext(new AIMessageChunk({ id: "a", content: "2", response_metadata: { note: "late" } })),
  ).toEqual([expect.objectContaining({ content: "2", response_metadata: { note: "late" } })]);
});
