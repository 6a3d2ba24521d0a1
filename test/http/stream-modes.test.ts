// Stream modes through the official client that tell more than one superstep at a time: messages, tools.
import { expect, test } from "vitest";
import { collect, useServer } from "../support/server.ts";
import type { Frame } from "../support/server.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/modes.json" });

const input = { messages: [{ role: "user", content: "hello", id: "question" }] };

async function run(
  assistant: string,
  streamMode: string[],
): Promise<{ frames: Frame[]; threadId: string; runId: string }> {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  // The client's type leaves out modes that its server takes.
  const options = { input, streamMode: streamMode as ["values"] };
  const frames = await collect(client.runs.stream(threadId, assistant, options));
  const { run_id: runId } = Object(frames[0]?.data) as { run_id: string };
  return { frames, threadId, runId };
}

interface Message {
  id: string;
  type: string;
  content: string;
}
const messagesOf = (frames: Frame[], event: string): Message[] =>
  frames.filter((frame) => frame.event === event).flatMap(({ data }) => data as Message[]);

test("mode messages tells each answer from its beginning, and every message once when it is complete", async () => {
  const { frames } = await run("talking", ["messages"]);
  const partials = messagesOf(frames, "messages/partial");
  const answer = "alpha beta";
  expect(new Set(partials.map(({ content }) => content)).size).toBeGreaterThan(1);
  expect(partials.at(-1)?.content).toBe(answer);
  expect(partials.every(({ content }, index) => content.startsWith(partials[index - 1]?.content ?? ""))).toBe(
    true,
  );
  const [id, ...others] = new Set(partials.map((message) => message.id));
  expect(others).toEqual([]);
  const about = frames.filter(({ event }) => event === "messages/metadata").map(({ data }) => data);
  expect(about).toEqual([
    { [id ?? ""]: { metadata: expect.objectContaining({ langgraph_node: "answer" }) } },
  ]);
  const complete = messagesOf(frames, "messages/complete");
  expect(complete.map(({ type, content }) => [type, content])).toEqual([
    ["human", "hello"],
    ["ai", answer],
  ]);
  expect(complete[0]?.id).toBe("question");
  expect(JSON.stringify(frames)).not.toContain("secret");
});

const textOf = (content: string | { text: string }[]): string =>
  typeof content === "string" ? content : content.map(({ text }) => text).join("");

test("mode messages keeps messages apart that have the same id, also those that come in blocks", async () => {
  const { frames } = await run("twins", ["messages"]);
  const partials = messagesOf(frames, "messages/partial").map(({ content }) => textOf(content));
  for (const words of [
    ["red ", "red green"],
    ["one ", "one two"],
    ["the ", "the end"],
  ])
    expect(partials.filter((text) => text.startsWith(words[0] ?? ""))).toEqual(words);
  const about = frames.filter(({ event }) => event === "messages/metadata").map(({ data }) => Object(data));
  const nodes = about.map(({ twin }) => twin.metadata.langgraph_node);
  expect([nodes.length, new Set(nodes)]).toEqual([3, new Set(["left", "right", "last"])]);
});

test("pieces of one id that cannot be put together are told as messages of their own, and the run goes on", async () => {
  const { frames } = await run("unlike", ["messages", "values"]);
  expect(frames.filter(({ event }) => event === "error")).toEqual([]);
  const inputs = messagesOf(frames, "messages/partial").map(({ content }) => Object(content)[0].input);
  expect([inputs[0], inputs.at(-1)]).toEqual([{ x: 1 }, "text"]);
  expect(frames.at(-1)?.data).toMatchObject({ heard: "both" });
});

test.each([["messages-tuple"], ["messages"], ["messages-tuple", "events"]])(
  "an address that comes in pieces is found in modes %s %s, although another task of its node has ended",
  async (...modes) => {
    const { frames } = await run("shared", modes);
    expect(JSON.stringify(frames)).toContain("[REDACTED_EMAIL]");
    expect(JSON.stringify(frames)).not.toMatch(/@exam|ple\.|org now/);
    expect(frames.filter(({ event }) => event === "tasks")).toEqual([]);
  },
);

const letters = (text: string): string => text.split("").toSorted().join("");

test.each([["messages-tuple"], ["messages-tuple", "events"]])(
  "an answer is told to its last word before its node goes on, and apart from others with its id, in modes %s %s",
  async (...modes) => {
    const { frames } = await run("several", modes);
    const words = messagesOf(frames, "messages").flatMap(({ type, content }) =>
      type === "ai" ? [content] : [],
    );
    const [now, five, the] = ["now", "five", "the "].map((last) =>
      words.findIndex((word) => word.endsWith(last)),
    );
    expect(Math.min(Number(now), Number(five))).toBeGreaterThan(-1);
    expect(the).toBeGreaterThan(Math.max(Number(now), Number(five)));
    expect(words.join("")).toContain("[REDACTED_EMAIL]");
    expect(JSON.stringify(frames)).not.toMatch(/@exam|ple\./);
    expect(letters(words.join(""))).toBe(letters("ask [REDACTED_EMAIL] nowone two three four fivethe end"));
  },
);

test("a stream of mode messages that is resumed anywhere goes on with the same frames", async () => {
  const { frames, threadId, runId } = await run("talking", ["messages", "updates"]);
  for (const last of frames.keys()) {
    const again = held.server.client.runs.joinStream(threadId, runId, { lastEventId: String(last) });
    expect(await collect(again)).toEqual(frames.slice(last + 1));
  }
});

test("joining with one of messages and messages-tuple shows that one only, with the numbers it has", async () => {
  const { frames, threadId, runId } = await run("talking", ["messages", "messages-tuple"]);
  const join = (mode: string): Promise<Frame[]> =>
    collect(
      held.server.client.runs.joinStream(threadId, runId, {
        lastEventId: "-1",
        streamMode: mode as "values",
      }),
    );
  const [first, ...rest] = frames;
  expect(await join("messages")).toEqual([first, ...rest.filter(({ event }) => event.includes("/"))]);
  expect(await join("messages-tuple")).toEqual([first, ...rest.filter(({ event }) => event === "messages")]);
  expect(rest.some(({ event }) => event === "messages")).toBe(true);
});

test("mode tools tells when a tool begins and what it gave", async () => {
  const { frames } = await run("tooled", ["tools"]);
  const tools = frames.filter(({ event }) => event === "tools").map(({ data }) => data);
  expect(tools).toEqual([
    expect.objectContaining({ event: "on_tool_start", name: "double", toolCallId: "call-1" }),
    expect.objectContaining({ event: "on_tool_end", name: "double", toolCallId: "call-1" }),
  ]);
});

test("mode lifecycle tells when each graph in the graph starts and ends, and nothing else of it", async () => {
  const { frames, threadId, runId } = await run("nested", ["lifecycle", "updates"]);
  const told = frames.filter(({ event }) => event.startsWith("lifecycle"));
  const [first] = told as [Frame];
  const [, inner = ""] = first.event.split("|");
  expect(inner).toMatch(/^inner:/);
  expect(told.map(({ event, data }) => [event, data])).toEqual([
    [`lifecycle|${inner}`, { event: "started", namespace: [inner] }],
    [`lifecycle|${inner}`, { event: "completed", namespace: [inner] }],
  ]);
  // Without stream_subgraphs, what else is told is of the graph itself.
  const others = frames.filter((frame) => !told.includes(frame)).map(({ event }) => event);
  expect(new Set(others)).toEqual(new Set(["metadata", "updates"]));
  expect(frames.map(({ id }) => id)).toEqual(frames.map((_, index) => String(index)));
  const only = held.server.client.runs.joinStream(threadId, runId, {
    lastEventId: "-1",
    streamMode: "lifecycle",
  });
  expect(await collect(only)).toEqual([frames[0], ...told]);
});

test("a graph in the graph that fails says so with the error of the run", async () => {
  const { frames } = await run("breaking", ["lifecycle"]);
  expect(frames.slice(1).map(({ event, data }) => [event.split("|")[0], data])).toEqual([
    ["lifecycle", expect.objectContaining({ event: "started" })],
    [
      "lifecycle",
      expect.objectContaining({ event: "failed", error: { error: "RangeError", message: "broken inside" } }),
    ],
    ["error", { error: "RangeError", message: "broken inside" }],
  ]);
});

test("what a node tells before it fails is told, in every way of asking", async () => {
  for (const modes of [
    ["custom"],
    ["custom", "values"],
    ["custom", "updates", "tasks"],
    ["custom", "events"],
  ]) {
    const { frames } = await run("telling", modes);
    const places = frames.filter(({ event }) => event === "custom").map(({ data }) => Object(data).place);
    expect([modes, places.length, places.at(-1)]).toEqual([modes, 100, 100]);
    expect(frames.at(-1)?.event).toBe("error");
    const ended = frames.filter(({ event, data }) => event === "tasks" && "result" in Object(data));
    expect(ended.length).toBe(modes.includes("tasks") ? 1 : 0);
  }
});

test("mode events tells what happens in the graph, not what its stream shows of it, nor what is hidden", async () => {
  const { client } = held.server;
  const { thread_id: threadId } = await client.threads.create();
  const threads = `${held.server.url}/threads/${threadId}`;
  const told: unknown[] = [];
  for (const isFollowed of [false, true]) {
    // What followers of protocol v2 are told is asked of the graph as well.
    const body = JSON.stringify({ channels: ["values"] });
    if (isFollowed) await (await fetch(`${threads}/stream/events`, { method: "POST", body })).body?.cancel();
    const asked = { input, streamMode: ["events", "updates"] as ["events", "updates"] };
    const frames = await collect(client.runs.stream(threadId, "talking", asked));
    expect(frames.filter(({ event }) => event === "updates")).toHaveLength(2);
    const events = frames.filter(({ event }) => event === "events").map(({ data }) => Object(data));
    expect(events.filter(({ tags }) => tags.includes("langsmith:hidden"))).toEqual([]);
    expect(events.filter(({ event, name }) => event === "on_chain_stream" && name === "LangGraph")).toEqual(
      [],
    );
    told.push(events.map(({ event, name }) => [event, name]));
  }
  expect(told[0]).toContainEqual(["on_chat_model_stream", "FakeListChatModel"]);
  expect(told[1]).toEqual(told[0]);
});

const tuplesOf = (frames: Frame[]): [Message, Record<string, unknown>][] =>
  frames
    .filter(({ event }) => event === "messages")
    .map(({ data }) => data as [Message, Record<string, unknown>]);

test("without subgraphs a message of a graph in the graph is told once and whole, whatever else is asked", async () => {
  for (const more of [[], ["values"], ["lifecycle"], ["messages"], ["updates", "values"]]) {
    const { frames } = await run("wrapping", ["messages-tuple", ...more]);
    const told = tuplesOf(frames).map(([{ content }, about]) => [content, about["langgraph_node"]]);
    expect([more, told]).toEqual([more, [["alpha beta", "inner"]]]);
    expect(tuplesOf(frames)[0]?.[1]["langgraph_checkpoint_ns"]).toMatch(/^inner:[\da-f-]{36}$/);
  }
});

test("mode messages tells what models of graphs in the graph say as it comes, also without subgraphs", async () => {
  for (const more of [[], ["values"], ["updates"]]) {
    const { frames } = await run("wrapping", ["messages", ...more]);
    const partials = messagesOf(frames, "messages/partial").map(({ content }) => content);
    expect([more, new Set(partials).size > 1, partials.at(-1)]).toEqual([more, true, "alpha beta"]);
    expect(messagesOf(frames, "messages/complete").map(({ content }) => content)).toEqual([
      "hello",
      "alpha beta",
    ]);
    expect(frames.filter(({ event }) => event.includes("|"))).toEqual([]);
    expect(JSON.stringify(frames)).not.toContain("secret");
  }
});
