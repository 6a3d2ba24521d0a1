// What a browser test needs: the page, built as a user's would be and served from an origin of its own; and Chromium.
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { chromium } from "playwright-core";
import type { Browser } from "playwright-core";
import { build } from "vite";

const TYPES: Readonly<Record<string, string>> = { ".html": "text/html", ".js": "text/javascript" };

export interface Site {
  readonly url: string;
  stop(): Promise<void>;
}

/** Builds the page and serves it. */
export async function startSite(): Promise<Site> {
  const root = join(import.meta.dirname, "page");
  const outDir = await mkdtemp(join(tmpdir(), "holdfast-page-"));
  await build({
    root,
    configFile: false,
    logLevel: "error",
    build: {
      outDir,
      emptyOutDir: true,
      chunkSizeWarningLimit: 4000,
      rolldownOptions: { input: ["index.html", "protocol.html"].map((page) => join(root, page)) },
    },
  });
  const server = createHttpServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const path = pathname === "/" ? "/index.html" : pathname;
    readFile(join(outDir, path)).then(
      (body) => response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/plain" }).end(body),
      () => response.writeHead(404).end(),
    );
  });
  const url = await listen(server);
  const stop = async (): Promise<void> => {
    server.closeAllConnections();
    await closed(server);
    await rm(outDir, { recursive: true });
  };
  return { url, stop };
}

/** Debian's Chromium, or the Chrome of build machines. */
export const startBrowser = (): Promise<Browser> =>
  chromium.launch({
    executablePath: existsSync("/usr/bin/chromium") ? "/usr/bin/chromium" : "/usr/bin/google-chrome",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });

async function listen(server: Server): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  // A listening TCP server has an address with a port.
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function closed(server: Server): Promise<void> {
  server.close();
  await once(server, "close");
}
