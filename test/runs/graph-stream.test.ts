// What is read from LangGraph's own generator is what its `stream()` gives, to the last chunk and to the way it ends.
import { AIMessage } from "@langchain/core/messages";
import { FakeListChatModel } from "@langchain/core/utils/testing";
import {
  Annotation,
  END,
  interrupt,
  MemorySaver,
  MessagesAnnotation,
  START,
  StateGraph,
} from "@langchain/langgraph";
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { Pregel } from "@langchain/langgraph/pregel";
import { expect, test, vi } from "vitest";
import type { Graph } from "../../server/runs/graph/graph.ts";
import { streamOf } from "../../server/runs/graph/graph-stream.ts";

const State = Annotation.Root({ ...MessagesAnnotation.spec, n: Annotation<number> });
const model = new FakeListChatModel({ responses: ["one two three"] });

const inner = new StateGraph(State)
  .addNode("speak", async () => {
    let text = "";
    for await (const chunk of await model.stream("say")) text += chunk.text;
    return { messages: [new AIMessage({ id: "said", content: text })] };
  })
  .addEdge(START, "speak")
  .addEdge("speak", END)
  .compile();

const counting = (until: number): Graph =>
  new StateGraph(State)
    .addNode("count", (state, config: LangGraphRunnableConfig) => {
      config.writer?.({ at: state.n });
      return { n: (state.n ?? 0) + 1 };
    })
    .addNode("inner", inner)
    .addNode("ask", () => ({ n: Number(interrupt("go on?")) }))
    .addEdge(START, "inner")
    .addEdge("inner", "count")
    .addConditionalEdges("count", ({ n }) => (n < until ? "count" : "ask"))
    .addEdge("ask", END)
    .compile({ checkpointer: new MemorySaver() }) as unknown as Graph;

interface Seen {
  readonly chunks: unknown[];
  readonly error: string | undefined;
}

async function read(chunks: Promise<AsyncIterable<unknown>>): Promise<Seen> {
  const seen: unknown[] = [];
  try {
    for await (const chunk of await chunks) seen.push(chunk);
  } catch (error) {
    return { chunks: seen, error: String(error) };
  }
  return { chunks: seen, error: undefined };
}

const options = (signal: AbortSignal, more: object = {}) => ({
  signal,
  streamMode: ["values", "updates", "messages", "custom"],
  subgraphs: true,
  configurable: { thread_id: "t" },
  ...more,
});

/** Ids and times differ from run to run. */
const plain = ({ chunks, error }: Seen): unknown => [
  JSON.stringify(chunks).replaceAll(/[\da-f]{8}-[\da-f-]{27}|[\da-f]{32}|run-[\w-]+/g, "<id>"),
  error,
];

const never = new AbortController().signal;
const noLeave = (): void => undefined;
const ours = (graph: Graph, more?: object): Promise<Seen> =>
  read(streamOf(graph, { n: 0 }, options(never, more), noLeave));
const theirs = (graph: Graph, more?: object): Promise<Seen> =>
  read(graph.stream({ n: 0 }, options(never, more)));

test("chunks of nodes, messages, subgraphs and questions are those of stream()", async () => {
  const streamed = vi.spyOn(Pregel.prototype, "stream");
  const seen = await ours(counting(3));
  // The graph inside is asked by LangGraph itself.
  expect(streamed.mock.contexts.filter((graph) => graph !== inner)).toEqual([]);
  expect(seen.chunks.length).toBeGreaterThan(20);
  expect(plain(seen)).toEqual(plain(await theirs(counting(3))));
});

const limited = (at: number): Graph =>
  (counting(99) as unknown as { withConfig(config: object): Graph }).withConfig({ recursionLimit: at });

test("a graph ends at its own recursion limit, at that of the run, or at LangGraph's", async () => {
  for (const [ask, limit] of [
    [() => [ours, theirs].map(async (by) => by(limited(4))), 4],
    [() => [ours, theirs].map(async (by) => by(limited(4), { recursionLimit: 6 })), 6],
    [() => [ours, theirs].map(async (by) => by(counting(99))), 25],
  ] as const) {
    const [mine, upstream] = await Promise.all(ask());
    expect(mine?.error).toContain(`Recursion limit of ${limit} reached`);
    expect(mine?.error).toBe(upstream?.error);
  }
});

test("the last values before the limit are told", async () => {
  const graph = counting(99);
  const { chunks, error } = await ours(graph, { recursionLimit: 5, version: "v2", durability: "sync" });
  expect(error).toContain("Recursion limit of 5 reached");
  const { values } = await graph.getState({ configurable: { thread_id: "t" } });
  const told = (chunks as [string[], string, object][]).findLast(([ns, mode]) => !ns[0] && mode === "values");
  expect(told?.[2]).toMatchObject({ n: values.n });
  expect(values.n).toBe(4);
});

test("what the input or a node refuses ends it", async () => {
  const failing = new StateGraph(State)
    .addNode("fail", () => Promise.reject(new Error("no such luck")))
    .addEdge(START, "fail")
    .compile() as unknown as Graph;
  expect(plain(await ours(failing))).toEqual(plain(await theirs(failing)));
  expect((await ours(failing)).error).toBe("Error: no such luck");
  expect((await ours(counting(1), { recursionLimit: 0 })).error).toContain("must be at least 1");
});

const hanging = (onAbort: () => void): Graph =>
  new StateGraph(State)
    .addNode("hang", async (_state, config: LangGraphRunnableConfig) => {
      config.signal?.addEventListener("abort", onAbort);
      config.writer?.("hangs");
      await new Promise(() => undefined); // deaf to the signal
    })
    .addEdge(START, "hang")
    .compile() as unknown as Graph;

test("an abort ends it with its reason at once, although a node hangs", async () => {
  const controller = new AbortController();
  let told = 0;
  const reading = read(
    (async () => {
      const chunks = await streamOf(
        hanging(() => (told += 1)),
        { n: 0 },
        options(controller.signal),
        noLeave,
      );
      return (async function* () {
        for await (const chunk of chunks) {
          yield chunk;
          if (JSON.stringify(chunk).includes("hangs")) controller.abort(new Error("enough"));
        }
      })();
    })(),
  );
  expect((await reading).error).toBe("Error: enough");
  expect(told).toBe(1);
  expect((await read(streamOf(counting(1), { n: 0 }, options(controller.signal), noLeave))).error).toBe(
    "Error: enough",
  );
});

test("a graph is told when nobody reads on", async () => {
  const controller = new AbortController();
  let told = 0;
  const graph = hanging(() => (told += 1));
  const chunks = await streamOf(graph, { n: 0 }, options(controller.signal), () => controller.abort());
  for await (const chunk of chunks) if (JSON.stringify(chunk).includes("hangs")) break;
  expect(told).toBe(1);
});

test("a graph with a stream() of its own is asked by it", async () => {
  const graph = counting(1);
  graph.stream = async () => ["its own"] as unknown as AsyncIterable<unknown>;
  expect((await ours(graph)).chunks).toEqual(["its own"]);
});
