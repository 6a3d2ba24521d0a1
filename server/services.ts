// What the server hands to a graph that runs under it, and what stands in when there is no server.
// It travels in `configurable` under a symbol: LangGraph passes it on to every node and subgraph, and
// never writes it to a checkpoint, because neither metadata nor JSON takes symbols.
import { readConfig } from "./config.ts";
import type { Config } from "./config.ts";

/** A piece of an indexed document; `score` is higher for a better match. */
export interface Passage {
  chunk_id: number;
  source_id: string;
  title: string;
  /** Position of the piece in its document, from 0. */
  ordinal: number;
  score: number;
  body: string;
}

export interface SearchOptions {
  collection?: string;
  limit?: number;
}

export type GraphSettings = Pick<
  Config,
  "model" | "collection" | "passages" | "maxPromptTokens" | "maxOutputTokens" | "modelTimeoutMs" | "messages"
>;

/** A call to a model that is about to be made. */
export interface ComingCall {
  readonly model: string;
  readonly promptTokens: number;
  readonly maxOutputTokens: number;
  /** Whether the call has tools, where the models file asks for it. */
  readonly hasTools?: boolean;
}

/** What happened to a call of a tool. It holds neither arguments nor results. */
export interface ToolEvent {
  readonly action: "tool.called" | "tool.approved" | "tool.rejected" | "tool.answered";
  /** Undefined: the model made a name up. */
  readonly tool: string | undefined;
  readonly callId: string;
  readonly outcome: "done" | "error" | "refused" | "timeout";
  readonly ms?: number;
  /** Of what the model was told instead of a result. */
  readonly code?: string;
}

/** What the server does for the tools of a run. */
export interface ToolServices {
  /** Whether this very run was started with an answer to whatever question is open, not to one by its id. */
  readonly bringsAnswer: boolean;
  /** Adds a line to the audit log. @throws DatabaseUnavailable when the database stays away */
  readonly audit: (event: ToolEvent) => Promise<void>;
  /**
   * Takes one call of those that all servers together may make in a minute. Returns 0, or in how many milliseconds there
   * is something left again.
   * @throws DatabaseUnavailable
   */
  readonly take: (tool: string, perMinute: number) => Promise<number>;
  /** Tells the log of the server why a tool failed: the model is told only that it did. */
  readonly tellFailure: (tool: string, error: unknown) => void;
  /** The way out to addresses that nobody vouches for. */
  readonly egress: Egress;
}

export interface Egress {
  /** @throws WebhookRefused for an address that could never be reached; a name is checked when it is connected to */
  assertPublicUrl(url: string): void;
  /**
   * Sends one request and reads at most `maxBytes` of the answer. A redirect is not followed.
   * @throws WebhookRefused, or whatever went wrong on the way; a redirect too, unless `mayRedirect`
   */
  send(url: string, request: EgressRequest): Promise<EgressAnswer>;
  close(): Promise<void>;
}

export interface EgressRequest {
  readonly method: "GET" | "POST";
  readonly headers: Record<string, string>;
  readonly body?: string;
  readonly timeoutMs: number;
  /** 0: the answer's status is enough, whatever becomes of its body. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
  /** A redirect is an answer like others, with the place it leads to. */
  readonly mayRedirect?: boolean;
}

export interface EgressAnswer {
  readonly status: number;
  readonly body: string;
  readonly contentType: string | undefined;
  /** Where a redirect leads to, as the other side wrote it. */
  readonly location: string | undefined;
}

export interface Services {
  /** Best passages first; none if nothing matches. */
  readonly search: (query: string, options?: SearchOptions) => Promise<Passage[]>;
  readonly settings: GraphSettings;
  /**
   * Reserves what the node that comes next will ask a model for, at its worst case, in every budget it falls under. The
   * run's next call to that model uses it; what no call uses is given back. Absent without the server.
   * @throws BudgetExceeded when a budget has too little left
   */
  readonly reserve?: (call: ComingCall) => Promise<void>;
  /** What of a text may be kept, as the operator has set it for this graph; absent without the server. */
  readonly redact?: (text: string) => string;
  /**
   * The text with what the tokens of this thread stand for, for a call to the outside such as sending a message. Keep what
   * it returns in the node: where it is kept or told, it becomes a token again. Absent without the server.
   */
  readonly reveal?: (text: string) => Promise<string>;
  /** For `runTools`; absent without the server. */
  readonly tools?: ToolServices;
}

/** The key in `config.configurable`. */
export const SERVICES: unique symbol = Symbol.for("holdfast.services");

/** The part of LangGraph's config that is read here. */
export interface ConfigWithServices {
  readonly configurable?: { readonly [SERVICES]?: Services; readonly [key: string]: unknown } | undefined;
}

let warned = false;

/**
 * The services of the server this graph runs under. Without one (LangGraph's own dev server, a script)
 * the settings come from the environment, a search finds nothing, and one line says so.
 * @example const { settings, search } = servicesOf(config);
 * @throws ConfigInvalid without a server, if the environment holds a wrong setting
 */
export function servicesOf(config: ConfigWithServices | undefined): Services {
  const given = config?.configurable?.[SERVICES];
  return given ?? { settings: graphSettings(), search: searchNothing };
}

/** The settings a graph may see. */
export function graphSettings(config: Config = readConfig()): GraphSettings {
  const { model, collection, passages, maxPromptTokens, maxOutputTokens, modelTimeoutMs, messages } = config;
  return { model, collection, passages, maxPromptTokens, maxOutputTokens, modelTimeoutMs, messages };
}

async function searchNothing(): Promise<Passage[]> {
  if (!warned) {
    console.warn("This graph runs without the Holdfast server: no documents are searched.");
  }
  warned = true;
  return [];
}
