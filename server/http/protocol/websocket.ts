// Protocol v2 over WebSockets: commands in, answers and events out, on one socket for one thread. Whether a client may open
// one is for the app to say, as for any request: with its middleware, the user's own included.
import { ServerResponse } from "node:http";
import type { IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import type { WebSocket } from "ws";
import { every, sleep } from "../../clock.ts";
import { messageOf } from "../../errors.ts";
import type { Engine } from "../../runs/engine.ts";
import type { Fetch } from "../bindings.ts";
import { hostReader } from "../callers/address.ts";
import type { Policy } from "../edge/cors.ts";
import type { Watcher } from "../bindings.ts";
import { HTTP_STATUS, Subscriptions } from "./subscriptions.ts";

export interface SocketOptions {
  readonly maxBodyBytes: number;
  readonly heartbeatMs: number;
  readonly cors: Policy;
  readonly trustedProxies: readonly string[];
}

// The specification names the shorter path, the official client calls the longer one.
const PATH = /^(\/threads\/[^/]+\/stream)(?:\/events)?$/;
// The close code for who is to come back elsewhere.
const RESTARTS = 1012;
const MOST_REASON = 120;
const CLOSING_MS = 1000;
const POLL_MS = 50;

/** Takes upgrades on the server. The returned function sends everybody away and resolves when they are gone. */
export function serveSockets(
  server: Server,
  app: Fetch,
  engine: Engine,
  options: SocketOptions,
): () => Promise<void> {
  const hostOf = hostReader(options.trustedProxies);
  const sockets = new WebSocketServer({ noServer: true, maxPayload: options.maxBodyBytes });
  server.on("upgrade", (incoming: IncomingMessage, connection: Duplex, head: Buffer) => {
    connection.on("error", () => undefined); // a client that goes in the middle of it
    const url = urlOf(incoming);
    const path = url && PATH.exec(url.pathname)?.[1];
    const isOwn = isOfHost(incoming.headers.origin, hostOf(incoming));
    if (!path || !(isOwn || isWelcome(incoming, options.cors))) {
      const status = path ? "403 Forbidden" : "404 Not Found";
      connection.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    url.pathname = `${path}/events`;
    // A refusal is told on an open socket: browsers show scripts nothing of one before.
    sockets.handleUpgrade(incoming, connection, head, (socket) => {
      socket.on("error", (error) => engine.log.debug("socket.failed", { reason: messageOf(error) }));
      // Whatever the client says before it was let in waits.
      socket.pause();
      void admitted(app, url, incoming, isOwn || options.cors.hasCredentials)
        .then((answer) =>
          answer instanceof Response ? refuse(socket, answer) : serve(socket, answer, engine, options),
        )
        .catch((error: unknown) => {
          engine.log.error("socket.refused", { reason: messageOf(error) });
          socket.terminate();
        });
    });
  });
  return async () => {
    for (const socket of sockets.clients) socket.close(RESTARTS, "The server stops.");
    for (let waited = 0; sockets.clients.size > 0 && waited < CLOSING_MS; waited += POLL_MS)
      await sleep(POLL_MS);
    for (const socket of sockets.clients) socket.terminate();
    sockets.close();
  };
}

function urlOf({ url = "/", headers }: IncomingMessage): URL | undefined {
  return URL.parse(url, `http://${headers.host ?? "localhost"}`) ?? undefined;
}

/** A page of another origin may open a socket without asking first, so it is looked at here. */
const isWelcome = ({ headers: { origin } }: IncomingMessage, { isAllowed }: Policy): boolean =>
  origin === undefined || !isAllowed || isAllowed(origin);

const isOfHost = (origin: string | undefined, host: string | undefined): boolean =>
  origin === undefined || URL.parse(origin)?.host === host;

/** What a browser adds by itself to what a page of another origin asks counts only where it may be used so. */
function isUsable(name: string, value: string, mayUse: boolean): boolean {
  return mayUse || !(name === "cookie" || (name === "authorization" && /^basic /i.test(value)));
}

/**
 * Who is let in, or what the app answers instead.
 * @param mayUse whether what a browser adds by itself counts
 */
async function admitted(
  app: Fetch,
  url: URL,
  incoming: IncomingMessage,
  mayUse: boolean,
): Promise<Watcher | Response> {
  const headers = Object.entries(incoming.headers).flatMap(([name, value]): [string, string][] =>
    [value ?? []]
      .flat()
      .filter((one) => isUsable(name, one, mayUse))
      .map((one) => [name, one]),
  );
  let watcher: Watcher | undefined;
  const welcome = (given: Watcher): void => void (watcher = given);
  const outgoing = new ServerResponse(incoming); // takes headers, and is never sent
  const answer = await app(new Request(url, { headers }), { incoming, outgoing, welcome });
  return answer.ok && watcher ? watcher : answer;
}

async function refuse(socket: WebSocket, answer: Response): Promise<void> {
  const text = (await answer.text()).replaceAll(/[^\x20-\x7e]/g, " ").slice(0, MOST_REASON);
  socket.resume();
  // What is answered instead of a welcome is no success either.
  socket.close(HTTP_STATUS + (answer.ok ? 403 : answer.status), text);
}

function serve(socket: WebSocket, watcher: Watcher, engine: Engine, options: SocketOptions): void {
  if (socket.readyState !== socket.OPEN) return; // gone meanwhile
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
