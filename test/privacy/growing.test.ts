// Objects in events, and messages of tasks that run at the same time: a value is never told in part, whether objects grow
// or tell parts of a text one after the other.
import { AIMessageChunk } from "@langchain/core/messages";
import { GenerationChunk } from "@langchain/core/outputs";
import { expect, test } from "vitest";
import { openPrivacy } from "../../server/privacy/guard.ts";
import { ChunkRedactor } from "../../server/runs/stream/redaction.ts";

const guard = openPrivacy({ mode: "redact", graphs: {}, rules: [], names: false }).of();

/** What becomes of the chunks that one runnable tells in events. */
function told(given: readonly unknown[]): unknown[] {
  const redactor = new ChunkRedactor(guard);
  const event = (name: string, data: object): unknown[] =>
    redactor
      .take({ namespace: [], mode: "events", payload: { event: name, run_id: "r-1", data } })
      .map(({ payload }) => payload);
  const all = [
    ...given.flatMap((chunk) => event("on_parser_stream", { chunk })),
    ...event("on_parser_end", { output: "over" }),
  ] as { event: string; data: { chunk: unknown } }[];
  expect(all.pop()?.event).toBe("on_parser_end");
  return all.map(({ data }) => data.chunk);
}

const grown = (whole: string): string[] =>
  Array.from({ length: whole.length }, (_, at) => whole.slice(0, at + 1));

test("an object that grows is told without what may still become something", () => {
  const all = told([
    {},
    ...grown("ada@example.org").map((mail) => ({ name: "Bob Ray", mail })),
    ...grown("hunter2222").map((password) => ({ name: "Bob Ray", mail: "ada@example.org", password })),
    { name: "Bob Ray", mail: "ada@example.org", password: "hunter2222", phones: [555123] },
    { name: "Bob Ray", mail: "ada@example.org", password: "hunter2222", phones: [5551237788] },
  ]);
  expect(JSON.stringify(all)).not.toMatch(/ada|hunt|5551/);
  expect(all.at(-1)).toEqual({
    name: "Bob Ray",
    mail: "[REDACTED_EMAIL]",
    password: "[REDACTED_SECRET]",
    phones: ["[REDACTED_PHONE]"],
  });
  expect(all.length).toBeGreaterThan(20);
});

test("changes that are told as a patch are as objects that grow", () => {
  const all = told(grown("ada@example.org").map((value) => [{ op: "replace", path: "/mail", value }]));
  expect(JSON.stringify(all)).not.toContain("ada");
  expect(all.at(-1)).toEqual([{ op: "replace", path: "/mail", value: "[REDACTED_EMAIL]" }]);
});

const parts = (name: string, texts: readonly string[]): object[] => texts.map((text) => ({ [name]: text }));

test("parts of a text under one name are one text", () => {
  const all = told([
    ...parts("answer", ["Write ", "to ", "ada", "@exam", "ple.", "org", " now"]),
    ...parts("other", ["it is ", "so"]),
  ]) as Record<string, string>[];
  const joined = (name: string): string => all.map((one) => one[name] ?? "").join("");
  expect([joined("answer"), joined("other")]).toEqual(["Write to [REDACTED_EMAIL] now", "it is so"]);
});

test("the tokens that a text is made of are not told beside it", () => {
  const all = told(
    ["ask ", "ada", "@exam", "ple.", "org"].map(
      (text) =>
        new GenerationChunk({ text, generationInfo: { logprobs: { tokens: [text] }, finish_reason: null } }),
    ),
  ) as { text: string; generationInfo: object }[];
  expect(all.map(({ text }) => text).join("")).toBe("ask [REDACTED_EMAIL]");
  expect(all.map(({ generationInfo }) => generationInfo)).toEqual(all.map(() => ({ finish_reason: null })));
});

test("objects in which nothing is found are told as they came", () => {
  const steps = [{ step: "10%" }, { step: "20%" }, { step: "done" }];
  const updates = [{ plan: { text: "one", n: 1 } }, { act: { text: "two", n: 2 } }];
  const repeated = [
    { type: "progress", at: 1 },
    { type: "progress", at: 1 },
  ];
  for (const all of [steps, updates, repeated, [{ only: "ada" }], [["a", "b"]], [[1, 2], [3]]])
    expect(told(all)).toEqual(all);
});

test("messages of two nodes that have the same id are two", () => {
  const redactor = new ChunkRedactor(guard);
  const tell = (node: string, content: string): readonly unknown[] => {
    const about = { langgraph_node: node, langgraph_checkpoint_ns: `${node}:1` };
    const payload = [new AIMessageChunk({ id: "", content }), about];
    return redactor.take({ namespace: [], mode: "messages", payload });
  };
  const pieces = ["ask ", "ada", "@exam", "ple.", "org ", "now"].flatMap((piece) =>
    ["one", "two"].flatMap((node) => tell(node, piece)),
  );
  const all = [...pieces, ...redactor.end()] as { payload: [AIMessageChunk, { langgraph_node: string }] }[];
  for (const node of ["one", "two"]) {
    const own = all.filter(({ payload: [, about] }) => about.langgraph_node === node);
    expect(own.map(({ payload: [{ text }] }) => text).join("")).toBe("ask [REDACTED_EMAIL] now");
  }
});

const said = (chunks: unknown[], id: string): string =>
  (chunks as { payload: [AIMessageChunk] }[])
    .flatMap(({ payload }) => (Array.isArray(payload) && payload[0].id === id ? payload[0].text : []))
    .join("");

test("a message is looked at to its end, although another task of its node has ended before", () => {
  const redactor = new ChunkRedactor(guard);
  const take = (mode: string, payload: unknown): unknown[] => redactor.take({ namespace: [], mode, payload });
  const tell = (id: string, content: string): unknown[] => {
    const place = { langgraph_node: "write", langgraph_path: ["__pregel_push", 0] };
    const about = { ...place, langgraph_checkpoint_ns: `write:${id}` };
    return take("messages", [new AIMessageChunk({ id, content }), about]);
  };
  // The first one to end has said nothing.
  const before = [...tell("one", "ask a"), ...take("updates", { write: {} }), ...tell("one", "da@")];
  before.push(...tell("two", "done"), ...take("updates", { write: {} }));
  const asked = [...take("values", { __interrupt__: [] }), ...take("updates", { __interrupt__: [] })];
  const after = [...tell("one", "example.org"), ...take("tasks", { name: "write", id: "two", result: {} })];
  const last = [...tell("one", " now"), ...take("values", {})];
  expect(redactor.end()).toEqual([]);
  expect(said(after, "two")).toBe("done");
  expect(said([...before, ...asked, ...after, ...last], "one")).toBe("ask [REDACTED_EMAIL] now");
});

/** A node that an edge leads to, and that others are sent to as well. */
function scene(): {
  begins: (id: string, namespace?: string[]) => void;
  take: (mode: string, payload: unknown) => unknown[];
  tell: (content: string) => unknown[];
  end: () => unknown[];
} {
  const redactor = new ChunkRedactor(guard);
  const about = {
    langgraph_node: "write",
    langgraph_path: ["__pregel_pull", "write"],
    langgraph_checkpoint_ns: "write:one",
  };
  const take = (mode: string, payload: unknown): unknown[] => redactor.take({ namespace: [], mode, payload });
  return {
    begins: (id, namespace = []) =>
      void redactor.take({ namespace, mode: "tasks", payload: { name: "write", id, input: {} } }),
    take,
    tell: (content) => take("messages", [new AIMessageChunk({ id: "m", content }), about]),
    end: () => redactor.end(),
  };
}

test("a message is looked at to its end, although one that was sent to its node has ended before", () => {
  const { begins, take, tell, end } = scene();
  begins("one");
  begins("two");
  const asked = take("values", { __interrupt__: [] });
  const before = [...tell("ask a"), ...asked, ...take("updates", { write: {} })];
  const after = [...tell("da@example.org"), ...take("tasks", { name: "write", id: "one", result: {} })];
  expect(said([...before, ...after], "m")).toBe("ask [REDACTED_EMAIL]");
  expect(end()).toEqual([]);
});

type Begins = ReturnType<typeof scene>;
test.each([
  ["none was sent there", () => {}],
  [
    "those that were sent there have ended",
    ({ begins, take }: Begins) => {
      begins("two");
      take("tasks", { name: "write", id: "two", result: {} });
    },
  ],
  [
    "those that were sent there were of the superstep before",
    ({ begins, take }: Begins) => {
      begins("two");
      take("values", {});
    },
  ],
  ["a node of its name is at work in another graph", ({ begins }: Begins) => begins("two", ["inner:1"])],
])("a message is told to its end as soon as its node has written, where %s", (_where, before) => {
  const made = scene();
  before(made);
  made.begins("one");
  const chunks = [...made.tell("ask Ada"), ...made.take("updates", { write: {} })];
  expect(said(chunks, "m")).toBe("ask Ada");
});

const piece = (content: string, fields: object): AIMessageChunk => new AIMessageChunk({ content, ...fields });

test("a model's call is one message in events, also where a piece has no id, and its usage comes behind its text", () => {
  const redactor = new ChunkRedactor(guard);
  const usage = { input_tokens: 3, output_tokens: 4, total_tokens: 7 };
  const pieces = [
    ...["ask ", "ada", "@exam", "ple.org", " now", ""].map((content) =>
      piece(content, { id: "chatcmpl-1", response_metadata: { usage: {} } }),
    ),
    piece("", { id: "run-1", response_metadata: { usage }, usage_metadata: usage }),
  ];
  const event = (name: string, data: object): unknown[] =>
    redactor.take({ namespace: [], mode: "events", payload: { event: name, run_id: "r-1", data } });
  const all = [
    ...pieces.flatMap((chunk) => event("on_chat_model_stream", { chunk })),
    ...event("on_chat_model_end", { output: "over" }),
  ] as { payload: { data: { chunk?: AIMessageChunk } } }[];
  const shown = all.map(({ payload: { data } }) => data.chunk);
  expect(shown.pop()).toBeUndefined();
  expect(shown.map((chunk) => chunk?.text).join("")).toBe("ask [REDACTED_EMAIL] now");
  expect(shown.at(-1)?.usage_metadata).toEqual(usage);
  expect(shown.filter((chunk) => chunk?.text).every((chunk) => chunk?.id === "chatcmpl-1")).toBe(true);
  // The first one says that somebody speaks.
  const silent = shown.findIndex((chunk, at) => at > 0 && chunk?.text === "");
  expect(shown.slice(silent).every((chunk) => chunk?.text === "")).toBe(true);
});

test.each([true, false])(
  "a message is over with the last piece of its call; the end is heard before it: %s",
  (isBefore) => {
    const redactor = new ChunkRedactor(guard);
    const about = { langgraph_node: "say", langgraph_checkpoint_ns: "say:1" };
    const pieces = ["write ", "to ada", "@example.org"].map((content) => piece(content, { id: "one" }));
    const last = pieces.at(-1) ?? {};
    const heard: unknown[] = [];
    for (const one of pieces) {
      if (isBefore && one === last) heard.push(...redactor.over(last));
      heard.push(...redactor.take({ namespace: [], mode: "messages", payload: [one, about] }));
    }
    if (!isBefore) heard.push(...redactor.over(last));
    const texts = (heard as { payload: [AIMessageChunk] }[]).map(({ payload: [one] }) => one.text);
    expect(texts.join("")).toBe("write to [REDACTED_EMAIL]");
    expect(redactor.end()).toEqual([]);
  },
);

test("of values that nobody is told only the last ones come, at the end, and only those of the graph itself", () => {
  const redactor = new ChunkRedactor(guard, { tellsValues: false });
  const values = (payload: unknown, namespace: string[] = []) =>
    redactor.take({ namespace, mode: "values", payload });
  expect(values({ mail: "ada@example.org" })).toEqual([]);
  expect(values({ mail: "bob@example.org", n: 2 })).toEqual([]);
  expect(values({ inner: 1 }, ["node:1"])).toEqual([]);
  expect(redactor.end()).toEqual([
    { namespace: [], mode: "values", payload: { mail: "[REDACTED_EMAIL]", n: 2 } },
  ]);
});

test("values that nobody is told end the messages of their superstep all the same", () => {
  const redactor = new ChunkRedactor(guard, { tellsValues: false });
  const about = { langgraph_node: "say", langgraph_checkpoint_ns: "say:1" };
  const first = piece("Ask Ada", { id: "a-1" });
  const begun = redactor.take({ namespace: [], mode: "messages", payload: [first, about] });
  const ended = redactor.take({ namespace: [], mode: "values", payload: { done: true } });
  const texts = [...begun, ...ended].map(({ payload }) => (payload as [AIMessageChunk])[0].text);
  expect(texts.join("")).toBe("Ask Ada");
});
