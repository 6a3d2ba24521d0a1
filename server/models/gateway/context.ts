// On whose behalf the code that runs right now calls a model. It travels beside the graph, through every node, subgraph
// and library, so that no graph has to hand it on and none can leave it out.
import { AsyncLocalStorage } from "node:async_hooks";
import type { AppError } from "../../errors.ts";
import type { Guard } from "../../privacy/guard.ts";
import type { Caches } from "../../storage/caches/caches.ts";
import type { Payer } from "../../storage/model-calls.ts";
import type { Ahead } from "./spending.ts";

/** One attempt of a run, as far as calls to models are concerned. */
export interface CallContext {
  readonly payer: () => Promise<Payer>;
  readonly graphId: string;
  /** What may be kept beyond the run, and where. */
  readonly guard: Guard;
  readonly caches: Caches;
  /** Ends the attempt with an error that its code let nobody catch. */
  readonly fail: (error: unknown) => void;
  /** Nodes that were not executed, because what they write was cached. */
  nodeHits: number;
  /** Makes the calls that the attempt's code would make. */
  readonly call: (request: CallRequest, context: CallContext) => Promise<Response>;
  /** Reserved for calls that are about to come. */
  readonly ahead: Ahead[];
  /** Resolves when what the run has told so far can be seen. */
  readonly shown: () => Promise<void>;
  /** Calls whose answer has not begun: whoever waits for one may wait as long as it is tried. */
  pending: number;
  /** What is settled of calls under a budget whose reader has left: it may give back what the next call needs. */
  readonly leaving: Set<Promise<void>>;
  /** Why the last call was refused here, in words that may be told: clients of providers tell only a status. */
  refusal: AppError | undefined;
}

/** A request to a provider, as fetch got it. */
export interface CallRequest {
  readonly url: string;
  readonly init: RequestInit;
  readonly body: string;
}

const contexts = new AsyncLocalStorage<CallContext>();
const nodes = new AsyncLocalStorage<string>();

/** Does `work`, and all that it begins, on behalf of a run. */
export const onBehalfOf = <T>(context: CallContext, work: () => T): T => contexts.run(context, work);

export const callContext = (): CallContext | undefined => contexts.getStore();

/** What goes on after a reader has left is part of the attempt. */
export function noteLeaving({ leaving }: CallContext, work: Promise<void>): void {
  const noted = work.catch(() => undefined).finally(() => leaving.delete(noted));
  leaving.add(noted);
}

/** Does `work` as the code of a node. */
export const atNode = <T>(name: string, work: () => T): T => nodes.run(name, work);

/** The node whose code runs. LangGraph's own storage forgets it while a model's answer is streamed. */
export const currentNode = (): string | undefined => nodes.getStore();

/** What was refused here, if that is what a client of a provider reports; else what it reports. */
export function refusalBehind(error: unknown): unknown {
  const refusal = callContext()?.refusal;
  if (!refusal || !(error instanceof Error) || error === refusal) return error;
  const isOurs = "code" in error && error.code === refusal.code;
  // Not every client keeps the code of an answer, and libraries wrap what clients throw: they all keep its words.
  return isOurs || error.message.includes(refusal.message) ? refusal : error;
}
