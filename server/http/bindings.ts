// What goes with a request: what the Node server gives, what middleware leaves for routes, and what is sent at its end.
import type { IncomingMessage, ServerResponse } from "node:http";

/** The header of an answer that is sent past the Node server. */
export const SENT_HERE = "x-hono-already-sent";

/** Where a request keeps what its caller is shown instead of tokens. */
export const revealKey = "holdfast.reveal";

/** Who may follow a thread, over a connection that lasts. */
export interface Watcher {
  readonly threadId: string;
  /** Where the caller is known by. */
  readonly context: { get(key: string): unknown };
  /** Looks once more, for a thread that was not there yet. */
  readonly mayFollow: () => Promise<void>;
}

/** What the Node server gives with a request, and what a route leaves to be sent when its headers are known. */
export interface Bindings {
  readonly Bindings: {
    readonly incoming: IncomingMessage;
    readonly outgoing: ServerResponse;
    /** Takes who may open a WebSocket here: the request is for one. */
    welcome?: (watcher: Watcher) => void;
    /** Middleware of the user may want to see bodies: streams then have one. */
    mayBeRewritten?: boolean;
    send?: (answer: Answer | undefined) => void;
    /** The body that the stream had before middleware saw it. */
    body?: ReadableStream<Uint8Array> | null;
  };
}

/** What all middleware has left of the answer to a request for a stream. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** What middleware made of the body; undefined if it let it be. */
  readonly rewritten?: ReadableStream<Uint8Array> | undefined;
}

/** Answers a request. */
export type Fetch = (request: Request, bindings: Bindings["Bindings"]) => Promise<Response>;
