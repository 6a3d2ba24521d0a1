// Tools as a graph defines them: what a model is told of one, who may use it, and how it is called. What a tool declares
// here is all that it can do by itself; every call goes through run.ts.
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { z } from "zod";
import { GraphUnloadable } from "../errors.ts";
import type { Passage, SearchOptions } from "../services.ts";

/** What a tool is given beside its arguments. */
export interface ToolContext {
  /** Aborts when the tool's time is over or the run is stopped: hand it to everything that waits. */
  readonly signal: AbortSignal;
  /** What the model's provider calls the call. Some use the same ids in each answer, and so does an answer from a cache. */
  readonly callId: string;
  /**
   * Names this call among all others, and is the same when the node runs again after a crash or an approval: what makes
   * side effects idempotent. 64 hexadecimal digits.
   */
  readonly idempotencyKey: string;
  /** Best passages of the indexed documents; none without the server. */
  readonly search: (query: string, options?: SearchOptions) => Promise<Passage[]>;
  /**
   * The text of a page of the public internet, between delimiters that it cannot close.
   * @throws ToolError for an address that may not be reached, or a page that cannot be read
   */
  readonly fetchPage: (url: string) => Promise<string>;
  /** That of the node. */
  readonly config: LangGraphRunnableConfig;
}

export interface ToolDefinition<Schema extends z.ZodObject> {
  /** Letters, digits, `_` and `-`, at most 64. Tools of one name share their breaker, rate and figures. */
  readonly name: string;
  /** What it does and when to use it, for the model. */
  readonly description: string;
  readonly schema: Schema;
  /** What the caller of the run must be permitted, looked at when the tool is executed. */
  readonly permission?: string;
  /** Whether runs without a caller, such as those of a server without auth, may use it; true by default. */
  readonly anonymous?: boolean;
  /** Longest time of one call in milliseconds; 15,000 by default. */
  readonly timeoutMs?: number;
  /** Most calls in a minute: of all servers of the database together, or of this process without the server. */
  readonly perMinute?: number;
  /** Whether a person is asked before a call. It must say the same of the same arguments whenever it is asked. */
  readonly approval?: true | ((args: z.output<Schema>) => boolean);
  /** What the caller who answers must be permitted. */
  readonly approvalPermission?: string;
  /** What the model gets to read. */
  readonly run: (args: z.output<Schema>, context: ToolContext) => Promise<string>;
}

/** Arguments that fit a tool. */
export interface Fitting {
  readonly needsApproval: boolean;
  readonly run: (context: ToolContext) => Promise<string>;
}

/** A tool that was defined. */
export interface Tool {
  readonly name: string;
  readonly description: string;
  /** Its arguments as a JSON schema. */
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly permission: string | undefined;
  readonly isAnonymous: boolean;
  readonly timeoutMs: number;
  readonly perMinute: number | undefined;
  readonly approvalPermission: string | undefined;
  /** What a model gave as arguments; a text says what does not fit, without repeating it. */
  readonly read: (args: unknown) => Promise<Fitting | string>;
}

/** A tool in the form of the chat completions API. */
export interface ToolSpec {
  readonly type: "function";
  readonly function: Pick<Tool, "name" | "description" | "parameters">;
}

const NAME = /^[\w-]{1,64}$/;
const TIMEOUT_MS = 15_000;
const MAX_TIMEOUT_MS = 3_600_000;
const MAX_ISSUES = 5;
const MAX_PATH = 60;

/**
 * Defines a tool. Do it once, where the module is loaded.
 * @example
 * const weather = defineTool({
 *   name: "weather",
 *   description: "The weather of a city today.",
 *   schema: z.object({ city: z.string().max(80) }),
 *   run: async ({ city }, { signal }) => (await fetch(urlOf(city), { signal })).text(),
 * });
 * @throws GraphUnloadable for a name or a limit that cannot be
 */
export function defineTool<Schema extends z.ZodObject>(definition: ToolDefinition<Schema>): Tool {
  const { name, description, schema, approval, perMinute, timeoutMs = TIMEOUT_MS, run } = definition;
  if (!NAME.test(name))
    throw new GraphUnloadable("The name of a tool has 1 to 64 letters, digits, _ or -. Rename it.");
  if (!(timeoutMs >= 1 && timeoutMs <= MAX_TIMEOUT_MS))
    throw new GraphUnloadable(`Tool ${name}: timeoutMs is from 1 to ${MAX_TIMEOUT_MS}.`);
  if (perMinute !== undefined && !(Number.isInteger(perMinute) && perMinute >= 1))
    throw new GraphUnloadable(`Tool ${name}: perMinute is a whole number above 0.`);
  const { $schema: _, ...parameters } = z.toJSONSchema(schema, { io: "input" });
  const asks = (args: z.output<Schema>): boolean => {
    if (typeof approval !== "function") return approval === true;
    try {
      return approval(args);
    } catch {
      return true; // what cannot be decided, a person decides
    }
  };
  return {
    name,
    description,
    parameters,
    permission: definition.permission,
    isAnonymous: definition.anonymous ?? true,
    timeoutMs,
    perMinute,
    approvalPermission: definition.approvalPermission,
    read: async (given) => {
      // What a schema transforms or refines with may throw, which is no verdict of zod.
      const parsed = await schema.safeParseAsync(given).catch(() => undefined);
      if (!parsed) return "the arguments: cannot be checked";
      if (!parsed.success) return whatIsWrong(parsed.error.issues);
      const args = parsed.data;
      return { needsApproval: asks(args), run: (context) => run(args, context) };
    },
  };
}

/** What is bound to a chat model: `new ChatOpenAICompletions(…).bindTools(toolSpecs(tools))`. */
export const toolSpecs = (tools: readonly Tool[]): ToolSpec[] =>
  tools.map(({ name, description, parameters }) => ({
    type: "function",
    function: { name, description, parameters },
  }));

/** @throws GraphUnloadable when two have one name */
export function byName(tools: readonly Tool[]): ReadonlyMap<string, Tool> {
  const named = new Map(tools.map((tool) => [tool.name, tool]));
  if (named.size < tools.length)
    throw new GraphUnloadable("Two tools of a graph have the same name. Rename one of them.");
  return named;
}

/** Where it is, and what zod says of it: neither repeats a value. Names that the model made up are left out. */
function whatIsWrong(issues: readonly z.core.$ZodIssue[]): string {
  const told = issues.slice(0, MAX_ISSUES).map((issue) => {
    const place = issue.path.map(String).join(".").slice(0, MAX_PATH) || "the arguments";
    if (issue.code === "unrecognized_keys") return `${place}: unknown fields`;
    return `${place}: ${issue.message.replace(/\.$/, "")}`;
  });
  return told.join("; ");
}
