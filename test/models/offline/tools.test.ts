// The offline model with tools: it calls one for a question and answers from what the tool gave, like any provider does.
import { afterAll, expect, test } from "vitest";
import { stopCounting } from "../../../server/models/tokens.ts";
import { startFakeModel } from "../../support/model.ts";

const fake = await startFakeModel();
afterAll(async () => {
  await fake.stop();
  await stopCounting();
});

const toolOf = (name: string, field: string): object => ({
  type: "function",
  function: { name, parameters: { type: "object", properties: { [field]: { type: "string" } } } },
});
const tools = [toolOf("fetch_page", "url"), toolOf("search_documents", "query")];
const asking = (content: string): object[] => [{ role: "user", content }];

async function post(body: object): Promise<string> {
  const response = await fetch(`${fake.url}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "offline-extractive", tools, ...body }),
  });
  return response.text();
}
interface Choice {
  finish_reason: string;
  message: {
    content: string | null;
    tool_calls?: { id: string; function: { name: string; arguments: string } }[];
  };
}
const answerTo = async (body: object): Promise<Choice> => JSON.parse(await post(body)).choices[0];
const callIn = async (body: object): Promise<unknown[]> => {
  const { message } = await answerTo(body);
  return (message.tool_calls ?? []).map(({ function: { name, arguments: args } }) => [
    name,
    JSON.parse(args),
  ]);
};

test("a question calls the search with it, an address in it the fetching of its page", async () => {
  const choice = await answerTo({ messages: asking("Can I get a refund?") });
  expect(choice).toMatchObject({ finish_reason: "tool_calls", message: { content: null } });
  expect(await callIn({ messages: asking("Can I get a refund?") })).toEqual([
    ["search_documents", { query: "Can I get a refund?" }],
  ]);
  expect(await callIn({ messages: asking("What does https://example.com/a?b=1 say?") })).toEqual([
    ["fetch_page", { url: "https://example.com/a?b=1" }],
  ]);
});

test("without a search, the first tool that takes a question gets it", async () => {
  const others = [toolOf("weather", "city"), toolOf("ask", "question"), toolOf("more", "query")];
  expect(await callIn({ messages: asking("Is it so?"), tools: others })).toEqual([
    ["ask", { question: "Is it so?" }],
  ]);
});

test("a call streams as its name and its arguments in pieces, with a finish reason", async () => {
  const text = await post({ messages: asking("Can I get a refund?"), stream: true });
  const frames = text.split("\n\n").filter((frame) => frame.startsWith("data: {"));
  const choices = frames.map((frame) => JSON.parse(frame.slice(6)).choices[0]);
  const deltas = choices.flatMap(({ delta }) => delta.tool_calls ?? []);
  expect(deltas[0]).toMatchObject({
    index: 0,
    type: "function",
    function: { name: "search_documents", arguments: "" },
  });
  expect(deltas.length).toBeGreaterThan(3);
  const args = deltas.map((one: { function: { arguments: string } }) => one.function.arguments).join("");
  expect(JSON.parse(args)).toEqual({ query: "Can I get a refund?" });
  expect(choices.at(-1)).toMatchObject({ finish_reason: "tool_calls" });
});

const called = (content: string): object[] => [
  ...asking("Can I get a refund?"),
  {
    role: "assistant",
    content: null,
    tool_calls: [{ id: "a", type: "function", function: { name: "x", arguments: "{}" } }],
  },
  { role: "tool", tool_call_id: "a", content },
];

test("what a tool gave is answered from: passages with their numbers, anything else as it is", async () => {
  const passage =
    '<passage n="4" source="r.md" title="Refunds">\nWe refund every order within 30 days.\n</passage>';
  const { message, finish_reason: reason } = await answerTo({ messages: called(passage) });
  expect([message.content, reason]).toEqual([
    "We refund every order within 30 days. [4]\n\nSources:\n[4] Refunds",
    "stop",
  ]);
  expect((await answerTo({ messages: called("It rains.") })).message.content).toBe("It rains.");
});

test("no tool is called when the caller says so, nor by a model that does something else", async () => {
  expect(await callIn({ messages: asking("Can I get a refund?"), tool_choice: "none" })).toEqual([]);
  expect((await answerTo({ messages: asking("hello"), model: "fake-echo" })).message.content).toBe("hello");
});
