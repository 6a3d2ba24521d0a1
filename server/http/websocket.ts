// Protocol v2 over WebSockets: commands in, answers and events out, on one socket for one thread.
import type { IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import type { WebSocket } from "ws";
import { every, sleep } from "../clock.ts";
import { AppError, messageOf } from "../errors.ts";
import type { Authority } from "../runs/auth.ts";
import type { Engine } from "../runs/engine.ts";
import { admit, guardFollowing } from "./auth.ts";
import { threadIdOf } from "./protocol.ts";
import { HTTP_STATUS, Subscriptions } from "./subscriptions.ts";
import type { Watcher } from "./subscriptions.ts";

export interface SocketOptions {
  readonly maxBodyBytes: number;
  readonly corsOrigins: readonly string[];
  readonly heartbeatMs: number;
  readonly authority: Authority | undefined;
}

const PATH = /^\/threads\/([^/]+)\/stream(?:\/events)?$/;
// The close code for who is to come back elsewhere.
const RESTARTS = 1012;
const MOST_REASON = 100;
const CLOSING_MS = 1000;

/** Takes upgrades on the server. The returned function sends everybody away and resolves when they are gone. */
export function serveSockets(server: Server, engine: Engine, options: SocketOptions): () => Promise<void> {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: options.maxBodyBytes });
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on("error", () => undefined); // a client that goes in the middle of it
    const path = PATH.exec(new URL(request.url ?? "/", "http://localhost").pathname);
    if (!path || !isWelcome(request, options)) {
      const status = path ? "403 Forbidden" : "404 Not Found";
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    sockets.handleUpgrade(
      request,
      socket,
      head,
      (open) => void serve(open, { asked: path[1] ?? "", incoming: request }, engine, options),
    );
  });
  return async () => {
    for (const socket of sockets.clients) socket.close(RESTARTS, "The server stops.");
    for (let waited = 0; sockets.clients.size > 0 && waited < CLOSING_MS; waited += 50) await sleep(50);
    for (const socket of sockets.clients) socket.terminate();
    sockets.close();
  };
}

/** A page of another origin may open a socket without asking first, so it is looked at here. */
function isWelcome({ headers }: IncomingMessage, { corsOrigins }: SocketOptions): boolean {
  const { origin } = headers;
  if (origin === undefined || corsOrigins.includes("*") || corsOrigins.includes(origin)) return true;
  return new URL(origin).host === headers.host;
}

async function serve(
  socket: WebSocket,
  request: { readonly asked: string; readonly incoming: IncomingMessage },
  engine: Engine,
  options: SocketOptions,
): Promise<void> {
  socket.on("error", (error) => engine.log.debug("socket.failed", { reason: messageOf(error) }));
  // Whatever the client says before it was let in waits.
  socket.pause();
  let watcher: Watcher;
  try {
    watcher = await watcherOf(request, engine, options);
  } catch (error) {
    if (!(error instanceof AppError)) engine.log.error("socket.refused", { reason: messageOf(error) });
    const status = error instanceof AppError ? error.status : 500;
    socket.resume();
    socket.close(HTTP_STATUS + status, messageOf(error).slice(0, MOST_REASON));
    return;
  }
  const subscriptions = new Subscriptions(engine, watcher, socket);
  const stopBeating = beat(socket, options.heartbeatMs);
  socket.on("message", (data, isBinary) => {
    // Buffers in one piece, as this server is set up.
    if (!isBinary) subscriptions.hear((data as Buffer).toString("utf8"));
  });
  socket.on("close", () => {
    stopBeating();
    subscriptions.close();
  });
  socket.resume();
}

async function watcherOf(
  { asked, incoming }: { readonly asked: string; readonly incoming: IncomingMessage },
  engine: Engine,
  { authority }: SocketOptions,
): Promise<Watcher> {
  const threadId = threadIdOf(decoded(asked));
  const headers = Object.entries(incoming.headers).flatMap(([name, value]): [string, string][] =>
    [value ?? []].flat().map((one) => [name, one]),
  );
  const url = new URL(incoming.url ?? "/", `http://${incoming.headers.host ?? "localhost"}`);
  const context = await admit(authority, new Request(url, { headers }));
  return { threadId, context, mayFollow: await guardFollowing({ engine, context }, threadId) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // refused as no thread's name
  }
}

/** Asks now and then whether the client is there; one that has not said so since the time before is cut off. */
function beat(socket: WebSocket, everyMs: number): () => void {
  let isThere = true;
  socket.on("pong", () => (isThere = true));
  return every(everyMs * 4, () => {
    if (!isThere) socket.terminate();
    isThere = false;
    socket.ping();
  });
}
