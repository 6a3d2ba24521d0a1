// Pages of the public internet for tools. The address may come from a model that was told it by a hostile text: every hop
// goes through the egress that reaches nothing private, and no error says more than that it was not let through.
import { WebhookRefused } from "../errors.ts";
import { openEgress } from "../models/egress.ts";
import { readHtml } from "../retrieval/html.ts";
import { passageText } from "../retrieval/passage-text.ts";
import type { Egress, EgressAnswer } from "../services.ts";
import { ToolError } from "./failure.ts";

const MAX_URL = 2000;
const MAX_BYTES = 1_000_000;
const MAX_TEXT = 40_000;
const MAX_REDIRECTS = 3;
const HOP_MS = 10_000;
const HEADERS = { accept: "text/html, text/plain, application/json", "user-agent": "holdfast" };

const refused = (): ToolError =>
  new ToolError("url_refused", "This address may not be fetched. Only public http and https pages may.");
const unreachable = (cause?: unknown): ToolError =>
  new ToolError("page_unreachable", "The page could not be fetched.", { cause });

let own: Egress | undefined;

/**
 * @param egress the server's way out; without it one that reaches what is public
 * @param signal bounds every fetch
 */
export const pageReader =
  (egress: Egress | undefined, signal: AbortSignal) =>
  async (url: string): Promise<string> => {
    const { at, answer } = await follow(egress ?? (own ??= openEgress()), sanitised(url), signal);
    const { text, title } = await textOf(answer, signal);
    const body = text.slice(0, MAX_TEXT).toWellFormed();
    return passageText({ source: at, title, body: text.length > MAX_TEXT ? `${body}\n[cut]` : body }, 1);
  };

/** As it is sent. @throws ToolError for what is no plain web address */
function sanitised(text: string, base?: string): string {
  const url = text.length <= MAX_URL ? URL.parse(text, base) : null;
  if (!url || !["http:", "https:"].includes(url.protocol) || url.username || url.password) throw refused();
  url.hash = "";
  if (url.href.length > MAX_URL) throw refused();
  return url.href;
}

async function follow(
  egress: Egress,
  url: string,
  signal: AbortSignal,
): Promise<{ at: string; answer: EgressAnswer }> {
  let at = url;
  for (let hops = 0; hops <= MAX_REDIRECTS; hops += 1) {
    const answer = await get(egress, at, signal);
    if (answer.status >= 200 && answer.status < 300) return { at, answer };
    if (answer.status < 300 || answer.status >= 400 || answer.location === undefined)
      throw new ToolError("page_unreachable", `The page answered with HTTP ${answer.status}.`);
    at = sanitised(answer.location, at);
  }
  throw new ToolError("page_unreachable", `The page redirects more than ${MAX_REDIRECTS} times.`);
}

async function get(egress: Egress, url: string, signal: AbortSignal): Promise<EgressAnswer> {
  try {
    const how = { timeoutMs: HOP_MS, maxBytes: MAX_BYTES, signal, mayRedirect: true };
    return await egress.send(url, { method: "GET", headers: HEADERS, ...how });
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof WebhookRefused ? refused() : unreachable(error);
  }
}

async function textOf(
  { contentType = "", body }: EgressAnswer,
  signal: AbortSignal,
): Promise<{ text: string; title: string }> {
  const [type = ""] = contentType.toLowerCase().split(";", 1);
  if (type === "text/html") {
    const read = await readHtml(body, signal);
    if (!read) throw new ToolError("page_unreadable", "The page cannot be read as HTML.");
    return read;
  }
  const isText = type === "text/plain" || type === "application/json" || type.endsWith("+json");
  if (!isText) throw new ToolError("page_unreadable", "The page is neither HTML nor text nor JSON.");
  return { text: body, title: "" };
}
