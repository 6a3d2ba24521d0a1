// How connections end on which no whole request came.
import { once } from "node:events";
import { createServer } from "node:http";
import type { Server } from "node:http";
import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { tendConnections } from "../../server/http/edge/connections.ts";

let server: Server;
let port: number;
beforeAll(async () => {
  server = createServer({ connectionsCheckingInterval: 50 }, (_, response) => response.end("fine"));
  server.headersTimeout = 200;
  tendConnections(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  port = typeof address === "object" && address ? address.port : 0;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

/** What the server says to a client that sends `text` and nothing more. */
async function answerTo(text: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  let heard = "";
  socket.on("data", (chunk: Buffer) => (heard += chunk.toString()));
  if (text) socket.write(text);
  await once(socket, "close", { signal: AbortSignal.timeout(10_000) });
  return heard;
}

test("a connection that was never used is closed without an answer that the next request could take for its own", async () => {
  expect(await answerTo("")).toBe("");
});

test("half a request is answered with 408", async () => {
  expect(await answerTo("GET / HTTP/1.1\r\nhost: here\r\n")).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n/);
});

test("what is no request is answered with 400, too long headers with 431", async () => {
  expect(await answerTo("what?\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
  const long = `GET / HTTP/1.1\r\nhost: here\r\nx: ${"a".repeat(20_000)}\r\n\r\n`;
  expect(await answerTo(long)).toMatch(/^HTTP\/1\.1 431 /);
});
