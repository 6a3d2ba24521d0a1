// A web server on loopback with a few pages, which notes what it was asked for.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** A content type and a body; a number and a place is a redirect; nothing is never answered. */
type Page = readonly [string, string | Uint8Array] | readonly [number, string] | undefined;

export interface Pages {
  readonly url: string;
  readonly asked: string[];
  stop(): Promise<void>;
}

export async function startPages(pages: Record<string, Page>): Promise<Pages> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url ?? "";
    asked.push(path);
    const [kind, body] = pages[path] ?? [];
    if (!Object.hasOwn(pages, path)) response.writeHead(404).end("gone");
    else if (typeof kind === "number") response.writeHead(kind, { location: String(body) }).end();
    else if (kind !== undefined) response.writeHead(200, { "content-type": kind }).end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // a TCP server has one with a port
  return {
    url: `http://127.0.0.1:${port}`,
    asked,
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
