// What becomes of the calls of a model: each is answered, whatever the tool does, and only the run's own end passes through.
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import type { ToolMessage } from "@langchain/core/messages";
import { expect, test } from "vitest";
import { z } from "zod";
import { LeaseLost } from "../../server/errors.ts";
import { defineTool, runTools, ToolError, toolSpecs, toolStats } from "../../server/index.ts";
import type { Tool, ToolContext } from "../../server/index.ts";
import { graphSettings, SERVICES } from "../../server/services.ts";
import type { Services } from "../../server/services.ts";

let names = 0;
/** Of a name of its own: tools of one name share their figures. */
function toolOf(
  run: (args: { text: string }, context: ToolContext) => Promise<string>,
  more: object = {},
): Tool {
  names += 1;
  const schema = z.object({ text: z.string().max(20), times: z.number().int().default(1) });
  return defineTool({ name: `tool_${names}`, description: "A tool.", schema, run, ...more });
}

const services: Services = { settings: graphSettings(), search: async () => [] };

async function call(
  tools: Tool[],
  calls: { name: string; args?: unknown }[],
  how: object = {},
): Promise<ToolMessage[]> {
  const tool_calls = calls.map(({ name, args = { text: "hi" } }, index) => {
    return { name, args: args as Record<string, unknown>, id: `call_${index}` };
  });
  const messages = [new HumanMessage("go"), new AIMessage({ content: "", tool_calls })];
  const told = await runTools(tools)({ messages }, { configurable: { [SERVICES]: services }, ...how });
  return told.messages;
}
const one = async (tool: Tool, args?: unknown, how: object = {}): Promise<ToolMessage | undefined> =>
  (await call([tool], [{ name: tool.name, args: args ?? { text: "hi" } }], how))[0];

test("a result is a message with the id of its call, several in their order", async () => {
  const [slow, fast] = [
    toolOf(async ({ text }, { callId }) => `slow ${text} ${callId}`),
    toolOf(async () => "fast"),
  ];
  const messages = await call([slow, fast], [{ name: slow.name }, { name: fast.name }, { name: slow.name }]);
  expect(messages.map(({ content, tool_call_id: id, status }) => [content, id, status])).toEqual([
    ["slow hi call_0", "call_0", "success"],
    ["fast", "call_1", "success"],
    ["slow hi call_2", "call_2", "success"],
  ]);
});

test("arguments are what the schema makes of them, and wrong ones are told without their values", async () => {
  const tool = toolOf(async (args) => JSON.stringify(args));
  expect((await one(tool))?.content).toBe('{"text":"hi","times":1}');
  const wrong = await one(tool, { text: "hunter2 ".repeat(9), times: "hunter3", hunter4: 1 });
  expect(wrong).toMatchObject({
    status: "error",
    content: expect.stringMatching(/^tool_arguments_invalid: .*text: .*times: /),
  });
  expect(wrong?.content).not.toContain("hunter");
});

test("arguments that are no JSON, and tools that do not exist, are told too", async () => {
  const invalid_tool_calls = [{ name: "x", args: '{"te', id: "call_9", type: "invalid_tool_call" as const }];
  const messages = [new AIMessage({ content: "", invalid_tool_calls })];
  const tool = defineTool({ name: "x", description: "", schema: z.object({}), run: async () => "ran" });
  const told = await runTools([tool])({ messages }, { configurable: { [SERVICES]: services } });
  expect(told.messages[0]).toMatchObject({
    tool_call_id: "call_9",
    content: expect.stringMatching(/no JSON/),
  });
  const [unknown] = await call([tool], [{ name: "made_up" }]);
  expect(unknown).toMatchObject({ status: "error", content: expect.stringMatching(/^tool_unknown: /) });
});

test("calls that were answered already are not made again", async () => {
  const tool = toolOf(async () => "once");
  const ask = new AIMessage({
    content: "",
    tool_calls: [{ name: tool.name, args: { text: "a" }, id: "one" }],
  });
  const first = await runTools([tool])({ messages: [ask] }, { configurable: { [SERVICES]: services } });
  const again = await runTools([tool])(
    { messages: [ask, ...first.messages] },
    { configurable: { [SERVICES]: services } },
  );
  expect(again.messages).toEqual([]);
});

/** The config of a run on a thread. */
const on = (thread_id: string): object => ({ configurable: { [SERVICES]: services, thread_id } });

test("a call whose id was used before on the thread is made", async () => {
  const said: string[] = [];
  const tool = toolOf(async ({ text }) => {
    said.push(text);
    return text;
  });
  const asking = (text: string): AIMessage =>
    new AIMessage({ content: "", tool_calls: [{ id: "call_0", name: tool.name, args: { text } }] });
  const config = { configurable: { [SERVICES]: services } };
  const first = await runTools([tool])({ messages: [asking("one")] }, config);
  const messages = [asking("one"), ...first.messages, asking("two")];
  const second = await runTools([tool])({ messages }, config);
  expect([said, second.messages[0]?.content]).toEqual([["one", "two"], "two"]);
});

test.each([[undefined], [null], [7], [{ some: "object" }], [["a", "list"]]])(
  "a tool in JavaScript that returns %j has failed, and its neighbour has not",
  async (returned) => {
    const [wrong, right] = [toolOf(async () => returned as never), toolOf(async () => "fine")];
    const messages = await call([wrong, right], [{ name: wrong.name }, { name: right.name }]);
    expect(messages.map(({ content, status }) => [status, content])).toEqual([
      ["error", expect.stringMatching(/^tool_failed: /)],
      ["success", "fine"],
    ]);
  },
);

test.each([
  ["transforms", z.object({ text: z.string().transform((text) => new URL(text).href) })],
  ["refines", z.object({ text: z.string().refine(() => Promise.reject(new Error("away"))) })],
])("a schema that throws where it %s refuses the arguments", async (_, schema) => {
  names += 1;
  const tool = defineTool({ name: `tool_${names}`, description: "", schema, run: async () => "ran" });
  expect(await one(tool)).toMatchObject({
    status: "error",
    content: expect.stringMatching(/^tool_arguments_invalid: .*cannot be checked/),
  });
});

test("a call has a key of its own, which is the same when the node runs again", async () => {
  const keys: string[] = [];
  const tool = toolOf(async (_, { idempotencyKey }) => String(keys.push(idempotencyKey)));
  const asked = (id: string): AIMessage =>
    new AIMessage({ id, content: "", tool_calls: [{ name: tool.name, args: { text: "a" }, id: "call_0" }] });
  const node = runTools([tool]);
  await node({ messages: [asked("m")] }, on("t"));
  await node({ messages: [asked("m")] }, on("t"));
  await node({ messages: [asked("another")] }, on("t"));
  await node({ messages: [asked("m")] }, on("another"));
  expect(keys[0]).toBe(keys[1]);
  expect(new Set(keys).size).toBe(3);
});

test("more calls than a node makes at once are answered, and not made", async () => {
  let made = 0;
  const tool = toolOf(async () => String((made += 1)));
  const messages = await call(
    [tool],
    Array.from({ length: 20 }, () => ({ name: tool.name })),
  );
  expect(made).toBe(16);
  expect(messages).toHaveLength(20);
  expect(messages.at(-1)?.content).toMatch(/^tool_too_many: /);
});

test("what a tool throws is not told, but for a ToolError", async () => {
  const broken = toolOf(() => Promise.reject(new Error("password=hunter2 at 10.0.0.1")));
  expect((await one(broken))?.content).toBe(
    "tool_failed: The tool failed. What it was asked for may have been done or not.",
  );
  const plain = toolOf(() => Promise.reject(new ToolError("order_unknown", "There is no such order.")));
  expect(await one(plain)).toMatchObject({
    status: "error",
    content: "order_unknown: There is no such order.",
  });
});

test("a tool that takes too long is told of, and its signal aborts", async () => {
  let signal: AbortSignal | undefined;
  const deaf = toolOf(
    (_, context) => {
      ({ signal } = context);
      return new Promise(() => {});
    },
    { timeoutMs: 50 },
  );
  expect(await one(deaf)).toMatchObject({
    status: "error",
    content: expect.stringMatching(/^tool_timeout: The tool did not answer within 50 ms/),
  });
  expect(signal?.aborted).toBe(true);
});

test("the end of the run ends its tools, with its own reason", async () => {
  const stop = new AbortController();
  const tool = toolOf(() => new Promise(() => {}));
  const running = one(tool, undefined, { signal: stop.signal });
  const reason = new LeaseLost("Another server has the run.");
  stop.abort(reason);
  await expect(running).rejects.toBe(reason);
});

test("what the engine and LangGraph throw for themselves passes through", async () => {
  const lost = new LeaseLost("Another server has the run.");
  await expect(one(toolOf(() => Promise.reject(lost)))).rejects.toBe(lost);
  const bubble = Object.assign(new Error("interrupt"), { is_bubble_up: true });
  await expect(one(toolOf(() => Promise.reject(bubble)))).rejects.toBe(bubble);
});

test("a tool that keeps failing rests, while one that only says no does not", async () => {
  let tries = 0;
  const broken = toolOf(() => {
    tries += 1;
    return Promise.reject(new Error("down"));
  });
  const codes: unknown[] = [];
  for (let n = 0; n < 7; n += 1) codes.push((await one(broken))?.text.split(":")[0]);
  expect(codes).toEqual([
    ...Array.from({ length: 5 }, () => "tool_failed"),
    "tool_unavailable",
    "tool_unavailable",
  ]);
  expect(tries).toBe(5);
  const saying = toolOf(() => Promise.reject(new ToolError("no", "No.")));
  for (let n = 0; n < 12; n += 1) expect((await one(saying))?.content).toBe("no: No.");
});

test("without a server this process counts how often a tool is called", async () => {
  const tool = toolOf(async () => "done", { perMinute: 2 });
  const contents: unknown[] = [];
  for (let n = 0; n < 3; n += 1) contents.push((await one(tool))?.content);
  expect(contents).toEqual(["done", "done", expect.stringMatching(/^tool_rate_limited: /)]);
});

/** The config of a run with a caller. */
const as = (...permissions: string[]): object => ({
  configurable: { [SERVICES]: services, langgraph_auth_permissions: permissions },
});

test("a permission counts when the tool is executed; without a caller everybody may, unless the tool says no", async () => {
  const [open, named] = [
    toolOf(async () => "done", { permission: "mail" }),
    toolOf(async () => "done", { anonymous: false }),
  ];
  expect((await one(open, undefined, as("chat", "mail")))?.content).toBe("done");
  expect((await one(open, undefined, as("chat")))?.content).toMatch(/^tool_forbidden: /);
  expect((await one(open))?.content).toBe("done");
  expect((await one(named))?.content).toMatch(/^tool_forbidden: /);
  expect((await one(named, undefined, as()))?.content).toBe("done");
});

test("personal data and secrets in a result are gone before it is state, and so is what cannot be stored", async () => {
  const tool = toolOf(async () => "ada@example.org\0 has password=hunter2hunter2 \ud800");
  const content = (await one(tool))?.text;
  expect(content).toBe("[REDACTED_EMAIL]  has password=[REDACTED_SECRET] \ufffd");
});

test("figures of calls, errors and times are kept by name", async () => {
  const tool = toolOf(async ({ text }) => (text === "no" ? Promise.reject(new Error("no")) : "yes"));
  for (const text of ["a", "no", "b"]) await one(tool, { text });
  expect(toolStats()[tool.name]).toEqual({
    calls: 3,
    errors: 1,
    p50_ms: expect.any(Number),
    breaker: "closed",
  });
});

test("a model is given a name, what it is for, and a schema", () => {
  const tool = defineTool({
    name: "weather",
    description: "The weather.",
    schema: z.object({ city: z.string().describe("Where."), days: z.number().default(1) }),
    run: async () => "rain",
  });
  expect(toolSpecs([tool])).toEqual([
    {
      type: "function",
      function: {
        name: "weather",
        description: "The weather.",
        parameters: {
          type: "object",
          properties: {
            city: { type: "string", description: "Where." },
            days: { type: "number", default: 1 },
          },
          required: ["city"],
        },
      },
    },
  ]);
});

test.each([
  ["a name with a space", () => toolOf(async () => "", { name: "a b" })],
  ["no time", () => toolOf(async () => "", { timeoutMs: 0 })],
  ["half a call a minute", () => toolOf(async () => "", { perMinute: 0.5 })],
  [
    "two of one name",
    () => runTools([toolOf(async () => "", { name: "x" }), toolOf(async () => "", { name: "x" })]),
  ],
])("a graph that defines tools with %s is not loaded", (_, define) => {
  expect(define).toThrow(expect.objectContaining({ code: "graph_unloadable" }));
});
