// A small OpenAI-compatible server on loopback: what answers when there is no key, and what tests talk to.
// A client cannot tell it from any other endpoint. Bodies are bounded; stop() ends every open answer.
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { z } from "zod";
import { ResourceTaken } from "../../errors.ts";
import { chatRequest, sendChat, turnsOf, untilAborted } from "./chat.ts";
import type { ChatRequest } from "./chat.ts";
import { embed, embeddingsRequest } from "./embeddings.ts";
import { scriptFor } from "./scripts.ts";
import type { Scripts } from "./scripts.ts";
import { toolScript } from "./tools.ts";

const MAX_BODY_BYTES = 33_554_432;
const NATURAL_DELAY_MS = 5;
const MODELS = ["offline-extractive"];

export interface OfflineModelOptions {
  /** 0, the default, takes a free one. */
  port?: number;
  /** Pause between two words of an answer in milliseconds; 5 by default. */
  delayMs?: number;
  /** Asked before the shipped scripts. */
  scripts?: Scripts;
  /** Told of every chat call; `call.aborted` turns true if its client leaves before the end. */
  onCall?: (call: ModelCall) => void;
}

export interface ModelCall {
  readonly model: string;
  readonly body: ChatRequest;
  readonly authorization: string | undefined;
  /** The client's own name for it. */
  readonly requestId: string | undefined;
  /** What of the answer was sent so far: what a provider would bill. */
  said: string;
  aborted: boolean;
}

export interface OfflineModel {
  /** Base URL for OPENAI_BASE_URL, with `/v1`. */
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts the server. @throws ResourceTaken if the port is in use */
export async function startOfflineModel(options: OfflineModelOptions = {}): Promise<OfflineModel> {
  const stopped = new AbortController();
  const server = createServer((request, response) => {
    void answer({ request, response, options, stopped: stopped.signal });
  });
  server.listen(options.port ?? 0, "127.0.0.1");
  try {
    await once(server, "listening");
  } catch (error) {
    throw new ResourceTaken(`Port ${options.port} for the offline model is taken. Choose another one.`, {
      cause: error,
    });
  }
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return {
    url: `http://127.0.0.1:${port}/v1`,
    stop: async () => {
      stopped.abort();
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly options: OfflineModelOptions;
  readonly stopped: AbortSignal;
}

async function answer(exchange: Exchange): Promise<void> {
  const { request, response } = exchange;
  try {
    const route = `${request.method} ${new URL(request.url ?? "/", "http://localhost").pathname}`;
    if (route === "GET /v1/models") return sendJson(response, models());
    if (route === "POST /v1/embeddings") {
      return sendJson(response, await embed(embeddingsRequest.parse(await bodyOf(request))));
    }
    if (route === "POST /v1/chat/completions") return await chat(exchange);
    sendError(response, 404, { code: "unknown_url", message: `Unknown request URL: ${route}.` });
  } catch (error) {
    // The client is gone, or the request is not what the route takes; the server itself goes on.
    if (response.headersSent || response.destroyed) response.destroy();
    else if (error instanceof BodyRefused) sendError(response, error.status, { code: error.code });
    else if (error instanceof z.ZodError) sendError(response, 400, { code: "invalid_request_error" });
    else sendError(response, 500, { code: "server_error" });
  }
}

async function chat({ request, response, options, stopped }: Exchange): Promise<void> {
  const gone = new AbortController();
  const body = chatRequest.parse(await bodyOf(request));
  const { authorization, "x-client-request-id": requestId } = request.headers;
  const call: ModelCall = {
    model: body.model,
    body,
    authorization,
    requestId: String(requestId ?? "") || undefined,
    said: "",
    aborted: false,
  };
  options.onCall?.(call);
  const turns = turnsOf(body);
  const script =
    options.scripts?.(body.model, turns) ?? toolScript(body, turns) ?? scriptFor(body.model, turns);
  response.once("close", () => {
    call.aborted = !response.writableEnded && script.ending !== "cut";
    gone.abort();
  });
  const signal = AbortSignal.any([gone.signal, stopped]);
  if (script.isSilent) return untilAborted(signal);
  if (script.refusal) return sendError(response, script.refusal.status, script.refusal);
  const onSaid = (text: string): void => {
    call.said += text;
  };
  const delayMs = options.delayMs ?? NATURAL_DELAY_MS;
  await sendChat(response, { request: body, script, delayMs, signal, onSaid });
}

class BodyRefused extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string) {
    super(code);
    this.status = status;
    this.code = code;
  }
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  // Without an encoding set, a request yields buffers.
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new BodyRefused(413, "request_too_large");
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    // The parser's message would repeat the body; the code says enough.
    throw new BodyRefused(400, "invalid_json");
  }
}

const models = (): object => ({
  object: "list",
  data: MODELS.map((id) => ({ id, object: "model", created: 0, owned_by: "holdfast" })),
});

function sendJson(response: ServerResponse, body: object): void {
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
}

interface Refusal {
  readonly code: string;
  readonly message?: string;
  readonly headers?: Record<string, string>;
}

function sendError(response: ServerResponse, status: number, { code, message, headers }: Refusal): void {
  const error = { message: message ?? code, type: code, param: null, code };
  response
    .writeHead(status, { "content-type": "application/json", ...headers })
    .end(JSON.stringify({ error }));
}
