// Who may open a WebSocket: the same middleware decides as for any request, and nothing that comes in this way can hurt.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { makeProject } from "../support/project.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

let scratch: TestDatabase;
let server: TestServer;
beforeAll(async () => {
  scratch = await testDatabase();
  const { folder, path } = makeProject({ http: { app: "./app.mjs:app" } });
  // Middleware as a user writes it: a key in the address, since browsers send no headers with a socket.
  writeFileSync(
    join(folder, "app.mjs"),
    `export const app = { routes: [
       { method: "ALL", path: "/threads/*", handler: async (context, next) =>
         context.req.query("key") === "wrong" ? context.text("Übler Schlüssel: " + "x".repeat(300), 401) : next() },
     ], fetch: () => new Response(null, { status: 404 }) };`,
  );
  server = await startTestServer(scratch.url, {
    HOLDFAST_CONFIG: path,
    HOLDFAST_CORS_ORIGINS: "https://chat.example",
  });
});
afterAll(async () => {
  await server.stop();
  await scratch.close();
});

interface Tried {
  readonly code?: number;
  readonly reason?: string;
  readonly status?: number;
  readonly answer?: unknown;
}

/** Opens a socket and sends a command: how it is closed, which status it was refused with, or what is answered. */
function open(path: string, options: { origin?: string; perMessageDeflate?: boolean } = {}): Promise<Tried> {
  const socket = new WebSocket(server.url.replace("http", "ws") + path, options);
  return new Promise((settle) => {
    socket.on("open", () => socket.send('{"id":1,"method":"state.get","params":{}}'));
    socket.on("message", (data: Buffer) => {
      settle({ answer: JSON.parse(data.toString()) as unknown });
      socket.close();
    });
    socket.on("close", (code, reason) => settle({ code, reason: reason.toString() }));
    socket.on("unexpected-response", (_, response) => settle({ status: response.statusCode ?? 0 }));
    socket.on("error", () => undefined); // told by the others
  });
}

const streamOf = (query = ""): string => `/threads/${randomUUID()}/stream/events${query}`;
const isThere = async (): Promise<void> => expect((await fetch(`${server.url}/ok`)).status).toBe(200);

test("the user's own middleware keeps sockets out too, and what it says reaches the client", async () => {
  expect(await open(streamOf("?key=wrong"))).toEqual({
    code: 4401,
    reason: expect.stringMatching(/^.bler Schl.ssel: x+$/),
  });
  expect(await open(streamOf("?key=right"))).toMatchObject({ answer: { type: "error" } });
});

test("pages of other origins are refused, whatever they call themselves", async () => {
  expect(await open(streamOf(), { origin: "https://evil.example" })).toEqual({ status: 403 });
  expect(await open(streamOf(), { origin: "null" })).toEqual({ status: 403 });
  expect(await open(streamOf(), { origin: "http://" })).toEqual({ status: 403 });
  expect(await open(streamOf(), { origin: "https://chat.example" })).toMatchObject({ answer: { id: 1 } });
  expect(await open(streamOf(), { origin: server.url })).toMatchObject({ answer: { id: 1 } });
  await isThere();
});

test.each(["/", "/threads", "/threads/x/runs", "//", "/threads/%zz/stream/events", "/threads/a b/stream"])(
  "an upgrade of %s does no harm",
  async (path) => {
    const { port } = new URL(server.url);
    const socket = connect(Number(port), "127.0.0.1");
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n` +
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    const [first] = (await once(socket, "data")) as [Buffer];
    socket.destroy();
    expect(first.toString()).toMatch(/^HTTP\/1.1 (101|400|403|404) /);
    await isThere();
  },
);

test("a client that leaves while it is let in, or in the middle of a message, leaves nothing behind", async () => {
  for (let turn = 0; turn < 20; turn += 1) {
    const socket = new WebSocket(server.url.replace("http", "ws") + streamOf());
    socket.on("error", () => undefined);
    if (turn % 2 === 0) socket.on("open", () => socket.terminate());
    else socket.on("open", () => socket.send("{".repeat(1000), () => socket.terminate()));
    await once(socket, "close");
  }
  expect((await fetch(`${server.url}/ready`)).status).toBe(200);
});

test("a thousand commands at once are answered in their order", async () => {
  const socket = new WebSocket(server.url.replace("http", "ws") + streamOf());
  const ids: number[] = [];
  socket.on("message", (data: Buffer) => ids.push((JSON.parse(data.toString()) as { id: number }).id));
  await once(socket, "open");
  const asked = Array.from({ length: 2500 }, (_, id) => id);
  for (const id of asked) socket.send(JSON.stringify({ id, method: "bogus", params: {} }));
  await until(() => ids.length === asked.length, "all answers");
  expect(ids).toEqual(asked);
  socket.close();
});

test("a message that is too large closes its socket alone", async () => {
  const socket = new WebSocket(server.url.replace("http", "ws") + streamOf());
  socket.on("error", () => undefined);
  await once(socket, "open");
  socket.send("x".repeat(20_000_000));
  const [code] = (await once(socket, "close")) as [number];
  expect(code).toBe(1009);
  await isThere();
});

test("a plain GET where sockets are taken says so", async () => {
  const response = await fetch(server.url + streamOf());
  expect([response.status, response.headers.get("x-holdfast-code")]).toEqual([426, "upgrade_required"]);
});
