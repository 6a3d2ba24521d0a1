// Sends the model calls of graphs through the gateway, whatever library makes them: a limit that held only for code that
// remembers it would be none. Calls outside of a run, and to anything but a chat endpoint, are left alone.
import { callContext } from "./context.ts";

const CHAT = /\/chat\/completions\/?$/;
// Other ways to ask a model, which are not counted: they pass as long as nothing is limited.
const OTHER =
  /\/(completions|responses)\/?$|:(stream)?(generateContent|rawPredict)$|\/model\/[^/]+\/(invoke|converse)(-stream|-with-response-stream)?$/i;
/** Of Ollama and Cohere, and perhaps of others: a model is asked where the body names one. */
const COMMON = /\/(api\/(chat|generate)|v[12]\/chat)\/?$/;
const NAMES_MODEL = /"model"\s*:\s*"/;

let users = 0;
let original: typeof fetch | undefined;

/** As it was before anybody intercepted. */
export const plainFetch: typeof fetch = (input, init) => (original ?? globalThis.fetch)(input, init);

/** Begins, and returns what ends it. Clients of providers take fetch when they are made, so begin before graphs are loaded. */
export function interceptCalls(): () => void {
  users += 1;
  if (users === 1) {
    original = globalThis.fetch;
    globalThis.fetch = intercepted;
  }
  let isOver = false;
  return () => {
    if (isOver) return;
    isOver = true;
    users -= 1;
    if (users > 0 || globalThis.fetch !== intercepted || !original) return;
    globalThis.fetch = original;
    original = undefined;
  };
}

const intercepted: typeof fetch = async (input, init) => {
  const context = callContext();
  if (!context) return plainFetch(input, init);
  const isRequest = input instanceof Request;
  const url = isRequest ? input.url : String(input);
  const method = (init?.method ?? (isRequest ? input.method : "GET")).toUpperCase();
  const headersOf = init?.headers ?? (isRequest ? input.headers : undefined);
  if (method !== "POST" || !isModelCall(url, headersOf, init?.body)) return plainFetch(input, init);
  if (!isRequest && typeof init?.body === "string")
    return context.call({ url, body: init.body, init: { ...init, method } }, context);
  const request = new Request(input, init);
  const { headers, signal } = request;
  const body = await request.text();
  return context.call({ url, body, init: { ...init, method, headers, signal } }, context);
};

const pathOf = (url: string): string => URL.parse(url)?.pathname ?? "";

/** Whether requests to this address can be counted. */
export const isChatCompletions = (url: string): boolean => CHAT.test(pathOf(url));

function isModelCall(url: string, headers: RequestInit["headers"], body: RequestInit["body"]): boolean {
  const path = pathOf(url);
  if (CHAT.test(path) || OTHER.test(path)) return true;
  if (COMMON.test(path)) return typeof body === "string" && NAMES_MODEL.test(body);
  return path.endsWith("/messages") && new Headers(headers).has("anthropic-version");
}
