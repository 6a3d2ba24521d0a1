import { MemorySaver, START, StateGraph, StateSchema } from "@langchain/langgraph";
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { afterEach, expect, test, vi } from "vitest";
import { z } from "zod";
import { SERVICES, graphSettings, servicesOf } from "../server/services.ts";
import type { Services } from "../server/services.ts";

afterEach(() => vi.restoreAllMocks());

test("a graph without a server has settings, finds nothing, and says so once", async () => {
  const warn = vi.spyOn(console, "warn").mockReturnValue();
  vi.resetModules(); // as in a process in which nobody has searched yet
  const fresh = await import("../server/services.ts");
  const { settings, search } = fresh.servicesOf({ configurable: { thread_id: "t" } });
  expect(settings).toEqual(graphSettings());
  expect(await search("anything", {})).toEqual([]);
  expect(await fresh.servicesOf(undefined).search("anything", {})).toEqual([]);
  expect(warn).toHaveBeenCalledTimes(1);
});

test("the server's services reach every node and subgraph, and no checkpoint", async () => {
  const services: Services = { settings: graphSettings(), search: async () => [] };
  const seen: boolean[] = [];
  const look = (_state: object, config: LangGraphRunnableConfig): object => {
    seen.push(servicesOf(config) === services);
    return { x: "done" };
  };
  const Schema = new StateSchema({ x: z.string().default("") });
  const inner = new StateGraph(Schema).addNode("inside", look).addEdge(START, "inside").compile();
  const outer = new StateGraph(Schema)
    .addNode("look", look)
    .addNode("inner", inner)
    .addNode("call", async (_state, config) => inner.invoke({ x: "called" }, config))
    .addEdge(START, "look")
    .addEdge("look", "inner")
    .addEdge("inner", "call")
    .compile({ checkpointer: new MemorySaver() });
  const config = { configurable: { thread_id: "t", [SERVICES]: services } };
  await outer.invoke({ x: "" }, config);
  expect(seen).toEqual([true, true, true]);
  const { metadata, config: stored } = await outer.getState({ configurable: { thread_id: "t" } });
  expect(JSON.stringify([metadata, stored])).not.toContain("settings");
});
