// How connections end that carry no request. A connection is closed without a word while nothing was sent on it: an
// answer such as 408 would be taken for that of the next request, which clients do not send again.
import { STATUS_CODES } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

// Longer than the idle time of common load balancers, so that they close first and never meet a closing connection.
const KEEP_ALIVE_MS = 65_000;
/** What is wrong with a request that cannot be read. */
const REASONS: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

export function tendConnections(server: Server): void {
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  const answers = new WeakMap<Duplex, ServerResponse>();
  server.on(
    "request",
    ({ socket }: IncomingMessage, answer: ServerResponse) => void answers.set(socket, answer),
  );
  server.on("clientError", (error: Error & { code?: string }, socket: Duplex & { bytesRead?: number }) => {
    const status = REASONS[error.code ?? ""] ?? 400;
    const isUnused = status === 408 && socket.bytesRead === 0;
    const answer = answers.get(socket);
    // It would stand in the middle of the answer to the request before.
    const isAnswering = answer !== undefined && answer.headersSent && !answer.writableFinished;
    if (socket.writable && !isUnused && !isAnswering) {
      socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\n\r\n`);
    }
    socket.destroy();
  });
}
