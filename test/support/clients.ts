// The two official clients that the laws of the wire hold for: the one that Holdfast is built for, and 2.0.0.
// What the second does not know stands in no law for both.
import { Client as Client1 } from "@langchain/langgraph-sdk";
import { Client as Client2 } from "langgraph-sdk-2";
import type { Frame } from "./server.ts";

interface Place {
  readonly thread_id: string;
  readonly run_id: string;
}

interface Asked {
  input?: Record<string, unknown> | null;
  command?: { resume: unknown };
  streamMode?: ("values" | "updates" | "messages-tuple" | "custom")[];
  multitaskStrategy?: "reject" | "enqueue";
  ifNotExists?: "create" | "reject";
  onRunCreated?: (made: { run_id: string; thread_id?: string }) => void;
}

type Stateless = Omit<Asked, "multitaskStrategy" | "ifNotExists">;

/** What the laws ask of a client. */
export interface OfficialClient {
  readonly threads: {
    create(): Promise<{ thread_id: string }>;
    get(threadId: string): Promise<unknown>;
    getState(threadId: string): Promise<{ values: unknown }>;
    getHistory(threadId: string): Promise<unknown>;
    update(threadId: string, payload: { metadata: Record<string, unknown> }): Promise<unknown>;
    updateState(threadId: string, options: { values: Record<string, unknown> }): Promise<unknown>;
    copy(threadId: string): Promise<unknown>;
    delete(threadId: string): Promise<void>;
  };
  readonly runs: {
    create(threadId: string, assistant: string, asked?: Asked): Promise<Place>;
    wait(threadId: string, assistant: string, asked?: Omit<Asked, "streamMode">): Promise<unknown>;
    stream(threadId: null, assistant: string, asked?: Stateless): AsyncGenerator<Frame>;
    stream(threadId: string, assistant: string, asked?: Asked): AsyncGenerator<Frame>;
    joinStream(
      threadId: string | null,
      runId: string,
      options?: { lastEventId?: string },
    ): AsyncGenerator<Frame>;
    join(threadId: string, runId: string): Promise<unknown>;
    list(threadId: string): Promise<Place[]>;
    get(threadId: string, runId: string): Promise<{ status: string }>;
  };
}

interface ClientOptions {
  apiUrl: string;
  defaultHeaders?: Record<string, string>;
  callerOptions?: { fetch?: typeof fetch };
}

export interface Sdk {
  readonly sdk: string;
  /** Retries, reconnects and waits as the client does by default. */
  readonly connect: (options: ClientOptions) => OfficialClient;
}

export const SDKS: readonly Sdk[] = [
  { sdk: "1.15.0", connect: (options) => new Client1({ apiKey: null, ...options }) },
  { sdk: "2.0.0", connect: (options) => new Client2({ apiKey: null, ...options }) },
];
