// Components that graphs bring along for web pages: what LoadExternalComponent of the official client asks for.
import { createHash } from "node:crypto";
import { extname } from "node:path";
import { Hono } from "hono";
import type { Context } from "hono";
import { getMimeType } from "hono/utils/mime";
import { isUuid } from "../../ids.ts";
import { getAssistant } from "../../runs/assistants.ts";
import type { Engine } from "../../runs/engine.ts";
import { guardAssistant } from "../callers/auth.ts";
import { readBody } from "../edge/ingress.ts";
import { check, componentAsked } from "../schemas.ts";
import type { Bindings } from "../bindings.ts";
import type { UiBundles } from "./ui-build.ts";

// Pages load scripts from here over the scheme that they came over themselves; from their own machine, over ours.
const LOCAL = new Set(["localhost", "127.0.0.1", "[::1]"]);

export function uiRoutes(engine: Engine, bundles: UiBundles): Hono<Bindings> {
  const app = new Hono<Bindings>();

  app.post("/ui/:key", async (context) => {
    const asked = context.req.param("key");
    const { name } = check(componentAsked, await readBody(context));
    const key = await keyOf(context, asked);
    const files = bundles.get(key);
    if (!files?.size) return context.text(`UI not found for agent "${asked}"`, 404);
    return context.html(markupOf({ base: baseOf(context.req.url), key, names: [...files.keys()], name }));
  });

  app.get("/ui/:key/:file", (context) => {
    const { key, file } = context.req.param();
    const contents = bundles.get(key)?.get(file);
    if (!contents) return context.text("File not found", 404);
    const etag = `"${createHash("sha256").update(contents).digest("base64url")}"`;
    const headers = { "cache-control": "no-cache", etag };
    if (context.req.header("if-none-match") === etag) return context.body(null, 304, headers);
    const type = getMimeType(file) ?? "text/plain";
    return context.body(contents, 200, { ...headers, "content-type": type });
  });

  /** Who names an assistant by its id means the components of its graph. */
  async function keyOf(context: Context<Bindings>, asked: string): Promise<string> {
    if (bundles.has(asked) || !isUuid(asked)) return asked;
    await guardAssistant({ engine, context }, "read", asked, {});
    return (await getAssistant(engine, asked)).graph_id;
  }

  return app;
}

/** Whether everybody may read this path: a page loads scripts and styles without saying who it is. */
export const isUiFile = (bundles: UiBundles, path: string): boolean => {
  const [, top, key, file, ...rest] = path.split("/");
  return top === "ui" && rest.length === 0 && file !== undefined && bundles.has(key ?? "");
};

/** HTML that loads the files of a bundle and draws one of its components where the client says. */
function markupOf(of: { base: string; key: string; names: readonly string[]; name: string }): string {
  const { base, key, names, name } = of;
  const sources = (suffix: string): string[] =>
    names
      .filter((file) => extname(file) === suffix)
      .map((file) => escaped(`${base}/ui/${encodeURIComponent(key)}/${encodeURIComponent(file)}`));
  const styles = sources(".css").map((source) => `<link rel="stylesheet" href="${source}" />`);
  // Named so by the package that made the bundle. Braces in the component's name could be taken for the client's mark.
  const library = `__LGUI_${key.replaceAll(/[^a-zA-Z0-9]/g, "_")}`;
  const drawn = JSON.stringify(name).replaceAll("{", String.raw`\u007b`);
  const draw = escaped(`${library}.render(${drawn}, "{{shadowRootId}}")`);
  const scripts = sources(".js").slice(0, 1);
  return [...styles, ...scripts.map((source) => `<script src="${source}" onload="${draw}"></script>`)].join(
    "\n",
  );
}

function baseOf(url: string): string {
  const { protocol, hostname, host } = new URL(url);
  return `${LOCAL.has(hostname) ? protocol : ""}//${host}`;
}

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};
const escaped = (text: string): string => text.replaceAll(/[&<>"']/g, (char) => ESCAPES[char] ?? char);
