// Steps of a graph carry their configuration without a trace, and nothing that runs in them can tell.
import { setContextVariable, getContextVariable } from "@langchain/core/context";
import { AsyncLocalStorageProviderSingleton } from "@langchain/core/singletons";
import { RunnableLambda } from "@langchain/core/runnables";
import { BaseTracer } from "@langchain/core/tracers/base";
import { Annotation, END, getConfig, START, StateGraph } from "@langchain/langgraph";
import { afterEach, beforeEach, expect, test } from "vitest";
import { carryPlainly } from "../../server/runs/graph/step-context.ts";

let takeBack: () => void;
beforeEach(() => (takeBack = carryPlainly()));
afterEach(() => takeBack());

interface Trace {
  readonly id?: string;
  readonly tracingEnabled?: boolean;
  createChild(config: object): Trace;
}
const current = (): Trace => AsyncLocalStorageProviderSingleton.getInstance().getStore() as Trace;

const State = Annotation.Root({ said: Annotation<string> });
const graphOf = (node: () => Promise<string>): { invoke(input: object, config: object): Promise<unknown> } =>
  new StateGraph(State)
    .addNode("only", async () => ({ said: await node() }))
    .addEdge(START, "only")
    .addEdge("only", END)
    .compile();
const asked = { configurable: { color: "blue" } };

test("a node's code and what it calls find their configuration", async () => {
  const inner = RunnableLambda.from(() => String(getConfig().configurable?.["color"]));
  const graph = graphOf(async () => `${getConfig().configurable?.["color"]} ${await inner.invoke("")}`);
  expect(await graph.invoke({}, asked)).toEqual({ said: "blue blue" });
});

test("a variable of the context is seen by what runs after it, beside the configuration", async () => {
  const inner = RunnableLambda.from(() => String(getContextVariable("who")));
  const graph = graphOf(async () => {
    setContextVariable("who", "Ada");
    return `${await inner.invoke("")} ${getConfig().configurable?.["color"]}`;
  });
  expect(await graph.invoke({}, asked)).toEqual({ said: "Ada blue" });
});

test("what stands for a trace has none, and a child of it is a whole one", async () => {
  let seen: Trace | undefined;
  await graphOf(async () => {
    seen = current();
    return "";
  }).invoke({}, asked);
  expect(seen?.tracingEnabled).toBe(false);
  expect(seen?.id).toBeUndefined();
  const child = seen?.createChild({ name: "inner" });
  expect(child?.id).toMatch(/^[\da-f-]{36}$/);
  expect(child?.tracingEnabled).toBe(false);
});

test("a tracer among the callbacks is told of every step, as LangChain does it", async () => {
  const names: string[] = [];
  class Noting extends BaseTracer {
    name = "langchain_tracer";
    protected persistRun(): Promise<void> {
      return Promise.resolve();
    }
    override onRunCreate(run: { name: string }): void {
      names.push(run.name);
    }
    getRunTreeWithTracingConfig(): object {
      return { tracingEnabled: true };
    }
  }
  const isTraced = await new Promise<boolean | undefined>((resolve, reject) => {
    graphOf(async () => {
      resolve(current().tracingEnabled);
      return "";
    })
      .invoke({}, { ...asked, callbacks: [new Noting()] })
      .catch(reject);
  });
  expect(names).toContain("only");
  expect(isTraced).toBe(true);
});
