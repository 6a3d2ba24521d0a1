// The API described: the OpenAPI document for programs, and a page on it for people. The page's script is a file of this
// package, and its policy lets it talk to this server only.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { Hono } from "hono";
import { documentOf } from "../described/openapi.ts";
import type { Bindings } from "../bindings.ts";

// The published file dist/browser/standalone.js of @scalar/api-reference, compressed.
const SCALAR_VERSION = "1.72.1";
const SCALAR_FILE = join(import.meta.dirname, "scalar", "standalone.js.gz");

const unpacked = promisify<Buffer, Buffer<ArrayBuffer>>(gunzip);

// Nothing from elsewhere: neither fonts nor a proxy for requests, no assistant, no count of visitors.
const START = `Scalar.createApiReference("#api", ${JSON.stringify({
  url: "openapi.json",
  withDefaultFonts: false,
  telemetry: false,
  showDeveloperTools: "never",
  hideClientButton: true,
  agent: { disabled: true, hideAddApi: true },
  mcp: { disabled: true },
})});`;

// Addresses are relative, so that the page also works below a path of a proxy.
const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Holdfast API</title>
<link rel="icon" href="data:,">
</head>
<body>
<div id="api"></div>
<noscript>This page needs JavaScript. The document itself is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/scalar.js?v=${SCALAR_VERSION}"></script>
<script>${START}</script>
</body>
</html>
`;

const PAGE_HEADERS = {
  "content-security-policy": [
    "default-src 'none'",
    `script-src 'self' 'sha256-${createHash("sha256").update(START).digest("base64")}'`,
    "style-src 'self' 'unsafe-inline'", // the script writes its styles into the page
    "connect-src 'self'",
    "img-src 'self' data:",
    "font-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "cache-control": "no-cache",
};

type Routes = Parameters<typeof documentOf>[0];

/** @param routes those to describe, these among them; asked for when all are there */
export function docsRoutes(routes: () => Routes, { version }: { version: string }): Hono<Bindings> {
  const docs = new Hono<Bindings>();
  // Both are made when they are first asked for: most servers never are.
  let text: string | undefined;
  let script: Buffer<ArrayBuffer> | undefined;
  docs.get("/openapi.json", (context) => {
    text ??= JSON.stringify(documentOf(routes(), version));
    return context.body(text, 200, { "content-type": "application/json", "cache-control": "no-cache" });
  });
  docs.get("/docs", (context) => context.html(PAGE, 200, PAGE_HEADERS));
  docs.get("/docs/scalar.js", async (context) => {
    script ??= await readFile(SCALAR_FILE);
    const isPacked = /\bgzip\b/.test(context.req.header("accept-encoding") ?? "");
    return context.body(isPacked ? script : await unpacked(script), 200, {
      "content-type": "text/javascript; charset=utf-8",
      // The version stands in the address.
      "cache-control": "public, max-age=31536000, immutable",
      "x-content-type-options": "nosniff",
      vary: "Accept-Encoding",
      ...(isPacked ? { "content-encoding": "gzip" } : {}),
    });
  });
  return docs;
}
