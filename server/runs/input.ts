// What a client asked for, in the form that LangGraph takes. What is unset must be absent.
import { Command, Send } from "@langchain/langgraph";
import type { RunKwargs } from "./create.ts";

export function commandOf({ resume, update, goto }: Record<string, unknown>): Command {
  const parts = { resume, update, goto: Array.isArray(goto) ? goto.map(placeOf) : placeOf(goto) };
  const given = Object.entries(parts).filter(([, value]) => value !== undefined && value !== null);
  return new Command(Object.fromEntries(given));
}

/** A node's name, or a node with an input of its own. */
function placeOf(goto: unknown): unknown {
  const { node, input } = asFields(goto);
  return typeof node === "string" ? new Send(node, input) : goto;
}

export function breakpointsOf({ interrupt_before: before, interrupt_after: after }: RunKwargs): object {
  return {
    ...(before === null ? {} : { interruptBefore: before }),
    ...(after === null ? {} : { interruptAfter: after }),
  };
}

export function recursionOf(config: Record<string, unknown>): object {
  const { recursion_limit: limit, max_concurrency: concurrency } = config;
  return {
    ...(limit === undefined ? {} : { recursionLimit: limit }),
    ...(concurrency === undefined ? {} : { maxConcurrency: concurrency }),
  };
}

/** Later ones win; `configurable` is merged key by key. */
export function mergeConfigs(configs: readonly Record<string, unknown>[]): Record<string, unknown> {
  const configurable = Object.assign({}, ...configs.map((config) => asFields(config["configurable"])));
  return Object.assign({}, ...configs, { configurable });
}

/** An object's own fields; none of anything else. */
export const asFields = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null ? { ...value } : {};
