// What a client asked for, in the form that LangGraph takes. What is unset must be absent.
import { isDeepStrictEqual } from "node:util";
import { Command, Send } from "@langchain/langgraph";
import { asFields } from "../fields.ts";
import type { Fields } from "../fields.ts";
import type { RunAuth } from "../storage/runs.ts";
import type { Graph } from "./graph/graph.ts";
import type { RunKwargs } from "./request.ts";

export function commandOf({ resume, update, goto }: Fields): Command {
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

export function recursionOf(config: Fields): object {
  const { recursion_limit: limit, max_concurrency: concurrency } = config;
  return {
    ...(limit === undefined ? {} : { recursionLimit: limit }),
    ...(concurrency === undefined ? {} : { maxConcurrency: concurrency }),
  };
}

// Where LangGraph (1.7.3) keeps what a graph declares of its context.
const DECLARED = "_configRuntimeSchema";

/**
 * The context of a run, which a graph reads without asking whether there is one. Where none is given and the graph declares
 * that one has to be, LangGraph looks for it in `configurable`, as graphs did before there were contexts.
 */
export function contextOf({ builder }: Graph, context: Fields): { context?: Fields } {
  const declared: unknown = Object(builder)[DECLARED];
  const isAsked = declared instanceof Object && "safeParse" in declared && Object.keys(context).length === 0;
  const fits = !isAsked || Object(Object(declared).safeParse(context)).success === true;
  return fits ? { context } : {};
}

/** Later ones win; `configurable` is merged key by key. */
export function mergeConfigs(configs: readonly Fields[]): Fields {
  const configurable = Object.assign({}, ...configs.map((config) => asFields(config["configurable"])));
  return Object.assign({}, ...configs, { configurable });
}

// Who asked for a run, under the official names. Nobody but the server may say so.
const AUTH_FIELDS = new Set(["langgraph_auth_user", "langgraph_auth_user_id", "langgraph_auth_permissions"]);

/** A configuration that says who asked, and nothing that a client put in the place of that. */
export function askedBy(auth: RunAuth | null | undefined, config: Fields): Fields {
  const configurable = Object.entries(asFields(config["configurable"]));
  const said = Object.fromEntries(configurable.filter(([key]) => !AUTH_FIELDS.has(key)));
  return { ...config, configurable: auth ? { ...said, ...authFields(auth) } : said };
}

/** What a run's configuration says of the run alone, and not of others on its thread. */
const OF_ONE_RUN = new Set([
  "run_id",
  "thread_id",
  "graph_id",
  "assistant_id",
  "checkpoint_id",
  "checkpoint_ns",
  "checkpoint_map",
]);

/**
 * What the runs of a thread are configured with after one more: what it brings holds for those that come later too, unless
 * they bring something else. A client that answers a question need not say again which model it wants.
 * @returns undefined when nothing changes
 */
export function lastingConfig(before: Fields, { configurable }: Fields): Fields | undefined {
  const said = asFields(before["configurable"]);
  const kept = Object.entries(asFields(configurable)).filter(
    ([name]) => !OF_ONE_RUN.has(name) && !AUTH_FIELDS.has(name) && !name.startsWith("__"),
  );
  const grown = { ...said, ...Object.fromEntries(kept) };
  return isDeepStrictEqual(grown, said) ? undefined : { ...before, configurable: grown };
}

const authFields = ({ user, permissions }: RunAuth): Fields => ({
  langgraph_auth_user: user,
  langgraph_auth_user_id: user.identity,
  langgraph_auth_permissions: permissions,
});
