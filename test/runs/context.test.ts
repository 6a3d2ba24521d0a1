// The context that a graph finds when a run brings one, brings none, or brings it in the old place.
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { expect, test } from "vitest";
import { z } from "zod";
import type { Graph } from "../../server/runs/graph/graph.ts";
import { contextOf } from "../../server/runs/input.ts";

const State = Annotation.Root({ tone: Annotation<unknown>, style: Annotation<unknown> });
type Declared = ConstructorParameters<typeof StateGraph>[1];

const declaring = (context?: Declared): Graph =>
  new StateGraph(State, context)
    .addNode("tell", (_state, config) => ({
      tone: Object(config.context).tone ?? "unset",
      style: config.context === undefined ? config.configurable?.["tone"] : "of its context",
    }))
    .addEdge(START, "tell")
    .addEdge("tell", END)
    .compile() as unknown as Graph;

async function run(
  graph: Graph,
  given: Record<string, unknown>,
  configurable: object = {},
): Promise<unknown> {
  const options = { configurable, streamMode: ["values"], ...contextOf(graph, given) };
  let last: unknown;
  for await (const [, values] of (await graph.stream({}, options)) as AsyncIterable<[string, unknown]>)
    last = values;
  return last;
}

const required = z.object({ tone: z.string() });

test.each([
  ["declares nothing", undefined],
  ["declares what may be missing", z.object({ tone: z.string().optional() })],
  ["declares an annotation", Annotation.Root({ tone: Annotation<string> })],
])("a graph that %s has a context without one being given", async (_how, declared) => {
  expect(await run(declaring(declared), {})).toEqual({ tone: "unset", style: "of its context" });
  expect(await run(declaring(declared), { tone: "warm" })).toMatchObject({ tone: "warm" });
});

test("what a graph says it must have is looked for in the old place too, and missed in none", async () => {
  const graph = declaring(required);
  expect(await run(graph, { tone: "warm" })).toMatchObject({ tone: "warm" });
  expect(await run(graph, {}, { tone: "old" })).toEqual({ tone: "unset", style: "old" });
  await expect(run(graph, {})).rejects.toThrow("expected string");
  await expect(run(graph, { tone: 1 })).rejects.toThrow("expected string");
});
